"""Sweeps: where their runs live, which of them still have to run, and the summary, refreshed after every job.

The run folders are the source of truth; Hydra only launches. A job's folder comes from its overrides and never from its number,
so running the same command again skips what is finished and resumes what is not.
"""

import fcntl
import hashlib
import itertools
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from hieros_repro.check import nearest
from hieros_repro.log.base import MEANINGS
from hieros_repro.records import Fault, UserError
from hieros_repro.resume import clean, title

METRICS = [name for name in MEANINGS if name.startswith("eval/")] + ["convergence_step"]
Run = Callable[[DictConfig, list[str]], float | None]


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The group `sweep`."""

    metric: str
    name: str | None
    dir: str | None
    axes: list[str]

    @classmethod
    def check(cls, *, metric: str, name: str | None, dir: str | None, axes: list[str]) -> Iterator[Fault]:
        if metric not in METRICS:
            yield Fault("metric", f"there is no {metric!r}; there are {', '.join(METRICS)}{nearest(metric, METRICS)}")


# -- Before the jobs ---------------------------------------------------------------------------------------------------


def lay_out(
    parsed: Sequence[Override],
    typed: list[str],
    jobs: list[list[str]],
    configs: list[dict[str, Any]],
    config_dir: str | None = None,
) -> tuple[Path, list[str]]:
    """Decides the sweep's folder, writes what it consists of, and returns it with what Hydra must be told besides."""
    axes = [override.key_or_group for override in parsed if override.is_sweep_override()]
    first = configs[0]
    folder = Path(first["sweep"]["dir"] or _folder(first, typed)).resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"sweep.dir={folder}: cannot be written ({error.strerror})") from error
    with _locked(folder):
        before = _read(folder / "sweep.json")
        listed = {job_name(job, axes): [o for o in job if not _is_sweeps(o)] for job in jobs}
        flags = ["--config-dir", str(Path(config_dir).resolve())] if config_dir else []
        command = shlex.join([*flags, "-m", *typed])
        facts = {"command": command, "flags": flags, "metric": first["sweep"]["metric"], "axes": axes, "cwd": os.getcwd()}
        _write(folder / "sweep.json", json.dumps(facts | {"jobs": before.get("jobs", {}) | listed}, indent=1) + "\n")
    print(f"sweep of {len(jobs)} runs in {folder}")
    _point_out_close_seeds(jobs, first)
    told = [f"++sweep.dir='{folder}'", f"++sweep.axes=[{','.join(axes)}]", f"hydra.sweep.dir='{folder}'"]
    return folder, told + _fit_launcher(typed, first)


def _folder(config: dict[str, Any], typed: list[str]) -> Path:
    """outputs/sweeps/<name>-<digest of what was typed, seeds aside>."""
    counted = sorted(o for o in typed if not o.lstrip("+").startswith(("seed=", "hydra", "sweep.", "log")))
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
    return "_".join(parts) or "run"


def _is_sweeps(override: str) -> bool:
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


def _fit_launcher(typed: list[str], config: dict[str, Any]) -> list[str]:
    """Lowers the number of parallel jobs, never a job's threads, where they would not fit on the machine's cores."""
    given = dict(override.partition("=")[::2] for override in typed)
    if given.get("hydra/launcher") != "joblib":
        return []
    cores, threads = os.cpu_count() or 1, config["hardware"]["threads"]
    fitting = max(1, cores // threads)
    wanted = int(given.get("hydra.launcher.n_jobs", -1))
    if 0 < wanted <= fitting:
        return []
    if wanted > fitting:
        print(f"{wanted} jobs of {threads} thread(s) do not fit on {cores} cores: running {fitting} at a time")
    return [f"hydra.launcher.n_jobs={fitting}"]


# -- One job -----------------------------------------------------------------------------------------------------------


def member(config: DictConfig, asked: list[str], run: Run) -> float | None:
    """Runs one job of a sweep in its own folder, unless it is finished, and refreshes the summary whatever happens."""
    folder = Path(config.sweep.dir)
    asked = [override for override in asked if not _is_sweeps(override)]
    config.run.dir = str(folder / job_name(asked, config.sweep.axes))
    config.resume = config.resume or "auto"
    try:
        finished = _finished(config)
        if finished is not None:
            print(f"finished before, with the same configuration, code and numerics: {config.run.dir}")
            return finished["results"].get(config.sweep.metric)
        return run(config, asked)
    finally:
        from hieros_repro.summary import refresh

        with _locked(folder):
            refresh(folder)


def _finished(config: DictConfig) -> dict[str, Any] | None:
    """run.json of a finished run that need not be run again; one that finished differently is an error."""
    from hieros_repro.build import construct, numerics
    from hieros_repro.check import check
    from hieros_repro.determinism.numerics import changed as numerics_changed
    from hieros_repro.provenance.code import code
    from hieros_repro.run.folder import RunFolder

    folder = RunFolder(Path(config.run.dir))
    facts = folder.read()
    if facts.get("status") != "finished":
        return None
    plain = check(config)
    construct(plain["determinism"]).apply()
    hardware = construct(plain["hardware"])
    hardware.apply()
    changed = [
        *(
            f"numerics {path}: {old!r}, now {new!r}"
            for path, (old, new) in numerics_changed(facts["numerics"], numerics(plain, hardware)).items()
        ),
        *(["the code has changed"] if facts["code"]["sources"] != code(plain["plugins"])["sources"] else []),
    ]
    if changed:
        listed = "\n".join(f"  {line}" for line in changed)
        raise UserError(
            f"{folder.path}: finished before, but not under the same conditions:\n{listed}\n"
            "delete that folder to run it again, or give the sweep another name with sweep.name=..."
        )
    from hieros_repro.resume import start

    start(plain, [])  # refuses another configuration by name
    return facts


# -- Files -------------------------------------------------------------------------------------------------------------


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time: parallel jobs end at the same moment."""
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf8")) if path.exists() else {}


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text, encoding="utf8")
    partial.replace(path)
