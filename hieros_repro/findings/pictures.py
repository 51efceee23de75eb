"""A finding in figures, with the tables that belong to them: learning curves, profile, comparisons, seeds."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from hieros_repro.determinism.keys import Key
from hieros_repro.findings.finding import Finding, Row
from hieros_repro.findings.page import CELL, Block, Drawing, Paragraph, Section, Table, long_table
from hieros_repro.stats import drawings
from hieros_repro.stats.aggregate import summarise
from hieros_repro.stats.curve import Curve, area, band, common_grid, last_mean, mean_band, steps_to
from hieros_repro.stats.drawings import Curves, Spot
from hieros_repro.stats.tasks import performance_profile

THRESHOLDS = 101  # of a performance profile
PAIRS = 24  # comparisons in one figure
ROWS = 40  # groups that have a line each in one figure


def learning(finding: Finding) -> Section:
    """The curves of each task's groups, and one number about each."""
    title = "Learning curves"
    named = {row.name: told for row in finding.rows if (told := cleaned(row)) is not None}
    if not named:
        return Section(title, [Paragraph(f"No run has scheduled evaluations of {finding.metric}: there is no curve to draw.")])
    blocks: list[Block] = []
    for task in dict.fromkeys(row.group.task for row in finding.rows):
        rows = [row for row in finding.rows if row.group.task == task and row.name in named]
        names = [row.name for row in rows]
        shown = [row.name for row in best(rows, drawings.LINES)]
        groups = {
            name: Curves(named[name].whole + named[name].broken, _band(named[name].whole), len(named[name].whole))
            for name in shown
        }
        blocks += (
            [Drawing(drawings.learning(finding.metric, groups, numbers(finding)), _caption(task, groups, names))]
            if groups
            else []
        )
    blocks += long_table(_curve_table(finding, named), "groups", ROWS)
    return Section(title, blocks)


def best(rows: Sequence[Row], most: int) -> list[Row]:
    """So many rows with the highest means, in their order."""
    means = {row.name: -math.inf if row.described is None else row.described.mean for row in rows}
    kept = set(sorted(means, key=means.__getitem__, reverse=True)[:most])
    return [row for row in rows if row.name in kept]


def numbers(finding: Finding) -> dict[str, int]:
    """Group -> what it looks like: those that figures of many show come first, so that no two of them look the same."""
    first = [row.name for row in best(finding.rows, drawings.LINES)]
    return {name: place for place, name in enumerate(dict.fromkeys([*first, *(row.name for row in finding.rows)]))}


class Told(NamedTuple):
    """A group's curves: those that statistics are over, and those of runs that came to no value."""

    whole: list[Curve]
    broken: list[Curve]


def cleaned(row: Row) -> Told | None:
    """Without points that are not finite; of two at one step the later, which is the final evaluation. While nothing has
    finished, statistics are over what there is."""
    found: dict[int, Curve] = {
        seed: sorted({step: value for step, value in curve if math.isfinite(value)}.items())
        for seed, curve in row.curves.items()
    }
    whole = [curve for seed, curve in found.items() if curve and seed in row.values]
    broken = [curve for seed, curve in found.items() if curve and seed not in row.values]
    if not whole and not broken:
        return None
    return Told(whole, broken) if whole else Told(broken, [])


def _band(curves: Sequence[Curve]) -> drawings.Band:
    """On the curves' common grid. Vector environments pass a scheduled step at slightly different ticks, so that evaluations of
    equal number belong together; only where the curves' numbers of points differ are they laid over each other by step."""
    return band(curves) if len({len(curve) for curve in curves}) == 1 else mean_band(curves)


