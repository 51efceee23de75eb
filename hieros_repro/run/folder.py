"""The folder of a run: who holds it, what it says about itself."""

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hieros_repro import atomic
from hieros_repro.records import UserError

STATUSES = ("running", "finished", "failed", "stopped")


def invocation(verb: str) -> str:
    """How a verb is typed here: as the script says that started this process, or through python."""
    script = os.environ.get("HIEROS_SCRIPT")
    return f"{script} {verb}" if script else f"python -m hieros_repro.{verb}"


def names(config: Mapping[str, Any]) -> tuple[str, str]:
    """What is played and by whom: the registered id or the class and its task; the agent's name or its class."""
    env, agent = config["env"], config["agent"]
    kind, player = (node["_target_"].rpartition(".")[2] for node in (env, agent))
    played = env.get("id") or "-".join(filter(None, (kind, env.get("task"))))
    return played.lower(), str(agent.get("name") or player).lower()


def title(config: Mapping[str, Any]) -> str:
    """<environment>-<agent>: the folder that runs of this kind are put in."""
    played, agent = names(config)
    return clean(f"{played[:60]}-{agent}")


def clean(name: str) -> str:
    """Only letters, digits, dot, underscore and hyphen."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "run"


def _locked(descriptor: int) -> bool:
    """Takes the lock unless somebody keeps it: whoever asks whether a run is held has it for an instant."""
    for _ in range(20):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


class RunFolder:
    """One process at a time holds a run folder, by an OS lock that dies with it."""

    def __init__(self, path: Path):
        self.path = path
        self.begun = False  # whether there is a run from now on, whatever happens
        self.ours = False  # whether a run was ever here
        self._lock: int | None = None

    def exists(self) -> bool:
        return (self.path / "config.yaml").exists()

    @contextlib.contextmanager
    def held(self) -> "Iterator[RunFolder]":
        """Creates the folder if need be, and keeps every other process out of it. Of a run that is refused nothing is left."""
        absent = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock, self.ours = self._opened()
        except OSError as error:
            raise UserError(f"run.dir={self.path}: cannot be written ({error.strerror})") from error
        try:
            if not _locked(self._lock):
                raise UserError(f"run.dir={self.path}: another process is running this run right now")
            if not self._is_locked():
                raise UserError(f"run.dir={self.path}: another process has just taken it away; run this again")
            there = {path.name for path in self.path.iterdir()}
            try:
                yield self
            except UserError:
                if not self.begun:
                    self._clear(there, absent)
                raise
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(f"run.dir={self.path}: the disk is full; make room and run it again with resume=auto") from error
        finally:
            os.close(self._lock)
            self._lock = None

    def _opened(self) -> tuple[int, bool]:
        """The file that is locked, and whether it was there before."""
        try:
            return os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644), False
        except FileExistsError:
            return os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644), True

    def _is_locked(self) -> bool:
        """Whether the lock that is held is still the folder's, and not that of a folder which has gone."""
        assert self._lock is not None
        with contextlib.suppress(FileNotFoundError):
            return os.path.samestat(os.fstat(self._lock), (self.path / ".lock").stat())
        return False

    def _clear(self, there: set[str], absent: list[Path]) -> None:
        """As it was when it held `there`, without a lock that came with this run (whoever waits on it is told so when he gets
        it); the folders that were `absent` go with it, as far as nobody else has used them."""
        with contextlib.suppress(OSError):  # what cannot be deleted is no reason to hide why the run was refused
            for path in [path for path in self.path.iterdir() if path.name not in there]:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() and not path.is_symlink() else path.unlink()
            if not self.ours:
                (self.path / ".lock").unlink()
            for path in absent:
                path.rmdir()

    def read(self) -> dict[str, Any]:
        """run.json, with a status that can be believed: a killed process left `running` behind."""
        try:
            facts = json.loads((self.path / "run.json").read_text(encoding="utf8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        if facts.get("status") == "running" and not self.is_held():
            facts["status"] = "interrupted"
        return facts

    def update(self, **facts: Any) -> None:
        """Changes some facts of run.json, all or none."""
        self.write("run.json", json.dumps(self._raw() | facts, indent=1) + "\n")

    def write(self, name: str, text: str) -> None:
        atomic.write(self.path / name, text)

    def is_held(self) -> bool:
        """Whether a living process holds the folder (this one included)."""
        if self._lock is not None:
            return True
        try:
            descriptor = os.open(self.path / ".lock", os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _raw(self) -> dict[str, Any]:
        path = self.path / "run.json"
        return json.loads(path.read_text(encoding="utf8")) if path.exists() else {}
