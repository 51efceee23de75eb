"""An environment of which every number is known in advance: for tests, and for measuring everything but the environment."""

from typing import Literal

import numpy as np

from hieros_repro.env.base import Env, Outcome
from hieros_repro.records import Count, Space, Spaces, Tree

ACTIONS = {
    "discrete": Space("discrete", (), sizes=(5,)),
    "continuous": Space("continuous", (6,), low=(-1.0,) * 6, high=(1.0,) * 6),
    "multidiscrete": Space("multidiscrete", (2,), sizes=(5, 3)),
}
SEEDS = 1 << 16  # seeds are shown modulo this, which float32 holds exactly


class Dummy(Env):
    """Pays 1 a step and ends after `length`.

    vector: steps since the reset, the seed, and the last action (zeros before the first). image: black, with a white line in
    the row of the step, from the top, around and around.
    """

    def __init__(
        self,
        render: bool = False,
        *,
        task: Literal["discrete", "continuous", "multidiscrete"],
        size: Count,
        length: Count,
        terminal: bool,
    ):
        self.size, self.length, self.terminal = size, length, terminal
        action = ACTIONS[task]
        width = 2 + int(np.prod(action.shape))
        self.spaces = Spaces({"image": Space("image", (size, size, 3)), "vector": Space("vector", (width,))}, action)
        self.steps, self.seed, self.last = 0, 0, self._nothing()

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self.steps, self.seed, self.last = 0, seed, self._nothing()
        return self._see()

    def step(self, action: np.ndarray | int) -> Outcome:
        self.steps, self.last = self.steps + 1, np.array(action, np.float32).ravel()
        over = self.steps >= self.length
        return self._see(), 1.0, over and self.terminal, over and not self.terminal

    def snapshot(self) -> Tree:
        return {"steps": self.steps, "last": self.last.tolist()}

    def restore(self, seed: int, snapshot: Tree) -> dict[str, np.ndarray]:
        self.steps, self.seed, self.last = snapshot["steps"], seed, np.array(snapshot["last"], np.float32)
        return self._see()

    def render(self) -> np.ndarray:
        return self._see()["image"]

    def _nothing(self) -> np.ndarray:
        return np.zeros(int(np.prod(self.spaces.action.shape)), np.float32)

    def _see(self) -> dict[str, np.ndarray]:
        image = np.zeros((self.size, self.size, 3), np.uint8)
        image[self.steps % self.size] = 255
        return {"image": image, "vector": np.array([self.steps, self.seed % SEEDS, *self.last], np.float32)}
