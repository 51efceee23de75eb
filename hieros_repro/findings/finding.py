"""What groups of runs say together: numbers, contrasts, what is missing, and what a reader must know before believing them."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from hieros_repro.check import nearest
from hieros_repro.determinism.keys import Key
from hieros_repro.findings.declared import MARGIN, TOLERANCE, Declarations, agreed, clash, declarations, steadiness, values
from hieros_repro.findings.group import Group, apart, groups
from hieros_repro.findings.record import Record
from hieros_repro.records import UserError
from hieros_repro.stats.aggregate import Description, Outcome, describe, steady, variation
from hieros_repro.stats.contrast import Contrast, brown_forsythe, contrast, holm
from hieros_repro.stats.curve import Curve

ALPHA = 0.05
FEW = 5  # seeds below which a reader is warned
MANY = 20  # groups above which not every pair is compared
DRAWS = "stats"  # the stream of everything that is resampled


class Row(NamedTuple):
    """One group in one metric. Seeds without a value are named with the reason, never dropped."""

    group: Group
    chosen: dict[int, Record]  # seed -> the run that counts: the first that finished
    values: dict[int, float]
    absent: dict[int, str]
    described: Description | None
    curves: dict[int, Curve]
    repeated: dict[int, bool]  # seed -> whether its several runs came to the same parameters
    episodes: Outcome | None  # Brown and Forsythe's, over the final evaluations' episodes: do the seeds' scores spread alike?
    margins: tuple[float, ...] = ()  # declared of this metric, each once: several contradict each other
    tolerances: tuple[float, ...] = ()

    @property
    def name(self) -> str:
        return self.group.name

    @property
    def tolerance(self) -> float | None:
        """Of the coefficient of variation: the one that was declared."""
        return agreed(self.tolerances)

    @property
    def cv(self) -> float | None:
        return variation(list(self.values.values())) if self.values else None

    @property
    def steady(self) -> bool | None:
        """Whether the seeds vary within the tolerance; None where that cannot be told."""
        return steady(list(self.values.values()), self.tolerance) if self.values and self.tolerance is not None else None


class Pair(NamedTuple):
    """Two groups and what sets them apart; `adjusted` is Welch's p after Holm's correction over all pairs."""

    first: str
    second: str
    contrast: Contrast
    adjusted: float | None


class Finding(NamedTuple):
    """All that is computed from a set of runs for one metric."""

    metric: str
    rows: list[Row]
    pairs: list[Pair]
    differences: dict[str, list[object]]  # key of the configuration -> its value in each group
    warnings: list[str]
    margin: float | None = None  # that was given for all pairs; without one, each pair's is what its runs declare


def find(records: Sequence[Record], metric: str, margin: float | None = None) -> Finding:
    """Groups the runs and computes everything, resampling from keys that depend on nothing but the groups' order."""
    known(records, metric)
    found, said = groups(records), declarations(records)
    key = Key(0)(DRAWS)
    rows = [row(group, metric, key("group", number), said) for number, group in enumerate(found)]
    warnings = [*_warnings(rows, metric), *([] if margin is not None else margins(rows))]
    return Finding(metric, rows, _pairs(rows, metric, key, margin), apart(found), warnings, margin)


def higher_is_better(metric: str) -> bool:
    """Of scores more is better; of the step at which something was reached, less."""
    return not metric.endswith("_step")


def known(records: Sequence[Record], metric: str) -> None:
    """Refuses a metric that no finished run has, with the nearest that there is."""
    finished = [run for run in records if run.status == "finished"]
    if not metric.startswith("eval/") and metric != "convergence_step":
        near = nearest(metric, sorted({"convergence_step", "eval/score", *(name for run in finished for name in run.facts)}))
        raise UserError(f"{metric!r} is no result of a run; there are eval/..., such as eval/score, and convergence_step{near}")
    if finished and not any(metric in run.facts for run in finished):
        results = sorted({name for run in finished for name in run.facts if name.startswith("eval/")})
        raise UserError(f"no run has a metric {metric!r}{nearest(metric, results)}")


def row(group: Group, metric: str, key: Key, said: Declarations) -> Row:
    """A group's numbers, described with intervals."""
    found = numbers(group, metric, said)
    scores = [run.scores for seed, run in found.chosen.items() if seed in found.values and len(run.scores) > 1]
    episodes = brown_forsythe(*scores) if all(map(math.isfinite, itertools.chain(*scores))) else None
    described = describe(list(found.values.values()), key) if found.values else None
    return found._replace(described=described, episodes=episodes)


def numbers(group: Group, metric: str, said: Declarations | None = None) -> Row:
    """A group's values and curves, not described yet. What is not finite is in neither."""
    chosen: dict[int, Record] = {}
    finals: dict[int, float] = {}
    absent: dict[int, str] = {}
    curves: dict[int, Curve] = {}
    repeated: dict[int, bool] = {}
    for seed, runs in group.seeds().items():
        finished = [run for run in runs if run.status == "finished"]
        run = chosen[seed] = (finished or runs)[0]
        value = run.value(metric)
        if value is not None and math.isfinite(value):
            finals[seed] = float(value)
        else:
            absent[seed] = _reason(run, metric, value)
        if curve := [point for point in run.curve(metric) if point[1] is not None and math.isfinite(point[1])]:
            curves[seed] = curve
        if len(made := _made(finished)) > 1:
            repeated[seed] = len({other.facts["digest"] for other in made}) == 1
    declared = [values(group.records, name, metric, said or {}) for name in (MARGIN, TOLERANCE)]
    return Row(group, chosen, finals, absent, None, curves, repeated, None, *declared)


