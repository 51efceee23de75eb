"""What levels are given from below, in numbers written by hand; and that the original's ways give others."""

from typing import Any

import numpy as np
import pytest
import torch

from hieros_repro.agent.upward import NOTHING, Upward, shown
from tests.agent.living import Tick, hieros, live, remembered, replay, script, shown_ticks, states
from tests.agent.making import ONE_ACTION

# Two environments, whose episodes begin at the ticks 0, 6 and 0, 4, 8, and end at 5 and 3, 7: the first ends of each for good,
# the second one of environment 1 by a time-out. Levels act every 1, 2 and 4 steps.
EPISODES = script(
    [[5, 9], [3, 3, 9]], [[0, 1, 2, 3, 4, 5, 0, 7, 8, 9], [0, 10, 20, 30, 0, 50, 60, 70, 0, 90]], ticks=10
)  # fmt: skip


def lived(*changes: str) -> list[Tick]:
    return live(hieros(*(f"agent.{change}" for change in changes)), EPISODES)


def rewards(life: list[Tick], place: int, env: int) -> dict[int, float]:
    return {t: float(row["reward"]) for t, row in remembered(life, place, env).items()}


def windows(life: list[Tick], place: int, env: int) -> dict[int, list[int | str]]:
    below, world = states(life, place - 1, env), hieros().tiers[place - 1].who.world
    return {t: shown_ticks(row, t, world, below) for t, row in remembered(life, place, env).items()}


def flagged(life: list[Tick], place: int, env: int) -> tuple[list[int], list[int], list[int]]:
    """The ticks of a level's rows that are first, last and terminal ones."""
    rows = remembered(life, place, env)
    first, last, terminal = ([t for t, row in rows.items() if row[name]] for name in ("is_first", "is_last", "is_terminal"))
    return first, last, terminal


@pytest.fixture(scope="module")
def life() -> list[Tick]:
    return lived()


# -- As it should be -------------------------------------------------------------------------------------------------------


def test_rewards_are_summed_between_rows_and_the_last_of_an_episode_is_among_them(life):
    assert rewards(life, 1, 0) == {0: 0, 2: 1 + 2, 4: 3 + 4, 5: 5, 6: 0, 8: 7 + 8}
    assert rewards(life, 1, 1) == {0: 0, 2: 10 + 20, 3: 30, 4: 0, 6: 50 + 60, 7: 70, 8: 0}
    assert rewards(life, 2, 0) == {0: 0, 4: 1 + 2 + 3 + 4, 5: 5, 6: 0}
    assert rewards(life, 2, 1) == {0: 0, 3: 10 + 20 + 30, 4: 0, 7: 50 + 60 + 70, 8: 0}


def test_windows_show_the_newest_states_below_oldest_first_and_nothing_of_another_episode(life):
    assert windows(life, 1, 0) == {0: ["empty", 0], 2: [1, 2], 4: [3, 4], 5: [4, 5], 6: ["empty", 6], 8: [7, 8]}
    own = {0: ["empty", 0], 2: [1, 2], 3: [2, 3], 4: ["empty", 4], 6: [5, 6], 7: [6, 7], 8: ["empty", 8]}
    assert windows(life, 1, 1) == own
    assert windows(life, 2, 0) == {
        0: ["empty", 0],
        4: [2, 4],
        5: [4, 5],
        6: ["empty", 6],
    }  # states of level 1, which acts at 0, 2, 4
    assert windows(life, 2, 1) == {0: ["empty", 0], 3: [2, 3], 4: ["empty", 4], 7: [6, 7], 8: ["empty", 8]}


def test_every_level_knows_all_beginnings_and_ends(life):
    for place in (0, 1, 2):
        assert flagged(life, place, 0) == ([0, 6], [5], [5])
        assert flagged(life, place, 1) == ([0, 4, 8], [3, 7], [3])


