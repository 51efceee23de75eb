import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from hieros_repro.stats.aggregate import Summary, summarise

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
