"""A report's content in the order in which it is read: the answer, what one must know to believe it, then the evidence."""

import re
from collections.abc import Sequence
from pathlib import Path

from hieros_repro.determinism.keys import Key
from hieros_repro.findings import across, better, checklist, evidence, films, held, origin, pictures, repeating, results
from hieros_repro.findings.archive import sweeps
from hieros_repro.findings.finding import Finding
from hieros_repro.findings.page import Page, Section
from hieros_repro.findings.record import Record
from hieros_repro.provenance.code import ROOT

KEY = Key(0)("stats", "report")


def compose(
    finding: Finding,
    records: Sequence[Record],
    title: str | None = None,
    question: str | None = None,
    reference: Path | None = None,
    narrowed: bool = False,
) -> Page:
    """Everything there is to say about a finding. `reference`: a references file; without one, those of the groups'
    experiments. `narrowed`: some of the runs that there are were left out."""
    gathered = evidence.gather(records)
    against = held.hold(finding, reference)
    sections: list[Section | None] = [
        results.answer(finding),
        results.differences(finding),
        results.numbers(finding, against),
        pictures.learning(finding),
        pictures.profile(finding, KEY("profile")),
        results.contrasts(finding, pictures.comparisons(finding)),
        pictures.seeds(finding),
        across.section(finding, KEY("tasks")),
        films.films(finding.rows, finding.metric),
        films.levels(finding.rows),
        origin.cost(finding, gathered),
        origin.determinism(finding, gathered),
        origin.digests(finding, gathered),
        origin.provenance(gathered),
        checklist.section(finding, gathered, against),
        repeating.section(finding, gathered),
        repeating.meanings(finding),
        repeating.failures(finding),
    ]
    return Page(
        title or heading(finding),
        question or asked(finding, records, narrowed),
        _subtitle(finding, records),
        [section for section in sections if section is not None],
        max((str(one.account["ended"]) for one in gathered if one.account.get("ended")), default=None),
    )


def heading(finding: Finding) -> str:
    tasks = list(dict.fromkeys(row.group.task for row in finding.rows if row.group.task))
    if len(finding.rows) == 1 and finding.rows[0].name != "all":
        return finding.rows[0].name
    where = f" on {tasks[0]}" if len(tasks) == 1 else f" on {len(tasks)} tasks" if tasks else ""
    return f"{len(finding.rows)} configurations{where}" if len(finding.rows) > 1 else f"Runs{where}"


def asked(finding: Finding, records: Sequence[Record], narrowed: bool = False) -> str:
    """The question of the script that made the sweep, if these are all of its runs; or the one that such runs answer."""
    folders = {Path(run.folder).parent for run in records}
    if len(folders) == 1 and not narrowed:
        for folder, facts in sweeps(records).items():
            whole = len({Path(run.folder).name for run in records}) == len(facts.get("jobs") or ())
            if whole and (text := _script_question(folder)):
                return text
    if len(finding.rows) == 1:
        count = len(finding.rows[0].values) + len(finding.rows[0].absent)
        over = f"configuration reach, and how much does it vary over {count} seeds" if count > 1 else "run reach"
        return f"What {finding.metric} does this {over}?"
    most = better.extreme(finding.metric)
    return f"Which of these {len(finding.rows)} configurations reaches the {most} {finding.metric}, and can its seeds tell?"


def _script_question(folder: Path) -> str | None:
    """From the header of the multirun script that a sweep's folder is named after."""
    script = ROOT / "multirun_scripts" / f"{folder.resolve().name.rpartition('-')[0]}.sh"
    if not script.is_file():
        return None
    found = re.search(r"^# Question: *(.+(?:\n# {4,}.+)*)", script.read_text(encoding="utf8"), re.MULTILINE)
    text = " ".join(line.lstrip("# ") for line in found[1].splitlines()) if found else None
    return text and text[0].upper() + text[1:]


def _subtitle(finding: Finding, records: Sequence[Record]) -> str:
    counts: dict[str, int] = {}
    for run in records:
        counts[run.status] = counts.get(run.status, 0) + 1
    statuses = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items(), key=lambda one: -one[1]))
    count = f"{len(records):,} run{'s' * (len(records) > 1)}"
    return f"{count}: {statuses}. Metric: {finding.metric}. Intervals are over seeds, never over episodes."


def sweep_metric(records: Sequence[Record]) -> str | None:
    """The metric that a sweep among the runs was made for."""
    return next((str(facts["metric"]) for facts in sweeps(records).values()), None)
