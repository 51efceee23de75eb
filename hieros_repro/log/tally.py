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
        self._accounts: dict[str, list[float]] = {}

    def pay(self, reward: np.ndarray, steps: int) -> None:
        """One tick: the rewards as the environments paid them, of `steps` transitions."""
        self._reward += sum(reward.tolist())
        self._steps += steps

    def ended(self, episodes: Iterable[Episode]) -> None:
        for episode in episodes:
            self._lengths.append(episode.length)
            self._scores.append(episode.score)
            for name, value in episode.account.items():
                self._accounts.setdefault(name, []).append(value)

    def row(self) -> dict[str, Any]:
        """The row's entries; what was counted is forgotten."""
        row: dict[str, Any] = {"train/reward": self._reward / self._steps} if self._steps else {}
        count = len(self._scores)
        if count:
            row["episode/score"] = sum(self._scores) / count
            row["episode/length"] = sum(self._lengths) / count
            row["episode/count"] = count
        row |= {f"episode/{name}": sum(values) / len(values) for name, values in sorted(self._accounts.items())}
        self._reward, self._steps, self._lengths, self._scores, self._accounts = 0.0, 0, [], [], {}
        return row

    def state(self) -> Tree:
        accounts = {name: list(values) for name, values in self._accounts.items()}
        return [self._reward, self._steps, list(self._lengths), list(self._scores), accounts]

    def load(self, state: Tree) -> None:
        self._reward, self._steps, lengths, scores, accounts = state
        self._lengths, self._scores = list(lengths), list(scores)
        self._accounts = {name: list(values) for name, values in accounts.items()}