def test_rows_say_in_which_environments_they_were_made_and_are_left_out_where_in_none(life):
    assert [replay(1) in tick.rows for tick in life] == [True, False, True, True, True, True, True, True, True, False]
    assert life[3].rows[replay(1)].mask.tolist() == [False, True]
    assert life[5].rows[replay(2)].mask.tolist() == [True, False]
    assert all(tick.rows[replay(0)].mask is None for tick in life)


def test_a_level_moves_only_where_it_acts(life):
    for place in (1, 2):
        for env in (0, 1):
            came, due = states(life, place, env), remembered(life, place, env)
            for t in range(1, len(life)):
                assert torch.equal(came[t].feature, came[t - 1].feature) == (t not in due)
                before, after = (tick.carry["tiers"][place]["action"][env] for tick in life[t - 1 : t + 1])
                assert t in due or torch.equal(before, after)


def test_a_whole_state_is_a_row_of_floats_and_bytes(life):
    row = remembered(life, 1, 0)[0]
    assert row["obs.deter"].shape == (2, 16) and row["obs.deter"].dtype == np.float32
    assert row["obs.stoch"].shape == (2, 4) and row["obs.stoch"].dtype == np.uint8
    assert row["obs.stoch"].tolist()[0] == [NOTHING] * 4 and max(row["obs.stoch"].tolist()[1]) < 4
    assert set(row) == {"obs.deter", "obs.stoch", "reward", "is_first", "is_last", "is_terminal", "action", "goal"}
    assert set(remembered(life, 2, 0)[0]) == set(row) - {"goal"}  # nobody is above


# -- Any episodes --------------------------------------------------------------------------------------------------------------


