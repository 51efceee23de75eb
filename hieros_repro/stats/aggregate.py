"""What a group of seeds says. Intervals are over seeds, never over episodes.

Whatever resamples takes a key of the stream "stats", as in Key(0)("stats", "cartpole"): equal keys give equal intervals.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from hieros_repro.determinism.keys import Key

# Takes one array [..., n] per stratum and returns [...]: the last axis are the values, those before it are resamples.
Statistic = Callable[[list[np.ndarray]], np.ndarray]


class Summary(NamedTuple):
    """n values; None where a statistic is not defined for so few."""

    n: int
    mean: float
    std: float | None
    low: float | None
    high: float | None
    min: float
    max: float
    median: float


class Interval(NamedTuple):
    low: float
    high: float


class Estimate(NamedTuple):
    """A statistic and its bootstrap interval; None where nothing can be resampled."""

    value: float
    interval: Interval | None


class Outcome(NamedTuple):
    """A test's statistic and its p-value."""

    statistic: float
    p: float


class Description(NamedTuple):
    """All that is said about one group of seeds: a Summary's fields, and more. None where n is too small for it."""

    n: int
    mean: float
    std: float | None
    low: float | None  # of the t-interval of the mean
    high: float | None
    min: float
    max: float
    median: float
    sem: float | None
    iqm: float
    bootstrap: Interval | None  # of the mean
    iqm_interval: Interval | None
    cv: float | None
    normality: float | None  # Shapiro and Wilk's p
    gap: float | None  # the optimality gap, if there is a target


# -- One group ---------------------------------------------------------------------------------------------------------


def describe(values: Sequence[float], key: Key, confidence: float = 0.95, target: float | None = None) -> Description:
    """A Summary, sem = std / sqrt(n), and this module's other statistics of one group."""
    summary, array = summarise(values, confidence), checked(values)
    middle = estimate([array], lambda strata: interquartile(strata[0]), key("iqm"), confidence=confidence)
    normal = normality(values)
    return Description(
        *summary,
        sem=None if summary.std is None else summary.std / math.sqrt(summary.n),
        iqm=middle.value,
        bootstrap=bootstrap([array], lambda strata: mean(strata[0]), key("mean"), confidence=confidence),
        iqm_interval=middle.interval,
        cv=variation(values),
        normality=None if normal is None else normal.p,
        gap=None if target is None else optimality_gap(values, target),
    )


def summarise(values: Sequence[float], confidence: float = 0.95) -> Summary:
    """Mean, sample standard deviation and t-interval.

        std  = sqrt( sum_i (x_i - mean)^2 / (n - 1) )
        mean +- t_{n-1, (1 + confidence) / 2} std / sqrt(n)

    The t-interval is exact for normal values; with 3 seeds a percentile bootstrap would cover 75 % instead of 95 %.
    """
    if not values:
        raise ValueError("there is nothing to summarise")
    bad = [value for value in values if not math.isfinite(value)]
    if bad:
        raise ValueError(f"{len(bad)} of {len(values)} values are not finite: {bad[0]}")
    n, ordered = len(values), sorted(values)
    # Rounding must not put the mean outside its values, or equal ones would have a deviation: 3 x 0.1 / 3 > 0.1.
    mean = min(max(math.fsum(values) / n, ordered[0]), ordered[-1])
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    if n == 1:
        return Summary(1, mean, None, None, None, mean, mean, median)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * std / math.sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half, ordered[0], ordered[-1], median)


def iqm(values: Sequence[float]) -> float:
    """The interquartile mean: that of what is left of the n sorted values when floor(n / 4) are cut off at either end.

    Nothing is cut off from 3 values or fewer, whose interquartile mean is their mean.
    """
    return float(interquartile(checked(values)))


def optimality_gap(values: Sequence[float], target: float = 1.0) -> float:
    """How far the values fall short of the target on average: mean_i max(target - x_i, 0)."""
    return float(shortfall(checked(values), target))


