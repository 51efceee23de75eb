"""What is in a dataset, in numbers, and what in it looks wrong."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hieros_repro.replay.dataset import Dataset

FENCE = 3.0  # times the distance between the quartiles, beyond either of them: Tukey's "far out"
RULE = f"an outlier lies more than {FENCE:g} times the distance between the quartiles beyond them"
SHOWN = 8  # of what could be a long list


class Column:
    """Everything seen so far under one name."""

    def __init__(self, name: str, values: np.ndarray):
        self.name, self.dtype, self.shape = name, values.dtype.name, values.shape[1:]
        self.low, self.high = np.full(self.shape, np.inf), np.full(self.shape, -np.inf)
        self.sums: list[float] = []
        self.finite = self.nan = self.infinite = 0
        self.wrong: list[int] = []  # episodes in which something is not finite
        self.zero: list[int] = []  # episodes in which there is nothing but zeros

    def add(self, number: int, values: np.ndarray) -> None:
        """An episode's values."""
        whole = np.issubdtype(values.dtype, np.integer)
        finite = np.broadcast_to(True, values.shape) if whole else np.isfinite(values)
        self.low = np.minimum(self.low, values.min(0, where=finite, initial=_extreme(values, "max")))
        self.high = np.maximum(self.high, values.max(0, where=finite, initial=_extreme(values, "min")))
        self.sums.append(float(np.sum(values, dtype=np.int64 if whole else np.float64, where=finite)))
        self.finite += int(np.count_nonzero(finite))
        if not whole:
            nan = int(np.count_nonzero(np.isnan(values)))
            self.nan, self.infinite = self.nan + nan, self.infinite + int(np.count_nonzero(~finite)) - nan
            self.wrong += [] if finite.all() else [number]
        self.zero += [] if values.any() else [number]

    def plain(self) -> dict[str, Any]:
        seen = self.finite > 0
        return {
            "dtype": self.dtype,
            "shape": list(self.shape),
            "min": float(self.low.min()) if seen else None,
            "mean": math.fsum(self.sums) / self.finite if seen else None,
            "max": float(self.high.max()) if seen else None,
            "nan": self.nan,
            "infinite": self.infinite,
            "constant": len(self.constant()),
        }

    def constant(self) -> list[tuple[str, float]]:
        """The elements that never change, and their value; only the whole, where all of it is one value."""
        if self.low.min() == self.high.max():
            return [(self.name, float(self.low.min()))]
        if len(self.shape) != 1:  # of a picture's pixels many never change
            return []
        return [(f"{self.name}[{i}]", float(self.low[i])) for i in np.flatnonzero(self.low == self.high).tolist()]

    def findings(self, episodes: int) -> Iterator[str]:
        if self.wrong:
            yield f"{self.name}: {self.nan} NaN and {self.infinite} infinite values, in {_listed(self.wrong)}"
        constant = self.constant()
        for name, value in constant[:SHOWN]:
            yield f"{name}: constant, always {value:g}"
        if len(constant) > SHOWN:
            yield f"{self.name}: {len(constant) - SHOWN} more of its elements are constant"
        if self.zero and self.name.startswith("obs.") and len(self.zero) < episodes:
            yield f"{self.name}: nothing but zeros in {_listed(self.zero)}: missing?"


def survey(dataset: Dataset, part: str | None = None) -> dict[str, Any]:
    """Plain data: what `stats` prints. Reads and checks every row."""
    columns: dict[str, Column] = {}
    taken = []
    for episode, rows in dataset.read(part):
        taken.append(episode)
        for name, values in _seen(rows):
            columns.setdefault(name, Column(name, values)).add(episode.number, values)
    numbers = [e.number for e in taken]
    scores, lengths = [e.score for e in taken], [float(e.length) for e in taken]
    findings = [text for column in columns.values() for text in column.findings(len(taken))]
    findings += [*outliers("return", numbers, scores), *outliers("length", numbers, lengths)]
    terminal = sum(e.terminal for e in taken)
    return {
        "name": dataset.manifest["name"],
        "version": dataset.version,
        "sha256": dataset.digest,
        "part": part,
        "episodes": len(taken),
        "steps": sum(e.length for e in taken),
        "ended": {"terminal": terminal, "time_out": len(taken) - terminal},
        "return": spread(scores),
        "length": spread(lengths),
        "keys": {name: column.plain() for name, column in columns.items()},
        "findings": findings,
    }


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, sample standard deviation and quartiles."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return dict.fromkeys(("mean", "std", "min", "q1", "median", "q3", "max"))
    mean = math.fsum(finite) / len(finite)
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in finite) / (len(finite) - 1)) if len(finite) > 1 else None
    q1, median, q3 = (float(q) for q in np.percentile(finite, [25, 50, 75]))
    return {"mean": mean, "std": std, "min": min(finite), "q1": q1, "median": median, "q3": q3, "max": max(finite)}


def outliers(what: str, numbers: Sequence[int], values: Sequence[float]) -> Iterator[str]:
    """Episodes beyond Tukey's outer fences: below q1 - 3 (q3 - q1) or above q3 + 3 (q3 - q1)."""
    told = spread(values)
    if told["q1"] is None or told["q3"] is None:
        return
    reach = FENCE * (told["q3"] - told["q1"])
    low, high = told["q1"] - reach, told["q3"] + reach
    for side, bound, found in (
        ("below", low, [n for n, value in zip(numbers, values, strict=True) if value < low]),
        ("above", high, [n for n, value in zip(numbers, values, strict=True) if value > high]),
    ):
        if found:
            yield f"{what}: {side} {bound:g} in {_listed(found)}: outliers"


def _seen(rows: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """What means something: no reward came with a first row, and no action is taken in a last one."""
    yield from ((name, values) for name, values in rows.items() if name.startswith("obs."))
    yield "action", rows["action"][:-1]
    yield "reward", rows["reward"][1:]


def _extreme(values: np.ndarray, end: str) -> Any:
    whole = np.issubdtype(values.dtype, np.integer)
    return getattr(np.iinfo(values.dtype), end) if whole else {"max": np.inf, "min": -np.inf}[end]


def _listed(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:SHOWN]))
    word = "episode" if len(numbers) == 1 else "episodes"
    return f"{word} {shown}" + (f" and {len(numbers) - SHOWN} more" if len(numbers) > SHOWN else "")
