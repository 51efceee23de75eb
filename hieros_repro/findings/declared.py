"""What was declared about a metric beside its runs: sweep.margin, the largest difference that counts as none, and
sweep.cv_tolerance, the largest coefficient of variation that counts as steady.

Both are about `sweep.metric` and say nothing of another one. A sweep may be told them later than its first runs, so that what
its own file says wins over the configurations in its run folders. Who declares nothing contradicts nobody; where runs
contradict each other nothing is chosen for them.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hieros_repro.findings.archive import sweeps
from hieros_repro.findings.record import Record

MARGIN, TOLERANCE = "margin", "cv_tolerance"
Declarations = Mapping[str, Mapping[str, tuple[Any, Any]]]  # run folder -> margin, cv_tolerance -> value, metric it is of


def declarations(records: Sequence[Record]) -> Declarations:
    own = sweeps(records)
    return {run.folder: _declared(run, own.get(Path(run.folder).parent, {})) for run in records}


def _declared(run: Record, sweep: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """As its sweep says, else as its own configuration does."""
    found = {}
    for name in (MARGIN, TOLERANCE):
        own = run.facts.get(f"sweep.{name}"), run.facts.get("sweep.metric")
        found[name] = own if sweep.get(name) is None else (sweep[name], sweep.get("metric"))
    return found


def values(runs: Sequence[Record], name: str, metric: str, said: Declarations) -> tuple[float, ...]:
    """The different values that runs declare about a metric, from the least."""
    told = [said[run.folder][name] for run in runs if run.folder in said]
    return tuple(sorted({float(value) for value, of in told if of == metric and isinstance(value, int | float)}))


def agreed(found: Iterable[float]) -> float | None:
    """The one value there is; None where nothing was declared, and where several were."""
    several = set(found)
    return several.pop() if len(several) == 1 else None


def clash(name: str, found: Iterable[float]) -> str:
    """That several values were declared; nothing where they agree."""
    several = sorted(set(found))
    return f"sweep.{name} is {' and '.join(f'{value:g}' for value in several)}" if len(several) > 1 else ""


def steadiness(cv: float | None, tolerance: float | None) -> str:
    """A coefficient of variation against its tolerance, in words."""
    if cv is None:
        return "no CV" if tolerance is None else f"no CV to hold against {tolerance:g}"
    verdict = "" if tolerance is None else f", within {tolerance:g}" if cv <= tolerance else f", above {tolerance:g}"
    return f"CV {cv:.3g}{verdict}"
