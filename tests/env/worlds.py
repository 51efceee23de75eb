"""Environments made for tests: scripted by hand, of every kind of space, that fail, and that do not come back exactly."""

import copy
import ctypes
import itertools
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from hieros_repro.env.base import Batch, Env, Outcome, Serial, Slots
from hieros_repro.records import Space, Spaces, Tree, UserError

OUTSIDE = itertools.count()


class Scripted(Env):
    """Shows (seed, ticks since the reset, last action); the k-th action brings reward k. Ends as told, by environment seed."""

    def __init__(self, ends: dict[int, tuple[int, bool]], kind: str = "discrete"):
        action = {
            "discrete": Space("discrete", (), sizes=(9,)),
            "multidiscrete": Space("multidiscrete", (2,), sizes=(9, 9)),
            "continuous": Space("continuous", (2,), low=(-9.0, -9.0), high=(9.0, 9.0)),
        }[kind]
        self.spaces = Spaces({"vector": Space("vector", (3,))}, action)
        self.ends = ends
        self.seed = self.ticks = 0

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self.seed, self.ticks = seed, 0
        return self.shown(-1)

    def step(self, action: np.ndarray | int) -> Outcome:
        self.ticks += 1
        length, terminal = self.ends.get(self.seed, (10**6, False))
        over = self.ticks >= length
        return self.shown(action), float(self.ticks), over and terminal, over and not terminal

    def shown(self, action: np.ndarray | int) -> dict[str, np.ndarray]:
        return {"vector": np.array([self.seed, self.ticks, np.sum(action)], np.float32)}


class Foreign(Scripted):
    """Shows something that depends neither on its seed nor on its actions."""

    def shown(self, action: np.ndarray | int) -> dict[str, np.ndarray]:
        return {"vector": np.array([next(OUTSIDE), self.ticks, 0], np.float32)}


