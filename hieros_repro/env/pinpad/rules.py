"""What is paid for what, and what an episode remembers between its steps."""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import numpy as np

from hieros_repro.determinism.keys import Key
from hieros_repro.env.pinpad.layout import ACTIONS, CELLS, WIDTH, Layout
from hieros_repro.records import Tree

GOAL = 10.0  # for looking at all pads in order
PAUSE = 10  # steps from there until the player is put elsewhere

Mode = Literal[
    "flat", "progressive", "sequence_bonus", "decaying", "sparse", "progressive_steep", "dense_guidance", "progress_any"
]
MODES: tuple[str, ...] = get_args(Mode)

# What a pad pays that brings the player to progress m, having paid v times before in this episode. Other modes pay nothing.
WEIGHTS: Mapping[str, Callable[[int, int], float]] = {
    "flat": lambda m, v: 1.0,
    "progress_any": lambda m, v: 1.0,
    "progressive": lambda m, v: 2.0 ** (m - 1),
    "progressive_steep": lambda m, v: 3.0 ** (m - 1),
    "sequence_bonus": lambda m, v: 1.0 + 0.5 * m,
    "decaying": lambda m, v: 1.0 / (1.0 + 0.1 * v),
}


class Rules:
    """A layout and a reward mode."""

    def __init__(self, layout: Layout, mode: str):
        if mode not in MODES:
            raise ValueError(f"reward_mode={mode!r} is none of {', '.join(MODES)}")
        self.layout = layout
        self.target = "12345678"[: layout.pads]
        self.weight = WEIGHTS.get(mode)
        self.guidance = guidance(layout) if mode == "dense_guidance" else None


def progress_of(sequence: str, target: str) -> int:
    """How much of the target is done: the length of its longest beginning with which the sequence ends."""
    return max(m for m in range(len(sequence) + 1) if sequence.endswith(target[:m]))


def guidance(layout: Layout) -> np.ndarray:
    """What dense_guidance pays for a move, at every progress: (pads + 1, CELLS * ACTIONS).

    +0.1 for coming nearer to the middle of the next pad, -0.05 for going away from it; then +1 for looking at that pad, -0.1 at
    another. Nothing once all are done.
    """
    here, paid = np.repeat(np.arange(CELLS), ACTIONS), np.zeros((layout.pads + 1, CELLS * ACTIONS))
    for progress in range(layout.pads):
        pad = progress + 1
        far = _distance(np.flatnonzero(layout.tiles == pad))
        change = far[layout.landing] - far[here]
        moved = np.where(change < 0, 0.1, np.where(change > 0, -0.05, 0.0))
        paid[progress] = moved + np.where(layout.looked == pad, 1.0, np.where(layout.looked > 0, -0.1, 0.0))
    return paid


def _distance(pad: np.ndarray) -> np.ndarray:
    """From every cell to the middle of a pad's cells: squared and in integers, so that equal distances compare equal."""
    (ys, xs), (pad_y, pad_x) = np.divmod(np.arange(CELLS), WIDTH), np.divmod(pad, WIDTH)
    return (len(pad) * xs - pad_x.sum()) ** 2 + (len(pad) * ys - pad_y.sum()) ** 2


class Memory:
    """What one environment remembers besides where the player stands. All that happens in few steps happens here."""

    def __init__(self, rules: Rules):
        self.rules = rules
        self.queue: list[int] = []  # cells to appear in, before any is drawn
        self.begin(0)

    def begin(self, seed: int) -> None:
        """A new episode."""
        self.seed, self.spawned, self.completions = seed, 0, 0
        self.rewarded = [0] * self.rules.layout.pads  # how often each pad has paid
        self.forget()

    def forget(self) -> None:
        self.sequence, self.progress = "", 0  # the latest pads looked at, as many as there are; and how far that is

    @property
    def latest(self) -> int:
        """The pad that looking at changes nothing; 0: none."""
        return int(self.sequence[-1]) if self.sequence else 0

    def spawn(self) -> int:
        """Forgets the pads and draws the cell where the player appears: a function of the seed and the number of the spawn."""
        self.forget()
        self.spawned += 1
        if self.queue:
            return self.queue.pop(0)
        cells = self.rules.layout.cells
        return cells[int(Key(self.seed)("world", "spawn", self.spawned - 1).integers(len(cells), ()))]

    def look(self, pad: int, paused: bool) -> tuple[float, bool]:
        """Notes a pad that is not the latest one. Returns what that pays and whether it completes the sequence."""
        rules, before = self.rules, self.progress
        self.sequence = (self.sequence + str(pad))[-rules.layout.pads :]
        self.progress = progress_of(self.sequence, rules.target)
        gained, reward = self.progress - before, 0.0
        if rules.weight is not None and gained > 0:
            reward = rules.weight(self.progress, self.rewarded[pad - 1]) * gained
            self.rewarded[pad - 1] += 1
        elif rules.weight is not None:
            reward = float(gained)
        if paused or self.sequence != rules.target:
            return reward, False
        self.completions += 1
        return reward + GOAL, True

    def plain(self) -> dict[str, Tree]:
        """All of it but the seed."""
        return {
            "spawned": self.spawned,
            "completions": self.completions,
            "rewarded": list(self.rewarded),
            "sequence": self.sequence,
            "queue": list(self.queue),
        }

    def load(self, seed: int, plain: Mapping[str, Tree]) -> None:
        self.seed, self.spawned, self.completions = seed, plain["spawned"], plain["completions"]
        self.rewarded, self.sequence, self.queue = list(plain["rewarded"]), plain["sequence"], list(plain["queue"])
        self.progress = progress_of(self.sequence, self.rules.target)


def coverage(layout: Layout, visits: np.ndarray) -> float:
    """The share of free cells that were visited."""
    return float(np.count_nonzero(visits) / len(layout.cells))
