"""Which way is better: of a score more, of the step at which something was reached less."""

import math
from collections.abc import Sequence

from hieros_repro.findings.finding import Finding, Pair, Row, higher_is_better
from hieros_repro.stats.aggregate import Estimate, Interval


def ordered(rows: Sequence[Row], metric: str) -> list[Row]:
    """The best mean first; rows without a value last."""
    sign = 1 if higher_is_better(metric) else -1
    return sorted(rows, key=lambda row: -math.inf if row.described is None else sign * row.described.mean, reverse=True)


def extreme(metric: str) -> str:
    """What the best mean is."""
    return "highest" if higher_is_better(metric) else "lowest"


def improvement(finding: Finding, pair: Pair) -> Estimate:
    """Probability that the pair's first group is better; where less is better, 1 - P(more), ties for half."""
    found = pair.contrast.improvement
    if higher_is_better(finding.metric):
        return found
    turned = None if found.interval is None else Interval(1 - found.interval[1], 1 - found.interval[0])
    return Estimate(1 - found.value, turned)
