"""Dreams of a world in which one counts, so that everything that everyone sees, does and gets is a number known in advance."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from hieros_repro.agent.dream import Pay, RollOut, Stack, roll_out, trajectories
from hieros_repro.agent.goal import Goals, NoGoals
from hieros_repro.determinism.keys import Key
from hieros_repro.nn.block import Style
from hieros_repro.nn.control import Weight
from hieros_repro.nn.init import fill
from hieros_repro.records import Arrays
from hieros_repro.world.base import Latent, World

STYLE = Style("layer", "elu", "glorot")
PLAIN = Pay(renewed=False, mean=False)


def unasked(*arguments: Any, **others: Any) -> Any:
    raise AssertionError("a dream asks its world for nothing but the next state, its reward and whether it goes on")


class Counting(World):
    """A count, to which actions (N, 1) and the world's noise are added. Arriving at c pays c; it goes on with probability 1,
    from a multiple of 5 with 1/2."""

    remembers, narrow, least_kl = ("count",), (), 0.0

    def __init__(self) -> None:
        super().__init__()
        self.deter, self.stoch, self.carried, self.continue_target = 1, 1, 1, 1.0
        self.asked = 0  # how often it began to dream

    def dreaming(self) -> Callable[[Latent, Tensor, Mapping[str, Tensor]], Latent]:
        self.asked += 1
        return lambda latent, action, noise: Latent(
            latent.deter + action + noise["shift"].unsqueeze(-1), latent.stoch, latent.carried + 1
        )

    def reward(self, feature: Tensor) -> Tensor:
        return feature[..., 0]

    def proceeds(self, feature: Tensor) -> Tensor:
        return torch.where(feature[..., 0] % 5 == 0, 0.5, 1.0)

    def noise(self, key: Key, shape: tuple[int, ...]) -> Arrays:
        return {"shift": key.uniform(shape)}

    def initial(self, batch: int) -> Latent:
        return Latent(torch.zeros(batch, 1), torch.ones(batch, 1), torch.zeros(batch, 1))

    stored = restored = observe = complete = losses = decoded = pictures = entropy = unasked


class Tiring(Counting):
    """Its entropy is the number of steps that were dreamt."""

    def entropy(self, latent: Latent) -> Tensor:
        return latent.carried[..., 0]


class Obedient:
    """An actor that does what its noise says (nothing where there is none) and remembers what it looked at."""

    def __init__(self, size: int):
        self.size = size
        self.looked: list[list[list[float]]] = []

    def act(self, state: Tensor, noise: Tensor | None) -> Tensor:
        self.looked.append(state.tolist())
        return state.new_zeros(len(state), self.size) if noise is None else noise


@torch.no_grad()
def goals(**changes: Any) -> Goals:
    """Three codes, which mean the counts 10, 20 and 30. Every state has the second code: its novelty is (20 - count)^2."""
    values = {
        "codes": 1, "classes": 3, "layers": 0, "units": 1, "code_units": 1, "scale": 1.0, "output": "linear", "draw": "sampled",
        "told": "state", "states": "plain", "novelty": "matching", "error": "sum", "reward": "plain", "learn_from": "replay",
        "kl": partial(Weight, adaptive=False, start=1.0, low=1e-5, high=1.0), "kl_aim": 1.0,
    } | changes  # fmt: skip
    made = Goals(1, STYLE, **values)
    fill(made, Key(0)("init"))
    made.decoder_out.weight.copy_(torch.tensor([[10.0, 20.0, 30.0]]))
    made.encoder_out.weight.zero_()
    made.encoder_out.bias.copy_(torch.tensor([0.0, 60.0, 0.0]))
    return made


def stack(*rewards: tuple[str, ...], world: Counting | None = None, inputs: Sequence[str] = (), told: bool = False) -> Stack:
    """Levels from the lowest up, each with these rewards; everyone's step is two of those below."""
    spoken = goals() if told or rewards[1:] else NoGoals(1, STYLE)
    levels = [SimpleNamespace(actor=Obedient(3 if i else 1), weights=dict.fromkeys(r, 1.0)) for i, r in enumerate(rewards)]
    return Stack(world or Counting(), spoken, levels, 2, inputs, told)  # type: ignore[arg-type]


def coded(*rewards: tuple[str, ...], told: bool = False) -> Stack:
    """The same, where policies are told codes and not what these mean."""
    return stack(*rewards, told=told)._replace(goals=goals(told="code"))


