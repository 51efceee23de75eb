"""The world model of state-space blocks: the contract in several shapes, and what sets it apart from recurrent cells."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hieros_repro.check import parameters
from hieros_repro.hardware.recording import Recorded
from hieros_repro.nn.block import Style
from hieros_repro.ops.transform import symlog
from hieros_repro.records import Space
from hieros_repro.world.base import Rows
from hieros_repro.world.rssm import RSSM
from hieros_repro.world.s5 import S5
from tests.world.contract import (
    BATCH,
    STEPS,
    WorldContract,
    near,
    noise,
    observe,
    part,
    rows,
    same,
)
from tests.world.making import assert_fault, of_size, plain, tiny
from tests.world.observations import DIRECTOR, count, normal, view

TINY = ("agent=director", "world=s5", "size.units=12", "world.state=8", "world.blocks=2", "world.layers=2")


def s5(*changes: str, style: Style = DIRECTOR) -> S5:
    return tiny(style, *TINY, *plain(*changes))


class TestS5(WorldContract):
    """As published, but for its size."""

    @staticmethod
    def make(observation: Mapping[str, Space], action: int) -> S5:
        return s5()


class TestOtherwise(WorldContract):
    """What can be said otherwise, said otherwise."""

    @staticmethod
    def make(observation: Mapping[str, Space], action: int) -> S5:
        changes = ("world.block=single", "world.ff_layers=1", "world.state_as_deter=false", "world.final_output=tanh")
        more = ("world.scan=parallel", "world.start=zeros", "world.image_codec=pooled")
        return s5(*changes, *more, style=Style("rms", "silu", "fan_in"))


class TestDropping(WorldContract):
    @staticmethod
    def make(observation: Mapping[str, Space], action: int) -> S5:
        return s5("world.dropout=0.2", "world.ff_layers=1", "world.layers=1")

    def test_a_dreamt_step_follows_the_prior(self, world):
        """Not where what is dropped is drawn anew."""


# -- Seeing --------------------------------------------------------------------------------------------------------------


def test_the_posterior_knows_nothing_but_the_row():
    world, seen = s5(), rows()
    obs = {name: value.clone() for name, value in seen.obs.items()}
    obs["vector"][1:] += 1.0
    start = world.initial(BATCH).map(lambda part: normal(*part.shape))
    never = torch.zeros_like(seen.is_first)
    one = observe(world, seen)
    other = observe(world, seen._replace(obs=obs, action=seen.action.roll(1, -1), is_first=never), start)
    assert torch.equal(one.posterior[0], other.posterior[0])
    assert (one.posterior[1:] != other.posterior[1:]).any(-1).any(-1).all()
    assert not torch.equal(one.prior[0], other.prior[0])


def test_going_on_takes_only_what_was_carried_and_drawn():
    world, seen = s5(), rows()
    first = torch.zeros(STEPS, BATCH, dtype=torch.bool)
    seen, drawn = seen._replace(is_first=first), noise(world, (STEPS, BATCH))
    whole = observe(world, seen, noise=drawn).latent
    middle = whole.map(lambda part: part[2])
    later = {name: value[3:] for name, value in drawn.items()}
    found = observe(world, part(seen, slice(3, None)), middle._replace(deter=normal(BATCH, world.deter)), noise=later).latent
    near(found, whole.map(lambda part: part[3:]))
    other = observe(world, part(seen, slice(3, None)), middle._replace(carried=0 * middle.carried), noise=later).latent
    assert (other.deter - found.deter).abs().max() > 1e-3


def test_what_is_certain_is_read_from_the_real_parts_of_all_states():
    world = s5()
    latent = observe(world, rows()).latent
    states = latent.carried[..., : world.held].unflatten(-1, (2 * 2, 8, 2))  # 2 blocks of 2 layers, 8 numbers each
    expected = symlog(functional.linear(states[..., 0].flatten(-2), world.read.weight, world.read.bias))
    torch.testing.assert_close(latent.deter, expected)


@pytest.mark.parametrize(("last", "function"), [("symlog", symlog), ("tanh", torch.tanh), ("none", lambda x: x)])
def test_without_reading_states_it_is_what_the_prior_is_told(last, function):
    world = s5("world.state_as_deter=false", f"world.final_output={last}")
    assert not hasattr(world, "read")
    told: list[Tensor] = []
    world.out.register_forward_hook(lambda module, given, found: told.append(found))
    found = observe(world, rows())
    assert torch.equal(found.latent.deter, function(told[0]))
    torch.testing.assert_close(found.prior, world._prior(told[0]))


def test_what_is_carried_of_a_row_begins_anew_at_a_first_row():
    world, seen = s5(), rows()
    latent = observe(world, seen).latent
    alone = observe(world, part(seen, slice(2, 3)), noise={n: v[2:3] for n, v in noise(world, (STEPS, BATCH)).items()}).latent
    torch.testing.assert_close(latent.carried[2, 0], alone.carried[0, 0])  # the first of an episode
    assert not torch.allclose(latent.carried[2, 2], alone.carried[0, 2], atol=1e-3)


def test_no_gradient_goes_through_what_is_carried():
    latent = observe(s5(), rows()).latent
    assert not latent.carried.requires_grad and latent.deter.requires_grad
    assert not s5().initial(2).carried.requires_grad


def test_seen_states_have_the_entropy_of_the_posterior():
    world = s5()
    found = observe(world, rows())
    expected = -(found.posterior.exp() * found.posterior).sum((-1, -2))
    torch.testing.assert_close(world.entropy(found.latent), expected)


def test_completing_takes_the_rest_from_beside():
    world = s5()
    latent = observe(world, rows()).latent
    found = world.complete(latent.deter + 1, latent)
    assert torch.equal(found.stoch, latent.stoch) and torch.equal(found.carried, latent.carried)


# -- Starts --------------------------------------------------------------------------------------------------------------


def test_a_learned_start_is_a_gelu_and_its_likeliest_draw_with_nothing_carried():
    world = s5()
    with torch.no_grad():
        world.first.value.copy_(normal(16))
    found = world.initial(3)
    assert torch.equal(found.deter, functional.gelu(normal(16)).expand(3, -1))
    prior = world._prior(found.deter)
    expected = functional.one_hot(prior.argmax(-1), 4).flatten(-2).float()
    torch.testing.assert_close(found.stoch, expected)
    assert not found.carried[:, : world.held].any()
    torch.testing.assert_close(world.entropy(found), -(prior.exp() * prior).sum((-1, -2)))


def test_the_start_learns_through_its_draw_from_first_rows_alone():
    world, seen = s5(), rows()
    for is_first, learns in ((seen.is_first, True), (torch.zeros(STEPS, BATCH, dtype=torch.bool), False)):
        start = world.initial(BATCH).detach()
        found = observe(world, seen._replace(is_first=is_first), start)
        (grad,) = torch.autograd.grad(found.latent.deter.sum(), [world.first.value], allow_unused=True, materialize_grads=True)
        assert bool(grad.any()) == learns


def test_a_start_of_zeros_is_zero():
    world = s5("world.start=zeros")
    assert not any(part.any() for part in world.initial(2)) and not world.first.value.requires_grad


# -- What is drawn -------------------------------------------------------------------------------------------------------


def test_without_stochasticity_the_likeliest_latent_is_taken_and_no_noise():
    world, seen = s5("world.stochastic=false"), rows()
    assert noise(world, (2, 3)) == {}
    found = world.observe(seen.obs, seen.action, seen.is_first, world.initial(BATCH), {})
    assert torch.equal(world.stored(found.latent)["stoch"], found.posterior.argmax(-1).to(torch.uint8))
    dreamt = world.imagine(found.latent.map(lambda part: part[3]), seen.action[4], {})
    assert torch.equal(world.stored(dreamt)["stoch"], found.prior[4].argmax(-1).to(torch.uint8))
    (grad,) = torch.autograd.grad(found.latent.stoch[..., 0].sum(), [world.posterior_out.weight])
    assert grad.any()  # straight through


def test_nothing_is_dropped_and_no_noise_asked_for_unless_it_is_said():
    assert set(noise(s5(), (2, 3))) == {"stoch"}
    drawn = noise(s5("world.dropout=0.2", "world.ff_layers=1"), (2, 3))
    assert drawn["dropout"].shape == (2, 3, 2 * (2 + 1), 12)


# -- Recordings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["loop", "parallel"])
def test_updates_and_dreams_of_several_steps_are_recorded_with_equal_bits(form):
    world, twin = s5(f"world.scan={form}"), s5(f"world.scan={form}")

    def update(one: S5, seen: Rows, drawn: dict[str, Tensor], ahead: dict[str, Tensor]) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            found = observe(one, seen, noise=drawn)
            loss = torch.stack([loss.mean() for loss in one.losses(found, seen).values()]).sum()
            grads = torch.autograd.grad(loss, list(one.parameters()))
        step, latent = one.dreaming(), found.latent.detach().flat()
        for t in range(3):
            latent = step(latent, seen.action.flatten(0, 1), {name: value[t] for name, value in ahead.items()})
        with torch.no_grad():
            for parameter, grad in zip(one.parameters(), grads, strict=True):
                parameter.sub_(grad, alpha=1e-3)
        return (loss.detach(), *latent)

    recorded = Recorded(lambda *given: update(twin, *given), [*twin.parameters(), *twin.buffers()])
    with torch.no_grad():
        for n in range(3):
            given = rows(), noise(world, (STEPS, BATCH), f"learn{n}"), noise(world, (3, STEPS * BATCH), f"dream{n}")
            assert same(update(world, *given), recorded(*given))
    assert same(world.parameters(), twin.parameters())


# -- Sizes and settings --------------------------------------------------------------------------------------------------


def test_parameters_are_as_many_as_published():
    """Of 18 actions on 64x64 pictures, Hieros' dynamics have 3.30 million."""
    world = of_size({"image": view(64)}, 18, DIRECTOR, "agent=director", "world=s5", "size=small")
    dynamics = ("inner", "between", "out", "read", "prior_body", "prior_out", "posterior_body", "posterior_out", "first")
    spaces = world.between.spaces
    twice = (spaces.output.numel() + spaces.rate.numel()) // 2  # complex there, counted as one number each
    assert sum(count(getattr(world, name)) for name in dynamics) - twice == 3_296_000
    assert world.carried == 2 * 8 * 128 + 2


