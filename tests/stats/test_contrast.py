import itertools
import json
import math
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from hieros_repro.determinism.keys import Key
from hieros_repro.stats import contrast as module
from hieros_repro.stats.contrast import contrast, verdict

KEY = Key(0)("stats", "contrast")
REFERENCE = json.loads(Path(__file__).with_name("rliable.json").read_text(encoding="utf8"))["statsmodels"]
PAIRS = [
    ([470.0, 480.0, 500.0], [440.0, 465.0, 450.0]),
    ([1.0, 2.0], [2.5, 9.0, -4.0, 3.0]),
    ([3.0, 3.0, 3.0], [4.0, 5.0, 4.5, 6.0]),  # one does not vary
    ([1.0, 2.0, 2.0, 3.0, 5.0], [2.0, 2.0, 2.0, 0.0]),  # ties
    (list(np.linspace(0, 1, 15) ** 3), list(np.linspace(0.1, 2, 11) ** 2)),  # too many to count all splits
]
GROUP = st.lists(st.integers(-50, 50).map(float), min_size=2, max_size=6)


# Of scipy, about a group that does not vary; ours says nothing
IDENTICAL = pytest.mark.filterwarnings("ignore:Precision loss occurred")

# Means


@IDENTICAL
@pytest.mark.parametrize(("a", "b"), PAIRS)
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_welch_is_scipys(a, b, confidence):
    found, expected = module.welch(a, b, confidence), stats.ttest_ind(a, b, equal_var=False)
    assert (found.t, found.df, found.p) == pytest.approx((expected.statistic, expected.df, expected.pvalue), rel=1e-10)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval(confidence)), rel=1e-10)
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b))


def test_welch_by_hand():
    """Means 2 and 5, variances 1 and 4, 3 seeds each: e^2 = 5/3, df = (5/3)^2 / ((1/3)^2 / 2 + (4/3)^2 / 2) = 50/17."""
    found = module.welch([1.0, 2.0, 3.0], [3.0, 5.0, 7.0])
    assert (found.difference, found.t, found.df) == pytest.approx((-3, -3 / (5 / 3) ** 0.5, 50 / 17))


def test_welchs_interval_holds_the_truth_where_spreads_differ():
    """1000 pairs of 4 and 7 seeds with deviations 1 and 5: 95 %, within 3 standard errors."""
    a, b = (KEY("coverage", n).normal((1000, n)).astype(float) * scale for n, scale in ((4, 1), (7, 5)))
    found = [module.welch(first.tolist(), second.tolist()).interval for first, second in zip(a, b, strict=True)]
    assert np.mean([low <= 0 <= high for low, high in found]) == pytest.approx(0.95, abs=0.021)


@pytest.mark.parametrize("case", REFERENCE["tost"], ids=["asterix", "pong", "up_n_down"])
def test_equivalence_is_statsmodels(case):
    assert module.equivalence(case["a"], case["b"], case["margin"]) == pytest.approx(case["p"], rel=1e-9)


@IDENTICAL
@pytest.mark.parametrize(("a", "b"), PAIRS)
@pytest.mark.parametrize("margin", [0.5, 3.0, 60.0])
def test_equivalence_is_the_worse_of_two_one_sided_tests(a, b, margin):
    sides = [("greater", margin), ("less", -margin)]
    ps = [stats.ttest_ind(np.add(a, shift), b, equal_var=False, alternative=side).pvalue for side, shift in sides]
    assert module.equivalence(a, b, margin) == pytest.approx(max(ps), rel=1e-9)


@pytest.mark.parametrize("margin", [0.0, -1.0, math.inf, math.nan])
def test_a_margin_is_positive(margin):
    with pytest.raises(ValueError, match="positive number, not"):
        module.equivalence([1.0, 2.0], [1.0, 2.0], margin)


@pytest.mark.parametrize(("a", "b"), PAIRS[:4])
def test_permutation_is_scipys_where_all_splits_are_counted(a, b):
    found = module.permutation(a, b, KEY)
    expected = stats.permutation_test(
        (a, b), lambda x, y, axis: np.abs(np.mean(x, axis=axis) - np.mean(y, axis=axis)), vectorized=True, alternative="greater"
    )
    assert found.exact and found.splits == math.comb(len(a) + len(b), len(a)) and found.p == pytest.approx(expected.pvalue)
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b))