def codes(*names: int) -> Tensor:
    """One trajectory's codes, one after the other."""
    return torch.eye(3)[list(names)].unsqueeze(1)


def starts(*counts: float) -> Latent:
    return Latent(torch.tensor(counts).unsqueeze(1), torch.ones(len(counts), 1), torch.zeros(len(counts), 1))


def steps(*rows: tuple[float, ...]) -> Tensor:
    """Actions (H, N, 1)."""
    return torch.tensor(rows).unsqueeze(-1)


def still(horizon: int, count: int = 1) -> dict[str, Tensor]:
    return {"shift": torch.zeros(horizon, count)}


def dreamt(
    who: Stack, start: Latent, noise: Mapping[str, Tensor], drawn: Sequence[Tensor], told: Tensor | None = None
) -> RollOut:
    """As long as the lowest level has actions. `told`: what the highest aims at, by default nothing."""
    horizon = len(drawn[0])
    nothing = torch.zeros(horizon + 1, len(start.deter), 0)
    return roll_out(who, start, noise, drawn, horizon, nothing if told is None else told)


def surprise(dream: RollOut) -> dict[str, Tensor]:
    return {"novelty": torch.full((dream.deter[1:, :, 0].numel(), 1), 0.5)}


def views(who: Stack, dream: RollOut, went_on: float = 1.0, meaning: Tensor | None = None, **pay: bool) -> list[Any]:
    """`meaning`: of what the highest level was told; `pay`: by default all are false."""
    nothing, ends = dream.deter[..., :0], torch.full((dream.deter.shape[1],), went_on)
    how = PLAIN._replace(**pay)
    return trajectories(who, dream, nothing if meaning is None else meaning, ends, surprise(dream), how, None)


def looked(who: Stack, level: int) -> list[list[list[float]]]:
    return who.levels[level].actor.looked  # type: ignore[attr-defined]


# -- One level -----------------------------------------------------------------------------------------------------------


def alone() -> tuple[Stack, RollOut]:
    """From 0 and 7: 1, 3, 6 and 8, 9, 10."""
    who = stack(("extrinsic",))
    return who, dreamt(who, starts(0.0, 7.0), still(3, 2), [steps((1, 1), (2, 1), (3, 1))])


def test_one_level_acts_at_every_step_and_sees_where_that_leads():
    who, dream = alone()
    assert dream.deter[..., 0].tolist() == [[0, 7], [1, 8], [3, 9], [6, 10]]
    assert dream.actions[0][..., 0].tolist() == [[1, 1], [2, 1], [3, 1]]
    assert looked(who, 0) == [[[0, 1], [7, 1]], [[1, 1], [8, 1]], [[3, 1], [9, 1]]]  # nothing after the last state
    assert dream.aims[0].shape == (4, 2, 0)


def test_the_worlds_noise_of_a_step_is_that_steps():
    who = stack(("extrinsic",))
    dream = dreamt(who, starts(0.0), {"shift": torch.tensor([[0.25], [0.5], [0.0]])}, [steps((1,), (1,), (1,))])
    assert dream.deter.flatten().tolist() == [0.0, 1.25, 2.75, 3.75]


def test_a_world_begins_a_dream_once_and_carries_along_what_nobody_looks_at():
    who = stack(("extrinsic",), world=Tiring(), inputs=["entropy"])
    dream = dreamt(who, starts(0.0), still(3), [steps((1,), (1,), (1,))])
    assert who.world.asked == 1  # type: ignore[attr-defined]
    assert dream.looks[:, 0, 2].tolist() == pytest.approx([math.log(1 + step) for step in range(4)])


def test_one_level_learns_from_whole_dreams():
    who, dream = alone()
    [view] = views(who, dream, went_on=0.25)
    assert view.state.tolist() == [[[0, 1], [7, 1]], [[1, 1], [8, 1]], [[3, 1], [9, 1]], [[6, 1], [10, 1]]]
    assert torch.equal(view.action, dream.actions[0])
    assert view.rewards["extrinsic"].tolist() == [[1, 8], [3, 9], [6, 10]]  # of arriving
    assert view.proceeds.tolist() == [[0.25, 0.25], [1, 1], [1, 1], [1, 0.5]]


# -- Two levels: the manager acts every two steps --------------------------------------------------------------------------


