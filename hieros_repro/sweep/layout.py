"""Sweeps, before their jobs: where they live, what they consist of, and what Hydra must be told.

The run folders are the source of truth; Hydra only launches. A job's folder comes from its overrides and never from its number,
so running the same command again skips what is finished and resumes what is not (job.py).
"""

import hashlib
import itertools
import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.override_parser.types import Override

from hieros_repro.check import nearest
from hieros_repro.log.base import MEANINGS
from hieros_repro.records import Fault, NonNegative, Positive, UserError
from hieros_repro.run.folder import clean, title
from hieros_repro.sweep import board, launch, search
from hieros_repro.sweep.board import Board

METRICS = [name for name in MEANINGS if name.startswith("eval/")] + ["convergence_step"]
LONGEST = 200  # letters of a job's folder; file systems take 255


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The group `sweep`."""

    metric: str
    margin: Positive | None
    cv_tolerance: NonNegative | None
    name: str | None
    dir: str | None
    axes: list[str]
    retry_failed: bool

    @classmethod
    def check(cls, *, metric: str, margin: float | None, cv_tolerance: float | None, **others: Any) -> Iterator[Fault]:
        if metric not in METRICS:
            yield Fault("metric", f"there is no {metric!r}; there are {', '.join(METRICS)}{nearest(metric, METRICS)}")
        for name, value in (("margin", margin), ("cv_tolerance", cv_tolerance)):
            if value is not None and not math.isfinite(value):
                yield Fault(name, f"{value} is not allowed; it must be a finite number")


# -- Before the jobs ---------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A sweep as it was typed: its jobs, a checked configuration for every distinct one, and Hydra's own node."""

    typed: list[str]
    parsed: Sequence[Override]
    jobs: list[list[str]]
    configs: list[dict[str, Any]]
    node: Mapping[str, Any]
    config_dir: str | None = None

    @property
    def axes(self) -> list[str]:
        return [override.key_or_group for override in self.parsed if override.is_sweep_override()]

    @property
    def searches(self) -> bool:
        return search.is_search(self.node)


def lay_out(asked: Asked) -> tuple[Path, list[str]]:
    """Decides the sweep's folder, writes what it consists of, and returns it with what Hydra must be told besides."""
    first, axes = asked.configs[0], asked.axes
    if asked.searches:
        search.silence()
        search.refuse_unrepeatable(asked.node, [o for o in asked.parsed if o.is_sweep_override()])
    folder = Path(first["sweep"]["dir"] or _folder(first, asked.typed, asked.searches)).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"sweep.dir={folder}: cannot be written ({error.strerror})") from error
    notes = Board(folder)
    notes.keep_others_out()
    how = launch.fit(launch.chosen(asked.node), asked.typed, launch.room(first), asked.node)
    steps = {} if asked.searches else {job_name(job, axes): _steps(job, first) for job in asked.jobs}
    flags = ["--config-dir", str(Path(asked.config_dir).resolve())] if asked.config_dir else []
    command = shlex.join([*flags, "-m", *asked.typed])
    facts = {"command": command, "flags": flags, "metric": first["sweep"]["metric"], "axes": axes, "cwd": os.getcwd()}
    facts |= {name: first["sweep"][name] for name in ("margin", "cv_tolerance")}
    facts |= {"parallel": how.parallel, "devices": how.devices, "search": None}
    if asked.searches:
        facts |= {"search": _direction(asked), "trials": int(asked.node["sweeper"]["n_trials"])}
    with notes.locked():
        before = notes.facts()
        listed = {job_name(job, axes): [o for o in job if not is_sweeps(o)] for job in asked.jobs} if steps else {}
        facts |= {"jobs": before.get("jobs", {}) | listed, "steps": before.get("steps", {}) | steps, "started": list(steps)}
        earlier = dict.fromkeys(before.get("jobs", ()), before.get("axes", [])) | before.get("job_axes", {})
        facts["job_axes"] = earlier | dict.fromkeys(listed, axes)  # jobs of an earlier start were named by its axes
        notes.write_facts(facts)
    notes.clear()
    _say(folder, asked, list(steps))
    told = [f"++sweep.dir='{folder}'", f"++sweep.axes=[{','.join(axes)}]", f"hydra.sweep.dir='{folder}'"]
    return folder, told + how.overrides


def _say(folder: Path, asked: Asked, names: list[str]) -> None:
    first = asked.configs[0]
    if asked.searches:
        sweeper, metric = asked.node["sweeper"], first["sweep"]["metric"]
        print(f"search of {sweeper['n_trials']} trials in {folder}: {_direction(asked)} {metric}; finished ones are skipped")
        return
    print(f"sweep of {len(names)} runs in {folder}")
    print(board.announced(board.planned(folder, names, first["sweep"]["retry_failed"])))
    _point_out_close_seeds(asked.jobs, first)


def _direction(asked: Asked) -> str:
    return str(getattr(asked.node["sweeper"]["direction"], "name", asked.node["sweeper"]["direction"]))


def _steps(job: Sequence[str], config: dict[str, Any]) -> int:
    """How many steps a job wants: as typed for it, or as in the configuration of all."""
    typed = [override.partition("=")[2].replace("_", "") for override in job if override.startswith("run.steps=")]
    return int(typed[-1]) if typed and typed[-1].isdigit() else int(config["run"]["steps"])


def _folder(config: dict[str, Any], typed: list[str], searches: bool) -> Path:
    """outputs/sweeps/<name>-<digest of what was typed, seeds aside>; of a search also of how it chooses."""
    counted = sorted(
        o for o in typed
        if not o.lstrip("+").startswith(("seed=", "hydra", "sweep.", "log")) or (searches and search.chooses(o))
    )  # fmt: skip
    digest = hashlib.sha256("\n".join(counted).encode()).hexdigest()[:8]
    return Path("outputs") / "sweeps" / f"{clean(config['sweep']['name'] or title(config))}-{digest}"


def job_name(job: Sequence[str], axes: Sequence[str]) -> str:
    """A job's folder: its values along the sweep's axes."""
    values = dict(override.lstrip("+").partition("=")[::2] for override in job)
    parts = []
    for axis in axes:
        name = clean(f"{axis}-{values[axis]}")
        if name != f"{axis}-{values[axis]}":  # what cleaning made equal stays apart
            name += "-" + hashlib.sha256(values[axis].encode()).hexdigest()[:6]
        parts.append(name)
    whole = "_".join(parts) or "run"
    return whole if len(whole) <= LONGEST else f"{whole[:LONGEST]}-{hashlib.sha256(whole.encode()).hexdigest()[:6]}"


def is_sweeps(override: str) -> bool:
    return override.lstrip("+").startswith("sweep.")


def _point_out_close_seeds(jobs: list[list[str]], config: dict[str, Any]) -> None:
    if config["determinism"]["env_seeds"] == "keyed":
        return
    seeds = sorted({int(override[5:]) for job in jobs for override in job if override.startswith("seed=")})
    count = config["env"]["num_envs"]
    close = [(a, b) for a, b in itertools.pairwise(seeds) if b - a < count]
    if close:
        a, b = close[0]
        print(
            f"note: seeds {a} and {b} are closer than the {count} environments, so environment {b - a} of seed {a} begins like "
            f"environment 0 of seed {b}; determinism.env_seeds=keyed avoids it"
        )