@pytest.mark.parametrize(("n", "smallest"), [(2, 1 / 3), (3, 0.1), (4, 2 / 70), (5, 2 / 252), (7, 2 / 3432)])
def test_the_smallest_p_of_so_many_seeds(n, smallest):
    a = [100.1 + i / 3 for i in range(n)]
    assert module.permutation(a, [value - 50.7 for value in a], KEY).p == pytest.approx(smallest)
    assert module.mann_whitney(a, [value - 50.7 for value in a]).p == pytest.approx(smallest)


def test_many_splits_are_drawn():
    """8 and 8 have 12 870 splits: the share that is drawn lies within 4 standard errors of the exact one."""
    a, b = [0.3, 0.1, 0.9, 1.4, 0.8, 1.1, 0.2, 1.0], [0.0, 0.2, 0.4, 0.1, 0.9, 0.35, 0.6, 0.7]
    together = np.array(a + b)
    sums = together[np.array(list(itertools.combinations(range(16), 8)))].sum(-1)
    exact = (np.abs(sums - together.sum() / 2) >= abs(sum(a) - sum(b)) / 2 - 1e-9).mean()
    found = module.permutation(a, b, KEY)
    assert not found.exact and found.splits == 10_000
    assert found.p == pytest.approx(exact, abs=4 * (exact * (1 - exact) / 10_000) ** 0.5) and 0.02 < exact < 0.2
    assert found == module.permutation(a, b, KEY) != module.permutation(a, b, KEY("other"))


def test_a_drawn_p_is_never_0():
    assert module.permutation(list(range(20)), list(range(1000, 1020)), KEY).p == 1 / 10_001


# Ranks


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_mann_whitneys_u_is_scipys(a, b):
    assert module.mann_whitney(a, b).statistic == stats.mannwhitneyu(a, b).statistic


@pytest.mark.parametrize(("a", "b"), [PAIRS[0], PAIRS[1], PAIRS[4]])
def test_without_ties_its_p_is_scipys(a, b):
    assert module.mann_whitney(a, b).p == pytest.approx(stats.mannwhitneyu(a, b).pvalue, rel=1e-10)


def test_with_ties_all_splits_are_counted():
    a, b = [1.0, 2.0, 2.0], [2.0, 3.0, 3.0]
    expected = stats.mannwhitneyu(a, b, method=stats.PermutationMethod(n_resamples=math.inf)).pvalue
    assert module.mann_whitney(a, b) == (1.0, pytest.approx(expected))


def test_improvement_by_hand():
    """Of 6 pairs A is above in 3 and equal in 2: 4 / 6."""
    assert module.improvement([1.0, 2.0, 3.0], [1.0, 2.0], KEY).value == pytest.approx((0.5 + 1.5 + 2) / 6)


