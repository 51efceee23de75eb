"""The files of one replay: steps in the order in which they came, written in the background as the run goes."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hieros_repro import atomic
from hieros_repro.records import Damaged, Tree
from hieros_repro.replay.base import Once
from hieros_repro.replay.buffer import Buffer, Places
from hieros_repro.replay.storage import SUFFIX, Stored, read, verified, write

_MANY = 8  # files being written; whoever brings steps faster than the disk takes them has to wait
STREAM = "stream"  # beside the rows in a file: whose step each is


class Reading(NamedTuple):
    """Work that reads the buffer and must be done before `ticks` more ticks."""

    work: Once
    ticks: int


class Piece(NamedTuple):
    """Consecutive steps: whose each is; or, where they are lost, the streams that had any."""

    own: np.ndarray
    rows: dict[str, np.ndarray] | None


class Files:
    """Files are never changed; their names tell which steps they hold, counted from the run's first over all streams.

    Those that still hold steps of the buffer, and the few steps that no file holds yet, are a replay's state. Whoever keeps
    states knows which of the older files are still needed.
    """

    def __init__(self, folder: Path, buffer: Buffer, chunk: int, compress: bool):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.buffer, self.compress = folder, buffer, compress
        self._chunk, self._ticks = chunk, max(1, buffer.steps // 2)  # a file is due after so many steps, or ticks
        self._since = buffer.lengths.copy()  # the streams' lengths before the first step that no file holds
        self._own: list[np.ndarray] = []  # whose those steps are
        self._count = self._age = 0  # how many they are, and over how many ticks they came
        self._lost: list[tuple[np.ndarray, np.ndarray]] = []  # the streams' lengths before and after each file that was lost
        self._written: list[Stored] = []  # oldest first
        self._writing: list[Once] = []
        self._before: list[np.ndarray] = []  # the streams' lengths before each file, written or being written
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="replay-files")

    def came(self, own: np.ndarray, names: Sequence[str]) -> Reading | None:
        """One tick brought a step to each of these streams. Where a file is due, this tells until when it must be read."""
        self._own.append(own)
        self._count += len(own)
        self._age += 1
        if self._count < self._chunk and self._age < self._ticks:
            return None
        ticks = self.buffer.ring - self._age
        gathered = Once(self._gatherer(names))
        path = self.folder / named(self.buffer.total - self._count, self.buffer.total)
        work = Once(lambda: write(path, gathered(), self.compress))
        self._collect(lambda earlier: earlier.done or len(self._writing) >= _MANY)
        self._writing.append(work)
        self._writer.submit(work)
        self._filed()
        return Reading(gathered, ticks)

    def _gatherer(self, names: Sequence[str]) -> Callable[[], dict[str, np.ndarray]]:
        """What reads the steps that no file holds yet."""
        own = np.concatenate(self._own)
        slots, bank = self.buffer.slots(self.buffer.since(self._since, own)), self.buffer.bank
        return lambda: {STREAM: own.astype(np.uint32), **{name: bank.fetch(name, slots) for name in names}}

    def _filed(self) -> None:
        self._before.append(self._since)
        self._since = self.buffer.lengths.copy()
        self._own.clear()
        self._count = self._age = 0

    def _collect(self, ripe: Callable[[Once], bool]) -> None:
        """What has been written. An error of the writer's is raised here."""
        while self._writing and ripe(self._writing[0]):
            self._written.append(self._writing[0]())
            self._writing.pop(0)

    def close(self) -> None:
        self._writer.shutdown(wait=True, cancel_futures=True)

    # -- State ---------------------------------------------------------------------------------------------------------

    def state(self, names: Sequence[str]) -> dict[str, Tree]:
        """The files, once they are durable, and the steps after them."""
        if self._writing:
            self._collect(lambda _: True)
        oldest = self.buffer.oldest()
        while self._written and ((self._before[1:] or [self._since])[0] <= oldest).all():
            self._written.pop(0)
            self._before.pop(0)
        return {
            "files": [list(stored) for stored in self._written],
            "before": np.stack([*self._before, self._since]),
            "tail": self._gatherer(names)() if self._own else {},
            "age": self._age,
        }

    def load(self, state: Tree, recover: bool) -> Iterator[Piece]:
        """Brings the buffer back to a state's lengths, file by file; the caller stores each one's rows before it asks for the
        next. With `recover` a damaged file is passed over."""
        files, before = [Stored(*stored) for stored in state["files"]], list(state["before"])
        self._tidy(files, int(before[-1].sum()))
        held = list(zip(files, before[:-1], before[1:], strict=True))
        lost = [recover and not self._intact(stored) for stored in files]
        self._lost = [(start, after) for (_, start, after), gone in zip(held, lost, strict=True) if gone]
        self.buffer.begin(before[0] + sum(after - start for start, after in self._lost))
        for (stored, start, after), gone in zip(held, lost, strict=True):
            if gone:
                (self.folder / stored.name).unlink(missing_ok=True)
                yield Piece(np.flatnonzero(after > start), None)
            else:
                self._before.append(self.buffer.lengths.copy())
                self._written.append(stored)
                yield _piece(self._read(stored))
        self._since, self._age = self.buffer.lengths.copy(), state["age"]
        if state["tail"]:
            self._own, self._count = [state["tail"][STREAM].astype(np.int64)], len(state["tail"][STREAM])
            yield _piece(state["tail"])

    def moved(self, places: Places) -> tuple[Places, np.ndarray]:
        """Where steps of the loaded state are now, without those that were lost; and which ones these are."""
        at, kept = places.at.copy(), np.ones(len(places.at), bool)
        for start, after in ((start[places.stream], after[places.stream]) for start, after in self._lost):
            kept &= (places.at < start) | (places.at >= after)
            at += np.where(places.at < start, after - start, 0)
        return Places(places.stream[kept], at[kept]), kept

    def _read(self, stored: Stored) -> dict[str, np.ndarray]:
        try:
            return read(self.folder, stored)
        except Damaged as error:
            raise Damaged(f"{error}; replay.recover=true goes on without the {stored.rows} steps it holds") from error

    def _intact(self, stored: Stored) -> bool:
        try:
            verified(self.folder, stored)
        except Damaged as error:
            print(f"going on without {stored.rows} steps: {error}")
            return False
        return True

    def _tidy(self, files: list[Stored], end: int) -> None:
        """Removes what was written after the state, and refuses what nobody wrote. `end`: the first step that no file holds."""
        spans = [span(stored.name) for stored in files]
        begin = min((steps[0] for steps in spans if steps is not None), default=end)
        known = {stored.name for stored in files}
        for path in sorted(self.folder.iterdir()):
            steps = span(path.name)
            if path.name.startswith(atomic.PARTIAL) or (steps is not None and steps[0] >= end):
                path.unlink()
            elif path.name not in known and (steps is None or steps[1] > begin):
                raise Damaged(f"{path}: not part of this replay; move it away")


