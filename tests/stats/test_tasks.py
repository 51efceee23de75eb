import json
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from hieros_repro.determinism.keys import Key
from hieros_repro.stats import aggregate, contrast, power, tasks

KEY = Key(0)("stats", "tasks")
REFERENCE = json.loads(Path(__file__).with_name("rliable.json").read_text(encoding="utf8"))  # see make_rliable.py
A, B = REFERENCE["scores"]["a"], REFERENCE["scores"]["b"]
SCORES = st.dictionaries(st.sampled_from("abcd"), st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=4), min_size=1)


def near(interval, expected, tolerance):
    """Two sets of resamples: the ends differ by a few per cent of the interval's width."""
    return interval == pytest.approx(expected, abs=tolerance * (expected[1] - expected[0]))


# rliable says the same


@pytest.mark.parametrize("group", ["a", "b"])
@pytest.mark.parametrize("name", ["iqm", "mean", "median", "gap"])
def test_overall_scores_are_rliables(group, name):
    expected = REFERENCE["estimates"][group][name]
    found = getattr(tasks.overall(REFERENCE["scores"][group], KEY, draws=20_000), name)
    assert found.value == pytest.approx(expected["value"], rel=1e-12)
    assert near(found.interval, expected["interval"], 0.04)


@pytest.mark.parametrize("group", ["a", "b"])
def test_profiles_are_rliables(group):
    expected = REFERENCE["profiles"][group]
    found = tasks.performance_profile(REFERENCE["scores"][group], REFERENCE["thresholds"], KEY, draws=5000)
    assert found.thresholds == REFERENCE["thresholds"] and found.shares == pytest.approx(expected["shares"])
    one_run = 1 / sum(map(len, REFERENCE["scores"][group].values()))  # the shares are multiples of it
    assert found.lows == pytest.approx(expected["lows"], abs=1.01 * one_run)
    assert found.highs == pytest.approx(expected["highs"], abs=1.01 * one_run)
    assert sum(map(abs, np.subtract(found.lows + found.highs, expected["lows"] + expected["highs"]))) < 4 * one_run


def test_the_average_improvement_is_rliables():
    found, expected = tasks.average_improvement(A, B, KEY, draws=20_000), REFERENCE["estimates"]["improvement"]
    assert found.value == pytest.approx(expected["value"], rel=1e-12) and near(found.interval, expected["interval"], 0.06)


def test_power_is_statsmodels():
    for case in REFERENCE["statsmodels"]["power"]:
        assert power.t_test_power(case["effect"], case["n"]) == pytest.approx(case["power"], rel=1e-8)
    for case in REFERENCE["statsmodels"]["detectable"]:
        assert power.detectable(case["n"]) == pytest.approx(case["effect"], rel=1e-5)


# By hand


def test_unequal_numbers_of_runs_by_hand():
    """Task means 1, 3 and 8; gaps below 2: 1, 0.5 and 0. Of the runs 0 1 2 3 5 8 one is cut off at either end."""
    found = tasks.overall({"x": [0.0, 2.0], "y": [5.0, 1.0, 3.0], "z": [8.0]}, KEY, target=2.0)
    assert (found.iqm.value, found.mean.value, found.median.value) == (11 / 4, 4, 3)
    assert found.gap.value == pytest.approx((1 + 1 / 3 + 0) / 3) and found.single == ("z",)
    assert found.mean.interval.low >= (0 + 1 + 8) / 3 and found.mean.interval.high <= (2 + 5 + 8) / 3


@pytest.mark.filterwarnings("error")
def test_one_run_of_each_task_has_no_interval():
    scores = {"x": [0.5], "y": [2.0]}
    found = tasks.overall(scores, KEY)
    assert found.iqm == found.mean == found.median == (1.25, None) and found.gap == (0.25, None)
    assert found.single == ("x", "y")
    assert tasks.performance_profile(scores, [0.0, 0.5, 1.0], KEY) == ([0.0, 0.5, 1.0], [1.0, 0.5, 0.5], None, None)
    assert tasks.average_improvement(scores, {"x": [0.5], "y": [0.0]}, KEY) == (0.75, None)
    assert tasks.ranks({"a": scores, "b": {"x": [0.5], "y": [3.0]}}, KEY) == {
        "a": (1.75, None, {"x": 1.5, "y": 2.0}),
        "b": (1.25, None, {"x": 1.5, "y": 1.0}),
    }


