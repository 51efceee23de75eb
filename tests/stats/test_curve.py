import hypothesis
import pytest
from hypothesis import strategies as st

from hieros_repro.determinism.keys import Key
from hieros_repro.stats import curve as module
from hieros_repro.stats.aggregate import Interval, bootstrap, interquartile, summarise

KEY = Key(0)("stats", "curve")
FIRST, SECOND = [(0, 0.0), (10, 10.0), (20, 30.0)], [(5, 1.0), (15, 3.0), (25, 3.0)]


# Bands


def test_a_band_is_over_the_steps_that_all_seeds_have():
    steps, means, lows, highs = module.band([[(0, 1.0), (10, 2.0), (20, 5.0)], [(0, 3.0), (10, 4.0)]])
    half = 12.706204736 * 2**0.5 / 2**0.5  # t with 1 degree of freedom, deviation sqrt 2, two seeds
    assert steps == [0, 10] and means == [2.0, 3.0]
    assert lows == pytest.approx([2 - half, 3 - half]) and highs == pytest.approx([2 + half, 3 + half])


def test_an_evaluation_at_the_first_tick_past_its_step_belongs_to_it():
    assert module.band([[(0, 1.0), (100, 2.0)], [(0, 1.0), (104, 4.0)]])[:2] == ([0, 102], [1, 3])


def test_one_seed_is_its_own_band():
    assert module.band([[(0, 1.0), (5, 2.0)]]) == ([0, 5], [1.0, 2.0], [1.0, 2.0], [1.0, 2.0])
    assert module.band([]) == ([], [], [], [])


# The common grid


def test_a_grid_has_the_steps_that_all_curves_cover():
    assert module.common_grid([FIRST, SECOND]) == [5, 10, 15, 20]
    assert module.common_grid([FIRST, SECOND], points=4) == [5, 10, 15, 20]
    assert module.common_grid([FIRST]) == [0, 10, 20]
    assert module.common_grid([FIRST, [(30, 1.0), (40, 2.0)]]) == [] == module.common_grid([])
    assert module.common_grid([FIRST, [(20, 1.0), (40, 2.0)]]) == [20] == module.common_grid([FIRST, [(20, 1.0)]], points=9)


def test_between_points_a_curve_is_straight():
    assert module.on_grid(FIRST, [0, 5, 10, 15, 20]) == [0, 5, 10, 20, 30]


@pytest.mark.parametrize("step", [-1, 20.5])
def test_a_curve_says_nothing_outside_its_steps(step):
    with pytest.raises(ValueError, match=f"from step 0 to 20 has no value at {step:g}"):
        module.on_grid(FIRST, [10, step])


def test_a_mean_band_on_the_grid_by_hand():
    """At 5, 10, 15, 20 the curves are at 5, 10, 20, 30 and at 1, 2, 3, 3."""
    found = module.mean_band([FIRST, SECOND])
    assert found.steps == [5, 10, 15, 20] and found.middles == [3, 6, 11.5, 16.5]
    for i, values in enumerate([(5, 1), (10, 2), (20, 3), (30, 3)]):
        assert (found.lows[i], found.highs[i]) == summarise(values)[3:5]
    assert module.mean_band([FIRST, SECOND], grid=[10]) == tuple([x[1]] for x in found)


@pytest.mark.parametrize("of", [module.mean_band, lambda curves: module.iqm_band(curves, KEY)])
def test_without_a_second_curve_or_a_common_step(of):
    assert of([FIRST]) == ([0, 10, 20], *[[0, 10, 30]] * 3)
    assert of([]) == ([], [], [], []) == of([FIRST, [(30, 1.0)]])


def test_an_iqm_band_is_the_bootstrap_of_each_step():
    values = Key(0)("data", "curves").normal((9, 4)).astype(float)
    curves = [list(zip([0, 10, 20, 30], row.tolist(), strict=True)) for row in values]
    found = module.iqm_band(curves, KEY)
    for i in range(4):
        assert found.middles[i] == interquartile(values[:, i])
        expected = bootstrap([values[:, i]], lambda strata: interquartile(strata[0]), KEY)
        assert Interval(found.lows[i], found.highs[i]) == expected


def test_a_band_on_the_own_steps_is_the_plain_band():
    curves = [[(0, 1.0), (10, 2.0), (20, 5.0)], [(0, 3.0), (10, 4.0), (20, 9.0)]]
    assert module.mean_band(curves) == module.band(curves)


# One number


def test_areas_by_hand():
    assert module.area(FIRST) == (5 * 10 + 20 * 10) / 20
    assert module.area(FIRST, span=(5, 15)) == (7.5 * 5 + 15 * 5) / 10
    assert module.area(FIRST, span=(10, 20)) == 20 and module.area(FIRST, span=(5, 5)) == 5
    assert module.area([(7, 3.0)]) == 3
    with pytest.raises(ValueError, match="no value at 30"):
        module.area(FIRST, span=(0, 30))


def test_a_threshold_is_reached_at_the_first_value_of_at_least_it():
    curve = [(0, 1.0), (10, 5.0), (20, 4.0), (30, 6.0)]
    assert [module.steps_to(curve, c) for c in (-1, 4.5, 5.0, 5.5, 6.1)] == [0, 10, 10, 30, None]
    assert [module.steps_to(curve, c, higher_is_better=False) for c in (1.0, 0.5)] == [0, None]


def test_the_end_of_a_curve():
    curve = [(step, float(step)) for step in range(0, 101, 10)]
    assert module.last_mean(curve) == 95 and module.last_mean(curve, 0.3) == 85
    assert module.last_mean(curve, 0) == 100 and module.last_mean(curve, 1) == 50 and module.last_mean([(3, 2.0)]) == 2
    with pytest.raises(ValueError, match="between 0 and 1, not 10"):
        module.last_mean(curve, 10)


@pytest.mark.parametrize(
    ("curve", "says"),
    [
        ([], "one point at least"),
        ([(0, 1.0), (5, float("nan"))], "1 of 2 points of a curve are not finite, the first at step 5"),
        ([(0, 1.0), (5, 2.0), (5, 3.0)], "steps must grow: 5 is followed by 5"),
    ],
)
def test_what_is_not_a_curve_is_refused(curve, says):
    for call in (module.area, module.last_mean, lambda c: module.steps_to(c, 0.0), lambda c: module.mean_band([c])):
        with pytest.raises(ValueError, match=says):
            call(curve)


@hypothesis.given(st.lists(st.integers(-100, 100), min_size=1, max_size=20), st.integers(-9, 9), st.integers(1, 9))
def test_an_area_lies_within_the_values_and_follows_them(values, shift, scale):
    plain = [(3 * i, float(v)) for i, v in enumerate(values)]
    assert min(values) - 1e-9 <= module.area(plain) <= max(values) + 1e-9
    moved = [(1000 + 7 * step, scale * value + shift) for step, value in plain]  # steps too: the span divides
    assert module.area(moved) == pytest.approx(scale * module.area(plain) + shift, abs=1e-9)


@hypothesis.given(st.lists(st.integers(-100, 100), min_size=2, max_size=20))
def test_an_area_of_two_parts_is_their_mean_by_length(values):
    curve = [(i, float(v)) for i, v in enumerate(values)]
    last, cut = len(values) - 1, (len(values) - 1) * 0.3
    parts = cut * module.area(curve, (0, cut)) + (last - cut) * module.area(curve, (cut, last))
    assert parts == pytest.approx(last * module.area(curve), abs=1e-8)