def _piece(rows: Mapping[str, np.ndarray]) -> Piece:
    return Piece(rows[STREAM].astype(np.int64), {name: values for name, values in rows.items() if name != STREAM})


def named(start: int, end: int) -> str:
    """The name of a file of the steps start, ..., end - 1."""
    return f"steps-{start:012d}-{end:012d}{SUFFIX}"


def span(name: str) -> tuple[int, int] | None:
    """The steps that a file of this name holds, or None for a name that is not of our making."""
    match = re.fullmatch(r"steps-(\d{12})-(\d{12})" + re.escape(SUFFIX), name)
    return (int(match[1]), int(match[2])) if match else None


def link(file: Path, folder: Path) -> None:
    """The same file in another folder, without a second copy of its content where the disk allows."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.replaced(folder / file.name) as partial:
        partial.unlink(missing_ok=True)
        try:
            os.link(file, partial)
        except FileNotFoundError:
            raise Damaged(f"{file}: missing") from None
        except OSError:  # another disk, or one without links
            shutil.copyfile(file, partial)


def prune(folder: Path, needed: set[str]) -> None:
    """Deletes the files before the newest ones that no state needs any more. `needed`: those that some state names."""
    spans = {path: steps for path in folder.iterdir() if (steps := span(path.name)) is not None}
    newest = max((steps[1] for path, steps in spans.items() if path.name in needed), default=0)
    for path, steps in spans.items():
        if path.name not in needed and steps[1] <= newest:
            path.unlink()