def _caption(task: str, groups: dict[str, Curves], names: Sequence[str]) -> str:
    """What is to be seen, and what is left out."""
    text = f"{task}: " if task else ""
    if len(groups) > drawings.CROWD:
        text += "means over seeds, on the steps all of them cover"
    else:
        text += "seeds thin, means bold, 95 % t-intervals over seeds shaded, on the steps all of them cover"
    if any(len(curves.seeds) > curves.n for curves in groups.values()):
        text += "; runs that came to no value are not in the means"
    most = max(3, drawings.THIN // len(groups))
    largest = max(len(curves.seeds) for curves in groups.values())
    if largest > most and len(groups) <= drawings.CROWD:
        text += f"; of {largest} seeds' curves {most} are drawn, and all are in the means"
    if len(names) > len(groups):
        text += f"; the {len(groups)} of {len(names)} groups with the highest means are drawn"
    return text + "."


def _curve_table(finding: Finding, named: dict[str, Told]) -> Table:
    """Area, last stretch and steps to thresholds: means over seeds, and how many seeds got there."""
    thresholds = levels(finding)
    header = ["group", "area", "std of it", "last tenth", *(f"steps to {value:.4g}" for value in thresholds)]
    rows: list[list[CELL]] = []
    for name, (curves, _) in named.items():
        areas = summarise([area(curve) for curve in curves])
        last = summarise([last_mean(curve) for curve in curves])
        rows.append([name, areas.mean, areas.std, last.mean, *(_reached(curves, value) for value in thresholds)])
    covered = common_grid([curve for told in named.values() for curve in told.whole])
    over = f" All curves cover steps {covered[0]:,.0f} to {covered[-1]:,.0f}." if covered else ""
    text = "Area: a curve's mean over its steps. Steps to a score: median over the seeds that reached it, and how many did."
    return Table(header, rows, text + over)


def levels(finding: Finding) -> list[float]:
    """The run's own target if it has one; half of the best group's mean and 90 % of it."""
    targets = {float(run.facts["run.target_score"]) for row in finding.rows for run in row.group.records
               if run.facts.get("run.target_score") is not None}  # fmt: skip
    best = max((row.described.mean for row in finding.rows if row.described is not None), default=0.0)
    return sorted(targets | ({0.5 * best, 0.9 * best} if best > 0 else set()))


def _reached(curves: Sequence[Curve], threshold: float) -> str:
    steps = [found for curve in curves if (found := steps_to(curve, threshold)) is not None]
    return f"{summarise(steps).median:,.0f} ({len(steps)} of {len(curves)})" if steps else f"- (0 of {len(curves)})"


# -- Final values ------------------------------------------------------------------------------------------------------


def profile(finding: Finding, key: Key) -> Section:
    """For each task the share of its runs above a score."""
    blocks: list[Block] = []
    for number, task in enumerate(dict.fromkeys(row.group.task for row in finding.rows)):
        rows = [row for row in finding.rows if row.group.task == task and row.values]
        values = [value for row in rows for value in row.values.values()]
        low, high = min(values, default=0.0), max(values, default=0.0)
        if low == high:
            continue
        spare = 0.03 * (high - low)
        thresholds = [low - spare + (high - low + 2 * spare) * i / (THRESHOLDS - 1) for i in range(THRESHOLDS)]
        found = {
            row.name: performance_profile({task: list(row.values.values())}, thresholds, key(number, place))
            for place, row in enumerate(best(rows, drawings.LINES))
        }
        text = (f"{task}: " if task else "") + "a curve further right is better"
        text += "; 95 % bootstrap intervals over seeds shaded" if len(found) <= drawings.CROWD else ""
        text += _left_out(len(rows), drawings.LINES)
        blocks.append(Drawing(drawings.profiles(finding.metric, found, numbers(finding)), f"{text}."))
    return Section("Performance profile", blocks or [Paragraph("All runs have the same value, or there is none: no profile.")])


def seeds(finding: Finding) -> Section:
    """Every seed's final value beside its group's mean."""
    rows = [row for row in finding.rows if row.values]
    if not rows:
        return Section("Seeds", [Paragraph("No run has a value.")])
    shown = best(rows, ROWS)
    finals = {row.name: {str(seed): value for seed, value in row.values.items()} for row in shown}
    middles = {row.name: _spot(row) for row in shown}
    caption = "Every seed a dot; the mean a square in its 95 % t-interval" + _left_out(len(rows), ROWS) + "."
    return Section("Seeds", [Drawing(drawings.strip(finding.metric, finals, middles, numbers(finding)), caption)])


def comparisons(finding: Finding) -> Drawing | None:
    """The probability of improvement of each pair, the surest first."""
    pairs = sorted(finding.pairs, key=lambda pair: math.inf if pair.adjusted is None else pair.adjusted)
    if not pairs:
        return None
    spots = {}
    for pair in pairs[:PAIRS]:
        found = pair.contrast.improvement
        spots[f"{pair.first} over {pair.second}"] = Spot(found.value, *(found.interval or (None, None)))
    text = "Probability that a seed of the first group scores more than one of the second; 95 % bootstrap intervals"
    if len(pairs) > PAIRS:
        text += f"; the {PAIRS} of {len(pairs)} pairs with the smallest p"
    return Drawing(drawings.forest("probability of improvement", spots, 0.5, (-0.03, 1.03)), text + ".")


def _spot(row: Row) -> Spot:
    found = row.described
    assert found is not None
    return Spot(found.mean, found.low, found.high)


def _left_out(count: int, most: int) -> str:
    return f"; the {most} of {count} groups with the highest means are drawn" if count > most else ""
