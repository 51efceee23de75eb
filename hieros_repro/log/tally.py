"""What a row of training metrics says about the time since the row before."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from hieros_repro.records import Episode, Tree


class Tally:
    """Rewards and episodes since the last row."""

    def __init__(self) -> None:
        self._reward, self._steps = 0.0, 0
        self._lengths: list[int] = []
        self._scores: list[float] = []

    def pay(self, reward: np.ndarray, steps: int) -> None:
        """One tick: the rewards as the environments paid them, of `steps` transitions."""
        self._reward += sum(reward.tolist())
        self._steps += steps

    def ended(self, episodes: Iterable[Episode]) -> None:
        for episode in episodes:
            self._lengths.append(episode.length)
            self._scores.append(episode.score)

    def row(self) -> dict[str, Any]:
        """The row's entries; what was counted is forgotten."""
        row: dict[str, Any] = {"train/reward": self._reward / self._steps} if self._steps else {}
        count = len(self._scores)
        if count:
            row["episode/score"] = sum(self._scores) / count
            row["episode/length"] = sum(self._lengths) / count
            row["episode/count"] = count
        self._reward, self._steps, self._lengths, self._scores = 0.0, 0, [], []
        return row

    def state(self) -> Tree:
        return [self._reward, self._steps, list(self._lengths), list(self._scores)]

    def load(self, state: Tree) -> None:
        self._reward, self._steps, lengths, scores = state
        self._lengths, self._scores = list(lengths), list(scores)
