"""Many PinPads stepped together: equal numbers to one after the other."""

from collections.abc import Mapping, Sequence

import numpy as np

from hieros_repro.env.base import Batch, Past, Slots
from hieros_repro.env.pinpad.layout import ACTIONS, CELLS
from hieros_repro.env.pinpad.picture import Painter, picture
from hieros_repro.env.pinpad.rules import PAUSE, Memory, Rules, coverage
from hieros_repro.records import Spaces, Tree

PICTURE = 256  # side of what render() returns, for people


class Native(Batch):
    """What happens in every step is done to all at once; what happens in few, one by one, by the same code as in a single one.

    So there are arrays of where players stand, and one memory for each of them.
    """

    remembers = True

    def __init__(self, rules: Rules, length: int, size: int, spaces: Spaces, count: int):
        self.rules, self.length, self.spaces, self.count = rules, length, spaces, count
        self.painter = Painter(rules.layout, size)
        self.memories = [Memory(rules) for _ in range(count)]
        self.cell, self.countdown, self.steps = np.zeros((3, count), np.int64)
        self.latest, self.progress = np.zeros((2, count), np.int64)  # of the memories; so is the history
        self.history = np.zeros((count, rules.layout.pads), np.int64)
        self.visits = np.zeros((count, CELLS), np.int64)
        self._visits_start = np.arange(count) * CELLS

    def step(self, action: np.ndarray, seeds: Mapping[int, int], slots: Slots) -> dict[int, Mapping[str, float]]:
        layout, starting = self.rules.layout, list(seeds)
        action = np.array(action, np.int64)
        if action.min() < 0 or action.max() >= ACTIONS:
            raise ValueError(f"actions are below {ACTIONS}, not {action.tolist()}")
        for i, seed in seeds.items():
            self._begin(i, seed)
        action[starting] = 0
        if self.countdown.any():
            self._count_down()
        move = self.cell * ACTIONS + action
        self.cell, looked = layout.landing[move], layout.looked[move]
        if self.rules.guidance is not None:
            slots.reward[:] = self.rules.guidance[self.progress, move]
        looked[starting], slots.reward[starting] = 0, 0.0  # a first row is a step that stays and looks at nothing
        for i in np.flatnonzero((looked > 0) & (looked != self.latest)).tolist():
            self._look(i, int(looked[i]), slots.reward)
        self.steps += 1
        self.visits.reshape(-1)[self._visits_start + self.cell] += 1
        self._paint(slots.obs)
        np.greater_equal(self.steps, self.length, out=slots.is_last)
        return {i: self._account(i) for i in np.flatnonzero(slots.is_last).tolist()}

    def _begin(self, i: int, seed: int) -> None:
        self.memories[i].begin(seed)
        self.steps[i], self.countdown[i] = -1, 0  # its first row makes it 0
        self._spawn(i)

    def _spawn(self, i: int) -> None:
        self.cell[i] = self.memories[i].spawn()
        self._recall(i)

    def _count_down(self) -> None:
        ending = np.flatnonzero(self.countdown == 1)
        np.maximum(self.countdown - 1, 0, out=self.countdown)
        for i in ending.tolist():
            self._spawn(i)

    def _look(self, i: int, pad: int, reward: np.ndarray) -> None:
        paid, complete = self.memories[i].look(pad, bool(self.countdown[i]))
        reward[i] += paid
        if complete:
            self.countdown[i] = PAUSE
        self._recall(i)

    def _recall(self, i: int) -> None:
        """What every step needs of a memory that has changed."""
        memory = self.memories[i]
        self.latest[i], self.progress[i], self.history[i] = memory.latest, memory.progress, 0
        self.history[i, : len(memory.sequence)] = [int(pad) for pad in memory.sequence]

    def _paint(self, obs: Mapping[str, np.ndarray]) -> None:
        self.painter.paint_all(obs["image"], self.cell, self.countdown > 0, self.history)

    def _account(self, i: int) -> dict[str, float]:
        return {"completions": self.memories[i].completions, "coverage": coverage(self.rules.layout, self.visits[i])}

    # -- State ---------------------------------------------------------------------------------------------------------

    def snapshot(self) -> list[Tree]:
        """As a single one takes it."""
        own = zip(self.cell.tolist(), self.countdown.tolist(), self.steps.tolist(), self.visits.copy(), strict=True)
        names = ("cell", "countdown", "steps", "visits")
        return [
            dict(zip(names, values, strict=True)) | memory.plain() for values, memory in zip(own, self.memories, strict=True)
        ]

    def restore(self, pasts: Sequence[Past], obs: Mapping[str, np.ndarray]) -> None:
        for i, (seed, _, found) in enumerate(pasts):
            self.memories[i].load(seed, found)
            self.cell[i], self.countdown[i], self.steps[i] = found["cell"], found["countdown"], found["steps"]
            self.visits[i] = found["visits"]
            self._recall(i)
        self._paint(obs)

    def render(self, env: int) -> np.ndarray:
        paused, sequence = bool(self.countdown[env]), self.memories[env].sequence
        return picture(self.rules.layout, int(self.cell[env]), paused, sequence, PICTURE)

    def close(self) -> None:
        """It holds nothing."""