def two(*rewards: tuple[str, ...]) -> tuple[Stack, RollOut]:
    """From 2: 3, 5, 8, 10 under the goals 10, 10, 30, 30; the one that follows is 20."""
    who = stack(*(rewards or (("goal", "extrinsic"), ("extrinsic", "novelty"))))
    return who, dreamt(who, starts(2.0), still(4), [steps((1,), (2,), (3,), (2,)), codes(0, 2, 1)])


def test_a_goal_is_held_until_the_manager_acts_again():
    _, dream = two()
    assert dream.deter.flatten().tolist() == [2, 3, 5, 8, 10]
    assert dream.aims[0].flatten().tolist() == [10, 10, 30, 30, 20]
    assert dream.aims[1].shape == (5, 1, 0)
    assert dream.actions[0].flatten().tolist() == [1, 2, 3, 2]
    assert torch.equal(dream.actions[1], codes(0, 2))  # the third leads nowhere within the dream


def test_the_worker_sees_the_goal_that_was_chosen_at_the_same_step():
    who, _ = two()
    assert looked(who, 0) == [[[2, 1, 10]], [[3, 1, 10]], [[5, 1, 30]], [[8, 1, 30]]]
    assert looked(who, 1) == [[[2, 1]], [[5, 1]], [[10, 1]]]


def test_a_workers_piece_has_its_own_goal_to_the_end():
    who, dream = two()
    worker, _ = views(who, dream)
    # piece 0 and piece 1 side by side; the border state 5 is seen under 10 by one and under 30 by the other
    assert worker.state.tolist() == [[[2, 1, 10], [5, 1, 30]], [[3, 1, 10], [8, 1, 30]], [[5, 1, 10], [10, 1, 30]]]
    assert worker.action[..., 0].tolist() == [[1, 3], [2, 2]]
    assert worker.rewards["extrinsic"].tolist() == [[3, 8], [5, 10]]
    # of states 2, 3, 5 (a multiple of 5) and 5, 8, 10
    assert worker.proceeds.tolist() == [[1, 0.5], [1, 1], [0.5, 0.5]]


def test_whether_the_start_was_an_end_is_told_to_the_first_piece_only():
    who, dream = two()
    worker, manager = views(who, dream, went_on=0.0)
    assert worker.proceeds.tolist() == [[0, 0.5], [1, 1], [0.5, 0.5]]
    assert manager.proceeds.flatten().tolist() == [0, 0.5, 0.5]


def test_kept_and_renewed_goals_differ_where_pieces_end_and_nowhere_else():
    # the closeness of counts s and g is the smaller by the larger: 3/10, 5/10, 8/30, 10/30; renewed 5/30 and 10/20
    who, dream = two()
    kept, renewed = (views(who, dream, renewed=renewed)[0].rewards["goal"] for renewed in (False, True))
    torch.testing.assert_close(kept, torch.tensor([[0.3, 8 / 30], [0.5, 1 / 3]]))
    torch.testing.assert_close(renewed, torch.tensor([[0.3, 8 / 30], [1 / 6, 0.5]]))


def test_a_long_steps_reward_is_the_sum_or_the_mean_of_those_on_its_way():
    # arriving at 3, 5 | 8, 10: 3 + 1 5 = 8 and 8 + 1 10 = 18; novelty (20 - s)^2: 289 + 225 and 144 + 100
    who, dream = two()
    manager = views(who, dream)[1]
    assert manager.rewards["extrinsic"].flatten().tolist() == [8, 18]
    assert manager.rewards["novelty"].flatten().tolist() == [514, 244]
    halves = views(who, dream, mean=True)[1]
    assert halves.rewards["extrinsic"].flatten().tolist() == [4, 9]
    assert halves.rewards["novelty"].flatten().tolist() == [257, 122]


def test_what_is_paid_behind_a_likely_end_counts_less_within_a_long_step():
    # 5, 6 | 10, 11: 5 + 1/2 6 = 8 and 10 + 1/2 11 = 15.5
    who = stack((), ("extrinsic",))
    dream = dreamt(who, starts(4.0), still(4), [steps((1,), (1,), (4,), (1,)), codes(0, 0, 0)])
    assert views(who, dream)[1].rewards["extrinsic"].flatten().tolist() == [8, 15.5]


def test_the_manager_sees_every_second_state_and_the_product_of_what_lies_between():
    who, dream = two()
    manager = views(who, dream)[1]
    assert manager.state.tolist() == [[[2, 1]], [[5, 1]], [[10, 1]]]
    assert torch.equal(manager.action, codes(0, 2))
    assert manager.proceeds.flatten().tolist() == [1, 0.5, 0.5]
    # 5 and 10 on one way: a quarter
    dream = dreamt(who, starts(0.0), still(4), [steps((5,), (5,), (1,), (1,)), codes(0, 0, 0)])
    assert views(who, dream)[1].proceeds.flatten().tolist() == [1, 0.25, 1]


