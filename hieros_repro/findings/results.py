"""The results of a finding in sections: the answer in plain words, what differs, numbers, contrasts, tasks."""

import math
from collections.abc import Sequence

from hieros_repro.findings.better import extreme, improvement, ordered
from hieros_repro.findings.declared import steadiness
from hieros_repro.findings.expected import HEADER
from hieros_repro.findings.finding import ALPHA, Finding, Pair, Row, higher_is_better
from hieros_repro.findings.held import Held
from hieros_repro.findings.page import (
    CELL,
    Block,
    Chance,
    Folded,
    Listing,
    Paragraph,
    Section,
    Table,
    interval,
    long_table,
    shown,
)  # fmt: skip
from hieros_repro.stats.contrast import verdict
from hieros_repro.stats.label import shortened
from hieros_repro.stats.power import detectable
from hieros_repro.stats.table import number, p_value

LISTED = 12  # rows of a long table that are not folded
FEW = 4  # groups that have a column each
GROUPS = 40  # in a table that are not folded
PAIRS = 60  # that are told


# -- In plain words ----------------------------------------------------------------------------------------------------


def answer(finding: Finding) -> Section:
    """A sentence for each task: the best group, and from which of the others its seeds tell it apart."""
    tasks: dict[str, list[Row]] = {}
    for row in finding.rows:
        tasks.setdefault(row.group.task, []).append(row)
    blocks: list[Block] = []
    for task, rows in tasks.items():
        text = _task_answer(finding, [row for row in rows if row.described is not None])
        where = f"{task}: " if len(tasks) > 1 and task else ""
        blocks.append(Paragraph(where + (text or f"no run has a finite {finding.metric} yet."), "answer"))
    if not blocks:
        blocks.append(Paragraph("There is no run to speak of.", "answer"))
    if finding.warnings:
        what = "warning" if len(finding.warnings) == 1 else f"{len(finding.warnings)} warnings"
        blocks.append(Paragraph(f"Read the {what} under the result table before believing this.", "warning"))
    return Section("Answer", blocks)