class Remembered(Scripted):
    """Comes back by a snapshot."""

    meanings: ClassVar[Mapping[str, str]] = {"tens": "whole tens of steps", "seed": "what it was reset with"}

    def snapshot(self) -> Tree:
        return {"ticks": self.ticks, "of": np.array([self.seed])}

    def restore(self, seed: int, snapshot: Tree) -> dict[str, np.ndarray]:
        assert snapshot["of"].tolist() == [seed]
        self.seed, self.ticks = seed, snapshot["ticks"]
        return self.shown(0)

    def shown(self, action: np.ndarray | int) -> dict[str, np.ndarray]:
        return super().shown(0)

    def account(self) -> dict[str, float]:
        return {"tens": self.ticks // 10, "seed": self.seed}


# -- That fail ---------------------------------------------------------------------------------------------------------


def _raise(error: Exception) -> None:
    raise error


FAULTS: dict[str, Callable[[], Any]] = {
    "raises": lambda: _raise(OverflowError("the pole broke")),
    "refuses": lambda: _raise(UserError("env.task: the file of this task is not there")),
    "is killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "crashes": lambda: ctypes.string_at(0),
    "leaves": lambda: os._exit(3),
    "stands still": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "sleeps": lambda: time.sleep(60),
}


class Faulty(Scripted):
    """Fails in one way at one place: when it is made, or reset with a seed, at the third step thereafter, or closed."""

    def __init__(self, place: str, fault: str, of: int = 0):
        super().__init__({})
        self.place, self.fault, self.of = place, fault, of
        self._fail("init")

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        if seed == self.of:
            self._fail("reset")
        return super().reset(seed)

    def step(self, action: np.ndarray | int) -> Outcome:
        if (self.seed, self.ticks) == (self.of, 2):
            self._fail("step")
        return super().step(action)

    def close(self) -> None:
        self._fail("close")

    def _fail(self, place: str) -> None:
        if place == self.place:
            FAULTS[self.fault]()


# -- That do not come back exactly -------------------------------------------------------------------------------------


class Inexact(Scripted):
    """Pays what does not follow from its seed and actions alone; subclasses say what."""

    def __init__(self) -> None:
        super().__init__({})

    def step(self, action: np.ndarray | int) -> Outcome:
        obs, _, terminated, truncated = super().step(action)
        return obs, self.paid(), terminated, truncated

    def paid(self) -> float:
        raise AssertionError("a subclass says what")


class Exact(Inexact):
    """Is not, in spite of its base."""

    def paid(self) -> float:
        return float(self.ticks)


class Global(Inexact):
    """A generator that all copies share, seeded by each reset."""

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        random.seed(seed)
        return super().reset(seed)

    def paid(self) -> float:
        return random.random()


class Entropy(Inexact):
    def paid(self) -> float:
        return os.urandom(1)[0] / 255


class Counted(Inexact):
    """All copies count together."""

    steps: ClassVar[int] = 0

    def paid(self) -> float:
        Counted.steps += 1
        return float(Counted.steps)


class Hashed(Inexact):
    """Another value in every process, unless PYTHONHASHSEED is set."""

    def paid(self) -> float:
        return hash("reward") % 100_003 / 100_003


class Aged(Inexact):
    """What it pays grows with its first two episodes, as if they had left something behind."""

    resets = 0

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self.resets += 1
        return super().reset(seed)

    def paid(self) -> float:
        return float(min(self.resets, 3))


class Forgetful(Remembered):
    """Its snapshot lacks the sum of its actions, which it pays."""

    def __init__(self) -> None:
        super().__init__({})
        self.total = 0.0

    def step(self, action: np.ndarray | int) -> Outcome:
        obs, _, terminated, truncated = super().step(action)
        self.total += float(np.sum(action))
        return obs, self.total, terminated, truncated


class Shown(Forgetful):
    """As that, and shows it."""

    def shown(self, action: np.ndarray | int) -> dict[str, np.ndarray]:
        return {"vector": np.array([self.seed, self.ticks, getattr(self, "total", 0)], np.float32)}


class Worn(Inexact):
    """Pays how many of its episodes were played to their end, which is after 150 steps."""

    ended = 0

    def step(self, action: np.ndarray | int) -> Outcome:
        obs, reward, *_ = super().step(action)
        over = self.ticks == 150
        self.ended += over
        return obs, reward, False, over

    def paid(self) -> float:
        return float(self.ended)


class Joint(Serial):
    """Pays all but the first of those that it steps how often it has stepped them."""

    stepped = 0

    def step(self, action: np.ndarray, seeds: Mapping[int, int], slots: Slots) -> dict[int, Mapping[str, float]]:
        accounts = super().step(action, seeds, slots)
        self.stepped += 1
        slots.reward[1:] = self.stepped
        return accounts


class Joined(Exact):
    """Comes back exactly where it is stepped alone."""

    def batch(self, make: Callable[[], Env], count: int) -> Batch:
        return Joint([self, *(make() for _ in range(count - 1))])


class Unsaved(Remembered):
    """Has a state that cannot be told."""

    def snapshot(self) -> Tree:
        raise TypeError("root.player is or has the type builtins:function")


# -- Gymnasium's -------------------------------------------------------------------------------------------------------


class Picture(gymnasium.Env):
    """An image that follows the actions; over after 12 steps."""

    observation_space = spaces.Box(0, 255, (8, 9, 3), np.uint8)
    action_space = spaces.Discrete(3, start=5)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.picture = self.np_random.integers(0, 256, (8, 9, 3), np.uint8)
        self.ticks = 0
        return self.picture.copy(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(np.int64(action)), action
        self.ticks += 1
        self.picture += np.uint8(action)
        return self.picture.copy(), float(action), self.ticks == 12, False, {}


class Channels(Picture):
    """The same with the channels first, and large enough to be seen as such."""

    observation_space = spaces.Box(0, 255, (3, 32, 32), np.uint8)

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.picture = self.np_random.integers(0, 256, (3, 32, 32), np.uint8)
        return self.picture.copy(), {}


class Mixed(gymnasium.Env):
    """A Dict of every kind of observation, MultiDiscrete actions; float64 where Gymnasium allows it."""

    observation_space = spaces.Dict(
        {
            "image": spaces.Box(0, 255, (8, 8, 1), np.uint8),
            "pose": spaces.Box(-1.0, 1.0, (2,), np.float64),
            "cell": spaces.Discrete(4, start=2),
            "switches": spaces.MultiBinary(3),
            "pair": spaces.MultiDiscrete([2, 3]),
        }
    )
    action_space = spaces.MultiDiscrete([2, 5])

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self.observation_space = copy.deepcopy(self.observation_space)  # its generator belongs to this environment alone
        self.observation_space.seed(seed)
        return self.observation_space.sample(), {}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
        assert self.action_space.contains(np.asarray(action)), action
        return self.observation_space.sample(), float(np.sum(action)), False, bool(self.np_random.random() < 0.1), {}


gymnasium.register("Picture-v0", Picture)
gymnasium.register("Channels-v0", Channels)
gymnasium.register("Mixed-v0", Mixed, max_episode_steps=20)
gymnasium.register("Absent-v0", "surely_not_installed.module:Absent")
