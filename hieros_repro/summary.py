"""The summary of a sweep, from its run folders: summary.json, .csv, .md and .png."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hieros_repro.log import jsonl
from hieros_repro.run.folder import RunFolder, invocation
from hieros_repro.stats.aggregate import Summary, summarise
from hieros_repro.stats.figure import sweep_figure
from hieros_repro.stats.table import markdown, number, to_csv

HEADER = ("group", "n", "mean", "std", "95 % low", "95 % high", "min", "median", "max", "seeds")


def refresh(folder: Path) -> dict[str, Any]:
    """Reads every run of the sweep anew and writes its summary."""
    facts = json.loads((folder / "sweep.json").read_text(encoding="utf8"))
    metric = facts["metric"]
    runs = [
        _run(folder / name, overrides, metric, facts["axes"], facts.get("flags", []))
        for name, overrides in facts["jobs"].items()
    ]
    groups: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        groups.setdefault(run["group"], []).append(run)
    rows = {name: _row(members) for name, members in groups.items()}
    summary = {"metric": metric, "command": facts["command"], "groups": rows, "runs": runs}
    _write(folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    table = [_cells(name, row) for name, row in rows.items()]
    _write(folder / "summary.csv", to_csv(HEADER, table))
    _write(folder / "summary.md", _page(facts, table, runs))
    finals = {n: {str(r["seed"]): r["value"] for r in m if r["value"] is not None} for n, m in groups.items()}
    curves = {n: {str(r["seed"]): _curve(folder / r["folder"], metric) for r in m} for n, m in groups.items()}
    curves = {n: {seed: curve for seed, curve in group.items() if curve} for n, group in curves.items()}
    if any(finals.values()) or any(curves.values()):
        sweep_figure(folder / "summary.png", metric, curves, {n: v for n, v in finals.items() if v})
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


def _run(folder: Path, overrides: list[str], metric: str, axes: list[str], flags: list[str]) -> dict[str, Any]:
    facts = RunFolder(folder).read()
    seeds = [override[5:] for override in overrides if override.startswith("seed=")]
    varied = [o for o in overrides if o.lstrip("+").partition("=")[0] in axes and not o.startswith("seed=")]
    error = facts.get("error") or {}
    return {
        "folder": folder.name,
        "group": " ".join(varied) or "all",
        "seed": int(seeds[-1]) if seeds else facts.get("seed"),
        "status": facts.get("status", "pending"),
        "value": facts.get("results", {}).get(metric) if facts.get("status") == "finished" else None,
        "parameters": facts.get("digests", {}).get("parameters"),
        "error": f"{error['kind']}: {error['text']}" if error else None,
        "rerun": f"{invocation('train')} " + shlex.join([*flags, *overrides, f"run.dir={folder}", "resume=auto"]),
    }


def _row(members: list[dict[str, Any]]) -> dict[str, Any]:
    values = [run["value"] for run in members if run["value"] is not None]
    found: Mapping[str, Any] = summarise(values)._asdict() if values else dict.fromkeys(Summary._fields) | {"n": 0}
    return {**found, "seeds": [run["seed"] for run in members if run["value"] is not None]}


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    values = [number(row[k]) for k in ("mean", "std", "low", "high", "min", "median", "max")]
    return [name, str(row["n"]), *values, " ".join(map(str, row["seeds"]))]


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
        (run["folder"], run["status"], number(run["value"]), run["parameters"] or "-") for run in runs
    ])]  # fmt: skip
    return "\n".join(lines)


def _curve(folder: Path, metric: str) -> list[tuple[float, float]]:
    return [(row["step"], row[metric]) for row in jsonl.read(folder / "metrics.jsonl") if metric in row]


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text, encoding="utf8")
    partial.replace(path)
