"""Atari 2600 games, on the Arcade Learning Environment itself.

An episode is a function of its seed, and comes back exactly, although the emulator alone promises neither:

- `reset_game()` keeps the memory and the generator that the last game left. Here the state right after loading the ROM is put
  back first, which gives what a fresh process has at a twentieth of the cost of loading it again.
- `cloneState()` leaves out the video chip's drawing masks and the action that sticky actions repeat: put back into another
  emulator, a clone shows other pictures now and then. So a game is restored by playing it again: actions take a byte each.
"""

import difflib
import functools
import importlib.util
import itertools
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import yaml

from hieros_repro.determinism.keys import Key
from hieros_repro.env.base import Env, Outcome
from hieros_repro.records import Count, Fault, Fraction, Natural, Space, Spaces, Tree, needs_extra

REFERENCES = Path(__file__).with_name("atari100k.yaml")
NOOP = 0  # the button, whatever actions may be chosen
GOES_ON = 255  # among the actions played: a reset that carried the same game on
BLOCK = 1024  # frames whose chances to be sticky are drawn together


class Atari(Env):
    """One game. An image is the pixel-wise maximum of an action's last two frames, reduced by averaging areas.

    With `life_loss` an episode ends with every life, and the next one carries the game on after one action that does nothing;
    the game's own score is in the account of its last episode. `length` counts the actions of a whole game.
    """

    meanings: ClassVar[Mapping[str, str]] = {
        "frames": "frames of the emulator in the episode",
        "lives": "lives left at its end",
        "game_score": "with life_loss: the score of the whole game, told with its last episode",
    }
    evaluation: ClassVar[Mapping[str, Any]] = {"life_loss": False}

    def __init__(
        self,
        render: bool = False,
        *,
        task: str,
        size: Count,
        gray: bool,
        action_repeat: Count,
        sticky: Fraction,
        noops: Natural,
        actions: Literal["minimal", "full"],
        life_loss: bool,
        length: Count | None,
    ):
        self.task = task
        self.ale = _emulator(task)
        self._loaded = self.ale.cloneState(include_rng=True)
        buttons = self.ale.getMinimalActionSet() if actions == "minimal" else self.ale.getLegalActionSet()
        self._buttons = [int(button.value) for button in buttons]
        self._size, self._repeat, self._sticky, self._noops = size, action_repeat, sticky, noops
        self._life_loss, self._length = life_loss, length
        colours = 1 if gray else 3
        self.spaces = Spaces(
            {"image": Space("image", (size, size, colours))}, Space("discrete", (), sizes=(len(self._buttons),))
        )
        self._shoot = self.ale.getScreenGrayscale if gray else self.ale.getScreenRGB
        screen = self.ale.getScreenDims() if gray else (*self.ale.getScreenDims(), 3)
        self._before, self._now = np.empty((2, *screen), np.uint8)  # the last two frames
        self._goes_on = False  # the episode is over and its game is not

    # -- Episodes ------------------------------------------------------------------------------------------------------

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        if not (self._goes_on and self._carry_on()):
            self._begin(seed)
        return self._see()

    def step(self, action: np.ndarray | int) -> Outcome:
        reward, terminated, truncated = self._advance(int(action))
        return self._see(), reward, terminated, truncated

    def account(self) -> dict[str, float]:
        account: dict[str, float] = {
            "frames": self.ale.getEpisodeFrameNumber() - self._first_frame,
            "lives": self.ale.lives(),
        }
        return account if self._goes_on or not self._life_loss else account | {"game_score": self._score}

    def render(self) -> np.ndarray:
        return self.ale.getScreenRGB()

    def _begin(self, seed: int) -> None:
        """A new game, after as many frames without action as the seed says."""
        self.ale.restoreState(self._loaded)
        self.ale.reset_game()
        self._seed, self._played, self._goes_on = seed, bytearray(), False
        self._sticks = _coins(Key(seed)("world", "sticky"), self._sticky)
        self._held, self._steps, self._score, self._first_frame = NOOP, 0, 0.0, 0
        for _ in range(Key(seed)("world", "noops", 0).integers(self._noops + 1, ())):
            self.ale.act(NOOP)
        self._shoot(self._before)

    def _carry_on(self) -> bool:
        """The next episode of the same game, if it lives through an action that does nothing."""
        self._played.append(GOES_ON)
        self._goes_on, self._first_frame = False, self.ale.getEpisodeFrameNumber()
        self._press(NOOP)
        return not (self.ale.game_over() or self._late())

    def _advance(self, action: int) -> tuple[float, bool, bool]:
        """Reward, terminated, truncated."""
        self._played.append(action)
        before, reward = self.ale.lives(), self._press(self._buttons[action])
        # No lives is not a life lost: some games go on with none, some show none for some frames before they are over.
        lost = self._life_loss and 0 < self.ale.lives() < before
        over, late = self.ale.game_over(), self._late()
        self._goes_on = lost and not over and not late
        return reward, over or lost, late and not over and not lost

    def _press(self, button: int) -> float:
        """The rewards of one action's frames. In each, a sticky console keeps the button of the frame before."""
        reward = 0
        for left in reversed(range(self._repeat)):
            if not next(self._sticks):
                self._held = button
            reward += self.ale.act(self._held)
            if left == 1:
                self._shoot(self._before)
        self._steps += 1
        self._score += reward
        return float(reward)

    def _late(self) -> bool:
        return self._steps == self._length

    def _see(self) -> dict[str, np.ndarray]:
        cv2 = _cv2()
        self._shoot(self._now)
        if self._repeat > 1:
            np.maximum(self._now, self._before, out=self._now)
        image = cv2.resize(self._now, (self._size, self._size), interpolation=cv2.INTER_AREA)
        return {"image": image.reshape(self.spaces.observation["image"].shape)}

    # -- State ---------------------------------------------------------------------------------------------------------

    def snapshot(self) -> Tree:
        return {"seed": self._seed, "played": np.frombuffer(bytes(self._played), np.uint8)}

    def restore(self, seed: int, snapshot: Tree) -> dict[str, np.ndarray]:
        """Plays the game again: it may have begun some episodes ago, with another seed."""
        self._begin(snapshot["seed"])
        for action in snapshot["played"].tolist():
            if action == GOES_ON:
                self._carry_on()
            else:
                self._advance(action)
        return self._see()

    # -- Configuration -------------------------------------------------------------------------------------------------

    @classmethod
    def check(cls, *, task: str, **values: Any) -> Iterator[Fault]:
        """Are the packages there, and is it a game?"""
        if not all(importlib.util.find_spec(package) for package in ("ale_py", "cv2")):
            yield Fault("task", needs_extra("Atari", "atari"))
        elif _find(task) is None:
            yield Fault("task", _unknown(task))

    @classmethod
    def references(cls, **values: Any) -> Mapping[str, float]:
        """The scores of a random player and of a human, for the games of the 100k benchmark."""
        return benchmark().get(_plain(values["task"]), {})


