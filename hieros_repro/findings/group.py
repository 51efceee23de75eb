"""Groups: runs that differ in nothing but their seed, with a name that says what tells each from the others."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hieros_repro.determinism.numerics import differences
from hieros_repro.findings.record import NOT_THE_RUN, Record
from hieros_repro.stats.label import shortened

SHOWN = 3  # keys in a name that only the configuration tells apart
NOT_NAMING = ("seed", "log", "hydra", "run.dir", "resume", "sweep.", "run.checkpoint_every", "run.log_every")


class Group(NamedTuple):
    """The runs of one configuration, whatever their seed."""

    name: str
    records: list[Record]

    @property
    def task(self) -> str:
        return str(self.records[0].facts.get("task", ""))

    def seeds(self) -> dict[int, list[Record]]:
        """Seed -> its runs, in order of seed; more than one where a run was repeated."""
        found: dict[int, list[Record]] = {}
        for run in sorted((run for run in self.records if run.seed is not None), key=lambda run: run.seed or 0):
            found.setdefault(int(run.seed or 0), []).append(run)
        return found


def groups(records: Sequence[Record]) -> list[Group]:
    """The records in groups, in the order in which their first runs come. A run that has not begun has no configuration yet:
    it belongs where the same was typed."""
    found: dict[str, list[Record]] = {}
    known = {_typed(run): run.group for run in records if run.group}
    for run in records:
        found.setdefault(run.group or known.get(_typed(run), _typed(run)), []).append(run)
    members = list(found.values())
    return [Group(name, runs) for name, runs in zip(_names(members), members, strict=True)]


def apart(found: Sequence[Group]) -> dict[str, list[Any]]:
    """Key path -> its value in each group, for every key of the configuration in which the groups differ."""
    configs = [configuration(group.records[0]) for group in found]
    keys = sorted({key for config in configs for key in config if any(o.get(key) != config[key] for o in configs)})
    return {key: [config.get(key) for config in configs] for key in keys}


def configuration(run: Record) -> dict[str, Any]:
    """The keys that make the run what it is: those of its configuration that runs of one group share."""
    return {key: value for key, value in run.facts.items() if "." in key and not key.startswith(NOT_THE_RUN)}


def _typed(run: Record) -> str:
    return " ".join(sorted(o for o in run.typed if not o.lstrip("+~").startswith(NOT_NAMING)))


def _names(members: Sequence[Sequence[Record]]) -> list[str]:
    """The shortest of three names that tells all groups apart: agent and environment where they vary; what was typed in
    addition, keys by their last parts; the configuration's own differences."""
    firsts = [runs[0] for runs in members]
    played = [_varying(firsts, run) for run in firsts]
    if len(members) == 1:
        return [f"{firsts[0].facts.get('agent', '')} on {firsts[0].facts.get('task', '')}" if firsts[0].group else "all"]
    if _distinct(played):
        return played
    common = set.intersection(*({*run.typed} for run in firsts))
    typed = [" ".join(o for o in run.typed if o not in common and not o.lstrip("+~").startswith(NOT_NAMING)) for run in firsts]
    if _distinct(typed):
        short = shortened(typed)
        return [short[name] for name in typed]
    told = [" ".join(filter(None, [name or "defaults", _other(run, firsts)])) for name, run in zip(typed, firsts, strict=True)]
    counts: Mapping[str, itertools.count[int]] = {name: itertools.count(1) for name in told}
    return [name if told.count(name) == 1 else f"{name} ({next(counts[name])})" for name in told]


def _distinct(names: Sequence[str]) -> bool:
    return all(names) and len(set(names)) == len(names)


def _varying(firsts: Sequence[Record], run: Record) -> str:
    keys = [key for key in ("agent", "task") if len({other.facts.get(key) for other in firsts}) > 1]
    return " on ".join(str(run.facts[key]) for key in keys if key in run.facts)


def _other(run: Record, firsts: Sequence[Record]) -> str:
    """Up to three keys in which a run differs from the first."""
    found = differences(configuration(firsts[0]), configuration(run))
    return " ".join(f"{key}={new}" for key, (_, new) in list(found.items())[:SHOWN])
