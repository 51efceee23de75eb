"""Crafter, made a function of its seed: an open world with 22 achievements (package crafter)."""

import importlib.util
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hieros_repro.env import graph
from hieros_repro.env.base import Env, Outcome
from hieros_repro.records import Count, Fault, Space, Spaces, Tree, needs_extra

if TYPE_CHECKING:
    from crafter.engine import LocalView, World

LENGTH = 10_000  # the package's own
TILES = 9  # in a picture, across and down
PACKAGES = ("crafter", __name__)
# Made by constructors and never changed by a step, or made anew below; all other fields are the state.
ENV = frozenset({"_world", "_textures", "_local_view", "_item_view", "_sem_view"})
WORLD = frozenset({"reset", "_chunks"})


ACHIEVEMENTS = (
    "collect_coal", "collect_diamond", "collect_drink", "collect_iron", "collect_sapling", "collect_stone", "collect_wood",
    "defeat_skeleton", "defeat_zombie", "eat_cow", "eat_plant", "make_iron_pickaxe", "make_iron_sword",
    "make_stone_pickaxe", "make_stone_sword", "make_wood_pickaxe", "make_wood_sword", "place_furnace", "place_plant",
    "place_stone", "place_table", "wake_up",
)  # fmt: skip


class Ordered:
    """A set that is iterated over in the order in which its members came.

    Crafter keeps the creatures of a part of the map in sets, and which of them disappears is the n-th of the set. Sets of
    objects are ordered by where these happen to lie in memory, so equally seeded worlds soon part (in one process too, and
    whatever PYTHONHASHSEED is); ordered by arrival, they are a function of seed and actions.
    """

    def __init__(self) -> None:
        self.members: dict[Any, None] = {}

    def add(self, member: Any) -> None:
        self.members[member] = None

    def remove(self, member: Any) -> None:
        del self.members[member]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)


class Crafter(Env):
    """Collect, build, eat, sleep, survive. Rewards: 1 for each achievement the first time, 0.1 for each point of health.

    An episode with seed s is the first of crafter.Env(seed=s). Dying is termination, `length` a time-out.
    """

    meanings: ClassVar[Mapping[str, str]] = {f"achievement_{name}": f"whether it did: {name}" for name in ACHIEVEMENTS}

    def __init__(self, render: bool = False, *, reward: bool, size: Count, length: Count | None):
        import crafter

        self.env = crafter.Env(size=(size, size), reward=reward, length=length or LENGTH, seed=0)
        self.world = self.env._world
        _order_creatures(self.world)
        self.env._local_view = View(self.env._local_view)
        actions = self.env.action_space.n
        self.spaces = Spaces({"image": Space("image", (size, size, 3))}, Space("discrete", (), sizes=(actions,)))
        self.image = np.zeros((size, size, 3), np.uint8)  # as last shown

    @classmethod
    def check(cls, *, reward: bool, size: int, length: int | None) -> Iterator[Fault]:
        """Is the package installed, and has a tile two pixels, so that a number in the inventory has one?"""
        if importlib.util.find_spec("crafter") is None:
            yield Fault("_target_", needs_extra(cls.__name__, "crafter"))
        if size < 2 * TILES:
            yield Fault("size", f"{size} is too small: a picture shows {TILES} x {TILES} tiles of at least 2 x 2 pixels")

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self.env._seed, self.env._episode = seed, 0  # the package seeds an episode by both
        with _hasty_noise():
            self.image = self.env.reset()
        return {"image": self.image}

    def step(self, action: np.ndarray | int) -> Outcome:
        self.image, reward, over, info = self.env.step(int(action))
        dead = info["discount"] == 0
        return {"image": self.image}, float(reward), dead, bool(over) and not dead

    def account(self) -> Mapping[str, float]:
        """Which achievements were unlocked: their means over episodes are the success rates of Crafter's score."""
        return {f"achievement_{name}": int(count > 0) for name, count in self.env._player.achievements.items()}

    def snapshot(self) -> Tree:
        """The picture too: at night it has noise, which to draw again would change what follows."""
        state = {
            "env": graph.fields(self.env, ENV),
            "world": graph.fields(self.world, WORLD),
            "creatures": dict(self.world._chunks),
            "image": self.image,
        }
        return graph.freeze(state, PACKAGES, {"world": self.world})

    def restore(self, seed: int, snapshot: Tree) -> dict[str, np.ndarray]:
        state = graph.thaw(snapshot, PACKAGES, {"world": self.world})
        graph.replace(self.env, state["env"], ENV)
        graph.replace(self.world, state["world"], WORLD)
        self.world._chunks = defaultdict(Ordered, state["creatures"])
        self.image = state["image"]
        return {"image": self.image}

    def render(self) -> np.ndarray:
        """64 pixels a tile, the size of the package's own drawings."""
        before = self.world.random.get_state()  # nights are drawn with the generator that moves the creatures
        try:
            return np.asarray(self.env.render((TILES * 64, TILES * 64)))
        finally:
            self.world.random.set_state(before)


