import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from hieros_repro.determinism.keys import Key
from hieros_repro.stats import aggregate
from hieros_repro.stats.aggregate import Interval, Summary, describe, summarise

KEY = Key(0)("stats", "test")
SAMPLES = [
    [1.0, 2.0],
    [470.0, 480.0, 500.0],
    [3.0, 3.0, 3.0, 4.0],
    [-1e6, 1e-3, 5.0, 2.0, 2.0],
    list(np.linspace(0, 1, 30) ** 3),
]


@pytest.mark.parametrize("values", SAMPLES)
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_the_interval_is_scipys_t_interval(values, confidence):
    found = summarise(values, confidence)
    expected = stats.t.interval(confidence, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("values", SAMPLES)
def test_the_moments_are_numpys(values):
    found = summarise(values)
    assert found.n == len(values) and found.mean == pytest.approx(np.mean(values), rel=1e-13)
    assert found.std == pytest.approx(np.std(values, ddof=1), rel=1e-13)
    assert (found.min, found.max, found.median) == (min(values), max(values), np.median(values))


def test_three_seeds_by_hand():
    found = summarise([470.0, 480.0, 490.0])
    assert (found.mean, found.std) == (480.0, 10.0)
    assert found.high - 480.0 == pytest.approx(4.302652729911275 * 10 / 3**0.5)  # the 97.5 % point of t with 2 degrees


def test_one_seed_has_no_deviation_and_no_interval():
    assert summarise([3.5]) == Summary(1, 3.5, None, None, None, 3.5, 3.5, 3.5)


def test_equal_seeds_have_an_interval_of_no_width():
    assert summarise([500.0] * 4) == Summary(4, 500.0, 0.0, 500.0, 500.0, 500.0, 500.0, 500.0)
    assert summarise([0.1] * 3) == Summary(3, 0.1, 0.0, 0.1, 0.1, 0.1, 0.1, 0.1)  # though 0.1 + 0.1 + 0.1 > 0.3


@pytest.mark.parametrize(
    "values, says", [([], "nothing to summarise"), ([1.0, float("nan")], "1 of 2 values are not finite: nan")]
)
def test_what_cannot_be_summarised_is_refused(values, says):
    with pytest.raises(ValueError, match=says):
        summarise(values)


@hypothesis.given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=20), st.randoms())
def test_the_order_of_the_seeds_does_not_matter(values, draw):
    shuffled = list(values)
    draw.shuffle(shuffled)
    assert summarise(shuffled).mean == summarise(values).mean and summarise(shuffled).std == summarise(values).std


# One group, more of it


@pytest.mark.parametrize("values", SAMPLES)
def test_further_statistics_are_scipys(values):
    found = describe(values, KEY)
    assert found.sem == pytest.approx(stats.sem(values), rel=1e-12)
    assert found.iqm == aggregate.iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-13)
    assert found.cv == pytest.approx(abs(stats.variation(values, ddof=1)), rel=1e-12)
    if len(values) >= 3:
        assert aggregate.normality(values) == pytest.approx(tuple(stats.shapiro(values)), rel=1e-9)
        assert found.normality == aggregate.normality(values).p
    assert found[:8] == summarise(values) and found.gap is None


@pytest.mark.parametrize("n", range(1, 14))
def test_a_quarter_is_cut_off_at_either_end(n):
    values = Key(0)("data", "iqm", n).normal((n,)).astype(float)
    assert aggregate.iqm(values) == pytest.approx(stats.trim_mean(values, 0.25), rel=1e-13)


def test_the_iqm_by_hand():
    assert aggregate.iqm([1.0, 2.0, 6.0]) == 3.0  # nothing is cut off
    assert aggregate.iqm([100.0, 2.0, 4.0, -50.0]) == 3.0
    assert aggregate.iqm([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 700.0]) == 3.5


def test_the_optimality_gap_by_hand():
    assert aggregate.optimality_gap([0.5, 2.0, 1.0]) == pytest.approx(0.5 / 3)
    assert describe([450.0, 500.0, 520.0], KEY, target=500.0).gap == pytest.approx(50 / 3)


