"""One job of a sweep: skipped, resumed or run in its own folder, and noted, so that no job's fate is another's."""

import math
import signal
import sqlite3
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hieros_repro.records import Failed, Stopped, UserError
from hieros_repro.run.folder import RunFolder
from hieros_repro.run.stop import stop_when
from hieros_repro.sweep import board, launch, search
from hieros_repro.sweep.board import Board
from hieros_repro.sweep.layout import is_sweeps, job_name

Run = Callable[[DictConfig, list[str]], float | None]


def member(config: DictConfig, asked: list[str], run: Run) -> float | None:
    """Runs one job of a sweep in its own folder, unless it is finished, and refreshes the summary whatever happens.

    A job that fails gives no score and raises nothing, so that under every launcher all others run.
    """
    folder = Path(config.sweep.dir)
    asked = [override for override in asked if not is_sweeps(override)]
    name, notes, launcher = job_name(asked, config.sweep.axes), Board(folder), _launcher()
    config.run.dir = str(folder / name)
    config.resume = config.resume or "auto"
    if launcher == "joblib":  # Ctrl-C reaches every process; the first one tells the others
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if notes.stopping():
        return None
    notes.register(name, asked, config.run.steps)
    try:
        notes.note(name, "running")
        with stop_when(notes.flag):
            score, outcome = _score(config, asked, run, launcher)
        notes.note(name, *outcome)
        return None if score is None or math.isnan(score) else score  # no score is one that a search can be told
    except Stopped:
        notes.note(name, "stopped")
        if launcher != "submitit_slurm":  # which ends one job for reasons that are not the others'
            notes.stop()
        if launcher == "basic":
            raise
        return None
    except (UserError, Failed) as error:
        print(f"error: {name}: {error}", file=sys.stderr)
        notes.note(name, "failed", str(error))
        return None
    finally:
        _accounted(notes)


def _score(config: DictConfig, asked: list[str], run: Run, launcher: str) -> tuple[float | None, tuple[str, str]]:
    """The job's score and what it came to."""
    path = config.run.dir
    facts = RunFolder(Path(path)).read()
    if facts.get("status") == "failed" and not config.sweep.retry_failed:
        error = facts.get("error") or {}
        text = f"failed before ({error.get('kind')}: {error.get('text')}); run it again with sweep.retry_failed=true"
        print(f"{path}: {text}")
        return None, ("failed", text)
    try:
        return _run(config, asked, run, launcher)
    except (UserError, Failed):
        raise
    except Exception as error:
        traceback.print_exc()
        raise Failed(f"{type(error).__name__}: {error}") from error


def _run(config: DictConfig, asked: list[str], run: Run, launcher: str) -> tuple[float | None, tuple[str, str]]:
    """As `_score`, of a job that is not to be left alone, on devices of its own."""
    devices = Board(Path(config.sweep.dir)).facts().get("devices")
    if devices and launcher in ("joblib", "submitit_local"):
        from hieros_repro.sweep.devices import take

        take(Path(config.sweep.dir) / ".devices", devices, config.hardware.ranks)
    finished = _finished(config)
    if finished is None:
        return run(config, asked), ("finished", "")
    print(f"finished before, with the same configuration, code and numerics: {config.run.dir}")
    return finished["results"].get(config.sweep.metric), ("skipped", "")


def _launcher() -> str:
    return launch.chosen(HydraConfig.get()) if HydraConfig.initialized() else "basic"


def _accounted(notes: Board) -> None:
    """Accounts for the job. A summary that cannot be written is said and takes the place of no job's fate."""
    try:
        _account(notes)
    except (OSError, sqlite3.Error, ArithmeticError, LookupError, TypeError, ValueError) as error:
        print(f"error: the summary of {notes.sweep} could not be written: {type(error).__name__}: {error}", file=sys.stderr)


def _account(notes: Board) -> None:
    """Brings the sweep's files up to date at a job's end."""
    from hieros_repro.sweep.summary import refresh

    with notes.locked():
        refresh(notes.sweep)
        if notes.facts().get("search"):
            search.trials(notes.sweep)
        notes.tell(board.progress(notes.sweep))


def _finished(config: DictConfig) -> dict[str, Any] | None:
    """run.json of a finished run that need not be run again; one that finished differently is an error."""
    from hieros_repro.build import construct, numerics
    from hieros_repro.check import check
    from hieros_repro.determinism.numerics import changed as numerics_changed
    from hieros_repro.provenance.code import code

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
