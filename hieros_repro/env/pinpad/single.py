"""PinPad as a Gymnasium environment."""

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded

from hieros_repro.env.pinpad.layout import ACTIONS, HEIGHT, WIDTH, cell_at, layout_of, position_of
from hieros_repro.env.pinpad.picture import Painter, picture
from hieros_repro.env.pinpad.rules import PAUSE, Memory, Rules, coverage
from hieros_repro.records import Tree


class PinPadEasy(gymnasium.Env[np.ndarray, np.int64]):
    """Look at pads 1, 2, ... in this order and be paid 10; a reward mode pays for parts of it. Seen from above.

    `task` is a layout's name or a map as text; `size` of the picture any multiple of 16. An episode ends by time only. Where
    players appear is a function of the episode's seed, unless reset(options={"spawns": [(x, y), ...]}) queues cells.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (as Gymnasium declares it)

    def __init__(
        self,
        task: str = "three",
        length: int = 1000,
        size: int = 64,
        reward_mode: str = "flat",
        render_mode: str | None = None,
    ):
        if length < 1:
            raise ValueError(f"length={length!r}: an episode has at least one step")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode={render_mode!r}: PinPad renders 'rgb_array' or nothing (None)")
        self.task, self.length, self.size, self.reward_mode, self.render_mode = task, length, size, reward_mode, render_mode
        self.layout = layout_of(task)
        self.rules = Rules(self.layout, reward_mode)
        self.memory = Memory(self.rules)
        self.painter = Painter(self.layout, size)
        self.observation_space = gymnasium.spaces.Box(0, 255, (size, size, 3), np.uint8)
        self.action_space = gymnasium.spaces.Discrete(ACTIONS)
        self.steps = self.countdown = 0
        self._cell: int | None = None
        self._visits = np.zeros(WIDTH * HEIGHT, np.int64)
        # Lists, as Python reads single numbers out of them faster.
        self._landing, self._looked = self.layout.landing.tolist(), self.layout.looked.tolist()
        self._guidance = None if self.rules.guidance is None else self.rules.guidance.tolist()

    # -- What it shows -------------------------------------------------------------------------------------------------

    @property
    def position(self) -> tuple[int, int]:
        """(x, y), x to the right and y down."""
        return position_of(self._present())

    @property
    def sequence(self) -> str:
        """The pads looked at, oldest first."""
        return self.memory.sequence

    @property
    def visits(self) -> np.ndarray:
        """(14, 16), by [y, x]: how many observations of this environment's life had the player there."""
        return self._visits.reshape(HEIGHT, WIDTH)

    # -- Episodes ------------------------------------------------------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        if options and "spawns" in options:
            self.memory.queue = [self._spawn_cell(position) for position in options["spawns"]]
        self.memory.begin(int(self.np_random.integers(2**31)) if seed is None else int(seed))
        self.steps, self.countdown, self._cell = 0, 0, self.memory.spawn()
        self._visits[self._cell] += 1
        return self._see(), self._info()

    def step(self, action: np.int64 | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        cell, memory = self._present(), self.memory
        if not 0 <= action < ACTIONS:
            raise ValueError(f"{action!r} is no action: 0 stay, 1 down, 2 up, 3 right, 4 left")
        if self.countdown:
            self.countdown -= 1
            if not self.countdown:
                cell = memory.spawn()
        move = cell * ACTIONS + action
        reward = self._guidance[memory.progress][move] if self._guidance else 0.0
        self._cell = cell = self._landing[move]
        pad = self._looked[move]
        if pad and memory.latest != pad:
            paid, complete = memory.look(pad, self.countdown > 0)
            reward += paid
            self.countdown = PAUSE if complete else self.countdown
        self.steps += 1
        self._visits[cell] += 1
        return self._see(), reward, False, self.steps >= self.length, self._info()

    def render(self) -> np.ndarray | None:
        return self._see() if self.render_mode else None

    def picture(self, size: int) -> np.ndarray:
        """What is seen, in another size."""
        return picture(self.layout, self._present(), self.countdown > 0, self.memory.sequence, size)

    def account(self) -> dict[str, float]:
        """Of this episode: sequences completed; of the environment's life: the share of cells visited."""
        return {"completions": self.memory.completions, "coverage": coverage(self.layout, self._visits)}

    # -- State ---------------------------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Tree]:
        """All that the present depends on, but the episode's seed, as plain data."""
        own = {"cell": self._cell, "countdown": self.countdown, "steps": self.steps, "visits": self._visits.copy()}
        return own | self.memory.plain()

    def restore(self, seed: int, snapshot: Mapping[str, Tree]) -> np.ndarray:
        """To where a snapshot was taken, in an episode of this seed; returns what was seen then."""
        self.memory.load(seed, snapshot)
        self._cell, self.countdown, self.steps = snapshot["cell"], snapshot["countdown"], snapshot["steps"]
        self._visits[:] = snapshot["visits"]
        return self._see()

    def _present(self) -> int:
        if self._cell is None:
            raise ResetNeeded("reset() comes before step() and before anything is shown")
        return self._cell

    def _see(self) -> np.ndarray:
        return self.painter.paint(self._present(), self.countdown > 0, self.memory.sequence)

    def _info(self) -> dict[str, Any]:
        return {"position": self.position, "sequence": self.memory.sequence, "countdown": self.countdown}

    def _spawn_cell(self, position: Sequence[int]) -> int:
        x, y = (int(coordinate) for coordinate in position)
        if not (0 <= x < WIDTH and 0 <= y < HEIGHT) or cell_at(x, y) not in self.layout.cells:
            raise ValueError(f"spawns: ({x}, {y}) is no free cell of this map")
        return cell_at(x, y)


class PinPad(PinPadEasy):
    """Visual PinPad: nothing is paid but 10 for all pads in order."""

    def __init__(self, task: str = "three", length: int = 2000, size: int = 64, render_mode: str | None = None):
        super().__init__(task, length, size, "sparse", render_mode)