def test_the_coefficient_of_variation_by_hand():
    assert aggregate.variation([470.0, 480.0, 490.0]) == 10 / 480 == aggregate.variation([-470.0, -480.0, -490.0])
    assert aggregate.variation([-1.0, 1.0]) is None and aggregate.variation([3.0]) is None
    assert aggregate.variation([3.0, 3.0]) == 0


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [1, 2, 3, 10])
@pytest.mark.parametrize("value", [0.1, 0.0, -500.0])
def test_equal_values_and_single_ones_are_described(n, value):
    found = describe([value] * n, KEY)
    assert (found.mean, found.iqm, found.min, found.max, found.median) == (value,) * 5
    assert found.normality is None
    if n == 1:
        assert (found.std, found.sem, found.low, found.bootstrap, found.iqm_interval, found.cv) == (None,) * 6
    else:
        assert (found.std, found.sem) == (0, 0) and found.cv == (None if value == 0 else 0)
        assert found.bootstrap == found.iqm_interval == Interval(value, value) == (found.low, found.high)


def test_normality_needs_three_values_that_differ():
    assert aggregate.normality([1.0, 2.0]) is None and aggregate.normality([2.0] * 9) is None
    assert aggregate.normality(np.arange(5001.0)) is None
    assert aggregate.normality([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]).p < 0.001


@pytest.mark.parametrize("call", [aggregate.iqm, aggregate.optimality_gap, aggregate.normality, aggregate.variation])
@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf")]])
def test_no_statistic_takes_what_is_not_finite(call, values):
    with pytest.raises(ValueError, match=r"nothing|one or more numbers|not finite"):
        call(values)


# Bootstrap


def mean_of(strata):
    return aggregate.mean(strata[0])


def iqm_of(strata):
    return aggregate.interquartile(strata[0])


SKEWED = (Key(0)("data", "skewed").uniform64((20,)) ** 3 * 100).tolist()


@pytest.mark.parametrize("statistic, reference", [
    (mean_of, np.mean), (iqm_of, lambda x, axis: stats.trim_mean(x, 0.25, axis=axis)),
])  # fmt: skip
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_the_bootstrap_is_scipys(statistic, reference, confidence):
    """Two sets of 20 000 resamples; the ends of an interval then differ by 1 to 2 % of its width."""
    found = aggregate.bootstrap([SKEWED], statistic, KEY, 20_000, confidence)
    drawn = stats.bootstrap(
        (SKEWED,), reference, n_resamples=20_000, method="percentile", confidence_level=confidence,
        rng=np.random.default_rng(1), vectorized=True,
    ).confidence_interval  # fmt: skip
    assert found == pytest.approx(tuple(drawn), abs=0.03 * (drawn.high - drawn.low))


def test_the_bootstrap_counts_every_resample_of_two_values():
    """The mean of 2 values drawn from 0 and 1 is 0, 1/2 or 1, with probabilities 1/4, 1/2 and 1/4."""

    def ends(confidence):
        return aggregate.bootstrap([[0.0, 1.0]], mean_of, KEY, 4000, confidence)

    assert ends(0.95) == (0, 1) and ends(0.6) == (0, 1) and ends(0.4) == (0.5, 0.5)


def test_a_stratum_keeps_its_size_and_its_values():
    drawn = aggregate.resampled([np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0])], KEY, 3000)
    assert [part.shape for part in drawn] == [(3000, 3), (3000, 2)]
    for part, values in zip(drawn, ([1, 2, 3], [10, 20]), strict=True):
        found, counts = np.unique(part, return_counts=True)
        assert found.tolist() == values and counts / part.size == pytest.approx(1 / len(values), abs=0.02)
    assert abs(np.corrcoef(drawn[0][:, 0], drawn[1][:, 0])[0, 1]) < 0.06  # 3 standard errors


