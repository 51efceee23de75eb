"""Tiny environments whose best policy, lengths and scores are known, registered with Gymnasium."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Bandit(gymnasium.Env):
    """Three contexts, four arms: arm (context + 1) pays 1, every other 0. Eight pulls an episode."""

    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.left = 8
        return self._show(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = float(action == self.context + 1)
        self.left -= 1
        return self._show(), reward, False, self.left == 0, {}

    def _show(self) -> np.ndarray:
        self.context = int(self.np_random.integers(3))
        return np.eye(3, dtype=np.float32)[self.context]


class Chain(gymnasium.Env):
    """States 0, 1, 2 in a row. Left ends the episode with 0.1; right moves on, and out of state 2 it ends with 1."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.state = 0
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        if action == 0:
            return self.state, 0.1, True, False, {}
        if self.state == 2:
            return self.state, 1.0, True, False, {}
        self.state += 1
        return self.state, 0.0, False, False, {}


class Clock(gymnasium.Env):
    """Pays 1 a step for 1 to 5 steps, which the seed decides: length = seed % 5 + 1. Draws itself for videos."""

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    observation_space = spaces.Box(0, 10, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        assert seed is not None
        self.left = seed % 5 + 1
        return np.array([self.left], np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return np.array([self.left], np.float32), 1.0, self.left == 0, False, {}

    def render(self) -> np.ndarray:
        return np.full((16, 16, 3), 40 * self.left, np.uint8)


class Point(gymnasium.Env):
    """A point that two bounded forces push; ten steps an episode."""

    observation_space = spaces.Box(-10, 10, (2,), np.float32)
    action_space = spaces.Box(-0.5, 0.5, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.position, self.left = self.np_random.uniform(-1, 1, 2).astype(np.float32), 10
        return self.position, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.position, self.left = (self.position + action).astype(np.float32), self.left - 1
        return self.position, -float(np.abs(self.position).sum()), False, self.left == 0, {}


for _world in (Bandit, Chain, Clock, Point):
    gymnasium.register(f"{_world.__name__}Test-v0", entry_point=f"tests.worlds:{_world.__name__}")


def world(name: str) -> tuple[str, str]:
    """The overrides that choose one of these environments."""
    return "env=gymnasium", f"env.id=tests.worlds:{name}Test-v0"
