"""Where results come from: what they cost, whether they repeat, and by which code, packages and machines they were made."""

import itertools
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hieros_repro.determinism.numerics import differences
from hieros_repro.findings.evidence import Evidence
from hieros_repro.findings.finding import Finding, Row
from hieros_repro.findings.page import CELL, Block, Commands, Folded, Listing, Paragraph, Section, Table, listed, long_table
from hieros_repro.log.timing import duration
from hieros_repro.provenance.machine import lock
from hieros_repro.run.folder import invocation
from hieros_repro.stats.aggregate import summarise

LINES, PATCHES = 200, 2  # of a patch that are shown, and patches
RUNS, GROUPS = 25, 40  # rows of a table that are not folded


# -- Cost --------------------------------------------------------------------------------------------------------------


def cost(finding: Finding, evidence: Sequence[Evidence]) -> Section:
    """Wall clock and memory: they say something about machines and are no part of what is reproducible."""
    known = {one.run.folder: one for one in evidence}
    rows: list[list[CELL]] = []
    for row in finding.rows:
        found = [known[run.folder] for run in row.group.records if run.status == "finished"]
        times = [one.account["wall_seconds"] for one in found if one.account.get("wall_seconds")]
        speeds = [speed for one in found if (speed := _speed(one)) is not None]
        memory = [one.cost["memory_mb"] for one in found if "memory_mb" in one.cost]
        rows.append([
            row.name,
            len(found),
            duration(summarise(times).mean) if times else None,
            duration(sum(times)) if times else None,
            summarise(speeds).mean if speeds else None,
            max(memory, default=None),
            " ".join(sorted({str(run.facts.get("device")) for run in row.group.records if run.facts.get("device")})) or None,
        ])  # fmt: skip
    header = ("group", "finished runs", "mean time", "time of all", "steps per second", "memory (MB, most)", "device")
    caption = "Steps per second: all steps of a run over its wall time, evaluations and set-up included; mean over runs."
    return Section("Speed and cost", long_table(Table(header, rows, caption), "groups", GROUPS))


def _speed(one: Evidence) -> float | None:
    step, seconds = (one.account.get("results") or {}).get("step"), one.account.get("wall_seconds")
    return float(step) / seconds if step and seconds else None


# -- Determinism -------------------------------------------------------------------------------------------------------


def determinism(finding: Finding, evidence: Sequence[Evidence]) -> Section:
    """Two statements that must not be mixed up: what a repetition gives, and how much seeds differ."""
    blocks: list[Block] = [Paragraph("Repeated with the same seed", "heading"), *_repetition(finding.rows, evidence)]
    blocks += [Paragraph("Run with another seed", "heading"), *_spread(finding)]
    return Section("Determinism", blocks)


def _repetition(rows: Sequence[Row], evidence: Sequence[Evidence]) -> list[Block]:
    repeated = [(row.name, seed, equal) for row in rows for seed, equal in row.repeated.items()]
    equal = [f"{name} seed {seed}" for name, seed, same in repeated if same]
    unequal = [f"{name} seed {seed}" for name, seed, same in repeated if not same]
    blocks: list[Block] = []
    if equal:
        blocks.append(Paragraph(f"Bit-equal: {len(equal)} seed(s) were run more than once and came to the same parameters: "
                                f"{listed(equal, 8)}."))  # fmt: skip
    if unequal:
        blocks.append(Paragraph(f"NOT bit-equal: {listed(unequal, 8)} came to other parameters when repeated.", "warning"))
    finished = next((one for one in evidence if one.run.status == "finished"), None)
    if not repeated:
        blocks.append(Paragraph("No seed was run twice among these runs, so that they do not show it by themselves."))
    if finished is not None:
        again = "To hold a new run against" if repeated else "To see it, run one again and compare"
        blocks.append(Paragraph(f"{again} every digest in its ledger:"))
        blocks.append(Commands([f"{invocation('verify')} run={finished.folder}"]))
    return blocks


def _spread(finding: Finding) -> list[Block]:
    """How much seeds differ, which no determinism makes smaller."""
    texts = []
    for row in finding.rows:
        found = row.described
        if found is not None and found.std is not None:
            share = f", {found.cv:.1%} of the mean" if found.cv is not None else ""
            texts.append(f"{row.name}: {finding.metric} varies by {found.std:.4g} (std{share}) over {found.n} seeds")
    if not texts:
        return [Paragraph("There is no group with two seeds or more: how much seeds differ is not known.")]
    shown: list[Block] = [Listing(texts[:8])]
    return shown + ([Folded(f"{len(texts) - 8} groups more", [Listing(texts[8:])])] if len(texts) > 8 else [])


def digests(finding: Finding, evidence: Sequence[Evidence]) -> Section:
    """What to hold a repetition against."""
    names = {run.folder: row.name for row in finding.rows for run in row.group.records}
    rows: list[list[CELL]] = [
        [names.get(one.run.folder, ""), one.run.seed, one.name, one.run.status,
         (one.account.get("digests") or {}).get("parameters"), one.ledger]
        for one in evidence
    ]  # fmt: skip
    header = ("group", "seed", "run", "status", "final parameters", "ledger.jsonl (SHA-256)")
    return Section("Digests", long_table(Table(header, rows), "runs", RUNS))


# -- Provenance --------------------------------------------------------------------------------------------------------


