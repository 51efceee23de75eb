"""Two groups of seeds, A and B: how far apart they are, and whether so few seeds can tell.

The groups may differ in size. None stands where a test does not exist: most need two seeds a side to see a spread at all.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from hieros_repro.determinism.keys import Key
from hieros_repro.stats.aggregate import Estimate, Interval, Outcome, checked, estimate, mean, summarise
from hieros_repro.stats.power import seeds_needed

SPLITS = 10_000  # a permutation test counts all splits up to so many, and draws so many where there are more


class Welch(NamedTuple):
    difference: float
    interval: Interval
    t: float
    df: float
    p: float


class Permutation(NamedTuple):
    difference: float
    p: float
    splits: int  # how many were looked at
    exact: bool  # whether these are all there are


class Contrast(NamedTuple):
    """All that is said about two groups. `needed`: seeds a group that would see a difference as large as this one."""

    n: tuple[int, int]
    means: tuple[float, float]
    difference: float
    welch: Welch | None
    permutation: Permutation
    mann_whitney: Outcome
    improvement: Estimate
    hedges_g: float | None
    spread: Outcome | None  # Brown and Forsythe's
    equivalence: float | None  # p; None without a margin
    margin: float | None
    confidence: float
    needed: int | None

    @property
    def p(self) -> float | None:
        """The p that decides: Welch's; where neither group varies, so that it has no scale, the permutation test's; None if a
        group has a single seed."""
        if min(self.n) < 2:
            return None
        return self.welch.p if self.welch else self.permutation.p


def contrast(
    a: Sequence[float], b: Sequence[float], key: Key, margin: float | None = None, confidence: float = 0.95
) -> Contrast:
    """Every statistic of this module, of one pair of groups."""
    found = welch(a, b, confidence)
    return Contrast(
        n=(len(a), len(b)),
        means=(summarise(a).mean, summarise(b).mean),
        difference=summarise(a).mean - summarise(b).mean,
        welch=found,
        permutation=permutation(a, b, key("permutation")),
        mann_whitney=mann_whitney(a, b),
        improvement=improvement(a, b, key("improvement"), confidence=confidence),
        hedges_g=hedges_g(a, b),
        spread=brown_forsythe(a, b),
        equivalence=None if margin is None else equivalence(a, b, margin),
        margin=margin,
        confidence=confidence,
        needed=None if found is None else _needed(a, b, 1 - confidence),
    )


# -- Are the means equal? ----------------------------------------------------------------------------------------------


def welch(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Welch | None:
    """Welch's t-test, which lets the groups differ in spread. With e_g = std_g / sqrt(n_g) and e^2 = e_a^2 + e_b^2:

        t = (mean_a - mean_b) / e,  df = e^4 / (e_a^4 / (n_a - 1) + e_b^4 / (n_b - 1))
        interval = mean_a - mean_b +- t_{df, (1 + confidence) / 2} e,  p = 2 P(T_df > |t|)

    None if a group has a single value, and if neither group varies: there is no scale to measure a difference by.
    """
    error = _error(a, b)
    if error is None:
        return None
    difference, size, df = error
    if df is None:
        return None
    half = float(stats.t.isf((1 - confidence) / 2, df)) * size
    t = difference / size
    return Welch(difference, Interval(difference - half, difference + half), t, df, 2 * float(stats.t.sf(abs(t), df)))


def equivalence(a: Sequence[float], b: Sequence[float], margin: float) -> float | None:
    """Two one-sided tests of Welch's form: small if |mean_a - mean_b| is below the margin, whatever the seeds.

        p = max( P(T_df > (difference + margin) / e), P(T_df > (margin - difference) / e) )

    None if a group has a single value. If neither group varies, 0 for a difference below the margin, else 1.
    """
    if not (margin > 0 and math.isfinite(margin)):
        raise ValueError(f"a margin of equivalence is a positive number, not {margin}")
    error = _error(a, b)
    if error is None:
        return None
    difference, size, df = error
    if df is None:
        return float(abs(difference) >= margin)
    return float(stats.t.sf((margin - abs(difference)) / size, df))  # the larger of the two


def permutation(a: Sequence[float], b: Sequence[float], key: Key) -> Permutation:
    """How seldom a random split of all values into groups of these sizes sets the means as far apart, in either direction.

        exact:  p = #{splits: |difference| >= |observed|} / #splits
        drawn:  p = (1 + #{...}) / (1 + #drawn),  so that it is never 0

    Counts all splits if there are few. The smallest p is 0.1 with 3 and 3 seeds, 0.03 with 4 and 4, 0.008 with 5 and 5.
    """
    together, n = np.concatenate([checked(a), checked(b)]), len(a)
    count = math.comb(len(together), n)
    exact = count <= SPLITS
    if exact:
        splits = np.array(list(itertools.combinations(range(len(together)), n)))
    else:
        words = key.bits(SPLITS * len(together)).reshape(SPLITS, -1)
        splits = np.argsort(words, axis=-1, kind="stable")[:, :n]
    as_far = _as_far(together, n, splits)
    p = as_far / count if exact else (1 + as_far) / (1 + SPLITS)
    return Permutation(summarise(a).mean - summarise(b).mean, p, len(splits), exact)


def mann_whitney(a: Sequence[float], b: Sequence[float]) -> Outcome:
    """U = #{a_i > b_j} + #{a_i = b_j} / 2 over all pairs, and its two-sided p.

    Exact where all splits of the ranks can be counted (also with ties), or one group is small and nothing ties; else from the
    normal distribution, corrected for ties and continuity.
    """
    together, n = np.concatenate([checked(a), checked(b)]), len(a)
    u = float(_wins(checked(a), checked(b)))
    if np.ptp(together) == 0:
        return Outcome(u, 1.0)
    count = math.comb(len(together), n)
    if count <= SPLITS:
        splits = np.array(list(itertools.combinations(range(len(together)), n)))
        return Outcome(u, _as_far(stats.rankdata(together), n, splits) / count)
    return Outcome(u, float(stats.mannwhitneyu(a, b, alternative="two-sided").pvalue))


def _as_far(together: np.ndarray, n: int, splits: np.ndarray) -> int:
    """How many splits [., n] set the means of the first group and the rest as far apart as the first n values and the rest.

    For groups of fixed size the difference of means is a multiple of the first group's sum of centred values.
    """
    centred = together - together.mean()
    tolerance = 1e-12 * np.abs(centred).max() * len(centred)  # sums of the same values in another order
    return int((np.abs(centred[splits].sum(-1)) >= abs(centred[:n].sum()) - tolerance).sum())


def _error(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float | None] | None:
    """The difference of means, its standard error and the error's degrees of freedom, which are None for an error of 0."""
    first, second = summarise(a), summarise(b)
    if first.std is None or second.std is None:
        return None
    errors = first.std / math.sqrt(first.n), second.std / math.sqrt(second.n)
    size = math.hypot(*errors)
    if size == 0:
        return first.mean - second.mean, 0.0, None
    shares = (errors[0] / size) ** 2, (errors[1] / size) ** 2
    df = 1 / (shares[0] ** 2 / (first.n - 1) + shares[1] ** 2 / (second.n - 1))
    return first.mean - second.mean, size, df


# -- How large is the difference? --------------------------------------------------------------------------------------


def improvement(a: Sequence[float], b: Sequence[float], key: Key, draws: int = 2000, confidence: float = 0.95) -> Estimate:
    """P(A > B) + P(A = B) / 2 for a seed of each, with a bootstrap interval; none if a group has a single value."""
    found = estimate([a, b], lambda strata: superiority(*strata), key, draws, confidence)
    return found if min(len(a), len(b)) > 1 else Estimate(found.value, None)


def superiority(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """As `improvement`, of the last axis."""
    return _wins(a, b) / (a.shape[-1] * b.shape[-1])


def _wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """R - n_a (n_a + 1) / 2 with R the sum of the ranks of a: the number of pairs a_i > b_j, ties for half."""
    n = a.shape[-1]
    return stats.rankdata(np.concatenate([a, b], axis=-1), axis=-1)[..., :n].sum(-1) - n * (n + 1) / 2


def cohens_d(a: Sequence[float], b: Sequence[float]) -> float | None:
    """The difference in pooled standard deviations:

        d = (mean_a - mean_b) / s,  s^2 = ((n_a - 1) std_a^2 + (n_b - 1) std_b^2) / (n_a + n_b - 2)

    None if a group has a single value, or if neither varies and they differ; 0 if all values are equal.
    """
    first, second = summarise(a), summarise(b)
    if first.std is None or second.std is None:
        return None
    difference, df = first.mean - second.mean, first.n + second.n - 2
    pooled = math.hypot(math.sqrt((first.n - 1) / df) * first.std, math.sqrt((second.n - 1) / df) * second.std)
    if pooled == 0:
        return 0.0 if difference == 0 else None
    return difference / pooled


def hedges_g(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Cohen's d without its bias, which is large for few seeds (20 % for 3 and 3):

    g = d Gamma(df / 2) / (sqrt(df / 2) Gamma((df - 1) / 2)),  df = n_a + n_b - 2
    """
    d, df = cohens_d(a, b), len(a) + len(b) - 2
    if d is None:
        return None
    return d * math.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / math.sqrt(df / 2)


# -- Do they spread alike? ---------------------------------------------------------------------------------------------


def brown_forsythe(*groups: Sequence[float]) -> Outcome | None:
    """Levene's test around medians, of two groups or more: an analysis of variance of z_gi = |x_gi - median_g|.

        F = (sum_g n_g (mean_g z - mean z)^2 / (k - 1)) / (sum_gi (z_gi - mean_g z)^2 / (N - k))

    The groups are those of seeds, or the seeds themselves with their evaluation episodes. None if a group has a single value,
    or if no z varies within a group (as with two seeds each) though they do between them; F = 0 if all z are equal.
    """
    arrays = [checked(values) for values in groups]
    if len(arrays) < 2 or min(map(len, arrays)) < 2:
        return None
    away = [np.abs(values - np.median(values)) for values in arrays]
    total, n, k = np.concatenate(away), sum(map(len, away)), len(away)
    centre, centres = mean(total), [mean(z) for z in away]
    between = math.fsum(len(z) * (c - centre) ** 2 for z, c in zip(away, centres, strict=True))
    within = math.fsum(((z - c) ** 2).sum() for z, c in zip(away, centres, strict=True))
    nothing = (1e-12 * np.abs(np.concatenate(arrays)).max()) ** 2 * n  # what is left by rounding
    if within <= nothing:
        return Outcome(0.0, 1.0) if between <= nothing else None
    f = (between / (k - 1)) / (within / (n - k))
    return Outcome(f, float(stats.f.sf(f, k - 1, n - k)))


# -- Many tests, and what they say -------------------------------------------------------------------------------------


def holm(ps: Sequence[float | None], count: int | None = None) -> list[float | None]:
    """p-values of m tests, enlarged so that the chance of any false finding stays below alpha:

        adjusted p_(i) = max_{j <= i} min(1, (m - j + 1) p_(j)),  sorted from the smallest

    A test that does not exist (None) is not counted. `count`: m, where these were picked out of more by looking at the data.
    """
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    m = len(order) if count is None else count
    found: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (m - rank) * p))
        found[i] = largest
    return found


def _needed(a: Sequence[float], b: Sequence[float], alpha: float) -> int | None:
    """Seeds a group for a power of 0.8, if the groups are as far apart and spread as much as these seeds."""
    first, second = summarise(a), summarise(b)
    assert first.std is not None and second.std is not None
    return seeds_needed((first.mean - second.mean) / (math.hypot(first.std, second.std) / math.sqrt(2)), 0.8, alpha)


def verdict(found: Contrast, names: tuple[str, str], higher_is_better: bool = True) -> str:
    """What a contrast says, in a sentence. The means decide: Welch's test, and the equivalence if there is a margin."""
    alpha, sign = 1 - found.confidence, 1 if higher_is_better else -1
    if found.p is None:
        single = [name for name, n in zip(names, found.n, strict=True) if n == 1]
        who = f"{single[0]} has" if len(single) == 1 else "both have"
        return f"{names[0]} and {names[1]} cannot be compared: {who} a single seed, and a test needs two of each."
    same = found.equivalence is not None and found.equivalence < alpha
    if found.p < alpha:
        turned = found.difference * sign < 0  # the better first, and so its numbers
        better, worse = names[::-1] if turned else names
        but = f", but within the margin of {found.margin:.4g} that counts as equal" if same else ""
        return f"{better} is better than {worse}{but}: {_numbers(found, turned)}."
    if found.welch is None and found.difference == 0:
        return f"{names[0]} and {names[1]} do not differ: every seed scored {found.means[0]:.4g}."
    if same:
        return f"{names[0]} and {names[1]} are equivalent within a margin of {found.margin:.4g}: {_numbers(found)}."
    unshown = f"; nor was it shown that they are within {found.margin:.4g} of each other" if found.margin is not None else ""
    return (
        f"{names[0]} and {names[1]} cannot be told apart with these seeds: {_numbers(found)}; {_more(found, names)}{unshown}."
    )


def _numbers(found: Contrast, turned: bool = False) -> str:
    sign, test = -1 if turned else 1, found.welch
    first, second = found.means[::sign]
    counts = " and ".join(map(str, found.n[::sign]))
    if test is None:
        p = f"permutation p = {found.permutation.p:.2g}"
        return f"{first:.4g} against {second:.4g}, the same at every seed ({p}, n = {counts})"
    low, high = sorted(sign * end for end in test.interval)
    interval = f"{100 * found.confidence:g} % interval {low:.4g} to {high:.4g}"
    difference = f"a difference of {sign * test.difference:.4g}"
    return f"{first:.4g} against {second:.4g}, {difference} ({interval}; Welch p = {test.p:.2g}, n = {counts})"


def _more(found: Contrast, names: tuple[str, str]) -> str:
    if found.welch is None:
        return "more seeds are needed"
    if found.needed is None:
        return "no number of seeds would see a difference that small"
    more = [max(found.needed - n, 0) for n in found.n]
    lacking = " and ".join(f"{extra} more of {name}" for extra, name in zip(more, names, strict=True) if extra)
    wanted = f", that is {lacking}" if lacking else ""
    return f"if it is as large as it seems, {found.needed} seeds a group would see it in 4 cases of 5{wanted}"