def _made(finished: Sequence[Record]) -> list[Record]:
    """Runs of one seed that were really made more than once: neither copies of a folder, nor branches, nor without digests."""
    starts = {run.facts.get("started"): run for run in finished if run.facts.get("digest") and not run.facts.get("parent")}
    return list(starts.values())


def _reason(run: Record, metric: str, value: float | None) -> str:
    if value is not None:
        return f"{metric} is {value}"
    if run.status == "finished":
        return f"it has no {metric}"
    return run.status + (f": {run.error}" if run.error else "")


def _pairs(rows: Sequence[Row], metric: str, key: Key, margin: float | None) -> list[Pair]:
    """Pairs of groups in the same task: all of them; of many groups the best against each other."""
    valued, sign = [row for row in rows if row.values], 1 if higher_is_better(metric) else -1
    sides = [(a, b) for a, b in itertools.combinations(valued, 2) if a.group.task == b.group.task]
    count = len(sides)
    if len(valued) > MANY:
        best: dict[str, Row] = {}
        for one in valued:
            best[one.group.task] = max(best.get(one.group.task, one), one, key=lambda side: sign * _mean(side))
        sides = [(best[other.group.task], other) for other in valued if other is not best[other.group.task]]
        # Which group is best was seen in the same data, so all pairs count as tested.
    found = [
        contrast(
            list(a.values.values()),
            list(b.values.values()),
            key("pair", number),
            agreed(a.margins + b.margins) if margin is None else margin,
        )
        for number, (a, b) in enumerate(sides)
    ]
    adjusted = holm([one.p for one in found], count if len(found) < count else None)
    return [Pair(a.name, b.name, one, p) for (a, b), one, p in zip(sides, found, adjusted, strict=True)]


def _mean(row: Row) -> float:
    return math.fsum(row.values.values()) / len(row.values)


# -- What a reader must know -------------------------------------------------------------------------------------------


def _warnings(rows: Sequence[Row], metric: str) -> "itertools.chain[str]":
    return itertools.chain.from_iterable(_about(row, metric) for row in rows)


def margins(rows: Sequence[Row]) -> list[str]:
    """That groups of one task contradict each other, so that there is no margin to test their equivalence within."""
    texts = []
    for task in dict.fromkeys(row.group.task for row in rows):
        of_it = [row for row in rows if row.group.task == task]
        if told := clash(MARGIN, itertools.chain.from_iterable(row.margins for row in of_it)):
            where = f"{task}: " if task else ""
            texts.append(f"{where}{told} in its runs: no equivalence is tested where they disagree; --margin names one for all")
    return texts


def _about(row: Row, metric: str) -> list[str]:
    texts = []
    if row.absent:
        listed = ", ".join(f"seed {seed} ({reason})" for seed, reason in row.absent.items())
        texts.append(f"{row.name}: {len(row.absent)} of {len(row.absent) + len(row.values)} seeds have no value: {listed}")
    if unbegun := [run for run in row.group.records if run.seed is None]:
        texts.append(f"{row.name}: {len(unbegun)} run(s) without a seed yet have no value: {unbegun[0].status}")
    n = len(row.values)
    if 0 < n < FEW:
        width = {2: "12.7", 3: "4.30", 4: "3.18"}
        says = f"the 95 % t-interval is {width[n]} standard errors on each side" if n > 1 else "there is no interval"
        texts.append(f"{row.name}: {n} seed{'s' if n > 1 else ''} only; {says}")
    texts += _spread(row)
    for name, what in (("sources", "code"), ("numerics", "numerics")):
        if len(_kinds(row, name)) > 1:
            texts.append(f"{row.name}: its runs were made with different {what}, so they are not one experiment")
    if broken := [seed for seed, equal in row.repeated.items() if not equal]:
        texts.append(f"{row.name}: repeated runs of seed {', '.join(map(str, broken))} did not come to the same parameters")
    if any(not run.facts.get("bit_comparable", True) for run in row.group.records):
        texts.append(f"{row.name}: a run was resumed under other numerics and is not bit-comparable")
    return texts


def _spread(row: Row) -> list[str]:
    texts = []
    if row.described is not None and row.described.normality is not None and row.described.normality < 0.05:
        texts.append(
            f"{row.name}: the seeds do not look normal (Shapiro-Wilk p = {row.described.normality:.3f}): read the "
            "bootstrap interval beside the t-interval"
        )
    return [*texts, *bounds(row)]


def bounds(row: Row) -> list[str]:
    """That its seeds vary more than its runs tolerate, or that these contradict each other."""
    if told := clash(TOLERANCE, row.tolerances):
        return [f"{row.name}: {told} in its runs: its spread is held against none of them"]
    if row.steady is False:
        return [f"{row.name}: its seeds vary more than sweep.cv_tolerance: {steadiness(row.cv, row.tolerance)}"]
    return []


def _kinds(row: Row, name: str) -> set[object]:
    return {run.facts.get(name) for run in row.group.records if run.facts.get(name) is not None}
