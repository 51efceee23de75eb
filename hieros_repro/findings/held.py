"""Groups held against references files: each by itself, against a file named or that of its own experiment."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from hieros_repro.findings import expected
from hieros_repro.findings.expected import References, Verdict
from hieros_repro.findings.finding import Finding
from hieros_repro.findings.group import NOT_NAMING, Group
from hieros_repro.findings.page import listed
from hieros_repro.findings.record import NOT_THE_RUN
from hieros_repro.provenance.code import ROOT


class Held(NamedTuple):
    """One group and what became of each expectation; none where it cannot be told, and why."""

    group: str
    source: str
    verdicts: list[Verdict]
    why: str = ""


def hold(finding: Finding, reference: Path | None) -> list[Held]:
    """`reference`: a file for all groups; without one, those of the groups' experiments, where nothing else was typed. A group
    that is not of the configuration a file is about is not judged by it."""
    if reference is not None:
        references = expected.read(reference)
        return [_held(row.group, reference, references) for row in finding.rows]
    found = []
    for row in finding.rows:
        path = fitting(row.group)
        if path is None:
            continue
        others = others_typed(row.group)
        if others:
            why = f"it cannot be told: other overrides were typed ({listed(others)})"
            found.append(Held(row.name, _name(path), [], why))
        else:
            found.append(_held(row.group, path, expected.read(path)))
    return found


def _held(group: Group, path: Path, references: References) -> Held:
    if other := expected.differing(references, group.records):
        return Held(group.name, _name(path), [], f"the file is about another configuration ({'; '.join(other[:4])})")
    return Held(group.name, _name(path), expected.judge(references, group.records))


def fitting(group: Group) -> Path | None:
    """The references file of the experiment that all runs of a group are of."""
    names = {_experiment(run.typed) for run in group.records}
    name = names.pop() if len(names) == 1 else None
    path = ROOT / "references" / f"{name}.yaml"
    return path if name is not None and path.is_file() else None


def _experiment(typed: Sequence[str]) -> str | None:
    return next((override.partition("=")[2] for override in typed if _plain(override).startswith("experiment=")), None)


def others_typed(group: Group) -> list[str]:
    """What was typed besides the experiment that may change a result."""
    free = (*NOT_NAMING, *NOT_THE_RUN, "experiment=")
    typed: Sequence[str] = [override for run in group.records for override in run.typed]
    return [override for override in dict.fromkeys(typed) if not _plain(override).startswith(free)]


def _plain(override: str) -> str:
    return override.lstrip("+~")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else str(path)
