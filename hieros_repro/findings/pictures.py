"""A finding in figures, with the tables that belong to them: learning curves, profile, comparisons, seeds."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from hieros_repro.determinism.keys import Key
from hieros_repro.findings.better import extreme, improvement, ordered
from hieros_repro.findings.finding import FEW, Finding, Row, higher_is_better
from hieros_repro.findings.page import CELL, Block, Drawing, Paragraph, Section, Table, long_table
from hieros_repro.stats import drawings
from hieros_repro.stats.aggregate import summarise
from hieros_repro.stats.curve import Curve, area, band, common_grid, iqm_band, last_mean, mean_band, steps_to
from hieros_repro.stats.drawings import Curves, Spot
from hieros_repro.stats.figure import sweep_figure
from hieros_repro.stats.label import shortened
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
        shown = [row.name for row in best(rows, drawings.LINES, finding.metric)]
        groups = {
            name: Curves(named[name].whole + named[name].broken, _band(named[name].whole), len(named[name].whole))
            for name in shown
        }
        blocks += (
            [Drawing(drawings.learning(finding.metric, groups, numbers(finding)), _caption(finding, task, groups, names))]
            if groups
            else []
        )
        blocks += _robust(finding, task, {name: named[name] for name in shown})
    blocks += long_table(_curve_table(finding, named), "groups", ROWS)
    return Section(title, blocks)


def picture(path: Path, metric: str, rows: Sequence[Row], shared: bool = False) -> None:
    """The curves and final values of groups as a picture for use elsewhere; without any there is none. `shared`: several
    processes may write it at once."""
    curves = {row.name: {str(seed): curve for seed, curve in row.curves.items()} for row in rows if row.curves}
    finals = {row.name: {str(seed): value for seed, value in row.values.items()} for row in rows if row.values}
    if finals or curves:
        sweep_figure(path, metric, curves, finals, shared)


def best(rows: Sequence[Row], most: int, metric: str) -> list[Row]:
    """So many rows with the best means, in their order."""
    kept = {row.name for row in ordered(rows, metric)[:most]}
    return [row for row in rows if row.name in kept]


def numbers(finding: Finding) -> dict[str, int]:
    """Group -> what it looks like: those that figures of many show come first, so that no two of them look the same."""
    first = [row.name for row in best(finding.rows, drawings.LINES, finding.metric)]
    return {name: place for place, name in enumerate(dict.fromkeys([*first, *(row.name for row in finding.rows)]))}


class Told(NamedTuple):
    """A group's curves: those that statistics are over, and those of runs that came to no value."""

    whole: list[Curve]
    broken: list[Curve]


def cleaned(row: Row) -> Told | None:
    """Without points that are not finite; of two at one step the later, which is the final evaluation. While nothing has
    finished, statistics are over what there is."""
    found: dict[int, Curve] = {
        seed: sorted({step: value for step, value in curve if value is not None and math.isfinite(value)}.items())
        for seed, curve in row.curves.items()
    }
    whole = [curve for seed, curve in found.items() if curve and seed in row.values]
    broken = [curve for seed, curve in found.items() if curve and seed not in row.values]
    if not whole and not broken:
        return None
    return Told(whole, broken) if whole else Told(broken, [])


def _robust(finding: Finding, task: str, shown: Mapping[str, Told]) -> list[Block]:
    """Interquartile means, which a seed that fell off does not move; of groups of enough seeds to leave some out."""
    key = Key(0)("stats", "curves", task)
    many = {name: told.whole for name, told in shown.items() if len(told.whole) >= FEW}
    bands = {name: iqm_band(curves, key(place)) for place, (name, curves) in enumerate(many.items())}
    groups = {name: Curves([], band, len(many[name])) for name, band in bands.items() if len(band.steps) > 1}
    if not groups:
        return []
    text = f"{task}: " if task else ""
    text += f"interquartile means of groups of {FEW} seeds or more: at each step without the lowest and highest quarter of them"
    text += "; 95 % bootstrap intervals over seeds shaded" if len(groups) <= drawings.CROWD else ""
    return [Drawing(drawings.learning(f"{finding.metric} (IQM)", groups, numbers(finding)), f"{text}.")]


def _band(curves: Sequence[Curve]) -> drawings.Band:
    """On the curves' common grid. Vector environments pass a scheduled step at slightly different ticks, so that evaluations of
    equal number belong together; only where the curves' numbers of points differ are they laid over each other by step."""
    return band(curves) if len({len(curve) for curve in curves}) == 1 else mean_band(curves)


