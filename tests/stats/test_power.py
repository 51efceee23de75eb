import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from hieros_repro.determinism.keys import Key
from hieros_repro.stats.power import detectable, seeds_needed, t_test_power


@pytest.mark.parametrize(("effect", "seeds"), [(0.5, 64), (0.8, 26), (1.0, 17), (1.5, 9), (2.0, 6)])
def test_the_seeds_that_are_in_every_table(effect, seeds):
    assert seeds_needed(effect) == seeds == seeds_needed(-effect)
    assert t_test_power(effect, seeds) >= 0.8 > t_test_power(effect, seeds - 1)


@pytest.mark.parametrize("alpha", [0.05, 0.01])
@pytest.mark.parametrize("effect", [0.1, 0.5, 1.5, 3.0])
@pytest.mark.parametrize("n", [2, 3, 5, 30, 1000])
def test_power_is_that_of_the_noncentral_t(effect, n, alpha):
    df, critical, shift = 2 * n - 2, stats.t.isf(alpha / 2, 2 * n - 2), effect * (n / 2) ** 0.5
    expected = stats.nct.sf(critical, df, shift) + np.nan_to_num(stats.nct.cdf(-critical, df, shift))
    assert t_test_power(effect, n, alpha) == t_test_power(-effect, n, alpha) == pytest.approx(expected, abs=1e-9)


def test_power_is_how_often_the_test_sees_a_difference():
    draws = Key(0)("data", "power").normal((4000, 2, 5)).astype(float)
    p = stats.ttest_ind(draws[:, 0] + 1.5, draws[:, 1], axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(t_test_power(1.5, 5), abs=0.025)  # 3 standard errors


@pytest.mark.filterwarnings("error")
def test_no_difference_and_huge_ones():
    assert t_test_power(0.0, 5) == 0.05 and seeds_needed(0.0) is None and seeds_needed(1e-4) is None
    assert t_test_power(1e9, 3) == 1.0 and seeds_needed(1e9) == 2
    assert 0.999 < t_test_power(50.0, 2) <= t_test_power(500.0, 2) == 1.0


@hypothesis.settings(deadline=None)
@hypothesis.given(st.integers(2, 200), st.floats(0.1, 0.99), st.sampled_from([0.1, 0.05, 0.01]))
def test_what_can_be_seen_with_n_seeds_needs_n_seeds(n, power, alpha):
    effect = detectable(n, power, alpha)
    if power > alpha + 0.01:
        assert t_test_power(effect, n, alpha) == pytest.approx(power, abs=1e-6)
        assert seeds_needed(effect + 1e-6, power, alpha) == n


def test_a_power_below_alpha_is_there_without_any_difference():
    assert detectable(5, 0.05, 0.05) == 0.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: t_test_power(1.0, 1), "2 seeds a group at least, not 1"),
        (lambda: detectable(0), "2 seeds a group at least, not 0"),
        (lambda: seeds_needed(1.0, power=80), "power is a share between 0 and 1, not 80"),
        (lambda: seeds_needed(1.0, alpha=0), "alpha is a share between 0 and 1, not 0"),
    ],
)
def test_what_makes_no_sense_is_refused(call, says):
    with pytest.raises(ValueError, match=says):
        call()
