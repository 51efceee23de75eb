from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st

from hieros_repro.check import check
from hieros_repro.construct import construct
from hieros_repro.run.schedule import Pace, due
from tests.runs import compose


@pytest.mark.parametrize(
    "before, now, every, expected",
    [
        (0, 99, 100, False),
        (0, 100, 100, True),
        (99, 100, 100, True),
        (100, 101, 100, False),
        (100, 199, 100, False),
        (96, 104, 100, True),  # a tick of 8 steps jumps over the multiple
        (90, 310, 100, True),  # several multiples are one occasion
        (104, 199, 100, False),
        (7, 7, 7, False),
        (0, 1, 1, True),
        (0, 1000, 0, False),  # never
    ],
)
def test_something_is_due_at_the_first_tick_at_or_past_each_multiple(before, now, every, expected):
    assert due(before, now, every) is expected


@hypothesis.given(st.integers(1, 50), st.lists(st.integers(0, 20), max_size=60))
def test_over_any_ticks_something_is_due_once_for_each_run_of_multiples(every, ticks):
    step, looked, times = 0, 0, []
    for tick in ticks:
        step += tick
        if due(looked, step, every):
            looked = step
            times.append(step)
    reached = {multiple for multiple in range(every, step + 1, every)}
    assert len({time // every for time in times}) == len(times)
    assert bool(times) == bool(reached) and all(time >= every for time in times)


@pytest.mark.parametrize("ratio", [0.1, 0.3, 1 / 3, 0.7, 1, 1.1, 2.5, 64, 512, 1e-3, 123.456])
def test_nothing_is_lost_to_rounding_over_many_steps(ratio):
    pace, updates, cost = Pace(ratio), 0, 16
    for _ in range(1_000):
        pace.earn(3)
        while pace.spend(cost):
            updates += 1
    assert updates == 3_000 * Fraction(str(ratio)) // cost


def test_an_update_is_not_paid_for_in_part():
    pace = Pace(0.5)
    pace.earn(31)  # 15.5 replayed steps
    assert not pace.spend(16)
    pace.earn(1)
    assert pace.spend(16) and not pace.spend(1)


def test_without_a_ratio_an_update_is_always_owed():
    pace = Pace(None)
    assert pace.spend(10**9) and pace.spend(10**9)


def test_what_is_owed_survives_a_checkpoint():
    pace, other = Pace(1 / 3), Pace(1 / 3)
    pace.earn(7)
    other.load(pace.state())
    assert other.owed == pace.owed == 7 * Fraction(str(1 / 3)) and all(isinstance(n, int) for n in pace.state())


@pytest.mark.parametrize(
    "every, step, expected",
    [
        (300, 0, 3 * 4 + 7),  # at 300, 600 and 900
        (300, 299, 3 * 4 + 7),
        (300, 300, 2 * 4 + 7),
        (300, 950, 7),
        (250, 0, 3 * 4 + 7),  # at 1000 there is the final one
        (250, 1000, 7),
        (250, 1008, 7),  # a tick of 8 steps went past the end
        (0, 0, 7),
    ],
)
def test_evaluations_that_are_ahead_are_those_still_due_and_the_final_one(every, step, expected):
    plan = construct(
        check(compose("run.steps=1000", f"run.eval_every={every}", "run.eval_episodes=4", "run.final_episodes=7"))["run"]
    )
    assert plan.episodes_ahead(step) == expected
