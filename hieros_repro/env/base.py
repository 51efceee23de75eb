"""What every single environment offers."""

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np

from hieros_repro.env.vector import Vector
from hieros_repro.env.wrapper import Normaliser
from hieros_repro.records import CannotRender, Spaces

Outcome = tuple[dict[str, np.ndarray], float, bool, bool]


class Env(ABC):
    """One environment. Its behaviour is a function of the reset seed and the actions since: that is how it is restored.

    Every reset is given a seed, so nothing may survive an episode inside it.
    """

    shells: ClassVar[tuple[type, ...]] = (Vector, Normaliser)  # what E copies are put into; they share the config node
    spaces: Spaces

    @abstractmethod
    def reset(self, seed: int) -> dict[str, np.ndarray]:
        """Starts an episode and returns its first observation."""

    @abstractmethod
    def step(self, action: np.ndarray | int) -> Outcome:
        """Observation, reward, terminated (nothing is to come), truncated (a time-out)."""

    def render(self) -> np.ndarray:
        """A picture (height, width, 3) uint8 of the present state."""
        raise CannotRender(f"{type(self).__name__} cannot be rendered: it has no render()")

    def close(self) -> None:
        """Frees what the environment holds."""