def test_pieces_of_several_dreams_stand_side_by_side_piece_by_piece():
    who = stack(("goal",), ("extrinsic",))
    drawn = [steps((1, 1), (1, 1), (1, 1), (1, 1)), torch.cat([codes(0, 1, 2), codes(2, 1, 0)], 1)]
    dream = dreamt(who, starts(0.0, 100.0), still(4, 2), drawn)
    worker, manager = views(who, dream)
    assert worker.state[0].tolist() == [[0, 1, 10], [100, 1, 30], [2, 1, 20], [102, 1, 20]]
    assert worker.state[2].tolist() == [[2, 1, 10], [102, 1, 30], [4, 1, 20], [104, 1, 20]]
    torch.testing.assert_close(worker.rewards["goal"][1], torch.tensor([2 / 10, 30 / 102, 4 / 20, 20 / 104]))
    assert manager.state[..., 0].tolist() == [[0, 100], [2, 102], [4, 104]]


def test_novelty_is_drawn_with_the_noise_of_its_own_state():
    who, dream = two()
    with torch.no_grad():
        who.goals.encoder_out.bias.zero_()  # each code with a third: the noise decides
    noise = {"novelty": torch.tensor([[0.1], [0.5], [0.9], [0.1]])}  # 10, 20, 30, 10 for the states 3, 5, 8, 10
    found = trajectories(who, dream, dream.deter[..., :0], torch.ones(1), noise, PLAIN, None)[1].rewards["novelty"]
    assert found.flatten().tolist() == pytest.approx([49 + 225, 484 + 0])


def test_a_reward_without_weight_is_not_computed():
    who, dream = two(("goal",), ("extrinsic",))
    nothing = dream.deter[..., :0]
    worker, manager = trajectories(who, dream, nothing, torch.ones(1), {}, PLAIN, None)  # no noise for novelty: nobody asks
    assert set(worker.rewards) == {"goal"} and set(manager.rewards) == {"extrinsic"}


# -- Three levels: every 4, 2 and 1 steps ----------------------------------------------------------------------------------


def three() -> tuple[Stack, RollOut]:
    """1, 2, ..., 8; the highest chooses 30 and 20 (then 10), the middle one 10, 20, 30, 10 (then 20)."""
    who = stack(("goal",), ("goal", "extrinsic"), ("extrinsic",))
    ones = steps(*[(1,)] * 8)
    return who, dreamt(who, starts(0.0), still(8), [ones, codes(0, 1, 2, 0, 1), codes(2, 1, 0)])


def test_three_levels_act_at_their_own_pace():
    who, dream = three()
    assert dream.aims[0].flatten().tolist() == [10, 10, 20, 20, 30, 30, 10, 10, 20]
    assert dream.aims[1].flatten().tolist() == [30, 30, 30, 30, 20, 20, 20, 20, 10]
    assert dream.aims[2].shape == (9, 1, 0)
    assert [len(taken) for taken in dream.actions] == [8, 4, 2]
    assert looked(who, 2) == [[[0, 1]], [[4, 1]], [[8, 1]]]
    assert looked(who, 1) == [[[0, 1, 30]], [[2, 1, 30]], [[4, 1, 20]], [[6, 1, 20]], [[8, 1, 10]]]
    assert looked(who, 0)[4] == [[4, 1, 30]]  # where all three act, the lowest sees what was chosen just now


def test_the_middle_level_learns_from_pieces_of_its_own_long_steps():
    who, dream = three()
    lowest, middle, highest = views(who, dream)
    # long steps 0-2, 2-4 | 4-6, 6-8
    assert middle.state.tolist() == [[[0, 1, 30], [4, 1, 20]], [[2, 1, 30], [6, 1, 20]], [[4, 1, 30], [8, 1, 20]]]
    assert torch.equal(middle.action, torch.stack([codes(0, 2), codes(1, 0)]).squeeze(2))
    assert middle.rewards["extrinsic"].tolist() == [[1 + 2, 5 + 0.5 * 6], [3 + 4, 7 + 8]]
    near = [[1 / 30 + 2 / 30, 5 / 20 + 0.5 * 6 / 20], [3 / 30 + 4 / 30, 7 / 20 + 8 / 20]]
    torch.testing.assert_close(middle.rewards["goal"], torch.tensor(near))
    assert middle.proceeds.tolist() == [[1, 1], [1, 0.5], [1, 1]]
    assert lowest.state.shape == (3, 4, 3) and lowest.state[0, :, 2].tolist() == [10, 20, 30, 10]
    assert highest.state[..., 0].flatten().tolist() == [0, 4, 8]
    # 1 + 2 + 3 + 4, and 5 + 1/2 (6 + 7 + 8)
    assert highest.rewards["extrinsic"].flatten().tolist() == [10, 15.5]
    assert highest.proceeds.flatten().tolist() == [1, 1, 0.5]


