"""The summary of a sweep, from its run folders: summary.json, .csv, .md and .png."""

import itertools
import json
import math
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hieros_repro import atomic
from hieros_repro.findings import archive, finding
from hieros_repro.findings.declared import agreed, declarations, steadiness
from hieros_repro.findings.finding import Row
from hieros_repro.findings.group import NOT_NAMING, Group
from hieros_repro.findings.pictures import picture
from hieros_repro.findings.record import Record
from hieros_repro.run.folder import invocation
from hieros_repro.stats.aggregate import Summary, iqm, summarise
from hieros_repro.stats.contrast import equivalence
from hieros_repro.stats.table import markdown, number, p_value, to_csv
from hieros_repro.sweep.board import Board

HEADER = ("group", "n", "mean", "std", "95 % low", "95 % high", "min", "median", "max", "IQM", "CV", "seeds")
PAIRS = 100  # whose equivalence is told


def refresh(folder: Path) -> dict[str, Any]:
    """Reads every run of the sweep, anew where it has changed, and writes the summary."""
    facts = json.loads((folder / "sweep.json").read_text(encoding="utf8"))
    metric = facts["metric"]
    records = archive.gathered(folder)
    named = _groups(facts)
    groups: dict[str, list[Record]] = {}
    for job, name in named.items():
        groups.setdefault(name, []).append(records[folder / job])
    said = declarations(list(records.values()))
    rows = {name: finding.numbers(Group(name, members), metric, said) for name, members in groups.items()}
    refused = {job: note.text for job, note in Board(folder).notes().items() if note.outcome == "failed"}
    runs = [_run(records[folder / job], named[job], facts, refused.get(job)) for job in facts["jobs"]]
    summary = {
        "metric": metric,
        "command": facts["command"],
        "groups": {name: _row(row) for name, row in rows.items()},
        "equivalence": _equivalences(list(rows.values())),
        "runs": runs,
        "warnings": [
            *(text for name, members in groups.items() for text in _mixed(name, members)),
            *(f"warning: {text}" for row in rows.values() for text in finding.bounds(row)),
            *(f"warning: {text}" for text in finding.margins(list(rows.values()))),
        ],
    }
    atomic.write(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    table = [_cells(name, row) for name, row in summary["groups"].items()]
    atomic.write(folder / "summary.csv", to_csv(HEADER, table))
    atomic.write(folder / "summary.md", _page(facts, table, summary))
    picture(folder / "summary.png", metric, list(rows.values()))
    return summary


def table(folder: Path) -> str:
    """The summary in a few lines, for the terminal."""
    page = folder / "summary.md"
    if not page.exists():
        return f"sweep {folder}: no job has ended yet"
    facts = json.loads((folder / "summary.json").read_text(encoding="utf8"))
    rows = [[name, *_cells(name, row)[1:6]] for name, row in facts["groups"].items()]
    lines = [markdown((facts["metric"], *HEADER[1:6]), rows)]
    lines += [f"{run['status']}: {run['folder']}  {run['error'] or ''}" for run in facts["runs"] if _is_open(run)]
    lines += [*_told(facts), *facts.get("warnings", [])]
    return "\n".join([*lines, f"summary of the sweep: {page}"])


def _groups(facts: Mapping[str, Any]) -> dict[str, str]:
    """Job -> its group: its values along the axes of the sweep that it came from, the seed aside. A folder may hold the jobs of
    several sweeps: where these share such values and differ otherwise, what they differ in is added."""
    typed: dict[str, tuple[str, ...]] = {}
    names: dict[tuple[str, ...], list[str]] = {}
    for job, asked in facts["jobs"].items():
        axes = {*facts.get("job_axes", {}).get(job, facts["axes"])} - {"seed"}
        varied = [o for o in asked if o.lstrip("+").partition("=")[0] in axes]
        other = {o for o in asked if not o.lstrip("+~").startswith(NOT_NAMING)}
        typed[job] = tuple(sorted({*varied, *other}))
        names.setdefault(typed[job], varied)
    found = {}
    for what, name in names.items():
        alike = [other for other, its in names.items() if its == name]
        common = set(alike[0]).intersection(*alike)
        found[what] = " ".join([*name, *(o for o in what if o not in common)]) or "all"
    return {job: found[what] for job, what in typed.items()}


def _mixed(name: str, members: Sequence[Record]) -> list[str]:
    """What a mean over these runs would hide."""
    finished = [run for run in members if run.status == "finished"]
    return [
        f"warning: {name}: its runs were made with different {what}; their mean is of no one program"
        for fact, what in (("sources", "code"), ("numerics", "numerics"))
        if len({run.facts.get(fact) for run in finished if run.facts.get(fact)}) > 1
    ]


def _is_open(run: Mapping[str, Any]) -> bool:
    """Whether there is something to be done about a run."""
    return run["status"] != "finished" or run["error"] is not None


def _run(run: Record, group: str, facts: Mapping[str, Any], refused: str | None) -> dict[str, Any]:
    """`refused`: why its job of this start of the sweep failed, perhaps before there was a run that could say so."""
    job, metric = Path(run.folder).name, facts["metric"]
    overrides = facts["jobs"][job]
    seeds = [override[5:] for override in overrides if override.startswith("seed=")]
    again = shlex.join([*facts.get("flags", []), *overrides, f"run.dir={run.folder}", "resume=auto"])
    value = run.value(metric)
    return {
        "folder": job,
        "group": group,
        "seed": int(seeds[-1]) if seeds else run.seed,
        "status": run.status,
        "value": value if value is None or math.isfinite(value) else str(value),
        "parameters": run.facts.get("digest"),
        "error": (None if run.status == "pending" else run.error) or (" ".join(refused.split()) if refused else None),
        "rerun": f"{invocation('train')} {again}",
    }


def _row(row: Row) -> dict[str, Any]:
    values = list(row.values.values())
    found: Mapping[str, Any] = summarise(values)._asdict() if values else dict.fromkeys(Summary._fields) | {"n": 0}
    spread = {"cv": row.cv, "cv_tolerance": row.tolerance, "steady": row.steady}
    return {**found, "iqm": iqm(values) if values else None, **spread, "seeds": list(row.values)}


def _equivalences(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of each pair of groups in one task that declare one margin: whether their means are within it, whatever the seeds."""
    found: list[dict[str, Any]] = []
    for a, b in itertools.combinations([row for row in rows if row.values], 2):
        margin = agreed(a.margins + b.margins)
        if margin is not None and a.group.task == b.group.task and len(found) < PAIRS:
            p = equivalence(list(a.values.values()), list(b.values.values()), margin)
            found.append({"first": a.name, "second": b.name, "margin": margin, "p": p})
    return found


def _told(summary: Mapping[str, Any]) -> list[str]:
    """What was declared of the seeds' spread and of differences, and whether it holds; for the summaries of before, nothing."""
    groups = {name: row for name, row in summary["groups"].items() if row.get("cv_tolerance") is not None}
    lines = [f"{name}: {steadiness(row['cv'], row['cv_tolerance'])} (sweep.cv_tolerance)" for name, row in groups.items()]
    for pair in summary.get("equivalence", ()):
        p, names = pair["p"], f"{pair['first']} and {pair['second']}"
        shown = "cannot be tested: a group has a single seed" if p is None else f"TOST p = {p_value(p)}"
        word = "" if p is None else "equivalent" if p < finding.ALPHA else "not shown to be equivalent"
        lines.append(f"{names}: {word}{' ' if word else ''}within {pair['margin']:g} (sweep.margin; {shown})")
    return lines


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    values = [number(row[k]) for k in ("mean", "std", "low", "high", "min", "median", "max", "iqm")]
    values.append(number(row.get("cv"), 4))
    return [name, str(row["n"]), *values, " ".join(map(str, row["seeds"]))]


def _shown(value: float | str | None) -> str:
    return value if isinstance(value, str) else number(value)


def _page(facts: Mapping[str, Any], table: list[list[str]], summary: Mapping[str, Any]) -> str:
    runs = summary["runs"]
    lines = [f"# {facts['metric']} over seeds", "", f"`{invocation('train')} {facts['command']}`", ""]
    lines += [
        markdown(HEADER, table),
        "mean, sample standard deviation and 95 % t-interval are over seeds; CV: std / |mean|.",
        "",
    ]
    lines += [line for text in (*_told(summary), *summary["warnings"]) for line in (text, "")]
    unfinished = [run for run in runs if _is_open(run)]
    if unfinished:
        lines += ["## Not finished", ""]
        for run in unfinished:
            reason = f" - {run['error']}" if run["error"] else ""
            lines += [f"- {run['folder']}: {run['status']}{reason}", f"  `{run['rerun']}`"]
        lines.append("")
    lines += ["## Runs", "", markdown(("run", "status", facts["metric"], "parameters"), [
        (run["folder"], run["status"], _shown(run["value"]), run["parameters"] or "-") for run in runs
    ])]  # fmt: skip
    return "\n".join(lines)
