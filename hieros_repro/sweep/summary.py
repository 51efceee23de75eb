"""The summary of a sweep, from its run folders: summary.json, .csv, .md and .png."""

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hieros_repro.findings import archive, finding
from hieros_repro.findings.finding import Row
from hieros_repro.findings.group import Group
from hieros_repro.findings.record import Record
from hieros_repro.run.folder import invocation
from hieros_repro.stats.aggregate import Summary, iqm, summarise
from hieros_repro.stats.figure import sweep_figure
from hieros_repro.stats.table import markdown, number, to_csv

HEADER = ("group", "n", "mean", "std", "95 % low", "95 % high", "min", "median", "max", "IQM", "seeds")


def refresh(folder: Path) -> dict[str, Any]:
    """Reads every run of the sweep, anew where it has changed, and writes the summary."""
    facts = json.loads((folder / "sweep.json").read_text(encoding="utf8"))
    metric = facts["metric"]
    records = archive.gathered(folder)
    groups: dict[str, list[Record]] = {}
    for name, overrides in facts["jobs"].items():
        groups.setdefault(_group(overrides, facts["axes"]), []).append(records[folder / name])
    rows = {name: finding.numbers(Group(name, members), metric) for name, members in groups.items()}
    runs = [_run(records[folder / name], overrides, facts, metric) for name, overrides in facts["jobs"].items()]
    summary = {
        "metric": metric,
        "command": facts["command"],
        "groups": {name: _row(row) for name, row in rows.items()},
        "runs": runs,
    }
    _write(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    table = [_cells(name, row) for name, row in summary["groups"].items()]
    _write(folder / "summary.csv", to_csv(HEADER, table))
    _write(folder / "summary.md", _page(facts, table, runs))
    curves = {name: {str(seed): curve for seed, curve in row.curves.items()} for name, row in rows.items() if row.curves}
    finals = {name: {str(seed): value for seed, value in row.values.items()} for name, row in rows.items() if row.values}
    if finals or curves:
        sweep_figure(folder / "summary.png", metric, curves, finals)
    return summary


def table(folder: Path) -> str:
    """The summary in a few lines, for the terminal."""
    page = folder / "summary.md"
    if not page.exists():
        return f"sweep {folder}: no job has ended yet"
    facts = json.loads((folder / "summary.json").read_text(encoding="utf8"))
    rows = [[name, *_cells(name, row)[1:6]] for name, row in facts["groups"].items()]
    lines = [markdown((facts["metric"], *HEADER[1:6]), rows)]
    lines += [f"{run['status']}: {run['folder']}  {run['error'] or ''}" for run in facts["runs"] if run["status"] != "finished"]
    return "\n".join([*lines, f"summary of the sweep: {page}"])


def _group(overrides: list[str], axes: list[str]) -> str:
    """The job's values along the sweep's axes, the seed aside."""
    varied = [o for o in overrides if o.lstrip("+").partition("=")[0] in axes and not o.startswith("seed=")]
    return " ".join(varied) or "all"


def _run(run: Record, overrides: list[str], facts: Mapping[str, Any], metric: str) -> dict[str, Any]:
    seeds = [override[5:] for override in overrides if override.startswith("seed=")]
    again = shlex.join([*facts.get("flags", []), *overrides, f"run.dir={run.folder}", "resume=auto"])
    value = run.value(metric)
    return {
        "folder": Path(run.folder).name,
        "group": _group(overrides, facts["axes"]),
        "seed": int(seeds[-1]) if seeds else run.seed,
        "status": run.status,
        "value": value if value is None or math.isfinite(value) else str(value),
        "parameters": run.facts.get("digest"),
        "error": run.error,
        "rerun": f"{invocation('train')} {again}",
    }


def _row(row: Row) -> dict[str, Any]:
    values = list(row.values.values())
    found: Mapping[str, Any] = summarise(values)._asdict() if values else dict.fromkeys(Summary._fields) | {"n": 0}
    return {**found, "iqm": iqm(values) if values else None, "seeds": list(row.values)}


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    values = [number(row[k]) for k in ("mean", "std", "low", "high", "min", "median", "max", "iqm")]
    return [name, str(row["n"]), *values, " ".join(map(str, row["seeds"]))]


def _shown(value: float | str | None) -> str:
    return value if isinstance(value, str) else number(value)


def _page(facts: Mapping[str, Any], table: list[list[str]], runs: list[dict[str, Any]]) -> str:
    lines = [f"# {facts['metric']} over seeds", "", f"`{invocation('train')} {facts['command']}`", ""]
    lines += [markdown(HEADER, table), "mean, sample standard deviation and 95 % t-interval are over seeds.", ""]
    unfinished = [run for run in runs if run["status"] != "finished"]
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


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text, encoding="utf8")
    partial.replace(path)
