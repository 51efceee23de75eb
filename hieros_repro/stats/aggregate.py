"""What a group of seeds says. Intervals are over seeds, never over episodes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from scipy import stats


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
    mean = math.fsum(values) / n
    median = (ordered[(n - 1) // 2] + ordered[n // 2]) / 2
    if n == 1:
        return Summary(1, mean, None, None, None, mean, mean, median)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * std / math.sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half, ordered[0], ordered[-1], median)
