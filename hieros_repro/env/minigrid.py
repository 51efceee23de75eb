"""MiniGrid and BabyAI tasks, by id (package minigrid)."""

import contextlib
import difflib
import importlib
import importlib.util
import io
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import gymnasium
import numpy as np

from hieros_repro.env import graph
from hieros_repro.env.base import Env, Outcome
from hieros_repro.records import Count, Fault, Natural, Space, Spaces, Tree, UserError, needs_extra

PACKAGES = ("minigrid",)
# Made by constructors and never changed by a step; all other fields are the state.
FIXED = frozenset({"action_space", "observation_space", "actions", "metadata", "spec", "gen_obs"})
LETTERS = " abcdefghijklmnopqrstuvwxyz,"
TYPES, COLOURS, STATES = 11, 6, 3  # of what is in a cell
FINE = 8  # pixels across of the smallest cells that the package draws all differently

Observed = Literal["full", "agent", "symbolic"]


class MiniGrid(Env):
    """Reach, fetch, open: small tasks in small rooms, with a reward for success alone, 1 - 0.9 * steps / length.

    observe=full: a picture of the whole map. agent: a picture of the 7 x 7 cells before the agent, which are turned with it.
    symbolic: type, colour and state of these cells as one-hot vectors. With a partial view comes the agent's direction.

    A picture has as many whole pixels a cell as its size allows, each the mean of what it covers, in the middle of a black
    frame: cells all look alike wherever they are, and all differ if they have two pixels or more. The first `mission` letters
    of the task's sentence are shown as one-hot vectors; at 0 it is left out, which is right where it is always the same.
    """

    meanings: ClassVar[Mapping[str, str]] = {"success": "whether the goal was reached"}

    def __init__(
        self, render: bool = False, *, id: str, observe: Observed, size: Count, mission: Natural, length: Count | None
    ):
        importlib.import_module("minigrid")
        limit = {} if length is None else {"max_steps": length}
        env: Any = gymnasium.make(id, disable_env_checker=True, render_mode="rgb_array", **limit).unwrapped
        env.gen_obs = lambda: {}  # or each step would work out what is shown below, in another form
        self.env, self.observe, self.mission = env, observe, mission
        cells = (env.agent_view_size,) * 2 if observe != "full" else (env.height, env.width)
        shown = {"image": Space("image", (size, size, 3))}
        if observe == "symbolic":
            shown = {"symbols": Space("vector", (cells[0] * cells[1] * (TYPES + COLOURS + STATES),))}
        if observe != "full":
            shown["direction"] = Space("vector", (4,))
        if mission:
            shown["mission"] = Space("vector", (mission * len(LETTERS),))
        self.spaces = Spaces(shown, Space("discrete", (), sizes=(int(env.action_space.n),)))
        self.tiles = Tiles(cells, size) if observe != "symbolic" else None
        self.success = False

    @classmethod
    def check(cls, *, id: str, observe: Observed, size: int, mission: int, length: int | None) -> Iterator[Fault]:
        """Is the package installed, is there such a task, and is a cell at least a pixel?"""
        if importlib.util.find_spec("minigrid") is None:
            yield Fault("_target_", needs_extra(cls.__name__, "minigrid"))
            return
        importlib.import_module("minigrid")
        known = [name for name, spec in gymnasium.registry.items() if str(spec.entry_point).startswith("minigrid.")]
        if id not in known:
            near = difflib.get_close_matches(id, known, n=3, cutoff=0.4)
            yield Fault("id", f"{id!r} is no task of MiniGrid; nearest: {', '.join(near) or 'none'}")
            return
        try:
            env: Any = gymnasium.make(id, disable_env_checker=True).unwrapped
            _quietly_reset(env, 0)
        except (ImportError, OSError) as error:  # those that are generated need what the package does not bring
            yield Fault("id", f"{id!r} cannot be made: {error}")
            return
        cells = {"full": max(env.width, env.height), "agent": env.agent_view_size, "symbolic": 1}[observe]
        if size < cells:
            yield Fault("size", f"{size} is too small: a picture of {cells} cells across needs {cells} pixels or more")

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self.success = False
        _quietly_reset(self.env, seed)
        return self._see()

    def step(self, action: np.ndarray | int) -> Outcome:
        _, reward, terminated, truncated, _ = self.env.step(int(action))
        self.success = bool(terminated and reward > 0)
        return self._see(), float(reward), bool(terminated), bool(truncated and not terminated)

    def account(self) -> Mapping[str, float]:
        return {"success": int(self.success)}

    def snapshot(self) -> Tree:
        state = {"env": graph.fields(self.env, FIXED), "success": self.success}
        return graph.freeze(state, PACKAGES, {"env": self.env})

    def restore(self, seed: int, snapshot: Tree) -> dict[str, np.ndarray]:
        state = graph.thaw(snapshot, PACKAGES, {"env": self.env})
        graph.replace(self.env, state["env"], FIXED)
        self.success = state["success"]
        return self._see()

    def render(self) -> np.ndarray:
        """The whole map; what the agent sees is lighter."""
        return np.asarray(self.env.get_frame(highlight=True))

    def _see(self) -> dict[str, np.ndarray]:
        env, seen = self.env, {}
        if self.observe == "full":
            assert self.tiles is not None
            agent = env.agent_pos[1] * env.width + env.agent_pos[0]
            seen["image"] = self.tiles.draw(env.grid.grid, agent, env.agent_dir)
        else:
            grid, visible = env.gen_obs_grid()
            if self.tiles is None:
                seen["symbols"] = symbols(grid.encode(visible))
            else:  # seen from behind: the agent is in the middle of the lowest row and looks up
                seen["image"] = self.tiles.draw(grid.grid, len(grid.grid) - 1 - grid.width // 2, 3, visible.T.ravel())
            seen["direction"] = np.eye(4, dtype=np.float32)[env.agent_dir]
        if self.mission:
            seen["mission"] = letters(env.mission, self.mission)
        return seen


def _quietly_reset(env: Any, seed: int) -> None:
    """BabyAI prints every draft of a mission that it rejects."""
    with contextlib.redirect_stdout(io.StringIO()):
        env.reset(seed=seed)


class Tiles:
    """Pictures of maps, put together from pictures of their cells, each of which is drawn once."""

    def __init__(self, cells: tuple[int, int], size: int):
        self.cells, self.size, self.side = cells, size, size // max(cells)
        self.known: dict[tuple[Any, ...], int] = {}
        self.pictures = np.zeros((0, self.side, self.side, 3), np.uint8)
        self.corner = [(size - count * self.side) // 2 for count in cells]

    def draw(self, content: list[Any], agent: int, facing: int, visible: np.ndarray | None = None) -> np.ndarray:
        """The content of the cells row by row; the agent is at one of them. Visible cells are lighter."""
        found = [
            self._number(thing, facing if cell == agent else None, visible is not None and bool(visible[cell]))
            for cell, thing in enumerate(content)
        ]
        (rows, columns), (top, left), side = self.cells, self.corner, self.side
        tiles = self.pictures[found].reshape(rows, columns, side, side, 3).swapaxes(1, 2)
        picture = np.zeros((self.size, self.size, 3), np.uint8)
        picture[top : top + rows * side, left : left + columns * side] = tiles.reshape(rows * side, columns * side, 3)
        return picture

    def _number(self, thing: Any, facing: int | None, visible: bool) -> int:
        key = (thing.encode() if thing else None, facing, visible)
        if key not in self.known:
            self.known[key] = len(self.pictures)
            self.pictures = np.concatenate([self.pictures, self._drawn(thing, facing, visible)[None]])
        return self.known[key]

    def _drawn(self, thing: Any, facing: int | None, visible: bool) -> np.ndarray:
        """Drawn large and averaged: drawn at four pixels at once, a key and a box are the same."""
        from minigrid.core.grid import Grid

        factor = -(-FINE // self.side)
        large = np.asarray(Grid.render_tile(thing, facing, visible, factor * self.side)).astype(np.uint8)
        blocks = large.reshape(self.side, factor, self.side, factor, 3).sum((1, 3), dtype=np.int64)
        return ((blocks + factor * factor // 2) // (factor * factor)).astype(np.uint8)


def symbols(codes: np.ndarray) -> np.ndarray:
    """(width, height, 3) numbers of type, colour and state as one-hot vectors, one after the other."""
    parts = [np.eye(count, dtype=np.float32)[codes[..., i]] for i, count in enumerate((TYPES, COLOURS, STATES))]
    return np.concatenate(parts, axis=-1).ravel()


def letters(sentence: str, count: int) -> np.ndarray:
    """The first letters as one-hot vectors, one after the other; blanks follow a short sentence, others are refused."""
    if len(sentence) > count:
        raise UserError(f"env.mission={count} is too short: the mission {sentence!r} has {len(sentence)} letters")
    numbers = [LETTERS.index(letter) for letter in sentence.lower().ljust(count)]
    return np.eye(len(LETTERS), dtype=np.float32)[numbers].ravel()
