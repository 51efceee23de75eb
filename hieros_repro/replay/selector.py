"""Which windows an update is shown: four distributions over their ages."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

from hieros_repro.determinism.arithmetic import exp, log, power
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Fraction, Positive, Tree

WIDTH = 64  # how many weights are one sum, and how many sums one on the next level


class Selector(ABC):
    """Chooses windows by their numbers, which count from the first one ever stored, for ever: a lower one is older.

    Built from the most windows that are ever stored at once, and the hyperparameters of its config group, which it shares
    with the windows around it.
    """

    kind: ClassVar[str] = "windows"  # what an agent's `remembers` names

    def __init__(self, capacity: int):
        self.capacity = capacity

    @abstractmethod
    def choose(self, key: Key, count: int, first: int, end: int) -> np.ndarray:
        """`count` numbers of stored windows, which are first, ..., end - 1; with replacement, int64."""

    def shown(self, numbers: np.ndarray) -> None:
        """Stored windows that somebody else chose."""

    def state(self) -> Tree:
        """What choosing depends on besides its arguments."""
        return {}

    def load(self, state: Tree) -> None:
        """Back to a state."""

    @staticmethod
    def shells() -> tuple[Callable[..., Any], ...]:
        """What is built around a selector, whose arguments stand beside its own."""
        from hieros_repro.replay.making import SHELLS

        return SHELLS


class Uniform(Selector):
    """Every window is as likely as any other."""

    def choose(self, key: Key, count: int, first: int, end: int) -> np.ndarray:
        return first + key.integers(stored(first, end, self.capacity), (count,))


class TimeBalanced(Selector):
    """Newer windows more often: the i oldest of N together have the probability (i / N)^bias. bias = 1 is uniform."""

    def __init__(self, capacity: int, *, bias: Positive):
        super().__init__(capacity)
        self.bias = bias

    def choose(self, key: Key, count: int, first: int, end: int) -> np.ndarray:
        size = stored(first, end, self.capacity)
        return first + whole(size * power(key.uniform64((count,)), 1.0 / self.bias), size)


class EfficientTimeBalanced(Selector):
    """Newer windows more often, to make up for what older ones were seen before these were there.

    By uniform choices from a replay that grows, window i of N has been seen about ln(N / i) times; x between 2 and n = N + 2
    goes through the distribution function F whose density is proportional to that,

        F(x) = [x (ln x - ln n - 1) - 2 (ln 2 - ln n - 1)] / (2 ln n - n - 2 ln 2 + 2),

    which pushes what was drawn towards the new: index = temperature N F(x) + (1 - temperature) (x - 2), rounded down.

    `scale`: with "size", F is stretched over the N windows that are stored. "capacity" is what the original computes: F is
    stretched over the most windows that can be stored and cut off at N - 1, so that until the replay is full the newest
    window has most of this part and the oldest are hardly ever chosen.
    """

    def __init__(self, capacity: int, *, temperature: Fraction, scale: Literal["size", "capacity"]):
        super().__init__(capacity)
        self.temperature = temperature
        self.scale = scale

    def choose(self, key: Key, count: int, first: int, end: int) -> np.ndarray:
        size = stored(first, end, self.capacity)
        uniform = key.uniform64((count,)) * size
        span = size if self.scale == "size" else self.capacity
        pushed = np.minimum(span * balance(2.0 + uniform, size + 2.0), size - 1.0)
        return first + whole(self.temperature * pushed + (1.0 - self.temperature) * uniform, size)


class TimeBalancedNaive(Selector):
    """Windows that were chosen less often so far: P(i) is proportional to exp(-c_i / bias), c_i the times i was chosen.

    Exact, in O(log N). The weights are integers, w(c) = floor(2^K exp(-(c - offset) / bias)), so that sums have no rounding;
    those of 64 windows, of 64 times 64, and so on are kept, and a draw goes down from the total. Window n is at place
    n mod `ring`. The sums are a function of the counts, the offset and which windows are stored: that is the whole state.

    The offset is 0 until all windows were chosen so often that their weights become small and coarse; then it is the lowest
    count, until a new window comes. Either costs one pass over the counts: seldom where new windows come as often as
    batches, but nearly every third time where hundreds of windows are chosen for each new one.
    """

    def __init__(self, capacity: int, *, bias: Positive):
        super().__init__(capacity)
        self.bias = bias
        self.first = self.end = self.offset = 0
        self.ring = -(-capacity // WIDTH) * WIDTH
        self.counts = np.zeros(self.ring, np.uint32)
        self._bits = 63 - capacity.bit_length()  # K: all weights together stay below 2^63
        self._table = np.array([1 << self._bits])  # w(offset), w(offset + 1), ...: as far as it was needed
        self._sums = [np.zeros(length, np.int64) for length in _lengths(self.ring)]

    def choose(self, key: Key, count: int, first: int, end: int) -> np.ndarray:
        size = stored(first, end, self.capacity)
        self._follow(first, end)
        total = int(self._sums[-1].sum())
        if total < min(size << 20, 1 << (self._bits - 3)):  # rounding each down may have taken more than 2^-20 of them all
            self._move(int(self.counts[self._places(first, end)].min()))
            total = int(self._sums[-1].sum())
        places = self._find(below(key.bits(count), total))
        self._count(places)
        return first + (places - first) % self.ring

    def shown(self, numbers: np.ndarray) -> None:
        self._count(numbers % self.ring)

    def _count(self, places: np.ndarray) -> None:
        np.add.at(self.counts, places, np.uint32(1))
        self._refresh(np.unique(places // WIDTH))

    def state(self) -> Tree:
        counts = self.counts[self._places(self.first, self.end)]
        return {"first": self.first, "end": self.end, "offset": self.offset, "counts": counts}

    def load(self, state: Tree) -> None:
        stored(state["first"], state["end"], self.capacity, least=0)
        self.first, self.end = state["first"], state["end"]
        self.counts[self._places(self.first, self.end)] = state["counts"]
        self._move(state["offset"])

    def _follow(self, first: int, end: int) -> None:
        """Windows left and windows came, which nobody has chosen yet."""
        if first < self.first or end < self.end:
            raise ValueError(f"windows {first} to {end} are older than {self.first} to {self.end}, which were stored before")
        gone = self.first, min(first, self.end)
        new = max(self.end, first), end
        self.first, self.end = first, end
        self.counts[self._places(*new)] = 0
        if self.offset and new[0] < end:
            self._move(0)
        else:
            self._refresh(self._blocks(*gone))
            self._refresh(self._blocks(*new))

    def _move(self, offset: int) -> None:
        """Weights relative to another count."""
        self.offset = offset
        self._refresh(np.arange(self.ring // WIDTH))

    def _find(self, target: np.ndarray) -> np.ndarray:
        """The place in which a running sum of all weights passes each target."""
        found = np.zeros(len(target), np.int64)
        for sums in reversed(self._sums):
            found, target = _descend(found, target, sums.reshape(-1, WIDTH)[found])
        return _descend(found, target, self._weights(found))[0]

    def _refresh(self, blocks: np.ndarray) -> None:
        """Sums the weights in some blocks of 64 places again, and what they are part of."""
        for start in range(0, len(blocks), 1024):  # as much at a time as a cache holds
            part = blocks[start : start + 1024]
            self._sums[0][part] = self._weights(part).sum(1)
        for lower, sums in zip(self._sums[:-1], self._sums[1:], strict=True):
            blocks = np.unique(blocks // WIDTH)
            sums[blocks] = lower.reshape(-1, WIDTH)[blocks].sum(1)

    def _weights(self, blocks: np.ndarray) -> np.ndarray:
        """(blocks, 64): of what is stored there; 0 where nothing is."""
        places = blocks[:, None] * WIDTH + np.arange(WIDTH)
        age = places - self.first % self.ring
        age += self.ring * (age < 0)
        live = age < self.end - self.first
        steps = np.where(live, self.counts.reshape(-1, WIDTH)[blocks].astype(np.int64) - self.offset, 0)
        self._extend(int(steps.max(initial=0)) + 1)
        return np.where(live, self._table[np.minimum(steps, len(self._table) - 1)], 0)

    def _extend(self, length: int) -> None:
        """Makes the table at least that long, or long enough to end in 0."""
        while len(self._table) < length and self._table[-1] > 0:
            steps = np.arange(2 * len(self._table))
            self._table = np.floor(np.ldexp(exp(-steps / self.bias), self._bits)).astype(np.int64)

    def _places(self, start: int, end: int) -> np.ndarray:
        """Where windows start, ..., end - 1 are."""
        return np.arange(start, end) % self.ring

    def _blocks(self, start: int, end: int) -> np.ndarray:
        """The blocks of 64 places where windows start, ..., end - 1 are."""
        if start >= end:
            return np.arange(0)
        return np.unique(np.arange(start // WIDTH, (end - 1) // WIDTH + 1) % (self.ring // WIDTH))


# -- Parts of the distributions ----------------------------------------------------------------------------------------


def stored(first: int, end: int, capacity: int, least: int = 1) -> int:
    """How many windows first, ..., end - 1 are, if they can be stored at once."""
    if not least <= end - first <= capacity:
        raise ValueError(f"a choice among {end - first} windows ({first} to {end}); there can be {least} to {capacity}")
    return end - first


def whole(x: np.ndarray, size: int) -> np.ndarray:
    """x rounded down to an index below size."""
    return np.clip(np.floor(x), 0, size - 1).astype(np.int64)


def balance(x: np.ndarray, n: float) -> np.ndarray:
    """F: the probability that a draw with density proportional to ln(n / x) between 2 and n is at most x."""
    log_two, log_n = (log(np.array(number)) for number in (2.0, n))
    rise = x * (log(x) - log_n - 1.0) - 2.0 * (log_two - log_n - 1.0)
    return rise / (2.0 * log_n - n - 2.0 * log_two + 2.0)


def below(words: np.ndarray, total: int) -> np.ndarray:
    """floor(word total / 2^64) of 64-bit words: int64 in [0, total), for 0 < total < 2^63. Exact, by halves of 32 bits."""
    half, low = np.uint64(32), np.uint64(0xFFFFFFFF)
    high_total, low_total = np.uint64(total >> 32), np.uint64(total & 0xFFFFFFFF)
    high, rest = words >> half, words & low
    cross = high * low_total + (rest * low_total >> half)
    other = rest * high_total + (cross & low)
    return (high * high_total + (cross >> half) + (other >> half)).astype(np.int64)


def _descend(found: np.ndarray, target: np.ndarray, parts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of its parts each target falls in, numbered throughout the level, and where in that part."""
    ends = np.cumsum(parts, axis=1)
    inside = (ends <= target[:, None]).sum(1)
    row = np.arange(len(target))
    return found * WIDTH + inside, target - (ends[row, inside] - parts[row, inside])


def _lengths(ring: int) -> list[int]:
    """How many sums each level has, the lowest first, the highest 64; filled up with zeros to multiples of 64."""
    lengths: list[int] = []
    while not lengths or lengths[-1] > WIDTH:
        above = (lengths[-1] if lengths else ring) // WIDTH
        lengths.append(-(-above // WIDTH) * WIDTH)
    return lengths