def _caption(finding: Finding, task: str, groups: dict[str, Curves], names: Sequence[str]) -> str:
    """What is to be seen, and what is left out."""
    text = f"{task}: " if task else ""
    if drawings.single(groups):
        text += "a single evaluation, so no curve: seeds small, means large, 95 % t-intervals over seeds as bars; groups are "
        text += "set beside each other, whatever their exact step"
    elif all(curves.n <= 1 for curves in groups.values()):
        text += "a single seed each, so that there is no interval"
    elif len(groups) > drawings.CROWD:
        text += "means over seeds, on the steps all of them cover"
    else:
        text += "seeds thin, means bold, 95 % t-intervals over seeds shaded, on the steps all of them cover"
    if any(len(curves.seeds) > curves.n for curves in groups.values()):
        text += "; runs that came to no value are not in the means"
    most = max(3, drawings.THIN // len(groups))
    largest = max(len(curves.seeds) for curves in groups.values())
    if largest > most and len(groups) <= drawings.CROWD:
        text += f"; of {largest} seeds' curves {most} are drawn, and all are in the means"
    text += "; intervals beyond the seeds' values are cut at the edge" if drawings.cut(groups) else ""
    return text + _left_out(finding, len(names), drawings.LINES) + "."


def _curve_table(finding: Finding, named: dict[str, Told]) -> Table:
    """Area, last stretch and steps to thresholds: means over seeds, and how many seeds got there."""
    thresholds = levels(finding)
    header = ["group", "area", "std of it", "last tenth", *(f"steps to {value:.4g}" for value in thresholds)]
    tasks = {row.name: row.group.task for row in finding.rows}
    spans = {task: _span([curve for name, told in named.items() if tasks[name] == task for curve in told.whole])
             for task in dict.fromkeys(tasks[name] for name in named)}  # fmt: skip
    rows: list[list[CELL]] = []
    for name, (curves, _) in named.items():
        span = spans[tasks[name]]
        areas = None if span is None else summarise([area(curve, span) for curve in curves])
        last = summarise([last_mean(curve) for curve in curves])
        reached = [_reached(curves, value, higher_is_better(finding.metric)) for value in thresholds]
        rows.append([name, areas and areas.mean, areas and areas.std, last.mean, *reached])
    text = (
        "Last tenth: mean over the last tenth of the curve's own steps. Steps to a score: median over the seeds that reached "
    )
    return Table(header, rows, f"{_covered(spans)} {text}it, and how many did. {_chosen(finding, thresholds)}".strip())


def _span(curves: Sequence[Curve]) -> tuple[float, float] | None:
    """From and to which step all curves go; None if they have no step in common."""
    grid = common_grid(curves)
    return (grid[0], grid[-1]) if grid else None


def _covered(spans: Mapping[str, tuple[float, float] | None]) -> str:
    """Which steps an area is over."""
    told = [
        f"{task or 'the runs'}: {'no steps in common' if span is None else f'{span[0]:,.0f} to {span[1]:,.0f}'}"
        for task, span in spans.items()
    ]
    return f"Area: a curve's mean over the steps that all curves of its task cover ({'; '.join(told)})."


def targets(finding: Finding) -> set[float]:
    """The runs' own, which are scores: of other metrics they say nothing."""
    if finding.metric != "eval/score":
        return set()
    found = [run.facts.get("run.target_score") for row in finding.rows for run in row.group.records]
    return {float(target) for target in found if target is not None}


def levels(finding: Finding) -> list[float]:
    """The run's own target if it has one; half of the best group's mean and 90 % of it."""
    best = max((row.described.mean for row in finding.rows if row.described is not None), default=0.0)
    return sorted(targets(finding) | ({0.5 * best, 0.9 * best} if best > 0 and higher_is_better(finding.metric) else set()))


def _chosen(finding: Finding, thresholds: Sequence[float]) -> str:
    """How the thresholds came about."""
    own = sorted(targets(finding))
    parts = [f"{', '.join(f'{value:.4g}' for value in own)} (run.target_score)"] if own else []
    parts += [f"half and 90 % of the highest group mean of {finding.metric}"] if len(thresholds) > len(own) else []
    return f"The scores are {' and '.join(parts)}." if parts else ""


def _reached(curves: Sequence[Curve], threshold: float, higher: bool) -> str:
    steps = [found for curve in curves if (found := steps_to(curve, threshold, higher)) is not None]
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
            for place, row in enumerate(best(rows, drawings.LINES, finding.metric))
        }
        text = (
            f"{task}: " if task else ""
        ) + f"a curve further {'right' if higher_is_better(finding.metric) else 'left'} is better"
        text += "; 95 % bootstrap intervals over seeds shaded" if len(found) <= drawings.CROWD else ""
        text += _left_out(finding, len(rows), drawings.LINES)
        blocks.append(Drawing(drawings.profiles(finding.metric, found, numbers(finding)), f"{text}."))
    return Section("Performance profile", blocks or [Paragraph("All runs have the same value, or there is none: no profile.")])


def seeds(finding: Finding) -> Section:
    """Every seed's final value beside its group's mean."""
    rows = [row for row in finding.rows if row.values]
    if not rows:
        return Section("Seeds", [Paragraph("No run has a value.")])
    shown = best(rows, ROWS, finding.metric)
    finals = {row.name: {str(seed): value for seed, value in row.values.items()} for row in shown}
    middles = {row.name: _spot(row) for row in shown}
    bars = " in its 95 % t-interval" if any(len(row.values) > 1 for row in shown) else "; of a single seed there is no interval"
    caption = "Every seed a dot; the mean a square" + bars + _left_out(finding, len(rows), ROWS) + "."
    return Section("Seeds", [Drawing(drawings.strip(finding.metric, finals, middles, numbers(finding)), caption)])


def comparisons(finding: Finding) -> Drawing | None:
    """The probability of improvement of each pair, the surest first."""
    pairs = sorted(finding.pairs, key=lambda pair: math.inf if pair.adjusted is None else pair.adjusted)
    if not pairs:
        return None
    spots, names = {}, shortened([row.name for row in finding.rows])
    for pair in pairs[:PAIRS]:
        found = improvement(finding, pair)
        spots[f"{names[pair.first]} over {names[pair.second]}"] = Spot(found.value, *(found.interval or (None, None)))
    text = "Probability that a seed of the first group is better than one of the second; 95 % bootstrap intervals"
    if len(pairs) > PAIRS:
        text += f"; the {PAIRS} of {len(pairs)} pairs with the smallest p"
    return Drawing(drawings.forest("probability of improvement", spots, 0.5, (-0.03, 1.03)), text + ".")


def _spot(row: Row) -> Spot:
    found = row.described
    assert found is not None
    return Spot(found.mean, found.low, found.high)


def _left_out(finding: Finding, count: int, most: int) -> str:
    return f"; the {most} of {count} groups with the {extreme(finding.metric)} means are drawn" if count > most else ""
