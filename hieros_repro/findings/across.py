"""Agents over several tasks: on a common scale where there is one, by their ranks in any case."""

import itertools
from collections.abc import Mapping, Sequence

from hieros_repro.determinism.keys import Key
from hieros_repro.findings.finding import Finding, Row, higher_is_better, numbers
from hieros_repro.findings.page import CELL, Block, Paragraph, Section, Table, interval
from hieros_repro.stats.aggregate import Estimate
from hieros_repro.stats.tasks import average_improvement, overall, ranks

NORMALISED = "eval/human_normalised"
TITLE = "Across tasks"
Scores = dict[str, list[float]]  # task -> values


def section(finding: Finding, key: Key) -> Section | None:
    """None where there is one task, or nobody who was run in several."""
    if len({row.group.task for row in finding.rows}) < 2:
        return None
    agents = {name: rows for name, rows in by_agent(finding.rows).items() if len(rows) > 1}
    if not agents:
        return Section(TITLE, [Paragraph("No configuration was run in more than one task: nothing can be said across tasks.")])
    blocks = [_means(finding, agents), *_normalised(agents, key("overall")), *_ranked(finding.metric, agents, key("ranks"))]
    return Section(TITLE, blocks)


def by_agent(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Who plays -> task -> its row. Who plays is the agent, and what was typed for it besides the environment."""
    firsts = [row.group.records[0] for row in rows]
    typed = [[o for o in run.typed if not o.lstrip("+~").startswith(("env", "agent=", "experiment="))] for run in firsts]
    common = set.intersection(*(set(one) for one in typed))
    found: dict[str, dict[str, Row]] = {}
    for row, run, overrides in zip(rows, firsts, typed, strict=True):
        name = " ".join([str(run.facts.get("agent", "")), *(o for o in overrides if o not in common)]).strip()
        if row.values:
            found.setdefault(name, {}).setdefault(row.group.task, row)
    return found


def _means(finding: Finding, agents: Mapping[str, Mapping[str, Row]]) -> Table:
    tasks = _tasks(agents)
    rows: list[list[CELL]] = []
    for task in tasks:
        found = [rows.get(task) for rows in agents.values()]
        rows.append([task, *(None if row is None or row.described is None else row.described.mean for row in found)])
    return Table(("task", *agents), rows, f"Mean {finding.metric} over seeds; not comparable between tasks.")


def _tasks(agents: Mapping[str, Mapping[str, Row]]) -> list[str]:
    return list(dict.fromkeys(itertools.chain.from_iterable(agents.values())))


def _normalised(agents: Mapping[str, Mapping[str, Row]], key: Key) -> list[Block]:
    """Scores on the scale from chance (0) to a human (1), where every task has one."""
    scores: dict[str, Scores] = {}
    for name, rows in agents.items():
        found = {task: list(numbers(row.group, NORMALISED).values.values()) for task, row in rows.items()}
        if not all(found.values()):
            lacking = ", ".join(task for task, values in found.items() if not values)
            return [Paragraph(f"There is no common scale: {lacking} has no {NORMALISED}, so scores are compared by rank only.")]
        scores[name] = found
    table: list[list[CELL]] = []
    for number, (name, one) in enumerate(scores.items()):
        over = overall(one, key(number))
        table.append(
            [name, len(one), *itertools.chain.from_iterable(map(_cells, (over.iqm, over.mean, over.median, over.gap)))]
        )
    header = ("agent", "tasks", "IQM", "95 % of IQM", "mean", "95 % of mean", "median", "95 % of median", "gap", "95 % of gap")
    caption = "0 plays like chance, 1 like a human. Gap: how far runs fall short of 1. Runs are resampled within tasks."
    return [Table(header, table, caption), *_improvements(scores, key)]


def _improvements(scores: Mapping[str, Scores], key: Key) -> list[Block]:
    rows: list[list[CELL]] = []
    for number, (first, second) in enumerate(itertools.combinations(scores, 2)):
        if set(scores[first]) == set(scores[second]):
            found = average_improvement(scores[first], scores[second], key("improvement", number))
            rows.append([f"{first} over {second}", *_cells(found)])
    return [Table(("pair", "P(first better)", "95 %"), rows, "Averaged over tasks.")] if rows else []


def _ranked(metric: str, agents: Mapping[str, Mapping[str, Row]], key: Key) -> list[Block]:
    """Mean ranks, of the agents and tasks that form a full table."""
    tasks = [task for task in _tasks(agents) if all(task in rows for rows in agents.values())]
    if len(agents) < 2 or not tasks:
        return []
    sign = 1 if higher_is_better(metric) else -1  # rank 1 is that of the largest number
    scores = {n: {task: [sign * v for v in rows[task].values.values()] for task in tasks} for n, rows in agents.items()}
    found = ranks(scores, key)
    table: list[list[CELL]] = [
        [name, rank.mean, interval(rank.interval), *(rank.tasks[task] for task in tasks)] for name, rank in found.items()
    ]
    return [Table(("agent", "mean rank", "95 %", *tasks), table, "1 is the best; ties share their mean.")]


def _cells(found: Estimate) -> list[CELL]:
    return [found.value, interval(found.interval)]
