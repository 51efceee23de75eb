"""What the loop asks of every agent."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from hieros_repro.determinism.keys import Key
from hieros_repro.records import Arrays, Carry, Hint, Memory, Metrics, Request, Rows, Step, Tensors, Tree


class Agent(ABC):
    """An agent is built from (spaces, key, hardware, horizon), its parts, and the hyperparameters of its config group.

    It draws nothing itself: `act_noise` and `learn_noise` say, from a key, what random numbers `act` and `learn` will be given.
    """

    remembers: ClassVar[tuple[str, ...]] = ()  # the kinds of replay it can use; the first is its default
    train_ratio: float | None = None  # replayed steps per environment step; None: learn whenever a replay is full
    meanings: ClassVar[Mapping[str, str]] = {}  # metric name, with <...> for what varies -> what it means, in one line

    @classmethod
    def window(cls, **values: Any) -> int:
        """How many steps each of the windows has that it learns from, of the values of its node."""
        return 1

    @abstractmethod
    def initial(self, num_envs: int) -> Carry:
        """The carry before the first tick."""

    @abstractmethod
    def act_noise(self, key: Key, ticks: int, num_envs: int) -> Arrays:
        """The noise of `ticks` calls of act: name -> (ticks, num_envs, ...)."""

    @abstractmethod
    def act(self, now: Step, carry: Carry, noise: Arrays, greedy: bool = False) -> tuple[np.ndarray, Carry, dict[str, Rows]]:
        """The action for every environment, the next carry, and what to remember in which replay. Greedy: the best action."""

    def replays(self) -> Mapping[str, Memory]:
        """The replays it learns from, by name, and what it needs of each."""
        return {kind: Memory() for kind in self.remembers[:1]}

    def due(self, update: int) -> list[Request]:
        """Which batches update number `update` needs."""
        return []

    def learn_noise(self, key: Key, batches: Mapping[str, Any]) -> Tree:
        """The random numbers that learning from these batches (still on the host) will consume."""
        return {}

    def learn(self, batches: Mapping[str, Tensors], noise: Tensors, step: int) -> tuple[Metrics, dict[str, Any]]:
        """One update: metrics and write-backs. Reads no clock, no global and no generator; writes only registered state.

        `step` feeds the schedules, which are functions of it.
        """
        return {}, {}

    def film_noise(self, key: Key, batches: Mapping[str, Tensors]) -> Tree:
        """The random numbers that `films` of these batches will consume."""
        return {}

    def films(self, batches: Mapping[str, Tensors], noise: Tensors) -> Mapping[str, list[np.ndarray]]:
        """What it makes of an update's batches, to be looked at: name -> frames (height, width, 3) uint8. Changes nothing."""
        return {}

    def beside(self, carry: Carry) -> Mapping[str, np.ndarray]:
        """Images to be shown beside environment 0, by name: of the goals it is acted in for, if there are any."""
        return {}

    def parameters(self) -> Tensors:
        """Every trained tensor by name, as it is now."""
        return {}

    def parts(self) -> Mapping[str, int]:
        """How many trained numbers each of its parts has; one without a name is the whole."""
        return {"": sum(tensor.numel() for tensor in self.parameters().values())}

    def hints(self) -> Sequence[Hint]:
        """Which of its metrics show that something is wrong, and what."""
        return ()

    def trace(self) -> dict[str, Tensors]:
        """Of the latest update: "losses" and "gradients" of its first optimiser step, as stable buffers."""
        return {}

    @abstractmethod
    def state(self) -> dict[str, Tree]:
        """Everything that must survive a restart. "parameters" is what acting needs."""

    @abstractmethod
    def load(self, state: Mapping[str, Tree]) -> None:
        """Back to a state. One that holds only "parameters" is enough to act."""