def provenance(evidence: Sequence[Evidence]) -> Section:
    begun = [one for one in evidence if one.account]
    if not begun:
        return Section("Provenance", [Paragraph("No run has begun.")])
    return Section("Provenance", [_codes(begun), *_patches(begun), *_machines(begun), *_numerics(begun), *_packages(begun)])


def _codes(begun: Sequence[Evidence]) -> Table:
    found: dict[tuple[Any, ...], int] = {}
    for one in begun:
        code = one.account.get("code") or {}
        sources = code.get("sources")
        key = (*(code.get(name) for name in ("commit", "branch", "changed")), sources and str(sources)[:16])
        found[key] = found.get(key, 0) + 1
    rows: list[list[CELL]] = [
        [commit, branch, changed, sources, count] for (commit, branch, changed, sources), count in found.items()
    ]
    header = ("commit", "branch", "uncommitted changes", "digest of sources", "runs")
    return Table(header, rows, "Code. Runs with equal digests of sources ran the same program, whatever their commits.")


def _patches(begun: Sequence[Evidence]) -> list[Block]:
    """The uncommitted changes that runs were made with, each once."""
    blocks: list[Block] = []
    found = _by_patch(begun)
    if len(found) > 1:
        blocks.append(Paragraph(f"The runs were made with {len(found)} different sets of uncommitted changes.", "warning"))
    for patch, runs in itertools.islice(found.items(), PATCHES):
        path = runs[0].folder / "code.patch"
        lines = path.read_text(encoding="utf8", errors="replace").splitlines()
        shown = lines[:LINES] + ([f"... {len(lines) - LINES:,} lines more in {path}"] if len(lines) > LINES else [])
        size = path.stat().st_size
        blocks.append(Folded(f"uncommitted changes of {len(runs)} run(s): {len(lines):,} lines, {size:,} bytes, digest {patch}",
                             [Commands(shown)]))  # fmt: skip
    return blocks


def _by_patch(begun: Sequence[Evidence]) -> dict[str, list[Evidence]]:
    found: dict[str, list[Evidence]] = {}
    for one in begun:
        if one.patch is not None:
            found.setdefault(one.patch, []).append(one)
    return found


def _machines(begun: Sequence[Evidence]) -> list[Block]:
    names = ("host", "system", "python", "cpu", "cores", "memory_gb")
    found: dict[tuple[Any, ...], int] = {}
    for one in begun:
        key = tuple((one.account.get("machine") or {}).get(name) for name in names)
        found[key] = found.get(key, 0) + 1
    rows: list[list[CELL]] = [[*key, count] for key, count in found.items()]
    return long_table(Table(("host", "system", "Python", "CPU", "cores", "memory (GB)", "runs"), rows), "machines", 12)


def _numerics(begun: Sequence[Evidence]) -> list[Block]:
    """The fingerprint of the first run, and in which the others differ."""
    first = begun[0].account.get("numerics") or {}
    others: dict[tuple[str, str, str], int] = {}
    for one in begun[1:]:
        for path, (old, new) in differences(first, one.account.get("numerics") or {}).items():
            key = (path, repr(old), repr(new))
            others[key] = others.get(key, 0) + 1
    blocks: list[Block] = []
    if others:
        rows: list[list[CELL]] = [[*key, count] for key, count in others.items()]
        blocks.append(Paragraph("The runs' numerics differ: their bits cannot be expected to be equal.", "warning"))
        blocks += long_table(Table(("numerics", begun[0].name, "others", "runs"), rows), "differences", 12)
    else:
        blocks.append(Paragraph(f"Numerics: the same in all {len(begun)} run(s) that have begun."))
    table = Table(("numerics", "value"), [[path, _plain(value)] for path, value in _flat(first)])
    return [*blocks, Folded("numerics fingerprint", [table])]


def _packages(begun: Sequence[Evidence]) -> list[Block]:
    """The first run's packages beside the lock file, and in which the others differ."""
    first, pinned = begun[0].account.get("packages") or {}, lock()
    if not first:
        return [Paragraph("Packages were not recorded.")]
    others = sorted({name for one in begun[1:] for name in differences(first, one.account.get("packages") or {})})
    blocks: list[Block] = []
    if others:
        blocks.append(Paragraph(f"Packages differ between runs: {listed(others, 12)}.", "warning"))
    rows: list[list[CELL]] = [[name, version, pinned[name]] for name, version in first.items()
                              if name in pinned and not is_pinned(version, pinned[name])]  # fmt: skip
    if rows:
        blocks.append(Table(("package", "installed", "requirements.lock"), rows, "Packages that are not as they are pinned."))
    lines = textwrap.wrap("  ".join(f"{name}=={version}" for name, version in first.items()), 108, break_on_hyphens=False)
    return [*blocks, Folded(f"{len(first)} packages", [Commands(lines)])]


def is_pinned(version: str, pinned: str) -> bool:
    """A local label (2.13.0+cpu) names a build of the pinned release; which one, the numerics say."""
    return version.partition("+")[0] == pinned.partition("+")[0]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in tree.items():
        found += _flat(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return found


def _plain(value: Any) -> CELL:
    return value if value is None or isinstance(value, str | int | float) else str(value)


def changed_lines(path: Path) -> int:
    """How many lines a patch adds or takes away."""
    text = path.read_text(encoding="utf8", errors="replace") if path.exists() else ""
    return sum(line.startswith(("+", "-")) and not line.startswith(("+++", "---")) for line in text.splitlines())