def slowly(life: list[Tick], place: int, env: int, clock: int) -> dict[int, dict[str, Any]]:
    """What a level of one environment has to remember, one tick after the other."""
    period, rows, paid, age, seen = clock**place, {}, 0.0, 0, []
    for t, (now, carry) in enumerate((tick.now, tick.carry["tiers"]) for tick in life):
        first, last = bool(now.is_first[env]), bool(now.is_last[env])
        if first:
            age, paid, seen = 0, 0.0, ["empty"] * clock
        paid += float(now.reward[env])
        if place and (first or last or age % (period // clock) == 0):  # the level below acts
            seen = [*seen[1:], t]
        if first or last or age % period == 0:
            flags = {"is_first": first, "is_last": last, "is_terminal": bool(now.is_terminal[env])}
            rows[t] = {"reward": paid, **flags, "window": seen if place else [], "action": carry[place]["action"][env].tolist()}
            if place < 2:
                rows[t]["goal"] = carry[place + 1]["action"][env].tolist()
            paid = 0.0
        age += 1
    return rows


def quickly(life: list[Tick], place: int, env: int) -> dict[int, dict[str, Any]]:
    """What it did remember."""
    found: dict[int, dict[str, Any]] = {}
    shown_at = windows(life, place, env) if place else {}
    for t, row in remembered(life, place, env).items():
        found[t] = {name: row[name].item() for name in ("reward", "is_first", "is_last", "is_terminal")}
        found[t]["window"] = shown_at.get(t, [])
        found[t]["action"] = np.eye(4)[row["action"]].flatten().tolist()
        if "goal" in row:
            found[t]["goal"] = np.eye(4)[row["goal"]].flatten().tolist()
    return found


def test_whatever_happens_rows_are_what_a_slow_reference_says(anything):
    clock, life = anything
    for place in (0, 1, 2):
        for env in range(3):
            slow = slowly(life, place, env, clock)
            assert quickly(life, place, env) == slow and len(slow) > 3


def test_at_every_level_the_rewards_of_an_episode_are_its_return(anything):
    _, life = anything
    for env in range(3):
        episode = np.cumsum([tick.now.is_first[env] for tick in life])
        paid = np.array([tick.now.reward[env] for tick in life])
        whole = [
            number
            for number in range(1, episode[-1] + 1)
            if any(life[t].now.is_last[env] for t in np.flatnonzero(episode == number))
        ]
        for place in (0, 1, 2):
            rows = rewards(life, place, env)
            for number in whole:
                assert sum(r for t, r in rows.items() if episode[t] == number) == paid[episode == number].sum()
        assert len(whole) > 1


def test_what_a_level_is_told_lasts_for_as_many_of_its_steps_as_the_clock_says(anything):
    clock, life = anything
    changes = 0
    for place in (0, 1):
        for env in range(3):
            number = goal = 0
            for row in remembered(life, place, env).values():
                number = 0 if row["is_first"] else number + 1
                if number % clock and not row["is_last"]:
                    assert np.array_equal(row["goal"], goal)
                changes += not np.array_equal(row["goal"], goal)
                goal = row["goal"]
    assert changes > 20


@pytest.mark.parametrize(
    "change", ["window=newest", "states=stale", "flags=seen", "episodes=mixed", "last_reward=lost"]
)  # fmt: skip
def test_the_slow_reference_knows_each_of_the_originals_ways_as_another(change):
    life = lived(f"upward.{change}")
    assert any(quickly(life, place, env) != slowly(life, place, env, 2) for place in (1, 2) for env in (0, 1))
    usual = lived()
    assert all(quickly(usual, place, env) == slowly(usual, place, env, 2) for place in (1, 2) for env in (0, 1))


@pytest.fixture(scope="module", params=[2, 3])
def anything(request) -> tuple[int, list[Tick]]:
    """The clock, and the life of three environments whose episodes have any length."""
    draw = np.random.default_rng(request.param)
    steps = script(draw.integers(1, 12, (3, 20)).tolist(), draw.integers(-9, 9, (3, 60)).tolist(), ticks=60)
    paid = [now._replace(reward=np.where(now.is_first, 0, now.reward).astype(np.float32)) for now in steps]
    return request.param, live(hieros(f"agent.subactor_update_every={request.param}"), paid)


# -- The original's ways -----------------------------------------------------------------------------------------------------


def test_lost_rewards_are_those_of_every_environment_wherever_one_of_them_ends():
    """At 3, 5 and 7 one of the two ends: what either was paid by then is forgotten, at every level."""
    lost = lived("upward.last_reward=lost")
    assert rewards(lost, 0, 0) == {0: 0, 1: 1, 2: 2, 3: 0, 4: 4, 5: 0, 6: 0, 7: 0, 8: 8, 9: 9}
    assert rewards(lost, 0, 1) == {0: 0, 1: 10, 2: 20, 3: 0, 4: 0, 5: 0, 6: 60, 7: 0, 8: 0, 9: 90}
    assert rewards(lost, 1, 0) == {0: 0, 2: 3, 4: 4, 5: 0, 6: 0, 8: 8}
    assert rewards(lost, 1, 1) == {0: 0, 2: 30, 3: 0, 4: 0, 6: 60, 7: 0, 8: 0}
    assert rewards(lost, 2, 0) == {0: 0, 4: 4, 5: 0, 6: 0}
    assert rewards(lost, 2, 1) == {0: 0, 3: 0, 4: 0, 7: 0, 8: 0}


def test_flags_that_must_be_seen_are_missed_and_what_came_with_them_is_late():
    missed = lived("upward.flags=seen")
    assert flagged(missed, 1, 0) == ([0, 6], [], []) and flagged(missed, 1, 1) == ([0, 4, 8], [], [])
    assert rewards(missed, 1, 0) == {0: 0, 2: 3, 4: 7, 6: 5, 8: 15}  # the 5 with the next episode's first
    assert rewards(missed, 2, 1) == {0: 0, 4: 60, 8: 180}
    carried = lived("upward.flags=seen", "goal_on_reset=carried")  # clocks go on, and beginnings are missed, too
    assert flagged(carried, 2, 0) == ([0], [], []) and list(remembered(carried, 2, 0)) == [0, 4, 8]


def test_clocks_that_go_on_do_so_where_every_flag_is_known():
    carried = lived("goal_on_reset=carried")
    assert list(remembered(carried, 2, 0)) == [0, 4, 5, 6, 8]
    assert flagged(carried, 2, 0) == ([0, 6], [5], [5])
    assert rewards(carried, 2, 0) == {0: 0, 4: 10, 5: 5, 6: 0, 8: 15}


def test_mixed_windows_show_the_episode_before():
    mixed = lived("upward.episodes=mixed")
    assert windows(mixed, 1, 0) == {0: ["empty", 0], 2: [1, 2], 4: [3, 4], 5: [4, 5], 6: [5, 6], 8: [7, 8]}
    assert windows(mixed, 2, 1) == {0: ["empty", 0], 3: [2, 3], 4: [3, 4], 7: [6, 7], 8: [7, 8]}
    assert rewards(mixed, 1, 0) == rewards(lived(), 1, 0)  # windows alone are


def test_stale_windows_are_one_step_of_the_level_below_behind():
    stale = lived("upward.states=stale")
    # at 0 nothing had been seen, and the state before an episode is another episode's
    assert windows(stale, 1, 0) == {0: ["empty", "empty"], 2: [0, 1], 4: [2, 3], 5: [3, 4], 6: ["empty", "empty"], 8: [6, 7]}
    assert windows(stale, 2, 1)[7] == [4, 6]


def test_the_newest_state_alone_may_be_shown():
    newest = lived("upward.window=newest")
    assert windows(newest, 1, 0) == {0: [0], 2: [2], 4: [4], 5: [5], 6: [6], 8: [8]}
    assert windows(newest, 2, 0) == {0: [0], 4: [4], 5: [5], 6: [6]}


# -- The parts by themselves ---------------------------------------------------------------------------------------------------


def upward(**changes: Any) -> Upward:
    usual = {"window": "all", "states": "fresh", "flags": "every", "episodes": "apart", "last_reward": "kept"}
    return Upward(**(usual | changes))  # type: ignore[arg-type]


def test_a_window_of_zeros_is_observed_as_zeros():
    world = hieros().tiers[0].who.world
    empty = upward().empty(world, 3, 2)
    assert empty["deter"].shape == (2, 3, 16) and empty["stoch"].shape == (2, 3, 4)
    assert {name: value.shape for name, value in shown(world, empty).items()} == {"deter": (2, 48), "stoch": (2, 48)}
    assert not any(value.any() for value in shown(world, empty).values())


def test_what_is_observed_of_a_window_is_state_after_state_oldest_first():
    world = hieros().tiers[0].who.world
    stored = {"deter": torch.arange(32.0).view(1, 2, 16), "stoch": torch.tensor([[[0, 1, 2, 3], [3, 2, 1, NOTHING]]]).byte()}
    found = shown(world, stored)
    assert found["deter"].tolist() == [[float(i) for i in range(32)]]
    assert found["stoch"].view(8, 4).tolist() == [
        *([float(c == own) for c in range(4)] for own in (0, 1, 2, 3, 3, 2, 1)),
        [0.0] * 4,
    ]
    space = upward().space(world, 2)
    assert {name: one.shape for name, one in space.items()} == {"deter": (32,), "stoch": (32,)}
    assert {name: one.shape for name, one in upward(window="newest").space(world, 2).items()} == {
        "deter": (16,),
        "stoch": (16,),
    }


def test_upper_levels_have_worlds_of_what_they_observe_and_codes_of_the_world_below():
    agent = hieros()
    for tier in agent.tiers[1:]:
        assert tier.below is agent.tiers[tier.place - 1].who.world
        assert tier.actions.size == agent.tiers[tier.place - 1].who.goals.size == 12
    assert agent.tiers[0].actions.size == ONE_ACTION.action.sizes[0]


def test_due_where_the_period_is_over_or_an_episode_begins_or_ends():
    age, first, last = torch.tensor([0, 1, 2, 3, 4, 5]), torch.tensor([0, 1, 0, 0, 0, 0]), torch.tensor([0, 0, 0, 1, 0, 0])
    assert upward().due(age, first.bool(), last.bool(), 4).tolist() == [True, True, False, True, True, False]
    assert upward(flags="seen").due(age, first.bool(), last.bool(), 4).tolist() == [True, False, False, False, True, False]