@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_improvement_is_u_by_pairs_and_its_interval_is_scipys(a, b):
    def share(x, y, axis):
        return (np.sign(x[..., :, None] - y[..., None, :]) / 2 + 0.5).mean((-2, -1))

    found = module.improvement(a, b, KEY, draws=20_000)
    assert found.value == pytest.approx(stats.mannwhitneyu(a, b).statistic / len(a) / len(b))
    drawn = stats.bootstrap(
        (a, b), share, n_resamples=20_000, batch=1000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    assert found.interval == pytest.approx(tuple(drawn), abs=0.02)


# Effects


def test_effects_by_hand():
    """Means 2 and 5, variances 1 and 4: pooled 2.5. With 4 degrees of freedom the bias is Gamma(2) / (sqrt 2 Gamma(3/2))."""
    a, b = [1.0, 2.0, 3.0], [3.0, 5.0, 7.0]
    assert module.cohens_d(a, b) == pytest.approx(-3 / 2.5**0.5)
    assert module.hedges_g(a, b) == pytest.approx(-3 / 2.5**0.5 / (2**0.5 * math.gamma(1.5)))
    assert module.hedges_g(a, b) / module.cohens_d(a, b) == pytest.approx(
        1 - 3 / (4 * 4 - 1), abs=0.003
    )  # its usual short form


@IDENTICAL
@pytest.mark.parametrize(("a", "b"), PAIRS)
def test_students_t_is_a_multiple_of_d(a, b):
    t = stats.ttest_ind(a, b).statistic
    assert module.cohens_d(a, b) == pytest.approx(t * (1 / len(a) + 1 / len(b)) ** 0.5)


def test_g_is_not_biased_and_d_is():
    """4000 pairs of 3 and 3 seeds that are one standard deviation apart."""
    draws = KEY("bias").normal((4000, 2, 3)).astype(float)
    pairs = [((a + 1).tolist(), b.tolist()) for a, b in draws]
    found = np.array([(module.cohens_d(a, b), module.hedges_g(a, b)) for a, b in pairs])
    d, g = found.mean(0)
    error = 3 * found.std(0) / 4000**0.5
    assert abs(g - 1) < error[1] and d - 1 > error[0] + 0.1


# Spread

EPISODES = [[10.0, 12.0, 9.0, 30.0], [10.0, 11.0, 10.5], [0.0, 40.0, 20.0, 25.0, 3.0]]


@pytest.mark.parametrize("groups", [*[pair for pair in PAIRS if pair[0] != PAIRS[1][0]], EPISODES])
def test_brown_forsythe_is_scipys(groups):
    assert module.brown_forsythe(*groups) == pytest.approx(tuple(stats.levene(*groups, center="median")), rel=1e-9)


@pytest.mark.filterwarnings("error")
def test_spreads_that_cannot_be_compared():
    assert module.brown_forsythe([1.0, 2.0], [3.0]) is None and module.brown_forsythe([1.0, 2.0, 3.0]) is None
    assert module.brown_forsythe([0.1, 0.3], [0.1, 0.7]) is None  # two values are equally far from their median
    assert module.brown_forsythe([0.1, 0.3], [1.1, 1.3]) == (0, 1)
    assert module.brown_forsythe([0.1] * 3, [7.0] * 4) == (0, 1)


# Many


def test_holm_is_statsmodels():
    case = REFERENCE["holm"]
    assert module.holm(case["ps"]) == pytest.approx(case["adjusted"])


def test_holm_by_hand():
    assert module.holm([0.04, None, 0.01, 0.03]) == [pytest.approx(0.06), None, pytest.approx(0.03), pytest.approx(0.06)]
    assert module.holm([0.6, 0.7]) == [1.0, 1.0] and module.holm([]) == [] and module.holm([None]) == [None]


# The whole


def test_a_contrast_holds_what_its_parts_say():
    (a, b), found = PAIRS[0], contrast(*PAIRS[0], KEY, margin=100.0, confidence=0.9)
    assert found.welch == module.welch(a, b, 0.9) and found.mann_whitney == module.mann_whitney(a, b)
    assert found.permutation == module.permutation(a, b, KEY) and found.equivalence == module.equivalence(a, b, 100.0)
    assert found.improvement == module.improvement(a, b, KEY("improvement"), confidence=0.9)
    assert found.hedges_g == module.hedges_g(a, b)
    assert found.spread == module.brown_forsythe(a, b) and (found.margin, found.confidence) == (100.0, 0.9)
    assert found.n == (3, 3) and found.means == (pytest.approx(1450 / 3), pytest.approx(1355 / 3))


@pytest.mark.filterwarnings("error")
@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(GROUP, GROUP)
def test_the_sides_can_be_exchanged(a, b):
    one, other = contrast(a, b, KEY, margin=5.0), contrast(b, a, KEY, margin=5.0)
    assert one.difference == -other.difference and one.p == pytest.approx(other.p, rel=1e-9)
    assert (one.welch is None) == (other.welch is None)
    if one.welch is not None:
        assert one.welch.interval == pytest.approx((-other.welch.interval.high, -other.welch.interval.low))
    assert one.improvement.value == pytest.approx(1 - other.improvement.value)
    assert one.permutation.p == other.permutation.p and one.mann_whitney.p == other.mann_whitney.p
    assert one.mann_whitney.statistic == len(a) * len(b) - other.mann_whitney.statistic
    assert one.equivalence == pytest.approx(other.equivalence, rel=1e-9) and one.needed == other.needed
    if one.hedges_g is not None:
        assert one.hedges_g == pytest.approx(-other.hedges_g)
    assert (verdict(one, ("A", "B")).split(" ")[0] in "AB") and verdict(one, ("A", "B")).endswith(".")


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(GROUP, GROUP, st.integers(-1000, 1000), st.sampled_from([0.125, 3.0, 1000.0]))
def test_a_common_shift_and_scale_change_no_p(a, b, shift, scale):
    plain, moved = contrast(a, b, KEY, 5.0), contrast(*([scale * x + shift for x in g] for g in (a, b)), KEY, 5.0 * scale)
    ps = [(c.p, c.permutation.p, c.mann_whitney.p, c.equivalence) for c in (plain, moved)]
    assert ps[0] == pytest.approx(ps[1], abs=1e-7)
    assert moved.improvement == plain.improvement and moved.difference == pytest.approx(scale * plain.difference, abs=1e-7)


@pytest.mark.filterwarnings("error")
def test_a_single_seed_has_no_test_and_says_so():
    found = contrast([500.0], [470.0, 480.0], KEY, margin=10.0)
    assert (found.welch, found.equivalence, found.hedges_g, found.spread, found.needed) == (None,) * 5
    assert found.improvement == (1.0, None) and found.difference == 25 and found.permutation.p == pytest.approx(1 / 3)
    assert verdict(found, ("A", "B")) == "A and B cannot be compared: A has a single seed, and a test needs two of each."
    assert "both have a single seed" in verdict(contrast([1.0], [2.0], KEY), ("A", "B"))


@pytest.mark.filterwarnings("error")
def test_groups_that_do_not_vary():
    equal, apart = contrast([0.1] * 3, [0.1] * 4, KEY, margin=1.0), contrast([0.1] * 3, [9.0] * 3, KEY, margin=1.0)
    assert equal.welch is None and apart.welch is None and (equal.p, apart.p) == (1, pytest.approx(0.1))
    assert (equal.equivalence, equal.hedges_g, equal.mann_whitney.p, equal.permutation.p) == (0, 0, 1, 1)
    assert (apart.equivalence, apart.hedges_g, apart.mann_whitney.p, apart.permutation.p) == (
        1,
        None,
        *[pytest.approx(0.1)] * 2,
    )
    assert equal.improvement == (0.5, (0.5, 0.5)) and equal.spread == apart.spread == (0, 1)
    assert verdict(contrast([0.1] * 3, [0.1] * 4, KEY), ("A", "B")) == "A and B do not differ: every seed scored 0.1."
    assert verdict(apart, ("A", "B")).startswith(
        "A and B cannot be told apart with these seeds: 0.1 against 9, the same at every seed (permutation p = 0.1"
    )
    assert verdict(contrast([0.1] * 5, [9.0] * 5, KEY), ("A", "B")) == (
        "B is better than A: 9 against 0.1, the same at every seed (permutation p = 0.0079, n = 5 and 5)."
    )


FIVE = [100.0, 101.0, 102.0, 103.0, 104.0]
TIE = "A and B cannot be told apart with these seeds: 102"


@pytest.mark.parametrize(
    ("a", "b", "margin", "begins"),
    [
        (FIVE, [x - 20 for x in FIVE], None, "A is better than B: 102 against 82, a difference of 20 (95 % "),
        (FIVE, [x + 20 for x in FIVE], 5.0, "B is better than A: 122 against 102, a difference of 20"),
        (FIVE, [x - 4 for x in FIVE], 9.0, "A is better than B, but within the margin of 9 that counts as equal: 102 "),
        (FIVE, [x + 0.1 for x in FIVE], 9.0, "A and B are equivalent within a margin of 9: 102 against 102.1"),
        (FIVE, [x - 1 for x in FIVE], 1.0, f"{TIE} against 101, a difference of 1 "),
        (FIVE, FIVE[1:4], None, f"{TIE} against 102, a difference of 0 "),
    ],
)  # fmt: skip
def test_verdicts(a, b, margin, begins):
    assert verdict(contrast(a, b, KEY, margin), ("A", "B")).startswith(begins)


def test_where_lower_is_better():
    assert verdict(contrast(FIVE, [x - 20 for x in FIVE], KEY), ("A", "B"), higher_is_better=False).startswith("B is better")


def test_a_verdict_says_how_many_seeds_it_would_take():
    """A difference of 1 with a variance of 2.5 in both groups is 0.632 standard deviations: 41 seeds a group."""
    found = contrast(FIVE, [x - 1 for x in FIVE], KEY)
    assert found.needed == 41
    assert verdict(found, ("A", "B")).endswith(
        "Welch p = 0.35, n = 5 and 5); if it is as large as it seems, 41 seeds a group would see it in 4 cases of 5, "
        "that is 36 more of A and 36 more of B."
    )
    assert verdict(contrast(FIVE, FIVE, KEY), ("A", "B")).endswith("no number of seeds would see a difference that small.")


@pytest.mark.parametrize("a", [[], [1.0, math.nan]])
def test_what_is_not_a_group_is_refused(a):
    with pytest.raises(ValueError, match=r"nothing|not finite"):
        contrast(a, [1.0, 2.0], KEY)
