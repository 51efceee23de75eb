"""CartPoles that misbehave on purpose, for runs with plugins=[tests.envs]. The cause is outside the configuration."""

import os
import signal
import sys

import numpy as np

from hieros_repro.env.base import Outcome
from hieros_repro.env.gymnasium import Gymnasium

PLUGIN = "plugins=[tests.envs]"


class Mortal(Gymnasium):
    """Sends its process the signal DIE_BY at the DIE_AT-th step that any of its copies takes in this process."""

    taken = 0

    def step(self, action: np.ndarray | int) -> Outcome:
        if "hieros_repro.exactness" in sys.orig_argv:  # it lives while it is tried
            return super().step(action)
        Mortal.taken += 1
        if Mortal.taken == int(os.environ.get("DIE_AT", "0")):
            os.kill(os.getpid(), int(os.environ["DIE_BY"]))
        return super().step(action)


class Interrupting(Gymnasium):
    """The one that starts with seed 42 types Ctrl-C at its INTERRUPT_AT-th step: all that the terminal has started is told."""

    first: int | None = None
    taken = 0

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self.first = seed if self.first is None else self.first
        return super().reset(seed)

    def step(self, action: np.ndarray | int) -> Outcome:
        self.taken += 1
        if self.first == 42 and self.taken == int(os.environ.get("INTERRUPT_AT", "0")):
            os.killpg(os.getpgrp(), signal.SIGINT)
        return super().step(action)


class Unlucky(Gymnasium):
    """Cannot be reset with the seed UNLUCKY."""

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        if seed == int(os.environ.get("UNLUCKY", "-1")):
            raise OverflowError(f"the pole broke under seed {seed}")
        return super().reset(seed)


class Unrepeatable(Gymnasium):
    """Pays what the operating system's entropy says."""

    def step(self, action: np.ndarray | int) -> Outcome:
        obs, _, terminated, truncated = super().step(action)
        return obs, os.urandom(1)[0] / 255, terminated, truncated


class Hashed(Gymnasium):
    """Pays what Python's hash of a word is."""

    def step(self, action: np.ndarray | int) -> Outcome:
        obs, _, terminated, truncated = super().step(action)
        return obs, hash("reward") % 1000 / 1000, terminated, truncated


def chosen(env: type[Gymnasium]) -> tuple[str, str]:
    """The overrides that choose one of them."""
    return PLUGIN, f"env._target_=tests.envs.{env.__name__}"