def variation(values: Sequence[float]) -> float | None:
    """The coefficient of variation std / |mean|; None for a single value and for a mean of 0."""
    found = summarise(values)
    return None if found.std is None or found.mean == 0 else found.std / abs(found.mean)


def steady(values: Sequence[float], tolerance: float) -> bool | None:
    """Whether the coefficient of variation is within a tolerance: std / |mean| <= tolerance; None where there is none."""
    cv = variation(values)
    return None if cv is None else cv <= tolerance


def normality(values: Sequence[float]) -> Outcome | None:
    """Shapiro and Wilk's W = (sum_i a_i x_(i))^2 / sum_i (x_i - mean)^2, near 1 for normal values.

    None for fewer than 3 values, for equal ones, and for more than 5000, for which its p-value is not known well.
    """
    array = checked(values)
    if not 3 <= len(array) <= 5000 or np.ptp(array) == 0:
        return None
    found = stats.shapiro((array - array.min()) / np.ptp(array))
    return Outcome(float(found.statistic), float(found.pvalue))


def checked(values: Sequence[float] | np.ndarray) -> np.ndarray:
    """One group's values as an array; refuses no values at all and those that are not finite."""
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(f"a group is one or more numbers in a row, not an array of shape {array.shape}")
    bad = array[~np.isfinite(array)]
    if bad.size:
        raise ValueError(f"{bad.size} of {array.size} values are not finite: {bad[0]}")
    return array


# -- Statistics of the last axis, which can be bootstrapped ------------------------------------------------------------


def mean(values: np.ndarray) -> np.ndarray:
    """sum_i x_i / n; like `summarise`, never outside the values."""
    return np.clip(values.mean(-1), values.min(-1), values.max(-1))


def interquartile(values: np.ndarray) -> np.ndarray:
    """As `iqm`."""
    n = values.shape[-1]
    return mean(np.sort(values, axis=-1)[..., n // 4 : n - n // 4])


def shortfall(values: np.ndarray, target: float) -> np.ndarray:
    """As `optimality_gap`."""
    return np.maximum(target - values, 0).mean(-1)


# -- Bootstrap ---------------------------------------------------------------------------------------------------------


def bootstrap(
    strata: Sequence[Sequence[float] | np.ndarray], statistic: Statistic, key: Key, draws: int = 2000, confidence: float = 0.95
) -> Interval | None:
    """The stratified percentile bootstrap: with a = 1 - confidence,

        low, high = quantiles a / 2 and 1 - a / 2 of statistic(resample_d),  d = 1 ... draws

    where a resample draws as many values as there are from each stratum, with replacement. One stratum is the plain bootstrap.

    The statistic is called once, with one array [draws, n] per stratum, and returns an array [draws]. None if every stratum
    has a single value. A single value among larger strata stays as it is: its uncertainty is not in the interval.
    """
    arrays = [checked(values) for values in strata]
    if all(len(values) == 1 for values in arrays):
        return None
    found = np.asarray(statistic(resampled(arrays, key, draws)))
    assert found.shape == (draws,), f"a statistic of the last axis returns {(draws,)} numbers here, not {found.shape}"
    low, high = percentiles(found, confidence)
    return Interval(float(low), float(high))


def estimate(
    strata: Sequence[Sequence[float] | np.ndarray], statistic: Statistic, key: Key, draws: int = 2000, confidence: float = 0.95
) -> Estimate:
    """The statistic of the values as they are, and its bootstrap interval."""
    arrays = [checked(values) for values in strata]
    return Estimate(float(statistic(arrays)), bootstrap(arrays, statistic, key, draws, confidence))


def resampled(strata: Sequence[np.ndarray], key: Key, draws: int) -> list[np.ndarray]:
    """[draws, n] of each stratum's n values. Each stratum has its own numbers: one more at the end changes no other."""
    return [values[key(i).integers(len(values), (draws, len(values)))] for i, values in enumerate(strata)]


def percentiles(found: np.ndarray, confidence: float) -> np.ndarray:
    """[2, ...]: the outer quantiles along the first axis that hold this share between them."""
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is a share between 0 and 1, not {confidence}")
    return np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0)