def test_without_noise_everyone_does_what_is_best():
    who = stack((), ("extrinsic",))
    aims = who.no_aims(torch.zeros(2, 2))
    assert [aim.shape for aim in aims] == [(2, 1), (2, 0)]
    assert who.decide(1, torch.zeros(2, 2), aims, None).tolist() == [[0, 0, 0], [0, 0, 0]]
    assert aims[0].tolist() == [[0], [0]]  # what the code decodes to


# -- What everyone sees besides ------------------------------------------------------------------------------------------


def test_levels_look_at_what_the_world_makes_of_a_state_in_the_order_asked_for():
    # a state's reward c, 1/2 at multiples of 5, and how many steps were dreamt: as symlog x = ln(1 + x)
    who = stack(("extrinsic",), world=Tiring(), inputs=["continue", "reward", "entropy"])
    dream = dreamt(who, starts(3.0), still(1), [steps((2,))])
    expected = [[3, 1, math.log(2), math.log(4), 0], [5, 1, math.log(1.5), math.log(6), math.log(2)]]
    torch.testing.assert_close(dream.looks.squeeze(1), torch.tensor(expected))
    assert looked(who, 0) == [[dream.looks[0, 0].tolist()]]
    [view] = views(who, dream)
    assert torch.equal(view.state, dream.looks)  # critics see it too
    assert view.rewards["extrinsic"].tolist() == [[5]]  # but what is learned from is the state itself


