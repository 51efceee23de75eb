"""What a report shows of each run beyond its record: its whole account, what it cost, and digests of what it wrote."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hieros_repro.findings.record import Record, costs
from hieros_repro.run.folder import RunFolder

LARGE = 256 * 2**20  # bytes of a ledger above which it is not read for its digest


class Evidence(NamedTuple):
    """One run. `account` is its run.json; empty for one that has not begun."""

    run: Record
    account: Mapping[str, Any]
    cost: Mapping[str, float]  # the last row of timing.jsonl; empty where it cannot be read
    ledger: str | None  # a digest of ledger.jsonl
    patch: str | None  # a digest of code.patch; None: nothing was changed

    @property
    def folder(self) -> Path:
        return Path(self.run.folder)

    @property
    def name(self) -> str:
        return self.folder.name


def gather(records: Sequence[Record]) -> list[Evidence]:
    return [_evidence(run) for run in records]


def _evidence(run: Record) -> Evidence:
    folder = Path(run.folder)
    account = {} if run.status == "damaged" else RunFolder(folder).read()
    return Evidence(run, account, _cost(folder), digest(folder / "ledger.jsonl"), digest(folder / "code.patch"))


def _cost(folder: Path) -> dict[str, float]:
    """Nothing where the file cannot be read: what a run cost is no part of its result."""
    try:
        found = costs(folder)
    except ValueError:
        return {}
    items = found.items() if isinstance(found, dict) else ()
    return {name: value for name, value in items if isinstance(value, int | float) and math.isfinite(value)}


def digest(path: Path) -> str | None:
    """Of a file's bytes, as short as those in run.json; None for a file that is absent, empty or very large."""
    if not path.exists() or not 0 < path.stat().st_size <= LARGE:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def kinds(evidence: Sequence[Evidence], *path: str) -> dict[Any, list[Evidence]]:
    """Value of the account at this path -> the runs that have it, for all that have begun."""
    found: dict[Any, list[Evidence]] = {}
    for one in evidence:
        value: Any = one.account
        for name in path:
            value = (value or {}).get(name)
        if one.account:
            found.setdefault(value, []).append(one)
    return found
