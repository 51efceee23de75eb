"""The latest steps of several streams, in rings, and every window of consecutive steps, in order of age."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from hieros_repro.records import Arrays
from hieros_repro.replay.bank import Bank


class Places(NamedTuple):
    """Where steps, or the first ones of windows, are: which streams, and after how many of their steps."""

    stream: np.ndarray
    at: np.ndarray

    def spread(self, length: int) -> "Places":
        """All steps of the windows that start here: (B, L)."""
        return Places(self.stream[:, None], self.at[:, None] + np.arange(length))

    def last(self, count: int) -> "Places":
        """Of windows: their last steps."""
        return Places(self.stream, self.at[:, -count:])

    def only(self, chosen: np.ndarray) -> "Places":
        return Places(self.stream[chosen], self.at[chosen])

    def of_streams(self, streams: np.ndarray) -> "Places":
        return self.only(np.isin(self.stream, streams))

    def pairs(self) -> list[list[int]]:
        return np.stack(self, 1).tolist()

    @classmethod
    def between(cls, start: np.ndarray, end: np.ndarray) -> "Places":
        """Of each stream the steps start, ..., end - 1, stream by stream."""
        stream = np.repeat(np.arange(len(start)), end - start)
        return cls(stream, start[stream] + _occurrence(stream))

    @classmethod
    def of(cls, pairs: Sequence[Sequence[int]]) -> "Places":
        table = np.array(pairs, np.int64).reshape(-1, 2)
        return cls(table[:, 0], table[:, 1])


class Buffer:
    """The latest `steps` steps of each stream. An item is a window of `length` consecutive steps of one stream.

    Windows are numbered from 0 in the order in which they became complete, for ever; first, ..., end - 1 are stored. A window
    is forgotten with its first step, and with it every older one: where a stream has more steps than others, it decides.
    A ring has `slack` slots more than it has steps, so that what was just forgotten can still be read for as many ticks.
    """

    def __init__(self, bank: Bank, streams: int, steps: int, length: int):
        self.streams, self.steps, self.length = streams, steps, length
        self.ring = bank.count // streams
        self.slack = self.ring - steps
        self.bank = bank
        self.first = self.end = 0
        self.lengths = np.zeros(streams, np.int64)  # steps that each stream ever had
        self.total = 0  # their sum
        self._base = np.zeros(streams, np.int64)  # how many came before the first that was ever put in here
        self._forgotten = np.zeros(streams, np.int64)  # windows of each stream before `first`
        self._starts = np.zeros(
            bank.count, np.uint32 if bank.count < 2**32 else np.int64
        )  # of window n, at n % count: its slot
        self._waiting: list[np.ndarray] = []  # streams that got a step since windows were last counted, in order
        self._everyone = np.arange(streams)

    # -- Steps in ------------------------------------------------------------------------------------------------------

    def add(self, values: Arrays, streams: np.ndarray | None = None) -> None:
        """One step of these streams, or of all of them."""
        if not self.bank.arrays:
            self._open(values)
        if streams is None:
            at = int(self.lengths[0])
            slots: Any = slice(at % self.ring, None, self.ring) if self._even() else self._slots(self._everyone, self.lengths)
            self.bank.put(slots, values)
            self.lengths += 1
            self.total += self.streams
            self._waiting.append(self._everyone)
        elif len(streams):
            self.bank.put(self._slots(streams, self.lengths[streams]), {n: value[streams] for n, value in values.items()})
            self.lengths[streams] += 1
            self.total += len(streams)
            self._waiting.append(streams)
        if len(self._waiting) >= self.slack:
            self.settle()

    def extend(self, values: Arrays, streams: np.ndarray) -> None:
        """Many steps, in order; `streams` tells whose each is."""
        if not self.bank.arrays:
            self._open(values)
        self.settle()
        for part in _parts(len(streams), self.slack):
            own = streams[part]
            at = self.lengths[own] + _occurrence(own)
            self.bank.put(self._slots(own, at), {name: value[part] for name, value in values.items()})
            self.lengths += np.bincount(own, minlength=self.streams)
            self.total += len(own)
            self._waiting.append(own)
            self.settle()

    def _open(self, values: Arrays) -> None:
        for name, value in values.items():
            self.bank.open(name, value.shape[1:], value.dtype)

    def _even(self) -> bool:
        return self.streams == 1 or bool((self.lengths == self.lengths[0]).all())

    # -- Windows -------------------------------------------------------------------------------------------------------

    def settle(self) -> int:
        """Counts the windows that became complete, and those forgotten, since it was last called. Returns `end` as it was."""
        if not self._waiting:
            return self.end
        before, own = self.end, np.concatenate(self._waiting)
        self._waiting.clear()
        counts = np.bincount(own, minlength=self.streams)
        starts = (self.lengths - counts)[own] + _occurrence(own) - (self.length - 1)
        complete = starts >= self._base[own]
        slots = self._slots(own[complete], starts[complete])
        self._starts[np.arange(self.end, self.end + len(slots)) % self.bank.count] = slots
        self.end += len(slots)
        self._forget()
        return before

    def _forget(self) -> None:
        """Windows whose first step is no longer kept, and those older than they."""
        while owed := self._owed():
            oldest = self._starts[np.arange(self.first, self.first + owed) % self.bank.count]
            self._forgotten += np.bincount(oldest // self.ring, minlength=self.streams)
            self.first += owed

    def _owed(self) -> int:
        """How many windows have lost their first step and are still counted."""
        lost = np.minimum(self.lengths - self.steps - self._base, self._born())
        return int(np.maximum(lost - self._forgotten, 0).sum())

    def _born(self) -> np.ndarray:
        """How many windows of each stream became complete here."""
        return np.maximum(self.lengths - self._base - (self.length - 1), 0)

    def places(self, numbers: np.ndarray) -> Places:
        """Where the windows of these numbers start."""
        slots = self._starts[numbers % self.bank.count].astype(np.int64)
        stream = slots // self.ring
        latest = self.lengths[stream] - 1
        return Places(stream, latest - (latest - slots) % self.ring)

    def oldest(self) -> np.ndarray:
        """Of each stream the first step that is part of a stored window, or can become part of one."""
        return self._base + self._forgotten

    def kept(self, places: Places) -> np.ndarray:
        """Which of these steps are still part of a stored window, or can become part of one."""
        return places.at >= np.maximum(self.lengths - self.steps, self.oldest())[places.stream]

    # -- Steps out -----------------------------------------------------------------------------------------------------

    def gather(self, places: Places, names: Iterable[str]) -> dict[str, Any]:
        """The steps of windows: name -> (B, L, ...)."""
        slots = self.slots(places.spread(self.length))
        return {name: self.bank.take(name, slots) for name in names}

    def slots(self, places: Places) -> np.ndarray:
        return self._slots(places.stream, places.at)

    def latest(self) -> Places:
        """The newest step of each stream that has any."""
        stream = np.flatnonzero(self.lengths)
        return Places(stream, self.lengths[stream] - 1)

    def since(self, lengths: np.ndarray, own: np.ndarray) -> Places:
        """Steps that came, in the order `own` tells, after the streams had these lengths."""
        return Places(own, lengths[own] + _occurrence(own))

    def _slots(self, stream: np.ndarray, at: np.ndarray) -> np.ndarray:
        return stream * self.ring + at % self.ring

    # -- State ---------------------------------------------------------------------------------------------------------

    def begin(self, lengths: np.ndarray) -> None:
        """As if the streams had had these lengths, with nothing stored: `extend` then brings back the steps that followed."""
        self.lengths[:] = self._base[:] = lengths
        self.total = int(lengths.sum())
        self._forgotten[:] = 0
        self.first = self.end = 0

    def renumber(self, first: int, end: int) -> None:
        """After the steps came back: the newest windows get the numbers they had, the others are forgotten."""
        self.settle()
        newest = np.arange(self.end - (end - first), self.end) % self.bank.count
        slots = self._starts[newest]
        self._starts[np.arange(first, end) % self.bank.count] = slots
        self.first, self.end = first, end
        self._forgotten = self._born() - np.bincount(slots // self.ring, minlength=self.streams)


def _occurrence(streams: np.ndarray) -> np.ndarray:
    """For each entry, how many equal ones come before it."""
    order = np.argsort(streams, kind="stable")
    ordered = streams[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    found = np.empty(len(streams), np.int64)
    found[order] = np.arange(len(streams)) - np.repeat(begins, np.diff(np.r_[begins, len(streams)]))
    return found


def _parts(count: int, most: int) -> Iterator[slice]:
    return (slice(start, min(start + most, count)) for start in range(0, count, most))
