"""The baseline that learns nothing: uniformly random actions."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hieros_repro.agent.base import Agent
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.records import Arrays, Carry, Count, Rows, Spaces, Step


class Chance(Agent):
    """Every `hold` ticks each environment gets a new action, uniform over the action space."""

    def __init__(self, spaces: Spaces, key: Key, hardware: Hardware, horizon: int, *, hold: Count):
        self.space = spaces.action
        self.hold = hold

    def initial(self, num_envs: int) -> Carry:
        return {"action": np.zeros((num_envs, *self.space.shape), self.space.dtype), "left": 0}

    def act_noise(self, key: Key, ticks: int, num_envs: int) -> Arrays:
        return {"action": key.uniform((ticks, num_envs, *self.space.shape))}

    def act(self, now: Step, carry: Carry, noise: Arrays, greedy: bool = False) -> tuple[np.ndarray, Carry, dict[str, Rows]]:
        if carry["left"] > 0:
            return carry["action"], {**carry, "left": carry["left"] - 1}, {}
        action = self.space.draw(noise["action"])
        return action, {"action": action, "left": self.hold - 1}, {}

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: Mapping[str, Any]) -> None:
        """Nothing was learned, so nothing comes back."""