def _task_answer(finding: Finding, rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    found = ordered(rows, finding.metric)
    best = found[0]
    if len(rows) == 1:
        return f"{_reached(best, finding.metric)}."
    pairs = {frozenset((pair.first, pair.second)): pair for pair in finding.pairs}
    against = {row.name: pairs.get(frozenset((best.name, row.name))) for row in found[1:]}
    if len(rows) == 2 and (pair := against[found[1].name]) is not None:
        told = "" if pair.contrast.p is not None else "; ".join(_reached(row, finding.metric) for row in found) + ". "
        return told + _sentence(pair, finding.metric)
    below = [name for name, pair in against.items() if pair is not None and pair.adjusted is not None and pair.adjusted < ALPHA]
    unclear = [name for name in against if name not in below]
    parts = [f"{_reached(best, finding.metric)}, the {extreme(finding.metric)} mean of {len(rows)} groups"]
    if below:
        parts.append(f"it is better than {_names(below)} (p below {ALPHA} after Holm's correction)")
    if unclear:
        parts.append(f"these seeds cannot tell it from {_names(unclear)}")
    return "; ".join(parts) + "."


def _sentence(pair: Pair, metric: str) -> str:
    """What one test says, and whether it still says so among as many as there are."""
    text = verdict(pair.contrast, (pair.first, pair.second), higher_is_better(metric))
    p = pair.contrast.p
    if p is not None and pair.adjusted is not None and p < ALPHA <= pair.adjusted:
        text += f" Among so many pairs this may be chance: after Holm's correction p = {p_value(pair.adjusted)}."
    return text


def _reached(row: Row, metric: str) -> str:
    found = row.described
    assert found is not None
    digits = 2 if abs(found.mean) >= 10 else 3
    if found.low is None or found.high is None:
        return f"{row.name} reached {metric} {shown(found.mean, digits)} with a single seed, which says nothing about others"
    interval = f"95 % t-interval {shown(found.low, digits)} to {shown(found.high, digits)}"
    return f"{row.name} reached a mean {metric} of {shown(found.mean, digits)} over {found.n} seeds ({interval})"


def _names(names: Sequence[str]) -> str:
    if len(names) > 5:
        return f"{', '.join(names[:4])} and {len(names) - 4} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


# -- What differs ------------------------------------------------------------------------------------------------------


def differences(finding: Finding) -> Section:
    """Only what is different; with many groups, each value and how many of them have it."""
    if len(finding.rows) < 2:
        return Section("What differs", [Paragraph("There is one configuration; its runs differ in nothing but the seed.")])
    names = [row.name for row in finding.rows]
    if not finding.differences:
        return Section("What differs", [Paragraph("The configurations are equal in every key that is part of the run.")])
    if len(names) <= FEW:
        header: Sequence[str] = ("key", *names)
        rows: list[list[CELL]] = [[key, *map(_value, values)] for key, values in finding.differences.items()]
    else:
        header = ("key", "values (groups)")
        rows = [[key, _counted(values)] for key, values in finding.differences.items()]
    return Section("What differs", long_table(Table(header, rows), "keys of the configuration", LISTED))


def _value(value: object) -> str:
    """As it is written in YAML, and not without end."""
    text = "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _counted(values: Sequence[object]) -> str:
    texts = [_value(value) for value in values]
    known = list(dict.fromkeys(texts))
    listed = ", ".join(f"{text} ({texts.count(text)})" for text in known[:10])
    return listed + (f", and {len(known) - 10} more" if len(known) > 10 else "")


# -- Numbers -----------------------------------------------------------------------------------------------------------


def result_table(finding: Finding) -> Table:
    """Everything about each group in one table, as it is exported."""
    left, right = _main(finding), _more(finding)
    header = [*left.header[:-1], *right.header[1:], "seeds", "absent seeds"]
    absent = ["; ".join(f"{seed}: {reason}" for seed, reason in row.absent.items()) for row in finding.rows]
    rows = [
        [*first[:-1], *second[1:], first[-1], gone] for first, second, gone in zip(left.rows, right.rows, absent, strict=True)
    ]
    return Table(header, rows)


def paper_table(finding: Finding) -> Table:
    """What fits the width of a text: each group's size, mean and spread, interval, and what does not depend on one seed."""
    rows: list[list[CELL]] = []
    short = shortened([row.name for row in finding.rows])
    for row in finding.rows:
        found, name = row.described, short[row.name]
        if found is None:
            rows.append([name, 0, *[None] * 5])
            continue
        digits = 1 if max(abs(found.min), abs(found.max)) >= 100 else 2 if max(abs(found.min), abs(found.max)) >= 1 else 4
        mean = number(found.mean, digits) + ("" if found.std is None else f" ± {number(found.std, digits)}")
        rows.append([name, found.n, mean, _within(found.low, found.high, digits), number(found.iqm, digits),
                     number(found.median, digits), f"{number(found.min, digits)} to {number(found.max, digits)}"])  # fmt: skip
    return Table(("group", "n", "mean ± std", "95 % interval", "IQM", "median", "range"), rows)


def _within(low: float | None, high: float | None, digits: int) -> CELL:
    return None if low is None or high is None else f"[{number(low, digits)}, {number(high, digits)}]"


def _main(finding: Finding) -> Table:
    header = ("group", "n", "mean", "std", "95 % t-interval", "median", "IQM", "95 % of IQM", "seeds")
    rows: list[list[CELL]] = []
    for row in finding.rows:
        found, seeds = row.described, ranges(list(row.values))
        if found is None:
            rows.append([row.name, 0, *[None] * 6, seeds])
            continue
        rows.append([row.name, found.n, found.mean, found.std, _pair(found.low, found.high), found.median, found.iqm,
                     interval(found.iqm_interval), seeds])  # fmt: skip
    return Table(
        header,
        rows,
        f"{finding.metric} at the end of each run; n, mean, sample standard deviation and intervals are over seeds.",
    )


def _more(finding: Finding) -> Table:
    tolerated = any(row.tolerances for row in finding.rows)
    header = ["group", "min", "max", "standard error", "95 % bootstrap", "CV", "Shapiro-Wilk p", "episodes' spread p"]
    header[6:6] = ["tolerance"] if tolerated else []
    rows: list[list[CELL]] = []
    for row in finding.rows:
        found = row.described
        if found is None:
            rows.append([row.name, *[None] * (len(header) - 1)])
            continue
        normality = None if found.normality is None else Chance(found.normality)
        spread = None if row.episodes is None else Chance(row.episodes.p)
        against = [steadiness(row.cv, row.tolerance).partition(", ")[2] or None] if tolerated else []
        rows.append([row.name, found.min, found.max, found.sem, interval(found.bootstrap), found.cv, *against,
                     normality, spread])  # fmt: skip
    return Table(
        header,
        rows,
        f"CV: std / |mean|{', against sweep.cv_tolerance' if tolerated else ''}. Shapiro-Wilk: small if the seeds do not look "
        "normal. Episodes' spread (Brown-Forsythe): small if the final episodes of some seeds vary more than those of others.",
    )


def _pair(low: float | None, high: float | None) -> tuple[float, float] | None:
    return None if low is None or high is None else (low, high)


def ranges(seeds: Sequence[int]) -> str:
    """Seeds as people write them: 1 2 3 stays so, longer rows become 1-100."""
    ordered = sorted(seeds)
    if len(ordered) <= 8:
        return " ".join(map(str, ordered)) or "-"
    runs: list[list[int]] = []
    for seed in ordered:
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    texts = [str(a) if a == b else f"{a}-{b}" for a, b in runs]
    return " ".join(texts if len(texts) <= 12 else [*texts[:6], "...", *texts[-2:]])


def numbers(finding: Finding, held: Sequence[Held]) -> Section:
    """The result tables, who is missing in them, the warnings, and what was expected."""
    blocks = [*long_table(_main(finding), "groups", GROUPS), *long_table(_more(finding), "groups", GROUPS)]
    absent = [f"{row.name}, seed {seed}: {reason}" for row in finding.rows for seed, reason in row.absent.items()]
    if absent:
        blocks.append(Paragraph(f"Not in these numbers ({len(absent)}):"))
        blocks.append(Listing(absent[:LISTED]))
        if len(absent) > LISTED:
            blocks.append(Folded(f"{len(absent) - LISTED} more", [Listing(absent[LISTED:])]))
    if finding.warnings:
        blocks.append(Listing(finding.warnings[:LISTED], "warning"))
        if len(finding.warnings) > LISTED:
            blocks.append(
                Folded(f"{len(finding.warnings) - LISTED} warnings more", [Listing(finding.warnings[LISTED:], "warning")])
            )
    blocks += _expectations(held)
    values = [
        [row.name, ", ".join(f"{seed}: {value:.6g}" for seed, value in row.values.items())]
        for row in finding.rows
        if row.values
    ]
    if values:
        blocks.append(Folded("every seed's value", [Table(("group", f"seed: {finding.metric}"), values)]))
    return Section("Results", blocks)


def _expectations(held: Sequence[Held]) -> list[Block]:
    """A table for each references file: of every group by itself, its expectations and what became of them."""
    blocks: list[Block] = []
    for source in dict.fromkeys(one.source for one in held):
        of_it = [one for one in held if one.source == source]
        rows = [[one.group, *verdict.cells()] for one in of_it for verdict in one.verdicts]
        caption = f"Held against {source}: each group by itself, of a seed that was repeated the first finished run."
        blocks += [Table(("group", *HEADER), rows, caption)] if rows else []
        blocks += [Paragraph(f"{one.group} against {source}: {one.why}.", "note") for one in of_it if one.why]
    return blocks


# -- Between groups ----------------------------------------------------------------------------------------------------


def contrasts(finding: Finding, drawing: Block | None) -> Section:
    """Every pair of groups in one task, and what the seeds can tell about it."""
    title = "Comparisons"
    if not finding.pairs:
        few = "There is one group" if len(finding.rows) == 1 else "There are no two groups with values in the same task"
        return Section(title, [Paragraph(f"{few}: nothing to compare."), *_power(finding)])
    by_size = sorted(finding.pairs, key=lambda pair: math.inf if pair.adjusted is None else pair.adjusted)
    blocks: list[Block] = [] if drawing is None else [drawing]
    if len(by_size) > PAIRS:
        blocks.append(Paragraph(f"The {PAIRS} of {len(by_size):,} pairs with the smallest p are told here.", "note"))
        by_size = by_size[:PAIRS]
    more = "a higher value" if higher_is_better(finding.metric) else "a lower value, which is better,"
    means = ("pair", "difference", "95 % interval", "Welch p", "Holm p", "permutation p", "Hedges g")
    blocks += long_table(Table(means, [_means_cells(pair) for pair in by_size]), "pairs", LISTED)
    others = ("pair", "P(first better)", "95 % of it", "equal spread p", "equivalent p", "seeds needed")
    blocks += long_table(Table(others, [_other_cells(finding, pair) for pair in by_size]), "pairs", LISTED)
    blocks.append(Paragraph(
        "Difference: first minus second. Holm: Welch's p corrected for the number of pairs. P(first better): probability that "
        f"a seed of the first has {more} than one of the second, ties for half. Equivalent p: small if the difference is "
        f"within the margin ({_margin(finding)}). Seeds needed: in each group, to see a difference as large as the one "
        "found in 4 cases of 5.", "note"))  # fmt: skip
    sentences = [_sentence(pair, finding.metric) for pair in by_size]
    blocks.append(Listing(sentences[:6]))
    if len(sentences) > 6:
        blocks.append(Folded(f"{len(sentences) - 6} sentences more", [Listing(sentences[6:])]))
    return Section(title, [*blocks, *_power(finding)])


def _means_cells(pair: Pair) -> list[CELL]:
    found, test = pair.contrast, pair.contrast.welch
    return [
        f"{pair.first} against {pair.second}",
        found.difference,
        None if test is None else interval(test.interval),
        None if test is None else p_value(test.p),
        None if pair.adjusted is None else p_value(pair.adjusted),
        p_value(found.permutation.p),
        found.hedges_g,
    ]


def _other_cells(finding: Finding, pair: Pair) -> list[CELL]:
    found, better = pair.contrast, improvement(finding, pair)
    return [
        f"{pair.first} against {pair.second}",
        better.value,
        interval(better.interval),
        None if found.spread is None else p_value(found.spread.p),
        None if found.equivalence is None else p_value(found.equivalence),
        found.needed,
    ]


def _margin(finding: Finding) -> str:
    if finding.margin is not None:
        return f"{finding.margin:g}"
    declared = sorted({pair.contrast.margin for pair in finding.pairs if pair.contrast.margin is not None})
    told = " or ".join(f"{margin:g}" for margin in declared)
    return f"{told}, the runs' sweep.margin" if declared else "none was given: --margin, or sweep.margin before the runs"


def _power(finding: Finding) -> list[Block]:
    """What so few seeds could have seen at all."""
    counts = sorted({len(row.values) for row in finding.rows if len(row.values) > 1})
    if not counts:
        return [Paragraph("With a single seed a group no difference can be seen, however large: run more seeds.", "note")]
    texts = [f"{n} seeds a group see a difference of {detectable(n):.2f} standard deviations" for n in counts[:3]]
    return [Paragraph("; ".join(texts) + " in 4 cases of 5 (two-sided t-test, 5 %).", "note")]
