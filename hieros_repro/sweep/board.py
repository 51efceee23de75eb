"""What the jobs of a sweep have come to since it was started: a note per job, the word to stop, and a line of progress.

The notes say what run folders cannot: a run that was refused before it began, and which jobs this start of the sweep has
been through. All of it is thrown away when the sweep is started anew; the run folders are what counts.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from hieros_repro import atomic
from hieros_repro.log import jsonl
from hieros_repro.log.timing import duration
from hieros_repro.records import UserError
from hieros_repro.run.folder import RunFolder

FOLDER = ".jobs"
TO_SKIP, TO_RESUME, TO_RUN, TO_LEAVE = "skip (finished)", "resume", "run", "skip (failed)"


class Note(NamedTuple):
    """How a job of this start of the sweep ended."""

    outcome: str  # running, finished, skipped, failed, stopped
    text: str = ""


_KEPT: dict[Path, int] = {}  # the sweeps that this process has started, by their locks, which die with it


class Board:
    """The notes on the jobs of one sweep, and the file that says which there are."""

    def __init__(self, sweep: Path):
        self.sweep = sweep
        self._open(max(self._starts(), default=0))

    def _open(self, start: int) -> None:
        """The notes of one start of the sweep: a job of an earlier one that still runs heeds its own word and no other."""
        self.folder = self.sweep / FOLDER / str(start)
        self.flag, self.lines = self.folder / "stop", self.folder / "progress.log"

    def _starts(self) -> list[int]:
        folder = self.sweep / FOLDER
        return [int(path.name) for path in folder.iterdir() if path.name.isdigit()] if folder.is_dir() else []

    # What the sweep consists of

    def facts(self) -> dict[str, Any]:
        path = self.sweep / "sweep.json"
        return json.loads(path.read_text(encoding="utf8")) if path.exists() else {}

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        atomic.write(self.sweep / "sweep.json", json.dumps(facts, indent=1) + "\n")

    def register(self, name: str, overrides: list[str], steps: int) -> None:
        """Lists a job that could not be known beforehand: a trial of a search."""
        with self.locked():
            facts = self.facts()
            if name not in facts["jobs"]:
                facts["jobs"][name] = overrides
                facts["steps"] = facts.get("steps", {}) | {name: steps}
                self.write_facts(facts)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time: parallel jobs end at the same moment."""
        with (self.sweep / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def keep_others_out(self) -> None:
        """As long as this process lives, no other starts the same sweep."""
        if self.sweep in _KEPT:
            return
        descriptor = os.open(self.sweep / ".started", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(f"sweep.dir={self.sweep}: another process is running this sweep right now") from None
        _KEPT[self.sweep] = descriptor

    # What its jobs have come to

    def clear(self) -> None:
        """A new start: no notes. The word to stop that an earlier one was given stays for its jobs."""
        starts = self._starts()
        for start in starts:
            self._open(start)
            if not self.stopping():
                shutil.rmtree(self.folder, ignore_errors=True)
        self._open(max(starts, default=0) + 1)
        (self.folder / "notes").mkdir(parents=True, exist_ok=True)

    def note(self, name: str, outcome: str, text: str = "") -> None:
        path = self.folder / "notes" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, json.dumps(Note(outcome, text)._asdict()))

    def notes(self) -> dict[str, Note]:
        paths = sorted((self.folder / "notes").glob("[!.]*.json"))
        return {path.stem: Note(**json.loads(path.read_text(encoding="utf8"))) for path in paths}

    def stop(self) -> None:
        """No further job starts, and those under way stop after their tick."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.flag.touch()

    def tell(self, line: str) -> None:
        """Adds a line of progress; jobs that end together would say the same."""
        self.folder.mkdir(parents=True, exist_ok=True)
        told = self.lines.read_text(encoding="utf8").splitlines() if self.lines.exists() else []
        if told[-1:] != [line]:
            with self.lines.open("a", encoding="utf8") as lines:
                lines.write(line + "\n")

    def stopping(self) -> bool:
        return self.flag.exists()


# -- What there is to do -----------------------------------------------------------------------------------------------


def planned(sweep: Path, names: Iterable[str], retry_failed: bool) -> dict[str, list[str]]:
    """What will be done with every job: what is to do -> names."""
    plan: dict[str, list[str]] = {TO_SKIP: [], TO_LEAVE: [], TO_RESUME: [], TO_RUN: []}
    for name in names:
        plan[_action(RunFolder(sweep / name).read().get("status"), retry_failed)].append(name)
    return plan


def _action(status: str | None, retry_failed: bool) -> str:
    if status is None:
        return TO_RUN
    if status == "failed":
        return TO_RESUME if retry_failed else TO_LEAVE
    return TO_SKIP if status == "finished" else TO_RESUME


def announced(plan: Mapping[str, list[str]]) -> str:
    """The plan, a line for each thing to do."""
    hints = {TO_LEAVE: "  (run them again with sweep.retry_failed=true)"}
    return "\n".join(f"  {action}: {', '.join(names)}{hints.get(action, '')}" for action, names in plan.items() if names)


# -- How far it is -----------------------------------------------------------------------------------------------------


class Pace(NamedTuple):
    """A run's share of the work."""

    status: str
    wanted: int  # steps
    done: int
    seconds: float  # that the done ones took


def progress(sweep: Path) -> str:
    """One line over all jobs, as their folders stand."""
    facts = json.loads((sweep / "sweep.json").read_text(encoding="utf8"))
    steps = facts.get("steps", {})
    paces = [pace(sweep / name, steps.get(name, 0)) for name in facts["jobs"]]
    unknown = facts.get("trials", 0) - len(paces)  # of a search: trials that nobody has chosen yet
    paces += [Pace("pending", max(steps.values(), default=0), 0, 0.0)] * unknown
    return told(paces, facts.get("parallel", 1))


def pace(folder: Path, wanted: int) -> Pace:
    facts = RunFolder(folder).read()
    status = facts.get("status", "pending")
    if status == "finished":
        return Pace(status, wanted, facts["results"].get("step", wanted), facts.get("wall_seconds", 0.0))
    last: dict[str, Any] = {}
    for row in jsonl.read(folder / "timing.jsonl"):
        last = row
    done, rate = last.get("step", 0), last.get("steps_per_second", 0.0)
    return Pace(status, wanted, done, done / rate if rate else 0.0)


def told(paces: list[Pace], parallel: int) -> str:
    """seconds left = steps left * (seconds / steps so far) / min(parallel jobs, jobs left)."""
    count = {status: sum(p.status == status for p in paces) for status in ("finished", "failed", "running")}
    words = [f"{count['finished']} of {len(paces)} finished"]
    words += [f"{count[status]} {status}" for status in ("failed", "running") if count[status]]
    left = [p for p in paces if p.status not in ("finished", "failed")]
    timed = [p for p in paces if p.done and p.seconds]
    text = ", ".join(words)
    if not left or not timed:
        return text
    per_step = sum(p.seconds for p in timed) / sum(p.done for p in timed)
    seconds = per_step * sum(max(p.wanted - p.done, 0) for p in left) / min(max(parallel, 1), len(left))
    return f"{text}; about {duration(seconds)} left"


def follow(path: Path, ended: Any, pause: float = 0.5) -> None:
    """Prints the lines that are appended to a file, until `ended` (an event) is set and all have been printed."""
    shown = 0
    while True:
        last = ended.is_set()
        text = path.read_text(encoding="utf8") if path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        if len(whole) > shown:
            print(whole[shown:], end="", flush=True)
            shown = len(whole)
        if last:
            return
        time.sleep(pause)