def test_what_was_made_of_states_on_the_way_is_what_is_made_of_all_at_once():
    """But for rounding."""

    class Weighing(Tiring):
        def reward(self, feature: Tensor) -> Tensor:
            return (feature.double().unsqueeze(-1) * torch.linspace(0, 1, 64, dtype=torch.float64)).sin().mean((-1, -2))

        def proceeds(self, feature: Tensor) -> Tensor:
            return self.reward(feature).sigmoid()

    who = stack(("extrinsic",), world=Weighing(), inputs=["continue", "reward"])
    dream = dreamt(who, starts(3.0, 8.0), still(2, 2), [steps((2, 1), (1, 4))])
    [found], [expected] = views(who, dream), views(who, dream._replace(made={}))
    torch.testing.assert_close(found.rewards["extrinsic"], expected.rewards["extrinsic"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.proceeds, expected.proceeds, rtol=1e-12, atol=1e-12)
    assert torch.equal(found.rewards["extrinsic"], dream.made["reward"][1:])


def test_inputs_stand_between_features_and_the_goal():
    who = stack(("goal",), ("extrinsic",), inputs=["reward"])
    dreamt(who, starts(0.0), still(2), [steps((3,), (1,)), codes(0, 2)])
    torch.testing.assert_close(torch.tensor(looked(who, 0)[1]), torch.tensor([[3, 1, math.log(4), 10]]))
    torch.testing.assert_close(torch.tensor(looked(who, 1)), torch.tensor([[[0, 1, 0.0]], [[4, 1, math.log(5)]]]))


# -- Told from elsewhere -------------------------------------------------------------------------------------------------


def heard() -> tuple[Stack, RollOut]:
    """From 0: 1, 2, 3 under the goals 10, 10, 20, and 20 from the last state on."""
    who = stack(("goal", "extrinsic"), told=True)
    told = torch.tensor([10.0, 10.0, 20.0, 20.0]).view(4, 1, 1)
    return who, dreamt(who, starts(0.0), still(3), [steps((1,), (1,), (1,))], told)


def test_the_highest_level_aims_at_what_it_is_told_at_every_step():
    who, dream = heard()
    assert dream.aims[0].flatten().tolist() == [10, 10, 20, 20]
    assert looked(who, 0) == [[[0, 1, 10]], [[1, 1, 10]], [[2, 1, 20]]]
    [view] = views(who, dream, meaning=dream.aims[0])
    assert view.state.tolist() == [[[0, 1, 10]], [[1, 1, 10]], [[2, 1, 20]], [[3, 1, 20]]]


def test_its_reward_is_for_what_the_goal_means_whatever_it_looks_at():
    who, dream = heard()
    kept = views(who, dream, meaning=dream.aims[0])[0].rewards["goal"]
    renewed = views(who, dream, meaning=dream.aims[0], renewed=True)[0].rewards["goal"]
    torch.testing.assert_close(kept.flatten(), torch.tensor([1 / 10, 2 / 10, 3 / 20]))
    torch.testing.assert_close(renewed.flatten(), torch.tensor([1 / 10, 2 / 20, 3 / 20]))
    other = views(who, dream, meaning=torch.full((4, 1, 1), 4.0))[0].rewards["goal"]
    torch.testing.assert_close(other.flatten(), torch.tensor([1 / 4, 2 / 4, 3 / 4]))


def test_of_two_levels_the_lower_is_told_by_the_higher_and_the_higher_from_elsewhere():
    who = stack(("goal",), ("goal",), told=True)
    told = torch.tensor([30.0, 30.0, 20.0, 20.0, 10.0]).view(5, 1, 1)
    dream = dreamt(who, starts(0.0), still(4), [steps(*[(1,)] * 4), codes(0, 1, 2)], told)
    worker, manager = views(who, dream, meaning=told)
    assert dream.aims[0].flatten().tolist() == [10, 10, 20, 20, 30]
    assert manager.state.tolist() == [[[0, 1, 30]], [[2, 1, 20]], [[4, 1, 10]]]
    torch.testing.assert_close(manager.rewards["goal"].flatten(), torch.tensor([1 / 30 + 2 / 30, 3 / 20 + 4 / 20]))
    torch.testing.assert_close(worker.rewards["goal"], torch.tensor([[1 / 10, 3 / 20], [2 / 10, 4 / 20]]))


def test_policies_told_the_code_itself_are_paid_for_the_state_it_stands_for():
    who = coded(("goal",), ("extrinsic",))
    dream = dreamt(who, starts(2.0), still(2), [steps((1,), (2,)), codes(0, 2)])
    assert dream.aims[0].tolist() == [[[1, 0, 0]], [[1, 0, 0]], [[0, 0, 1]]]
    assert looked(who, 0) == [[[2, 1, 1, 0, 0]], [[3, 1, 1, 0, 0]]]
    worker, _ = views(who, dream)
    torch.testing.assert_close(worker.rewards["goal"].flatten(), torch.tensor([0.3, 0.5]))


@torch.no_grad()
def test_to_be_told_no_code_is_to_be_told_nothing():
    for who in (stack(("goal",), told=True), coded(("goal",), told=True)):
        who.goals.decoder_out.bias.fill_(7.0)  # type: ignore[union-attr]
        nothing = who.hear(torch.zeros(2, 3))
        assert not nothing.any() and not who.goals.meaning(nothing).any()
        assert who.goals.meaning(who.hear(codes(1)[0])).tolist() == [[27.0]]
        assert [aim.shape for aim in who.no_aims(torch.zeros(2, 2))] == [(2, who.goals.width)]


def test_rewards_from_within_may_be_squashed_and_are_then_no_punishment():
    # symlog x = ln(1 + x) of 3/10 and 5/10 | 8/30 and 10/30, and of the novelties 289, 225 | 144, 100; not of the task's
    who, dream = two(("goal", "novelty", "extrinsic"), ("extrinsic",))
    squashing = goals(reward="symlog")
    worker = views(who._replace(goals=squashing), dream)[0].rewards
    torch.testing.assert_close(worker["goal"], torch.tensor([[0.3, 8 / 30], [0.5, 1 / 3]]).log1p())
    torch.testing.assert_close(worker["novelty"], torch.tensor([[289.0, 144.0], [225.0, 100.0]]).log1p())
    assert worker["extrinsic"].tolist() == [[3, 8], [5, 10]]
    single, away = heard()
    missed = torch.full((4, 1, 1), -4.0)
    assert (views(single, away, meaning=missed)[0].rewards["goal"] < 0).all()
    none = views(single._replace(goals=squashing), away, meaning=missed)[0].rewards["goal"]
    assert none.flatten().tolist() == [0, 0, 0]
