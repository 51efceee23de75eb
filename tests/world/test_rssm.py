"""Recurrent state-space models: the contract for both cells, and their equations by hand."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from hieros_repro.check import check
from hieros_repro.determinism.keys import Key
from hieros_repro.nn.init import fill
from hieros_repro.records import ConfigError, Space
from hieros_repro.world.base import Latent, Observed
from hieros_repro.world.rssm import GRU, RSSM, BlockGRU, Joint, gated
from tests.runs import compose
from tests.world.contract import BATCH, STEPS, WorldContract, noise, observe, rows
from tests.world.making import assert_fault, of_size, plain, tiny
from tests.world.observations import DIRECTOR, DREAMER, count, normal, view

TINY = ("size.units=16", "world.head_units=16", "world.blocks=4")


def director(*changes: str) -> RSSM:
    return tiny(DIRECTOR, "agent=director", *TINY, *changes)


def dreamer(*changes: str) -> RSSM:
    return tiny(DREAMER, "agent=dreamer", *TINY, *plain(*changes))


class TestDirectors(WorldContract):
    """One dense cell, a learned start."""

    @staticmethod
    def make(observation: Mapping[str, Space], action: int) -> RSSM:
        return director()


class TestDreamers(WorldContract):
    """A cell in blocks, from zeros."""

    @staticmethod
    def make(observation: Mapping[str, Space], action: int) -> RSSM:
        return dreamer()


class TestMixed(WorldContract):
    """A cell in blocks with a learned start, layer norms, and an adaptive KL."""

    @staticmethod
    def make(observation: Mapping[str, Space], action: int) -> RSSM:
        return director("world.cell=block", "world.unimix=0.01")


# -- Cells, by hand ------------------------------------------------------------------------------------------------------


def test_gates_by_hand():
    # candidate = tanh(sigmoid(0) 2) = tanh 1 = 0.761594, u = sigmoid(1 - 1) = 1/2: half of it and half of the old 0.2
    gates = tuple(torch.tensor([[value]]) for value in (0.0, 2.0, 1.0))
    assert gated(gates, torch.tensor([[0.2]])).item() == pytest.approx(0.5 * math.tanh(1.0) + 0.5 * 0.2)
    # a reset of nearly 0 lets nothing of the candidate through, an update of nearly 0 keeps the old
    assert gated(tuple(torch.tensor([[value]]) for value in (-50.0, 9.0, 50.0)), torch.ones(1, 1)).item() == pytest.approx(0.0)
    assert gated(tuple(torch.tensor([[value]]) for value in (0.0, 9.0, -50.0)), torch.ones(1, 1)).item() == pytest.approx(1.0)


def written_out(cell: GRU, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
    """The equations of the dense cell as they stand in its text."""
    x = torch.nn.functional.elu(cell.inner.norm(torch.cat([stoch, action], -1) @ cell.inner.affine.weight.T))
    z = cell.norm(torch.cat([deter, x], -1) @ cell.gates.weight.T)
    reset, candidate, update = z[:, :3], z[:, 3:6], z[:, 6:]
    u = torch.sigmoid(update - 1)
    return u * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - u) * deter


def test_the_dense_cell_is_its_equations():
    cell = GRU(3, 4, 2, 5, DIRECTOR, 1)
    fill(cell, Key(4)("init"))
    deter, stoch, action = normal(6, 3, name="d"), normal(6, 4, name="s"), normal(6, 2, name="a").clamp(-1, 1)
    step, project = cell.prepare()
    torch.testing.assert_close(step(deter, stoch, project(action)), written_out(cell, deter, stoch, action))


def test_the_block_cell_is_its_equations():
    # 4 blocks of 2: each sees its own two of deter, and what the three inputs came to
    cell = BlockGRU(8, 4, 2, 5, DREAMER, 4)
    fill(cell, Key(4)("init"))
    deter, stoch, action = normal(6, 8, name="d"), normal(6, 4, name="s"), normal(6, 2, name="a").clamp(-1, 1)
    shared = torch.cat([cell.of_deter(deter), cell.of_stoch(stoch), cell.of_action(action)], -1)
    assert cell.hidden.weight.shape == (4, 2 + 3 * 5, 2) and cell.gates.weight.shape == (4, 2, 6)
    own = [torch.cat([deter[:, 2 * g : 2 * g + 2], shared], -1) @ cell.hidden.weight[g] for g in range(4)]
    hidden = torch.nn.functional.silu(cell.norm(torch.cat(own, -1)))
    found = []
    for g in range(4):
        reset, candidate, update = (hidden[:, 2 * g : 2 * g + 2] @ cell.gates.weight[g]).split(2, -1)
        u = torch.sigmoid(update - 1)
        found.append(u * torch.tanh(torch.sigmoid(reset) * candidate) + (1 - u) * deter[:, 2 * g : 2 * g + 2])
    step, project = cell.prepare()
    torch.testing.assert_close(step(deter, stoch, project(action)), torch.cat(found, -1))


@pytest.mark.parametrize("kind", [GRU, BlockGRU])
def test_actions_beyond_one_come_to_a_cell_as_one(kind):
    cell = kind(8, 4, 2, 5, DREAMER, 4)
    fill(cell, Key(4)("init"))
    _, project = cell.prepare()
    one, other, back = (project(torch.tensor([actions])) for actions in ([1.0, -0.5], [7.0, -0.5], [-7.0, -0.5]))
    assert torch.equal(one, other) and not torch.equal(one, back)


def test_what_all_blocks_see_may_go_through_one_product(monkeypatch):
    """In float64, so without norms and gates, which are float32."""
    monkeypatch.setattr("hieros_repro.world.rssm.gated", lambda gates, deter: torch.stack(gates))
    cell = BlockGRU(8, 4, 2, 5, DREAMER, 4)
    fill(cell, Key(4)("init"))
    with torch.no_grad():
        cell.hidden.bias.copy_(normal(8, name="bias"))
    cell.norm = torch.nn.Identity()  # type: ignore[assignment]
    for body in (cell.of_deter, cell.of_stoch, cell.of_action):
        body.blocks[0].norm = torch.nn.Identity()
    cell.double()
    deter, stoch, action = normal(6, 8, name="d").double(), normal(6, 4, name="s").double(), normal(6, 2, name="a").double()
    action = action.clamp(-1, 1)
    step, project = cell.prepare()
    shared = torch.cat([cell.of_deter(deter), cell.of_stoch(stoch), cell.of_action(action)], -1)
    seen = torch.cat([torch.cat([own, shared], -1) for own in deter.split(2, -1)], -1)
    hidden = torch.nn.functional.silu(cell.hidden(seen))
    expected = cell.gates(hidden).view(6, 4, 3, 2).permute(2, 0, 1, 3).flatten(2)
    torch.testing.assert_close(step(deter, stoch, project(action)), expected, rtol=1e-12, atol=1e-12)


def test_a_joint_layer_is_a_dense_layer_of_its_inputs_side_by_side():
    for style in (DIRECTOR, DREAMER):
        joint = Joint((3, 2), 4, style)
        fill(joint, Key(4)("init"))
        one, two = normal(5, 3, name="one"), normal(5, 2, name="two")
        of_one, of_two = joint.columns()
        whole = joint.activation(joint.norm(joint.affine(torch.cat([one, two], -1))))
        torch.testing.assert_close(joint.close(one @ of_one + two @ of_two), whole)


# -- Starts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["gru", "block"])
def test_a_start_of_zeros_is_zero_and_learns_nothing(cell):
    world = director("world.start=zeros", f"world.cell={cell}")
    assert not any(x.any() for x in world.initial(2))
    assert not world.first.value.requires_grad


@pytest.mark.parametrize("cell", ["gru", "block"])
def test_a_learned_start_is_a_tanh_and_the_likeliest_draw(cell):
    world = director(f"world.cell={cell}")
    with torch.no_grad():
        world.first.value.copy_(normal(16))
    found = world.initial(3)
    assert torch.equal(found.deter, normal(16).tanh().expand(3, -1))
    likeliest = world.prior_out(world.prior_body(found.deter)).unflatten(-1, (4, 4)).argmax(-1)
    assert torch.equal(found.stoch.unflatten(-1, (4, 4)).argmax(-1), likeliest)
    assert torch.equal(found.stoch.unflatten(-1, (4, 4)).sum(-1), torch.ones(3, 4))


def test_the_start_learns_from_first_rows_alone():
    world, seen = director(), rows()
    for is_first, learns in ((seen.is_first, True), (torch.zeros(STEPS, BATCH, dtype=torch.bool), False)):
        start = Latent(torch.zeros(BATCH, 16), torch.zeros(BATCH, 16), torch.zeros(BATCH, 0))
        found = observe(world, seen._replace(is_first=is_first), start)
        (grad,) = torch.autograd.grad(found.latent.deter.sum(), [world.first.value], allow_unused=True, materialize_grads=True)
        assert bool(grad.any()) == learns


# -- What is drawn -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [director, dreamer])
def test_what_is_seen_is_drawn_from_the_posterior_and_what_is_dreamt_from_the_prior(make):
    world, seen = make(), rows()
    drawn = noise(world, (STEPS, BATCH))
    found = observe(world, seen, noise=drawn)

    def classes(log_prob: Tensor, uniform: Tensor) -> Tensor:
        return (log_prob.exp().cumsum(-1) <= uniform.unsqueeze(-1)).sum(-1).clamp(max=3)

    torch.use_deterministic_algorithms(False)  # for the sums of the line above
    assert torch.equal(world.stored(found.latent)["stoch"], classes(found.posterior, drawn["stoch"]).to(torch.uint8))
    ahead = noise(world, (BATCH,), "dream")
    dreamt = world.imagine(found.latent.map(lambda part: part[3]), seen.action[4], ahead)
    assert torch.equal(world.stored(dreamt)["stoch"], classes(found.prior[4], ahead["stoch"]).to(torch.uint8))
    likeliest = world.complete(found.latent.deter, found.latent)
    assert torch.equal(world.stored(likeliest)["stoch"], found.prior.argmax(-1).to(torch.uint8))


def test_a_share_of_every_distribution_is_uniform():
    found = observe(dreamer("world.unimix=0.4"), rows())
    assert found.posterior.exp().min() >= 0.1 - 1e-6 and found.prior.exp().min() >= 0.1 - 1e-6
    assert observe(dreamer("world.unimix=0.0"), rows()).posterior.exp().min() < 0.1


def test_a_kept_state_takes_a_byte_per_draw():
    kept = director().stored(observe(director(), rows()).latent.detach())
    assert kept["stoch"].dtype == torch.uint8 and kept["stoch"].shape == (STEPS, BATCH, 4)
    assert kept["deter"].dtype == torch.float32 and kept["deter"].shape == (STEPS, BATCH, 16)


def test_more_classes_than_a_byte_can_name_are_refused():
    with pytest.raises(ConfigError, match=r"agent.world.classes: 257"):
        check(compose("agent=dreamer", "env=dummy", "size.classes=257"))


# -- Losses, by hand -----------------------------------------------------------------------------------------------------

LOW, HIGH = math.log(0.25), math.log(0.75)
POSTERIOR, PRIOR = torch.tensor([HIGH, LOW, -1e3, -1e3]), torch.tensor([LOW, HIGH, -1e3, -1e3])
APART = 0.5 * math.log(3)  # KL of (3/4, 1/4) and (1/4, 3/4): 3/4 ln 3 - 1/4 ln 3


def apart(world: RSSM, groups: int = 2) -> tuple[Observed, Tensor, Tensor]:
    """What was seen, if in so many of four groups posterior and prior were these two, and equal elsewhere."""
    found = observe(world, rows())
    which = (torch.arange(4) < groups).unsqueeze(-1)
    posterior = POSTERIOR.expand(STEPS, BATCH, 4, 4).clone().requires_grad_()
    prior = torch.where(which, PRIOR, POSTERIOR).expand(STEPS, BATCH, 4, 4).clone().requires_grad_()
    return found._replace(posterior=posterior, prior=prior), posterior, prior


def test_the_kl_by_hand():
    for changes, expected in (
        (("world.dynamics_scale=1.0", "world.representation_scale=0.1", "world.kl_aim=1.0"), 1.1 * 2 * APART),
        (("world.dynamics_scale=0.8", "world.representation_scale=0.2", "world.kl_aim=0.5"), 0.5 * 2 * APART),
        (("world.dynamics_scale=1.0", "world.representation_scale=0.1", "world.free_nats=2.0"), 1.1 * 2.0),
    ):
        world = dreamer(*changes)
        found = world.losses(apart(world)[0], rows())["kl"]
        torch.testing.assert_close(found, torch.full((STEPS, BATCH), expected))


def test_an_adaptive_kl_weight_follows_the_mean_over_all_rows():
    world = director()  # aim 3.5 nats, from a weight of 1: 2 APART = 1.0986 is below
    for times in (1, 2):
        found = world.losses(apart(world)[0], rows())["kl"]
        torch.testing.assert_close(found, torch.full((STEPS, BATCH), 2 * APART / 1.1**times))
    assert world.account(apart(world)[0])["kl_weight"].item() == pytest.approx(1 / 1.21)


def test_each_half_of_the_kl_trains_its_own_side():
    for dynamics, representation in ((1.0, 0.0), (0.0, 1.0)):
        world = dreamer(f"world.dynamics_scale={dynamics}", f"world.representation_scale={representation}")
        seen, posterior, prior = apart(world)
        world.losses(seen, rows())["kl"].sum().backward()
        assert bool(prior.grad.any()) == bool(dynamics) and bool(posterior.grad.any()) == bool(representation)


def test_below_the_free_nats_nothing_is_trained():
    world = dreamer("world.free_nats=2.0")
    seen, posterior, prior = apart(world)
    world.losses(seen, rows())["kl"].sum().backward()
    assert not posterior.grad.any() and not prior.grad.any()


def test_entropies_by_hand():
    found = dreamer().account(apart(dreamer())[0])
    assert found["prior_entropy"].item() == pytest.approx(-4 * (0.75 * HIGH + 0.25 * LOW), rel=1e-5)


@pytest.mark.parametrize("make", [director, dreamer])
def test_rewards_and_ends_of_last_rows_reach_the_losses_of_those_rows_alone(make):
    world, seen = make(), rows()
    found = observe(world, seen)
    before = world.losses(found, seen)
    reward, terminal = seen.reward.clone(), seen.is_terminal.clone()
    reward[2, 1] += 1.0
    terminal[2, 1] = True  # the episode of sequence 1 ends there, by a time-out
    after = world.losses(found, seen._replace(reward=reward, is_terminal=terminal))
    for name in ("reward_loss", "cont_loss"):
        assert (before[name] != after[name]).nonzero().tolist() == [[2, 1]]
    assert all(torch.equal(before[name], after[name]) for name in ("image_loss", "vector_loss"))


def test_going_on_is_told_with_its_target_and_ends_with_zero():
    world, seen = dreamer("world.head_scale=0.0"), rows()
    with torch.no_grad():
        world.continue_head.out.bias.fill_(math.log(3.0))
    found = world.losses(observe(world, seen), seen)["cont_loss"]
    target = 1 - 1 / 333
    on, over = -(target * HIGH + (1 - target) * LOW), -LOW
    torch.testing.assert_close(found, torch.where(seen.is_terminal, over, torch.tensor(on)), rtol=1e-5, atol=1e-6)
    assert world.continue_target == pytest.approx(target)


def test_every_loss_reaches_what_the_world_saw_through_the_draw():
    world, seen = director(), rows()
    losses = world.losses(observe(world, seen), seen)
    weight = world.posterior_out.weight
    for name, loss in losses.items():
        (grad,) = torch.autograd.grad(loss.sum(), [weight], retain_graph=True)
        assert grad.any(), name


# -- Sizes ---------------------------------------------------------------------------------------------------------------


def test_directors_parameters_are_as_many_as_published():
    world = of_size(
        {"image": view(64)}, 5, DIRECTOR, "agent=director", "size=paper", "world.image_padding=valid", "world.head_units=512"
    )
    recurrent = ("cell", "prior_body", "prior_out", "posterior_body", "posterior_out", "first")
    assert sum(count(getattr(world, name)) for name in recurrent) == 13_651_968
    assert count(world.encoder) == 2_757_504 and count(world.decoder) == 14_229_123
    assert count(world.reward_head) == count(world.continue_head) == 1_839_617
    assert count(world) == 34_317_829


# -- What cannot be ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, key, problem",
    [
        (
            ["world=rssm_block", "size.deter=100"],
            "deter",
            "100: with cell=block and image_codec=pooled a multiple of blocks=8 is needed, e.g. 104",
        ),
        (["world.cell=block", "size.deter=99"], "deter", "99: with cell=block a multiple"),
        (["world.image_codec=pooled", "size.deter=99"], "deter", "99: with image_codec=pooled a multiple"),
        (["world.image_codec=pooled", "size.depth=3"], "image_depth", "3: .*4 times it to be a multiple of blocks=8"),
    ],
)
def test_what_cannot_be_split_in_blocks_is_a_fault_of_its_key(changes, key, problem):
    assert_fault(key, problem, *changes)


def test_a_dense_cell_takes_any_width():
    assert check(compose("agent=director", "size.deter=99", "size.depth=3"))["agent"]["world"]["deter"] == 99


def test_the_least_kl_is_that_of_free_nats_under_both_weights():
    assert dreamer("world.free_nats=2.0").least_kl == pytest.approx(2.2)  # (1.0 + 0.1) 2
    assert director().least_kl == 0.0