def test_both_kinds_of_world_have_the_shared_settings_once():
    shared = set(parameters(RSSM)) & set(parameters(S5))
    assert {"deter", "blocks", "unimix", "image_codec", "reward_head", "kl"} <= shared
    assert set(parameters(RSSM)) - shared == {"cell"} and "shared" not in parameters(S5)
    assert {"model", "state", "layers", "scan", "stochastic"} <= set(parameters(S5)) - shared


@pytest.mark.parametrize(
    "changes, key, problem",
    [
        (["world.state=30", "world.blocks=4"], "state", "30 is no multiple of blocks=4; 32 would be"),
        (["world.image_codec=pooled", "world.blocks=4", "size.deter=99"], "deter", "99 is no multiple of blocks=4; 100"),
        (["world.image_codec=pooled", "world.blocks=8", "size.depth=3"], "image_depth", "4 times it, 12, is no multiple"),
        (["world.dropout=1.0"], "dropout", "1.0 is not allowed"),
        (["world.scan=tree"], "scan", "'tree' is not allowed; it must be one of auto, loop, parallel"),
        (["world.free_nat=1.0"], "free_nat", "unknown key; did you mean free_nats"),
    ],
)
def test_what_cannot_be_is_a_fault_of_its_key(changes, key, problem):
    assert_fault(key, problem, "world=s5", *(f"+{c}" if "free_nat=" in c else c for c in changes))


def test_the_least_kl_is_that_of_free_nats_under_both_weights():
    assert s5("world.free_nats=2.0").least_kl == pytest.approx(1.2)  # (0.5 + 0.1) 2


def test_first_heads_expect_no_reward():
    world = s5("world.head_scale=0.0")
    assert not world.reward(observe(world, rows()).latent.feature).any()
    assert world.entropy(world.initial(1)).item() == pytest.approx(4 * math.log(4))  # of zeros every class is as likely