def test_strata_narrow_the_interval():
    """Resampled together, two tasks of different levels would add the distance between them to the uncertainty."""
    low, high = [1.0, 2.0, 3.0, 2.0], [101.0, 102.0, 103.0, 102.0]

    def of_all(strata):
        return np.mean([aggregate.mean(part) for part in strata], axis=0)

    apart, together = aggregate.bootstrap([low, high], of_all, KEY), aggregate.bootstrap([low + high], mean_of, KEY)
    assert apart.high - apart.low < 1.5 and together.high - together.low > 50


def test_equal_keys_give_equal_intervals_and_others_do_not():
    first, again, other = (aggregate.bootstrap([SKEWED], mean_of, key) for key in (KEY, KEY, KEY("other")))
    assert first == again != other


def test_nothing_is_resampled_from_single_values():
    assert aggregate.bootstrap([[1.0], [2.0]], mean_of, KEY) is None
    assert aggregate.estimate([[1.5]], mean_of, KEY) == (1.5, None)
    assert aggregate.bootstrap([[1.0], [2.0, 3.0]], lambda strata: strata[0][..., 0] + aggregate.mean(strata[1]), KEY) == (3, 4)


def test_a_statistic_of_everything_at_once_is_refused():
    with pytest.raises(AssertionError, match="statistic of the last axis"):
        aggregate.bootstrap([SKEWED], lambda strata: np.mean(strata[0]), KEY)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95])
def test_a_confidence_is_a_share(confidence):
    with pytest.raises(ValueError, match="between 0 and 1, not"):
        aggregate.bootstrap([SKEWED], mean_of, KEY, confidence=confidence)


@pytest.mark.parametrize("n, bootstraps", [(3, 0.75), (30, 0.93)])
def test_how_often_intervals_hold_the_truth(n, bootstraps):
    """Of 500 groups of normal values: the t-interval 95 %, the bootstrap 75 % with 3 seeds. Within 3 standard errors."""
    groups, error = KEY("coverage", n).normal((500, n)).astype(float), 3 * (bootstraps * (1 - bootstraps) / 500) ** 0.5
    exact = [summarise(group.tolist()) for group in groups]
    drawn = [aggregate.bootstrap([group], mean_of, KEY("draw", i), 400) for i, group in enumerate(groups)]
    assert np.mean([found.low <= 0 <= found.high for found in exact]) == pytest.approx(0.95, abs=0.03)
    assert np.mean([low <= 0 <= high for low, high in drawn]) == pytest.approx(bootstraps, abs=error)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(st.lists(st.integers(-1000, 1000), min_size=2, max_size=12), st.integers(-1000, 1000), st.integers(1, 50))
def test_description_follows_shift_and_scale(values, shift, scale):
    plain, moved = describe(values, KEY), describe([scale * value + shift for value in values], KEY)
    for name in ("mean", "low", "high", "min", "max", "median", "iqm"):
        assert getattr(moved, name) == pytest.approx(scale * getattr(plain, name) + shift, abs=1e-7)
    for name in ("bootstrap", "iqm_interval"):
        assert getattr(moved, name) == pytest.approx([scale * end + shift for end in getattr(plain, name)], abs=1e-7)
    assert moved.std == pytest.approx(scale * plain.std, abs=1e-7) and moved.sem == pytest.approx(scale * plain.sem, abs=1e-7)
    assert (moved.normality is None) == (plain.normality is None)
    if plain.normality is not None:
        assert moved.normality == pytest.approx(plain.normality, abs=1e-6)


def test_steady_seeds_by_hand():
    """std 10 and mean 480: 0.02083."""
    assert aggregate.steady([470.0, 480.0, 490.0], 0.021) is True
    assert aggregate.steady([470.0, 480.0, 490.0], 0.020) is False
    assert aggregate.steady([-470.0, -480.0, -490.0], 10 / 480) is True
    assert aggregate.steady([3.0], 1.0) is None and aggregate.steady([-1.0, 1.0], 1.0) is None
