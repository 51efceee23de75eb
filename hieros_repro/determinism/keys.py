"""Named, counter-based randomness.

A random number is a pure function of (seed, stream name, counter): nothing depends on what was drawn before, elsewhere or by
whom, so adding a consumer shifts no other, and resuming needs no generator state.

    key = Key(42)
    key("env", 3, 0).seed()                  # the seed of environment 3's first episode
    key("learn", 17).uniform((256, 5))       # the noise of update 17

The bits are numpy's Philox, keyed by a 128-bit hash of seed and path; the conversions to floats, integers and normals are ours,
built from exactly rounded operations only, so every machine computes the same numbers.
"""

import difflib
import hashlib
import operator
from collections.abc import Sequence

import numpy as np

from hieros_repro.determinism.arithmetic import log

# Who may draw, and under which counters. A closed list: a typing error must not open a new stream.
STREAMS = {
    "init": "init/<module path>: a parameter's first value",
    "env": "env/<i>/<episode>: the seed of an environment's true reset",
    "world": "world/<what>/<n>: what an environment of ours draws in an episode; its seed is the reset's",
    "act": "act/<block>: exploration noise, one block of ticks at a time",
    "replay": "replay/<update>: which windows an update is shown",
    "learn": "learn/<update>: the noise an update consumes",
    "eval": "eval/<step>/<env>/<episode>: evaluation, apart from all training seeds",
    "data": "data/<purpose>: splits and folds of recorded data",
    "stats": "stats/<purpose>: resampling for intervals",
}

Shape = Sequence[int]


class Key:
    """An immutable name for a stream of random numbers. Calling it goes one or more steps down the path."""

    __slots__ = ("_path", "_seed")

    def __init__(self, seed: int):
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise ValueError(f"a seed is an integer, not {seed!r}")
        self._seed = seed
        self._path: tuple[str | int, ...] = ()

    def __call__(self, *path: str | int) -> "Key":
        full = self._path + path
        if full and full[0] not in STREAMS:
            near = difflib.get_close_matches(str(full[0]), STREAMS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"no random stream is named {full[0]!r}; the streams are {', '.join(STREAMS)}{hint}")
        child = Key(self._seed)
        child._path = full
        return child

    def __repr__(self) -> str:
        return f"Key({self._seed})" + (str(self._path) if self._path else "")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and (self._seed, self._path) == (other._seed, other._path)

    def __hash__(self) -> int:
        return hash((self._seed, self._path))

    def bits(self, count: int) -> np.ndarray:
        """The first `count` 64-bit words of this stream."""
        if not self._path:
            raise ValueError("a bare Key(seed) is not a stream: name one, as in key('learn', 3)")
        generator = np.random.Philox(key=int.from_bytes(self._hash(), "little"))
        return generator.random_raw(count)

    def uniform(self, shape: Shape) -> np.ndarray:
        """float32 in [0, 1) on a grid of 2^-24."""
        count = _size(shape)
        words = self.bits((count + 1) // 2).astype("<u8", copy=False).view("<u4")[:count]
        return ((words >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)).reshape(shape)

    def uniform64(self, shape: Shape) -> np.ndarray:
        """float64 in [0, 1) on a grid of 2^-53, one word each."""
        words = self.bits(_size(shape)) >> np.uint64(11)
        return (words.astype(np.float64) * 2.0**-53).reshape(shape)

    def normal(self, shape: Shape) -> np.ndarray:
        """float32 from N(0, 1), by the inverse of the normal distribution function."""
        count = _size(shape)
        probability = ((self.bits(count) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
        return normal_quantile(probability).astype(np.float32).reshape(shape)

    def integers(self, high: int, shape: Shape) -> np.ndarray:
        """int64 in [0, high); the bias is below high / 2^53."""
        if high < 1:
            raise ValueError(f"integers() draws from [0, high) and needs high >= 1, not {high}")
        return np.minimum(np.floor(self.uniform64(shape) * high), high - 1).astype(np.int64).reshape(shape)

    def permutation(self, count: int) -> np.ndarray:
        """A random order of range(count)."""
        return np.argsort(self.bits(count), kind="stable")

    def seed(self) -> int:
        """One integer in [0, 2^31), for foreign code that takes a seed (an environment's reset)."""
        return int(self.bits(1)[0] >> np.uint64(33))

    def _hash(self) -> bytes:
        encoded = [_encode(self._seed), *map(_encode, self._path)]
        return hashlib.blake2b(b"".join(encoded), digest_size=16, person=b"hieros_repro").digest()


def _encode(part: str | int) -> bytes:
    """Injective: kind, length, content. So ("a", "b") is not ("ab",) and 1 is not "1"."""
    if isinstance(part, str):
        content, kind = part.encode(), b"s"
    else:
        content, kind = str(operator.index(part)).encode(), b"i"
    return kind + len(content).to_bytes(4, "little") + content


def _size(shape: Shape) -> int:
    size = 1
    for length in shape:
        size *= int(length)
    return size


# -- The normal quantile, from +, -, *, / and sqrt only ----------------------------------------------------------------

# Wichura (1988), algorithm AS 241, PPND16: relative accuracy about 1e-16.
_CENTRE = (
    (2509.0809287301226727, 33430.575583588128105, 67265.770927008700853, 45921.953931549871457,
     13731.693765509461125, 1971.5909503065514427, 133.14166789178437745, 3.387132872796366608),
    (5226.495278852545925, 28729.085735721942674, 39307.89580009271061, 21213.794301586595867,
     5394.1960214247511077, 687.1870074920579083, 42.313330701600911252, 1.0),
)  # fmt: skip
_NEAR_TAIL = (
    (7.7454501427834140764e-4, 0.0227238449892691845833, 0.24178072517745061177, 1.27045825245236838258,
     3.64784832476320460504, 5.7694972214606914055, 4.6303378461565452959, 1.42343711074968357734),
    (1.05075007164441684324e-9, 5.475938084995344946e-4, 0.0151986665636164571966, 0.14810397642748007459,
     0.68976733498510000455, 1.6763848301838038494, 2.05319162663775882187, 1.0),
)  # fmt: skip
_FAR_TAIL = (
    (2.01033439929228813265e-7, 2.71155556874348757815e-5, 0.0012426609473880784386, 0.026532189526576123093,
     0.29656057182850489123, 1.7848265399172913358, 5.4637849111641143699, 6.6579046435011037772),
    (2.04426310338993978564e-15, 1.4215117583164458887e-7, 1.8463183175100546818e-5, 7.868691311456132591e-4,
     0.0148753612908506148525, 0.13692988092273580531, 0.59983220655588793769, 1.0),
)  # fmt: skip


def normal_quantile(probability: np.ndarray) -> np.ndarray:
    """x with P(N(0, 1) <= x) = probability, for probabilities strictly between 0 and 1."""
    offset = probability - 0.5
    x = offset * _rational(_CENTRE, 0.180625 - offset * offset)
    tail = np.abs(offset) > 0.425
    if tail.any():
        distance = np.sqrt(-log(np.minimum(probability, 1.0 - probability)[tail]))
        near = _rational(_NEAR_TAIL, distance - 1.6)
        far = _rational(_FAR_TAIL, distance - 5.0)
        x[tail] = np.where(distance <= 5.0, near, far) * np.sign(offset[tail])
    return x


def _rational(coefficients: tuple[tuple[float, ...], tuple[float, ...]], x: np.ndarray) -> np.ndarray:
    numerator, denominator = (np.polyval(part, x) for part in coefficients)
    return numerator / denominator
