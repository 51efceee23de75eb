"""From one dataset to another, by steps that the new one's manifest records: it can be made again, and is then the same.

A pipeline is a list of steps, each a name with its parameters:

    - shrink: {height: 32, width: 32}
    - select: {min_return: 100}
    - clip_reward: {low: -1, high: 1}
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from hieros_repro.determinism.keys import Key
from hieros_repro.records import Count, Fraction, Natural, Space, Spaces, UserError
from hieros_repro.replay.dataset import Dataset, Recorded, Writer

Episode = dict[str, np.ndarray]


class Change(ABC):
    """A step of a pipeline, built from its parameters."""

    about: ClassVar[str]

    def spaces(self, spaces: Spaces) -> Spaces:
        """What the rows look like afterwards. Raises UserError where the step cannot be taken."""
        return spaces

    @abstractmethod
    def episode(self, rows: Episode, was: Recorded, total: int) -> Episode | None:
        """The episode afterwards; None: it is dropped. `was`: what it was among the `total` of the dataset it comes from."""


class Shrink(Change):
    """Each new pixel is the mean of the area it covers, rounded."""

    about = "images at another size"

    def __init__(self, *, height: Count, width: Count):
        self.size = (height, width)

    def spaces(self, spaces: Spaces) -> Spaces:
        images = {name: space for name, space in spaces.observation.items() if space.kind == "image"}
        if not images:
            raise UserError(f"shrink: there is no image among {', '.join(spaces.observation)}")
        self.names = [f"obs.{name}" for name in images]
        smaller = {name: replace(space, shape=(*self.size, space.shape[2])) for name, space in images.items()}
        return Spaces({**spaces.observation, **smaller}, spaces.action)

    def episode(self, rows: Episode, was: Recorded, total: int) -> Episode:
        return {**rows, **{name: _shrunk(rows[name], self.size) for name in self.names}}


class Drop(Change):
    about = "observations left out"

    def __init__(self, *, names: list[str]):
        self.names = names

    def spaces(self, spaces: Spaces) -> Spaces:
        _known("drop", self.names, spaces)
        left = {name: space for name, space in spaces.observation.items() if name not in self.names}
        if not left:
            raise UserError(f"drop.names={self.names}: no observation would be left")
        return Spaces(left, spaces.action)

    def episode(self, rows: Episode, was: Recorded, total: int) -> Episode:
        return {name: value for name, value in rows.items() if name not in {f"obs.{gone}" for gone in self.names}}


class Cast(Change):
    """Of whatever shape they are: an image keeps its own."""

    about = "observations as vectors of float32, divided by `scale`"

    def __init__(self, *, names: list[str], scale: float):
        self.names, self.scale = names, scale

    def spaces(self, spaces: Spaces) -> Spaces:
        _known("cast", self.names, spaces)
        cast = {name: replace(spaces.observation[name], kind="vector") for name in self.names}
        return Spaces({**spaces.observation, **cast}, spaces.action)

    def episode(self, rows: Episode, was: Recorded, total: int) -> Episode:
        scale = np.float32(self.scale)
        return {**rows, **{f"obs.{name}": rows[f"obs.{name}"].astype(np.float32) / scale for name in self.names}}


class OneHot(Change):
    about = "discrete actions as one-hot vectors"

    def spaces(self, spaces: Spaces) -> Spaces:
        if spaces.action.kind != "discrete":
            raise UserError(f"one_hot: the actions are {spaces.action.kind}, not discrete")
        self.count = spaces.action.sizes[0]
        return Spaces(spaces.observation, Space("onehot", (self.count,), sizes=(self.count,)))

    def episode(self, rows: Episode, was: Recorded, total: int) -> Episode:
        action = np.eye(self.count, dtype=np.float32)[rows["action"]]
        action[-1] = 0  # nobody reads it
        return {**rows, "action": action}


class ScaleReward(Change):
    about = "rewards times a factor"

    def __init__(self, *, factor: float):
        self.factor = np.float32(factor)

    def episode(self, rows: Episode, was: Recorded, total: int) -> Episode:
        return {**rows, "reward": rows["reward"] * self.factor + np.float32(0)}  # no negative zero


class ClipReward(Change):
    about = "rewards between two bounds"

    def __init__(self, *, low: float, high: float):
        if low > high:
            raise UserError(f"clip_reward: low={low} is above high={high}")
        self.low, self.high = np.float32(low), np.float32(high)

    def episode(self, rows: Episode, was: Recorded, total: int) -> Episode:
        reward = np.clip(rows["reward"], self.low, self.high)
        reward[0] = 0  # none came with the first row
        return {**rows, "reward": reward}


class Select(Change):
    """Returns and lengths as they are at this step; null leaves a side open."""

    about = "episodes whose return and length lie between bounds"

    def __init__(
        self,
        *,
        min_return: float | None = None,
        max_return: float | None = None,
        min_length: Count | None = None,
        max_length: Count | None = None,
        end: Literal["terminal", "time_out"] | None = None,
    ):
        self.score, self.length, self.end = (min_return, max_return), (min_length, max_length), end

    def episode(self, rows: Episode, was: Recorded, total: int) -> Episode | None:
        score, length = float(np.sum(rows["reward"], dtype=np.float64)), len(rows["reward"]) - 1
        ended = self.end is None or was.terminal == (self.end == "terminal")
        return rows if ended and _between(score, *self.score) and _between(length, *self.length) else None


class Sample(Change):
    """Drawn by the episodes' numbers in the dataset they come from, so a step before it changes nobody's luck."""

    about = "a share of the episodes, drawn from a seed"

    def __init__(self, *, share: Fraction, seed: Natural):
        self.share, self.seed = share, seed
        self._drawn: dict[int, set[int]] = {}

    def episode(self, rows: Episode, was: Recorded, total: int) -> Episode | None:
        if total not in self._drawn:
            order = Key(self.seed)("data", "sample").permutation(total).tolist()
            self._drawn[total] = set(order[: round(self.share * total)])
        return rows if was.number in self._drawn[total] else None


CHANGES: dict[str, type[Change]] = {
    "shrink": Shrink,
    "drop": Drop,
    "cast": Cast,
    "one_hot": OneHot,
    "scale_reward": ScaleReward,
    "clip_reward": ClipReward,
    "select": Select,
    "sample": Sample,
}


def preprocess(parent: Dataset, out: Path, steps: Sequence[Mapping[str, Any]], made: Mapping[str, Any]) -> Dataset:
    """A new dataset, whose manifest says what it was made from and how."""
    changes = [CHANGES[name](**parameters) for step in steps for name, parameters in step.items()]
    spaces = parent.spaces
    for change in changes:
        spaces = change.spaces(spaces)
    pipeline = [*parent.content["pipeline"], {"parent": parent.digest, "steps": list(steps)}]
    with Writer(out, spaces, parent.content["rows_per_file"]) as writer:
        for was, rows in parent.read():
            new: Episode | None = rows
            for change in changes:
                new = change.episode(new, was, parent.count) if new is not None else None
            if new is not None:
                writer.add(new, was.seed, was.account)
        where = os.path.relpath(parent.path.resolve(), out.resolve())
        return writer.finish(parent.content["source"], pipeline, {**made, "parent": where})


def _known(step: str, names: Sequence[str], spaces: Spaces) -> None:
    absent = [name for name in names if name not in spaces.observation]
    if absent:
        raise UserError(f"{step}.names: there is no observation {absent[0]!r}; there are {', '.join(spaces.observation)}")


def _between(value: float, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _shrunk(images: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(T, height, width, channels) at another size. Floats hold these sums of whole numbers exactly, in whatever order."""
    sums, area = images.astype(np.float64), images.shape[1] * images.shape[2]
    for axis, new in zip((1, 2), size, strict=True):
        sums = np.moveaxis(np.tensordot(_covered(images.shape[axis], new), sums, (1, axis)), 0, axis)
    return ((2 * sums.astype(np.int64) + area) // (2 * area)).astype(np.uint8)


def _covered(old: int, new: int) -> np.ndarray:
    """(new, old): how much of every old pixel a new one covers, in units that make it whole numbers; rows sum to old."""
    starts, edges = np.arange(old) * new, np.arange(new + 1)[:, None] * old
    return np.maximum(np.minimum(edges[1:], starts + new) - np.maximum(edges[:-1], starts), 0).astype(np.float64)
