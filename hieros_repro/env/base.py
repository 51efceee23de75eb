"""What every single environment offers, and what a batch of them does."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from hieros_repro.records import CannotRender, Spaces, Tree

Outcome = tuple[dict[str, np.ndarray], float, bool, bool]


class Env(ABC):
    """One environment. Its behaviour is a function of the reset seed and the actions since.

    Every reset is given a seed, so nothing may survive an episode inside it, but for what snapshot() holds.
    """

    evaluation: ClassVar[Mapping[str, Any]] = {}  # values of its configuration that evaluation replaces
    meanings: ClassVar[Mapping[str, str]] = {}  # what account() tells, by name, in one line each
    spaces: Spaces

    @abstractmethod
    def reset(self, seed: int) -> dict[str, np.ndarray]:
        """Starts an episode and returns its first observation."""

    @abstractmethod
    def step(self, action: np.ndarray | int) -> Outcome:
        """Observation, reward, terminated (nothing is to come), truncated (a time-out)."""

    def account(self) -> Mapping[str, float]:
        """What to log of the episode that has just ended, besides its length and score."""
        return {}

    def snapshot(self) -> Tree:
        """The whole present state as plain data of its own. Where this is not overridden, its actions are replayed instead."""
        return None

    def restore(self, seed: int, snapshot: Tree) -> dict[str, np.ndarray]:
        """The state of a snapshot whose episode began with this seed; returns the observation it shows."""
        raise AssertionError(f"{type(self).__name__} takes snapshots and cannot restore them")

    def restorable(self) -> bool:
        """Whether snapshot() tells everything, so that nobody needs to keep its actions."""
        return type(self).snapshot is not Env.snapshot

    def render(self) -> np.ndarray:
        """A picture (height, width, 3) uint8 of the present state."""
        raise CannotRender(f"{type(self).__name__} cannot be rendered: it has no render()")

    def pictures(self, snapshots: Sequence[Tree]) -> Mapping[str, np.ndarray]:
        """What environments like this one have been through, out of their snapshots: name -> (height, width, 3) uint8."""
        return {}

    def close(self) -> None:
        """Frees what the environment holds."""

    def batch(self, make: "Callable[[], Env]", count: int) -> "Batch":
        """`count` copies stepped together, this one the first. What can step many at once returns something faster."""
        return Serial([self, *(make() for _ in range(count - 1))])

    @classmethod
    def references(cls, **values: Any) -> Mapping[str, float]:
        """Scores of others that this configuration's are compared with, by name: "random" and "human" normalise them."""
        return {}

    @classmethod
    def numerics(cls, **values: Any) -> Mapping[str, Any]:
        """What, besides the versions of packages, legitimately changes the bits of this configuration."""
        return {}

    @staticmethod
    def shells() -> tuple[Callable[..., Any], ...]:
        """What environments are wrapped and put into, whose arguments stand beside a class's own."""
        from hieros_repro.env.making import SHELLS

        return SHELLS

    @classmethod
    def sources(cls, **values: Any) -> Sequence[str]:
        """Modules besides this class's own whose change may change the environment that this configuration makes."""
        return ()


class Slots(NamedTuple):
    """Where a batch writes what its n environments show. The caller sends rewards and flags in as zeros."""

    obs: Mapping[str, np.ndarray]  # name -> (n, ...)
    reward: np.ndarray  # (n,) float64, as paid
    is_last: np.ndarray  # (n,) bool
    is_terminal: np.ndarray  # (n,) bool

    def part(self, envs: slice) -> "Slots":
        return Slots({name: value[envs] for name, value in self.obs.items()}, *(field[envs] for field in self[1:]))


class Past(NamedTuple):
    """Where an environment is: its last reset's seed, and either a snapshot or the actions since."""

    seed: int
    actions: np.ndarray
    snapshot: Tree = None


