"""On-policy experience: filled by one policy, learned from once, forgotten."""

from typing import ClassVar

import numpy as np

from hieros_repro.determinism.keys import Key
from hieros_repro.records import Count, Request, Rows, Step, Tree
from hieros_repro.replay.base import Choice, Held, Replay


class Rollout(Replay):
    """`length` ticks of every environment. Its batch is everything it holds, after which it is empty.

    Row t is the observation at t and the action taken there; reward and flags at t are those that row t + 1 brought; obs has
    one row more, which values the end. `valid` is False where row t was an episode's last, which has no transition.
    """

    kind: ClassVar[str] = "rollout"

    def __init__(self, held: Held, *, length: Count):
        self.length = length
        self.filled = 0
        spaces, num_envs = held.spaces, held.num_envs
        shape = (length, num_envs)
        self._obs = {
            name: np.zeros((length + 1, num_envs, *space.shape), space.dtype) for name, space in spaces.observation.items()
        }
        self._rows: dict[str, np.ndarray] = {}
        self._came = {
            "reward": np.zeros(shape, np.float32),
            "is_last": np.zeros(shape, bool),
            "is_terminal": np.zeros(shape, bool),
            "valid": np.zeros(shape, bool),
        }

    def add(self, before: Step, rows: Rows, after: Step) -> None:
        if rows.mask is not None:
            raise ValueError("a rollout has every environment's row of every tick, so nothing may mask them")
        t = self.filled
        if not self._rows:
            self._rows = {k: np.zeros((self.length, *v.shape), v.dtype) for k, v in rows.values.items()}
        for name, store in self._obs.items():
            store[t] = before.obs[name]
            store[t + 1] = after.obs[name]
        for name, value in rows.values.items():
            self._rows[name][t] = value
        came = self._came
        came["reward"][t] = after.reward
        came["is_last"][t] = after.is_last
        came["is_terminal"][t] = after.is_terminal
        np.logical_not(before.is_last, out=came["valid"][t])
        self.filled = t + 1

    def ready(self, request: Request, ending: bool) -> bool:
        return self.filled == self.length or (ending and bool(self._came["valid"][: self.filled].any()))

    def choose(self, key: Key, request: Request) -> Choice:
        """Views, valid until the next add."""
        length, self.filled = self.filled, 0
        rows = {name: store[:length] for name, store in (self._rows | self._came).items()}
        batch = {"obs": {name: store[: length + 1] for name, store in self._obs.items()}, **rows}
        return Choice(lambda: batch)

    def cut(self) -> None:
        """The last row held becomes its episode's last, by a time-out: what its action led to is not known."""
        t = self.filled - 1
        if t < 0:
            return
        came = self._came
        came["valid"][t] = came["is_last"][t] = came["is_terminal"][t] = False
        came["reward"][t] = 0.0
        if t > 0:
            came["is_last"][t - 1] |= came["valid"][t - 1]

    def state(self) -> Tree:
        held = self.filled
        return {
            "filled": held,
            "obs": {name: store[: held + 1].copy() for name, store in self._obs.items()},
            "rows": {name: store[:held].copy() for name, store in self._rows.items()},
            "came": {name: store[:held].copy() for name, store in self._came.items()},
        }

    def load(self, state: Tree) -> None:
        held = state["filled"]
        if held > self.length:
            raise ValueError(f"the checkpoint's rollout holds {held} ticks, replay.length is {self.length}")
        self.filled = held
        self._rows = {k: np.zeros((self.length, *v.shape[1:]), v.dtype) for k, v in state["rows"].items()}
        for stores, saved in ((self._obs, "obs"), (self._rows, "rows"), (self._came, "came")):
            for name, store in stores.items():
                store[: len(state[saved][name])] = state[saved][name]
