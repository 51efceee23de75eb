"""What every world promises. A test class inherits this and says how its world is made, filled and ready to learn."""

import math
from collections.abc import Callable, Mapping
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from hieros_repro import check
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.recording import Recorded
from hieros_repro.records import Space
from hieros_repro.world.base import Latent, Observed, Rows, World
from tests.world.observations import normal, observed, view

OBSERVATION = {"image": view(16), "vector": Space("vector", (3,))}
ACTION = 4
STEPS, BATCH = 5, 3
ENDS = torch.zeros(STEPS, BATCH, dtype=torch.bool).index_put_((torch.tensor([1, 2]), torch.tensor([0, 1])), torch.tensor(True))


def rows(first: Tensor | None = None) -> Rows:
    """Episodes of the first two sequences end at rows 1 and 2; the third goes on."""
    obs = {name: value.unflatten(0, (STEPS, BATCH)) for name, value in observed(OBSERVATION, STEPS * BATCH).items()}
    is_first = torch.cat([torch.ones(1, BATCH, dtype=torch.bool), ENDS[:-1]]) if first is None else first
    terminal = ENDS & torch.tensor([True, False, False])
    action = torch.eye(ACTION)[torch.from_numpy(Key(0)("data", "action").integers(ACTION, (STEPS, BATCH)))]
    return Rows(obs, action, normal(STEPS, BATCH, name="reward"), is_first, ENDS, terminal)


def noise(world: World, shape: tuple[int, ...], name: str = "noise") -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in world.noise(Key(0)("learn", name), shape).items()}


def observe(world: World, seen: Rows, start: Latent | None = None, **changes: Any) -> Observed:
    steps, batch = seen.is_first.shape
    drawn = changes.get("noise") or noise(world, (steps, batch))
    return world.observe(seen.obs, seen.action, seen.is_first, world.initial(batch) if start is None else start, drawn)


def part(seen: Rows, when: slice) -> Rows:
    return Rows({name: value[when] for name, value in seen.obs.items()}, *(field[when] for field in seen[1:]))


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def near(one: Latent, other: Latent) -> None:
    torch.testing.assert_close(one.deter, other.deter, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.stoch, other.stoch, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.carried, other.carried, rtol=1e-4, atol=1e-5)


