"""Two groups of runs against each other, in plain words: compare RUNS_A -- RUNS_B."""

from collections.abc import Mapping, Sequence

from hieros_repro.determinism.keys import Key
from hieros_repro.determinism.numerics import differences
from hieros_repro.findings.declared import MARGIN, TOLERANCE, agreed, clash, declarations, steadiness
from hieros_repro.findings.finding import ALPHA, DRAWS, Row, higher_is_better, known, row
from hieros_repro.findings.group import Group, configuration
from hieros_repro.findings.record import Record
from hieros_repro.records import UserError
from hieros_repro.stats.aggregate import Interval
from hieros_repro.stats.contrast import Contrast, contrast, verdict
from hieros_repro.stats.table import markdown, number

LISTED = 12  # differences of the configurations that are printed


def compare(a: Sequence[Record], b: Sequence[Record], metric: str, margin: float | None) -> tuple[bool, str]:
    """Whether nothing tells the groups apart - with a margin: whether they are equivalent within it - and an account of it.

    `margin`: in place of what the runs declare. A group is what was named, whatever its configuration; that it is not one
    experiment is said.
    """
    known([*a, *b], metric)
    key, said = Key(0)(DRAWS), declarations([*a, *b])
    rows = [row(Group(name, list(runs)), metric, key("side", name), said) for name, runs in (("A", a), ("B", b))]
    named = "--margin" if margin is not None else "sweep.margin"
    margin = _declared(rows) if margin is None else margin
    for side in rows:
        if not side.values:  # said of a side that holds nothing to compare
            reasons = "; ".join(f"seed {seed} {why}" for seed, why in side.absent.items())
            raise UserError(f"side {side.name}: no run has a value of {metric} ({reasons or 'no seed is known'})")
    sides = [list(side.values.values()) for side in rows]
    found = contrast(sides[0], sides[1], key("sides"), margin)
    lines = [
        *_configurations(rows),
        _table(rows),
        *_steadiness(rows),
        *_tests(found),
        *_same_seeds(rows),
        "",
        f"verdict: {verdict(found, ('A', 'B'), higher_is_better(metric))}",
    ]
    if margin is None:
        return found.p is None or found.p >= ALPHA, "\n".join(lines)
    same = found.equivalence is not None and found.equivalence < ALPHA
    shown = [] if same else [f"equivalence within a margin of {margin:g} ({named}) was not shown: exit code 1"]
    return same, "\n".join([*lines, *shown])


def _declared(rows: Sequence[Row]) -> float | None:
    """The margin that the runs declare of this metric; refuses sides that contradict each other."""
    found = [margin for side in rows for margin in side.margins]
    if told := clash(MARGIN, found):
        sides = "; ".join(f"{side.name} says {' and '.join(f'{one:g}' for one in side.margins) or 'nothing'}" for side in rows)
        raise UserError(f"{told} in these runs ({sides}): name the one to test with --margin")
    return agreed(found)


def _steadiness(rows: Sequence[Row]) -> list[str]:
    """Each side's coefficient of variation against what its runs tolerate."""
    told = []
    for side in rows:
        if (several := clash(TOLERANCE, side.tolerances)) or side.tolerance is not None:
            words = f"{several} in its runs: held against none" if several else steadiness(side.cv, side.tolerance)
            told.append(f"spread of {side.name} over its seeds             {words}{'' if several else ' (sweep.cv_tolerance)'}")
    return told


def _table(rows: Sequence[Row]) -> str:
    header = ("side", "n", "mean", "std", "95 % t-interval", "median", "IQM", "seeds")
    cells = []
    for side in rows:
        found = side.described
        assert found is not None
        interval = "-" if found.low is None else f"[{number(found.low)}, {number(found.high)}]"
        seeds = " ".join(map(str, side.values))
        cells.append(
            (
                side.name,
                found.n,
                number(found.mean),
                number(found.std),
                interval,
                number(found.median),
                number(found.iqm),
                seeds,
            )
        )
    absent = [f"left out of {side.name}: seed {seed}, {why}" for side in rows for seed, why in side.absent.items()]
    return "\n".join([markdown(header, cells).rstrip("\n"), *absent])


def _tests(found: Contrast) -> list[str]:
    """One line for each number that is defined for so few values."""
    test = found.welch
    lines = [f"difference of the means, A - B         {number(found.difference)}{_interval(test.interval if test else None)}"]
    lines.append(
        f"probability that A is better           {number(found.improvement.value)}{_interval(found.improvement.interval)}"
    )
    named: Mapping[str, float | None] = {
        "Welch's t-test": test and test.p,
        f"permutation test ({'exact' if found.permutation.exact else 'drawn'})": found.permutation.p,
        "Mann-Whitney": found.mann_whitney.p,
        "equal spreads (Brown-Forsythe)": found.spread and found.spread.p,
        "equivalence within the margin (TOST)": found.equivalence,
    }
    lines += [f"{name:<38} p = {p:.4f}" for name, p in named.items() if p is not None]
    if found.hedges_g is not None:
        lines.append(f"{'effect size (Hedges g)':<38} {found.hedges_g:.2f}")
    return lines


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f"   95 % interval [{number(interval.low)}, {number(interval.high)}]"


def _configurations(rows: Sequence[Row]) -> list[str]:
    """What is different on purpose, and what should not be."""
    firsts = [side.group.records[0] for side in rows]
    found = differences(configuration(firsts[0]), configuration(firsts[1]))
    lines = [f"configuration differs: {path} = {old!r} in A, {new!r} in B" for path, (old, new) in list(found.items())[:LISTED]]
    if len(found) > LISTED:
        lines.append(f"and {len(found) - LISTED} keys more")
    for side in rows:
        if len({run.group for run in side.group.records if run.group}) > 1:
            lines.append(f"side {side.name} holds runs of different configurations: it is not one experiment")
    for name, what in (("sources", "code"), ("numerics", "numerics")):
        if len({run.facts.get(name) for side in rows for run in side.group.records if run.facts.get(name)}) > 1:
            lines.append(f"the runs were made with different {what}")
    return lines


def _same_seeds(rows: Sequence[Row]) -> list[str]:
    """Seeds on both sides: whether their runs are the same bits."""
    digests = [{seed: run.facts.get("digest") for seed, run in side.chosen.items()} for side in rows]
    common = [seed for seed in digests[0] if digests[1].get(seed) is not None and digests[0][seed] is not None]
    if not common:
        return []
    equal = [seed for seed in common if digests[0][seed] == digests[1][seed]]
    return [f"{len(equal)} of {len(common)} seeds on both sides came to the same parameters, bit for bit"]