class Batch(ABC):
    """n environments stepped together: equal numbers, however it is done."""

    spaces: Spaces
    count: int
    remembers: bool  # whether snapshot() tells everything, so that nobody needs to keep actions
    first = 0  # the number of its first environment where it holds a part of them; this and `at` are for error messages
    at: np.ndarray = np.zeros(1, np.int64)  # the environment of its own that is being stepped

    @abstractmethod
    def step(self, action: np.ndarray, seeds: Mapping[int, int], slots: Slots) -> dict[int, Mapping[str, float]]:
        """One tick: environments that are given a seed start anew (their action is ignored), the others take their action.

        Returns the accounts of the episodes that ended, by environment.
        """

    @abstractmethod
    def snapshot(self) -> list[Tree]:
        """Every environment's, in order."""

    @abstractmethod
    def restore(self, pasts: Sequence[Past], obs: Mapping[str, np.ndarray]) -> None:
        """Every environment to where it was; what it showed is written to obs."""

    @abstractmethod
    def render(self, env: int) -> np.ndarray:
        """A picture of one environment."""

    @abstractmethod
    def close(self) -> None:
        """Frees what the environments hold."""


class Serial(Batch):
    """One after the other, in this process."""

    def __init__(self, envs: Sequence[Env]):
        self.envs, self.count = list(envs), len(envs)
        self.spaces, self.remembers = self.envs[0].spaces, self.envs[0].restorable()
        self.at = np.zeros(1, np.int64)

    def step(self, action: np.ndarray, seeds: Mapping[int, int], slots: Slots) -> dict[int, Mapping[str, float]]:
        obs, reward, is_last, is_terminal = slots
        accounts: dict[int, Mapping[str, float]] = {}
        i = 0
        try:
            for i, env in enumerate(self.envs):
                self.at[0] = i
                if i in seeds:
                    seen = env.reset(seeds[i])
                    _fits(seen, obs)
                else:
                    seen, reward[i], terminated, truncated = env.step(action[i])
                    if terminated or truncated:
                        is_last[i], is_terminal[i] = True, terminated
                        accounts[i] = env.account()
                for name, value in seen.items():
                    obs[name][i] = value
        except Exception as error:
            error.add_note(f"in environment {self.first + i}")
            raise
        return accounts

    def snapshot(self) -> list[Tree]:
        found = []
        for i, env in enumerate(self.envs):
            self.at[0] = i
            found.append(env.snapshot())
            if self.remembers and found[-1] is None:
                raise ValueError(f"{type(env).__name__}.snapshot() gave None, and its actions were not kept")
        return found

    def restore(self, pasts: Sequence[Past], obs: Mapping[str, np.ndarray]) -> None:
        for i, (env, past) in enumerate(zip(self.envs, pasts, strict=True)):
            self.at[0] = i
            if past.snapshot is not None:
                seen = env.restore(past.seed, past.snapshot)
            else:
                seen = env.reset(past.seed)
                for action in past.actions:
                    seen = env.step(action)[0]
            for name, value in seen.items():
                obs[name][i] = value

    def render(self, env: int) -> np.ndarray:
        self.at[0] = env
        return self.envs[env].render()

    def close(self) -> None:
        for env in self.envs:
            env.close()


def _fits(seen: Mapping[str, np.ndarray], obs: Mapping[str, np.ndarray]) -> None:
    """Whether an environment shows what its spaces say; values are converted, kinds of values are not."""
    if not isinstance(seen, Mapping):
        raise ValueError(f"reset() gave a {type(seen).__name__}, not observations by name")
    if seen.keys() != obs.keys():
        raise ValueError(f"it shows {', '.join(sorted(seen))}, its spaces say {', '.join(sorted(obs))}")
    for name, value in seen.items():
        if np.shape(value) != obs[name].shape[1:]:
            raise ValueError(f"it shows {name} with shape {np.shape(value)}, its space says {obs[name].shape[1:]}")
        if not np.can_cast(np.asarray(value).dtype, obs[name].dtype, "same_kind"):
            raise ValueError(f"it shows {name} as {np.asarray(value).dtype}, its space says {obs[name].dtype}")