class View:
    """What crafter.engine.LocalView draws, the ground at once instead of tile by tile."""

    def __init__(self, view: "LocalView"):
        self.view = view
        self.tables: dict[tuple[int, int], np.ndarray] = {}  # by size of a tile: a picture of every material

    def __call__(self, player: Any, unit: np.ndarray) -> np.ndarray:
        from crafter.engine import _draw_alpha

        view, world = self.view, self.view._world
        corner = player.pos - view._offset
        canvas = self._ground(corner, (int(unit[0]), int(unit[1])))
        for thing in world.objects:
            place = thing.pos - corner
            if (place >= 0).all() and (place < view._grid).all():
                _draw_alpha(canvas, place * unit, view._textures.get(thing.texture, unit))
        lit = view._light(canvas, world.daylight)
        return view._sleep(lit) if player.sleeping else lit

    def _ground(self, corner: np.ndarray, unit: tuple[int, int]) -> np.ndarray:
        (wide, high), world = self.view._grid, self.view._world
        table = self._table(unit)
        shown = np.full((wide, high), len(table) - 1)
        (left, top), (right, bottom) = np.maximum(corner, 0), np.minimum(corner + self.view._grid, world.area)
        x, y = corner
        shown[left - x : right - x, top - y : bottom - y] = world._mat_map[left:right, top:bottom]
        return table[shown].transpose(0, 2, 1, 3, 4).reshape(wide * unit[0], high * unit[1], 3)

    def _table(self, unit: tuple[int, int]) -> np.ndarray:
        """The last is shown beyond the map."""
        if unit not in self.tables:
            names = [self.view._world._mat_names[i] for i in range(len(self.view._world._mat_names))]
            pictures = [self.view._textures.get(name, unit)[..., :3] for name in names]
            self.tables[unit] = np.stack([*pictures, np.full((*unit, 3), 127, np.uint8)])
        return self.tables[unit]


def _order_creatures(world: "World") -> None:
    """Every reset of this world from now on makes ordered sets."""
    reset = world.reset

    def ordered(seed: int | None = None) -> None:
        reset(seed)
        world._chunks = defaultdict(Ordered)

    world.reset = ordered


@contextmanager
def _hasty_noise() -> Iterator[None]:
    """The same landscapes sooner: single elements of lists are found many times faster than those of numpy arrays.

    A landscape takes 150,000 of them: more time than an episode of a beginner. Where numba compiles it, nothing is needed.
    """
    from opensimplex import api, internals

    if importlib.util.find_spec("numba") is not None:
        yield
        return
    init, gradients = api._init, internals.GRADIENTS3
    api._init = lambda seed: tuple(table.tolist() for table in init(seed))
    internals.GRADIENTS3 = gradients.tolist()
    try:
        yield
    finally:
        api._init, internals.GRADIENTS3 = init, gradients