def test_a_single_task_is_a_plain_group():
    values = A["asterix"]
    found = tasks.overall({"asterix": values}, KEY)
    assert found.iqm == aggregate.estimate([values], lambda s: aggregate.interquartile(s[0]), KEY("iqm"))
    assert tasks.average_improvement({"x": values}, {"x": B["asterix"]}, KEY) == contrast.improvement(values, B["asterix"], KEY)


def test_a_profile_is_one_minus_the_distribution_function():
    values = A["up_n_down"]
    thresholds = np.linspace(0, 6, 25)
    found = tasks.performance_profile({"x": values}, thresholds, KEY)
    assert found.shares == pytest.approx(stats.ecdf(values).sf.evaluate(thresholds))
    assert all(low <= share <= high for low, share, high in zip(found.lows, found.shares, found.highs, strict=True))


def test_ranks_by_hand():
    """Means: x -2, 0.2, 0.2 and y 4, 1, 0; 0.1 + 0.2 + 0.3 > 0.3 + 0.2 + 0.1, which must not break a tie."""
    groups = {
        "a": {"x": [-1.0, -3.0], "y": [4.0]},
        "b": {"y": [1.0], "x": [0.1, 0.2, 0.3]},
        "c": {"x": [0.3, 0.2, 0.1], "y": [0.0]},
    }
    found = tasks.ranks(groups, KEY)
    assert {name: rank.tasks for name, rank in found.items()} == {
        "a": {"x": 3, "y": 1}, "b": {"x": 1.5, "y": 2}, "c": {"x": 1.5, "y": 3},
    }  # fmt: skip
    assert [rank.mean for rank in found.values()] == [2, 1.75, 2.25]
    assert found["a"].interval == (2, 2) and found["b"].interval == (1.5, 2)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(SCORES, st.integers(-5, 5), st.integers(1, 5))
def test_scores_follow_shift_and_scale(scores, shift, scale):
    moved_scores = {task: [scale * value + shift for value in values] for task, values in scores.items()}
    plain, moved = tasks.overall(scores, KEY, 1.0, 200), tasks.overall(moved_scores, KEY, scale + shift, 200)
    for name in ("iqm", "mean", "median"):
        assert getattr(moved, name).value == pytest.approx(scale * getattr(plain, name).value + shift, abs=1e-9)
    assert moved.gap.value == pytest.approx(scale * plain.gap.value, abs=1e-9)
    if plain.gap.interval is not None:
        assert moved.gap.interval == pytest.approx([scale * end for end in plain.gap.interval], abs=1e-9)


def test_improvements_of_either_side_add_up_to_one():
    one, other = tasks.average_improvement(A, B, KEY), tasks.average_improvement(B, A, KEY)
    assert one.value == pytest.approx(1 - other.value)
    assert tasks.average_improvement(A, dict(reversed(B.items())), KEY) == one  # tasks go by their names
    assert tasks.average_improvement(A, A, KEY).value == pytest.approx(0.5)


# Refusals


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tasks.overall({}, KEY), "there are no tasks"),
        (lambda: tasks.overall({"pong": [1.0], "hero": []}, KEY), "task hero: a group is one or more numbers"),
        (lambda: tasks.overall({"pong": [1.0, float("nan")]}, KEY), "task pong: 1 of 2 values are not finite: nan"),
        (lambda: tasks.average_improvement(A, {"pong": [1.0]}, KEY), "the second group has no scores of asterix, breakout"),
        (lambda: tasks.ranks({"a": {"x": [1.0]}, "b": {"y": [1.0]}}, KEY), "a has no scores of y: groups are compared over"),
        (lambda: tasks.ranks({}, KEY), "there are no groups"),
    ],
)
def test_what_cannot_be_aggregated_is_refused_by_name(call, says):
    with pytest.raises(ValueError, match=says):
        call()
