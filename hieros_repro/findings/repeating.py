"""How to get the same again: commands for each group, commands for what is missing, and what the metrics mean."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hieros_repro.findings.archive import sweeps
from hieros_repro.findings.evidence import Evidence
from hieros_repro.findings.finding import Finding
from hieros_repro.findings.page import Block, Commands, Folded, Listing, Paragraph, Section, Table
from hieros_repro.findings.record import Record
from hieros_repro.log.base import MEANINGS, meaning
from hieros_repro.run.folder import invocation

GROUPS = 12  # whose commands are not folded
CONVERGENCE = "first scheduled evaluation whose mean reached run.target_score"


def section(finding: Finding, evidence: Sequence[Evidence]) -> Section:
    """Code first, then what was typed; where the runs are of several states of the code, so for each of them in turn."""
    sources = _sources(evidence)
    blocks: list[Block] = []
    for (commit, patch), of_it in sources.items():
        if len(sources) > 1:
            state = f"commit {commit[:10]}" if commit else "a commit that was not recorded"
            changes = f" with the uncommitted changes {patch}" if patch else ""
            blocks.append(Paragraph(f"{len(of_it)} runs of {state}{changes}:", "heading"))
        blocks += _of_one_code(finding, of_it, whole=len(sources) == 1)
    last = next((one for one in evidence if one.run.status == "finished"), None)
    if last is not None:
        blocks += [
            Paragraph("That a repetition is the same, bit for bit:"),
            Commands([f"{invocation('compare')} {last.folder} <the new run>"]),
        ]
    return Section("How to repeat it", blocks)


def _sources(evidence: Sequence[Evidence]) -> dict[tuple[str | None, str | None], list[Evidence]]:
    """Commit and digest of its changes -> the runs of it, in their order. What has not begun belongs to the first."""
    found: dict[tuple[str | None, str | None], list[Evidence]] = {}
    for one in evidence:
        if one.account:
            found.setdefault(((one.account.get("code") or {}).get("commit"), one.patch), []).append(one)
    waiting = [one for one in evidence if not one.account]
    if waiting:
        found.setdefault(next(iter(found), (None, None)), []).extend(waiting)
    return found


def _of_one_code(finding: Finding, evidence: Sequence[Evidence], whole: bool) -> list[Block]:
    """`whole`: there is no other code, so that a sweep's own command does all of it."""
    commit = next((known for one in evidence if (known := (one.account.get("code") or {}).get("commit"))), None)
    patched = next((one.folder / "code.patch" for one in evidence if one.patch is not None), None)
    lines = [f"git checkout {commit}" if commit else "# the commit was not recorded"]
    blocks: list[Block] = [Commands(lines if patched is None else [*lines, f"git apply {shlex.quote(str(patched))}"])]
    typed = [f"{invocation('train')} {facts['command']}" for facts in sweeps([one.run for one in evidence]).values()]
    if typed and whole:
        blocks += [Paragraph("The whole sweep:" if len(typed) == 1 else "The sweeps:"), Commands(typed[:GROUPS])]
    here = {one.run.folder for one in evidence}
    groups = [[run for run in row.group.records if run.folder in here] for row in finding.rows]
    commands = [command(runs) for runs in groups if runs]
    blocks += [Paragraph("Each group:"), Commands(commands[:GROUPS])]
    if len(commands) > GROUPS:
        blocks.append(Folded(f"{len(commands) - GROUPS} groups more", [Commands(commands[GROUPS:])]))
    if patched is not None and not whole:
        blocks.append(Commands([f"git apply --reverse {shlex.quote(str(patched))}"]))
    return blocks


def command(runs: Sequence[Record]) -> str:
    """One command for all seeds of a group's runs."""
    seeds = ",".join(str(seed) for seed in sorted({run.seed for run in runs if run.seed is not None}))
    words = [*flags(runs[0]), *(["-m"] if "," in seeds else []), *runs[0].typed, *([f"seed={seeds}"] if seeds else [])]
    return f"{invocation('train')} {shlex.join(words)}"


def flags(run: Record) -> list[str]:
    """What Hydra was told besides overrides by the sweep that a run belongs to: --config-dir and where."""
    return [str(flag) for facts in sweeps([run]).values() for flag in facts.get("flags") or ()]


def rerun(run: Record) -> str:
    """Continues a run where it is, or begins it."""
    if (Path(run.folder) / "config.yaml").exists():
        return f"{invocation('train')} {shlex.join([*flags(run), f'resume={run.folder}'])}"
    words = [*flags(run), *run.typed, *([] if run.seed is None else [f"seed={run.seed}"]), f"run.dir={run.folder}"]
    return f"{invocation('train')} {shlex.join(words)}"


def failures(finding: Finding) -> Section:
    """Every run that did not finish, and every one that finished without a value, with what to type."""
    lost = [run for row in finding.rows for run in row.group.records if run.status != "finished"]
    valueless = [(row, seed) for row in finding.rows for seed in row.absent
                 if any(run.status == "finished" for run in row.group.seeds()[seed])]  # fmt: skip
    if not lost and not valueless:
        return Section("Failures", [Paragraph("Every run finished with a value.")])
    blocks: list[Block] = []
    for run in lost[:GROUPS]:
        blocks += [Paragraph(_what(run)), Commands([rerun(run)])]
    if len(lost) > GROUPS:
        folded: list[Block] = [Listing([_what(run) for run in lost[GROUPS:]]), Commands([rerun(run) for run in lost[GROUPS:]])]
        blocks.append(Folded(f"{len(lost) - GROUPS} runs more", folded))
    if valueless:
        blocks.append(Listing([f"{row.name}, seed {seed}: {row.absent[seed]}" for row, seed in valueless]))
    return Section("Failures", blocks)


def _what(run: Record) -> str:
    reason = f": {' '.join(run.error.split())}" if run.error else ""
    seed = "" if run.seed is None else f" (seed {run.seed})"
    return f"{Path(run.folder).name}{seed}: {run.status}{reason}"


def meanings(finding: Finding) -> Section:
    """What the names in this report stand for: of every evaluation's metric, and of the results."""
    known = MEANINGS | {"convergence_step": CONVERGENCE}
    names = {name for row in finding.rows for run in row.group.records for line in run.evaluations for name in line}
    names |= {finding.metric}
    rows = [[name, text] for name in sorted(names) if (text := meaning(name, known)) is not None]
    unknown = sorted(name for name in names if meaning(name, known) is None)
    blocks: list[Block] = [Table(("metric", "meaning"), rows)]
    if unknown:
        blocks.append(Paragraph(f"Told by environments or agents of their own: {', '.join(unknown)}.", "note"))
    return Section("Metrics", blocks)