@functools.cache
def benchmark() -> dict[str, dict[str, float]]:
    """The games of Atari 100k, by their plain names, with the scores of others."""
    scores = yaml.safe_load(REFERENCES.read_text(encoding="utf8"))
    return {_plain(game): values for game, values in scores.items()}


def _coins(key: Key, probability: float) -> Iterator[bool]:
    """Endlessly, True with this probability."""
    if not probability:
        yield from itertools.repeat(False)
    for block in itertools.count():
        yield from (key(block).uniform((BLOCK,)) < probability).tolist()


# -- The emulator ------------------------------------------------------------------------------------------------------


@functools.cache
def _ale_py() -> Any:
    import ale_py

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # no banner
    return ale_py


@functools.cache
def _cv2() -> Any:
    import cv2

    cv2.setNumThreads(0)
    return cv2


@functools.cache
def games() -> dict[str, Path]:
    """The games that can be played alone, and their ROMs. Loading another kind would end the process."""
    ale_py = _ale_py()
    roms = {name: ale_py.roms.get_rom_path(name) for name in sorted(ale_py.roms.get_all_rom_ids())}
    return {name: rom for name, rom in roms.items() if ale_py.ALEInterface.isSupportedROM(rom)}


def _emulator(task: str) -> Any:
    game = _find(task)
    if game is None:
        raise ValueError(_unknown(task))
    ale = _ale_py().ALEInterface()
    ale.setInt("random_seed", 0)  # its draws decide nothing here, but the default is the clock
    ale.setFloat("repeat_action_probability", 0.0)  # sticky actions are ours, so that they follow the seed of the reset
    ale.loadROM(games()[game])
    return ale


def _plain(name: str) -> str:
    """However it is spelt: MsPacman, ms_pacman, "Ms. Pac-Man"."""
    return re.sub("[^a-z0-9]", "", name.lower())


def _find(task: str) -> str | None:
    return {_plain(game): game for game in games()}.get(_plain(task))


def _unknown(task: str) -> str:
    near = difflib.get_close_matches(task.lower(), games(), n=3, cutoff=0.4)
    return f"{task!r} is not one of the {len(games())} games; nearest: {', '.join(near) or 'none'}"
