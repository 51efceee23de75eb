"""Environments made for tests: scripted by hand, of every kind of space, and one that is no function of its seed."""

import copy
import itertools
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from hieros_repro.env.base import Env, Outcome
from hieros_repro.records import Space, Spaces

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
gymnasium.register("Mixed-v0", Mixed, max_episode_steps=20)
gymnasium.register("Absent-v0", "surely_not_installed.module:Absent")