class WorldContract:
    make: Callable[[Mapping[str, Space], int], World]

    @pytest.fixture
    def world(self) -> World:
        return type(self).make(OBSERVATION, ACTION)

    def learned(self, world: World) -> tuple[Tensor, dict[str, Tensor]]:
        seen = rows()
        losses = world.losses(observe(world, seen), seen)
        return torch.stack([loss.mean() for loss in losses.values()]).sum(), losses

    # -- Shapes

    def test_what_is_seen_has_a_state_per_row(self, world):
        seen = observe(world, rows())
        assert seen.latent.deter.shape == (STEPS, BATCH, world.deter)
        assert seen.latent.stoch.shape == (STEPS, BATCH, world.stoch)
        assert seen.latent.carried.shape == (STEPS, BATCH, world.carried)
        assert seen.latent.feature.shape == (STEPS, BATCH, world.feature)
        assert seen.posterior.shape == seen.prior.shape and seen.prior.shape[:2] == (STEPS, BATCH)
        assert {tensor.dtype for tensor in (*seen.latent, seen.posterior, seen.prior)} == {torch.float32}
        for log_prob in (seen.posterior, seen.prior):
            torch.testing.assert_close(log_prob.exp().sum(-1), torch.ones(log_prob.shape[:-1]))

    def test_there_is_a_loss_per_row_of_everything(self, world):
        _, losses = self.learned(world)
        assert {"image_loss", "vector_loss", "reward_loss", "cont_loss", "kl"} <= set(losses)
        assert all(loss.shape == (STEPS, BATCH) and loss.isfinite().all() for loss in losses.values())

    def test_a_state_says_what_it_is_worth_and_whether_it_goes_on(self, world):
        feature = observe(world, rows()).latent.feature
        reward, proceeds = world.reward(feature), world.proceeds(feature)
        assert reward.shape == proceeds.shape == (STEPS, BATCH)
        assert ((proceeds > 0) & (proceeds < 1)).all()
        torch.testing.assert_close(world.reward(feature[2]), reward[2], rtol=1e-3, atol=1e-3)

    def test_states_have_pictures(self, world):
        found = world.pictures(observe(world, rows()).latent.flat())
        assert set(found) == {"image"} and found["image"].dtype == torch.uint8
        assert found["image"].shape == (STEPS * BATCH, 16, 16, 3)

    def test_noise_is_a_function_of_the_key_and_has_the_shape_of_the_steps(self, world):
        key = Key(0)("learn")
        first, again, other = world.noise(key(1), (2, 3)), world.noise(key(1), (2, 3)), world.noise(key(2), (2, 3))
        assert all(value.shape[:2] == (2, 3) and value.dtype == np.float32 for value in first.values())
        assert digest_tree(first) == digest_tree(again) != digest_tree(other)

    def test_what_it_logs_besides_are_single_numbers(self, world):
        assert all(value.shape == () for value in world.account(observe(world, rows())).values())

    # -- Time

    def test_equal_rows_and_noise_give_equal_bits(self, world):
        assert same(observe(world, rows()).latent, observe(world, rows()).latent)
        one, other = (self.learned(type(self).make(OBSERVATION, ACTION))[1] for _ in range(2))
        assert one.keys() == other.keys() and same(one.values(), other.values())

    def test_after_a_first_row_nothing_of_the_past_matters(self, world):
        seen = rows()
        obs = {name: value.clone() for name, value in seen.obs.items()}
        action = seen.action.clone()
        obs["vector"][:2, 0], obs["image"][:2, 0] = 9.0, 255
        action[:3, 0] = action[:3, 0].roll(1, -1)  # also that of the first row itself, at row 2 of sequence 0
        changed = seen._replace(obs=obs, action=action)
        one, other = (observe(world, what) for what in (seen, changed))
        for a, b in zip(one.latent, other.latent, strict=True):
            assert torch.equal(a[2:, 0], b[2:, 0]) and torch.equal(a[:, 1:], b[:, 1:])
        assert not torch.equal(one.latent.deter[1, 0], other.latent.deter[1, 0])

    def test_a_first_row_forgets_the_state_before(self, world):
        seen = rows()
        other = Latent(normal(BATCH, world.deter).tanh(), normal(BATCH, world.stoch), normal(BATCH, world.carried))
        assert same(observe(world, seen).latent, observe(world, seen, other).latent)
        unbegun = rows(torch.cat([torch.zeros(1, BATCH, dtype=torch.bool), ENDS[:-1]]))
        going_on = observe(world, unbegun, other).latent
        assert not torch.equal(going_on.deter[0], observe(world, seen).latent.deter[0])

    def test_the_first_state_is_that_before_a_first_row(self, world):
        # going on from the initial state without an action is the same as beginning
        seen = rows()
        seen.action[0] = 0.0
        unbegun = seen._replace(is_first=torch.cat([torch.zeros(1, BATCH, dtype=torch.bool), ENDS[:-1]]))
        near(observe(world, seen).latent, observe(world, unbegun).latent)

    def test_that_no_row_is_first_can_be_said_in_two_ways(self, world):
        seen = rows(torch.zeros(STEPS, BATCH, dtype=torch.bool))
        other = Latent(normal(BATCH, world.deter).tanh(), normal(BATCH, world.stoch), normal(BATCH, world.carried))
        drawn = noise(world, (STEPS, BATCH))
        unsaid = world.observe(seen.obs, seen.action, None, other, drawn)
        said = observe(world, seen, other, noise=drawn)
        assert same(said.latent, unsaid.latent) and same(said[1:], unsaid[1:])

    def test_seeing_row_by_row_is_seeing_the_sequence(self, world):
        seen, drawn = rows(), noise(world, (STEPS, BATCH))
        whole, latent, found = observe(world, seen), world.initial(BATCH), []
        for t in range(STEPS):
            now = {name: value[t : t + 1] for name, value in drawn.items()}
            latent = observe(world, part(seen, slice(t, t + 1)), latent, noise=now).latent.flat()
            found.append(latent)
        near(Latent(*map(torch.stack, zip(*found, strict=True))), whole.latent)

    def test_sequences_have_nothing_to_do_with_each_other(self, world):
        seen, drawn = rows(), noise(world, (STEPS, BATCH))
        alone = Rows({n: v[:, 1:2] for n, v in seen.obs.items()}, *(field[:, 1:2] for field in seen[1:]))
        found = observe(world, alone, noise={name: value[:, 1:2] for name, value in drawn.items()}).latent
        near(found, Latent(*(x[:, 1:2] for x in observe(world, seen).latent)))

    def test_the_action_of_a_row_leads_to_it(self, world):
        seen = rows()
        other = seen.action.clone()
        other[3] = other[3].roll(1, -1)
        one, two = observe(world, seen).latent.deter, observe(world, seen._replace(action=other)).latent.deter
        assert torch.equal(one[:3], two[:3])
        assert (one[3] != two[3]).any(-1).tolist() == [True, False, True]  # the second sequence begins at row 3

    def test_a_dreamt_step_follows_the_prior(self, world):
        seen, found = rows(), observe(world, rows())
        before = found.latent.map(lambda part: part[3])
        step = noise(world, (BATCH,), "dream")
        dreamt = world.imagine(before, seen.action[4], step)
        torch.testing.assert_close(dreamt.deter, found.latent.deter[4], rtol=1e-5, atol=1e-6)
        assert dreamt.stoch.shape == (BATCH, world.stoch) and dreamt.carried.shape == (BATCH, world.carried)
        assert same(dreamt, world.imagine(before, seen.action[4], step))
        expected = -(found.prior[4].exp() * found.prior[4]).sum((-1, -2))  # of what a dreamt step is drawn from
        torch.testing.assert_close(world.entropy(dreamt), expected, rtol=1e-4, atol=1e-4)

    def test_steps_of_a_dream_are_single_steps_and_change_no_state(self, world):
        seen, start = rows(), observe(world, rows()).latent.map(lambda part: part[0].detach().clone())
        kept, step, one, other = start.map(torch.clone), world.dreaming(), start, start
        for t in range(1, STEPS):
            drawn = noise(world, (BATCH,), f"dream{t}")
            one, other = step(one, seen.action[t], drawn), world.imagine(other, seen.action[t], drawn)
        assert same(one, other) and same(start, kept)

    def test_the_entropy_of_a_state_is_between_none_and_the_greatest(self, world):
        latent = observe(world, rows()).latent
        log_prob = observe(world, rows()).prior
        found = world.entropy(latent)
        assert found.shape == (STEPS, BATCH)
        assert ((found >= 0) & (found <= log_prob.shape[-2] * math.log(log_prob.shape[-1]) + 1e-4)).all()
        assert world.entropy(world.initial(2)).shape == (2,)

    def test_states_are_chosen_row_by_row(self, world):
        latent, first = observe(world, rows()).latent.map(lambda part: part[4]), world.initial(BATCH)
        chosen = first.where(torch.tensor([False, True, False]), latent)
        assert same(chosen.take(torch.tensor([0, 2])), latent.take(torch.tensor([0, 2])))
        assert same(chosen.take(torch.tensor([1])), first.take(torch.tensor([1])))

    def test_completing_a_state_keeps_what_is_certain(self, world):
        latent = observe(world, rows()).latent
        found = world.complete(latent.deter.flip(0), latent)
        assert torch.equal(found.deter, latent.deter.flip(0)) and found.stoch.shape == (STEPS, BATCH, world.stoch)
        world.pictures(found.flat())
        world.imagine(found.flat(), rows().action.flatten(0, 1), noise(world, (STEPS * BATCH,), "dream"))

    def test_states_come_back_from_a_replay(self, world):
        latent = observe(world, rows()).latent.detach()
        kept = world.stored(latent)
        assert set(kept) == {"deter", "stoch"} and set(world.remembers) <= set(kept)
        again = world.restored({name: torch.from_numpy(value.numpy().copy()) for name, value in kept.items()})
        assert torch.equal(again.deter, latent.deter)
        torch.testing.assert_close(again.stoch, latent.stoch, rtol=0, atol=1e-6)
        assert again.carried.shape == (STEPS, BATCH, world.carried)
        near(world.restored(world.stored(again)), again)

    def test_it_says_which_of_its_settings_are_widths(self, world):
        known = check.parameters(type(world))
        assert world.narrow and set(world.narrow) <= set(known)
        assert all(get_args(known[name])[0] is int for name in world.narrow)

    # -- Learning

    def test_every_parameter_learns(self, world):
        named = {name: p for name, p in world.named_parameters() if p.requires_grad}
        grads = torch.autograd.grad(self.learned(world)[0], list(named.values()), allow_unused=True)
        idle = [name for name, grad in zip(named, grads, strict=True) if grad is None or not grad.any()]
        assert idle == []

    def test_learning_lowers_the_losses(self, world):
        optimiser = torch.optim.Adam([p for p in world.parameters() if p.requires_grad], 3e-3)
        found = []
        for _ in range(15):
            optimiser.zero_grad()
            loss, _ = self.learned(world)
            loss.backward()
            optimiser.step()
            found.append(loss.item())
        assert found[-1] < 0.9 * found[0]

    def test_nothing_is_drawn_from_the_global_generators(self, world):
        before = torch.get_rng_state()
        self.learned(world)[0].backward()
        assert torch.equal(torch.get_rng_state(), before)

    def test_half_precision_runs_and_gives_float32(self, world):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, losses = self.learned(world)
            latent = observe(world, rows()).latent
            dreamt = world.imagine(latent.flat(), rows().action.flatten(0, 1), noise(world, (STEPS * BATCH,), "dream"))
            said = [world.reward(latent.feature), world.proceeds(latent.feature)]
        assert {tensor.dtype for tensor in (*latent, *dreamt, *losses.values(), *said)} == {torch.float32}
        loss.backward()
        assert all(p.grad.isfinite().all() for p in world.parameters() if p.grad is not None)

    def test_a_recording_acts_with_equal_bits(self, world):
        def see(obs: dict[str, Tensor], action: Tensor, first: Tensor, start: Latent, drawn: dict[str, Tensor]) -> Latent:
            return world.observe(obs, action, first, start, drawn).latent.flat()

        with torch.no_grad():
            recorded, one, other = (
                Recorded(see, [*world.parameters(), *world.buffers()]),
                world.initial(BATCH),
                world.initial(BATCH),
            )
            one, other = (latent.map(torch.clone) for latent in (one, other))
            for t in range(3):
                now, drawn = part(rows(), slice(t, t + 1)), noise(world, (1, BATCH), f"act{t}")
                one = see(dict(now.obs), now.action, now.is_first, one, drawn)
                other = recorded(dict(now.obs), now.action, now.is_first, other, drawn)
                assert same(one, other)

    def test_a_recording_learns_and_dreams_with_equal_bits(self, world):
        twin = type(self).make(OBSERVATION, ACTION)

        def step(one: World, seen: Rows, drawn: dict[str, Tensor], ahead: dict[str, Tensor]) -> tuple[Tensor, ...]:
            found = observe(one, seen, noise=drawn)
            loss = torch.stack([loss.mean() for loss in one.losses(found, seen).values()]).sum()
            grads = torch.autograd.grad(loss, [p for p in one.parameters() if p.requires_grad])
            dreamt = one.imagine(found.latent.detach().flat(), seen.action.flatten(0, 1), ahead)
            return (loss.detach(), *(x.detach() for x in dreamt), *grads)

        recorded = Recorded(lambda *given: step(twin, *given), [*twin.parameters(), *twin.buffers()])
        for update in range(2):
            given = rows(), noise(world, (STEPS, BATCH), f"learn{update}"), noise(world, (STEPS * BATCH,), f"dream{update}")
            assert same(step(world, *given), recorded(*given))
        assert same(world.buffers(), twin.buffers())
