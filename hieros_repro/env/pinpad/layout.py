"""Where walls and pads lie, and where a step leads from every cell."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

WIDTH, HEIGHT = 16, 14  # the picture has two rows more, for the pads looked at
CELLS = WIDTH * HEIGHT  # a cell is y * WIDTH + x
ACTIONS = 5  # a move is cell * ACTIONS + action
DIRECTIONS = ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0))  # stay, down, up, right, left
WALL, FREE = -1, 0  # any other tile is the number of a pad
MOST_PADS = 8


@dataclass(frozen=True, eq=False)
class Layout:
    """A map. Small ones lie in the top left corner, and the rest is wall."""

    tiles: np.ndarray  # (CELLS,) WALL, FREE or a pad's number
    pads: int
    cells: tuple[int, ...]  # all but walls, row by row: here a player may appear
    landing: np.ndarray  # (CELLS * ACTIONS,) the cell where a move ends
    looked: np.ndarray  # (CELLS * ACTIONS,) the pad that a move looks at, or 0; a move into a wall looks at the wall


def cell_at(x: int, y: int) -> int:
    return y * WIDTH + x


def position_of(cell: int) -> tuple[int, int]:
    return cell % WIDTH, cell // WIDTH


@cache
def layout_of(task: str) -> Layout:
    """The layout of that name, or the one that a text of several lines draws. ValueError says what is wrong with it."""
    if "\n" in task:
        return drawn_as(task.strip("\n").split("\n"))
    if task not in MAPS:
        near = difflib.get_close_matches(task, MAPS, n=1, cutoff=0.0)
        raise ValueError(
            f"no layout is named {task!r}; nearest: {near[0]}. The layouts are {', '.join(MAPS)}; lines of text are a map"
        )
    return drawn_as(MAPS[task].split())


def drawn_as(rows: Sequence[str]) -> Layout:
    """`#` is a wall, 1 to 8 are pads, a dot or a space is free."""
    tiles = np.full((HEIGHT, WIDTH), WALL)
    if len(rows) > HEIGHT or len(rows[0]) > WIDTH:
        raise ValueError(f"a map has at most {WIDTH} x {HEIGHT} cells, and this one {len(rows[0])} x {len(rows)}")
    for y, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(f"row {y} of the map has {len(row)} cells and row 0 has {len(rows[0])}: {row!r}")
        for x, sign in enumerate(row):
            tiles[y, x] = _tile(sign, x, y)
    return _with_tables(tiles.reshape(-1))


def _tile(sign: str, x: int, y: int) -> int:
    if sign in "#. ":
        return WALL if sign == "#" else FREE
    if sign in "12345678":
        return int(sign)
    raise ValueError(f"{sign!r} at ({x}, {y}) of the map is no tile: # is a wall, . or space free, 1 to {MOST_PADS} are pads")


def _with_tables(tiles: np.ndarray) -> Layout:
    pads = max(int(tiles.max()), 1)
    missing = [pad for pad in range(1, pads + 1) if pad not in tiles]
    if missing:
        raise ValueError(f"pads are numbered from 1 without a gap: the map has no pad {missing[0]}")
    ys, xs = np.divmod(np.arange(CELLS), WIDTH)
    moved = [cell_at(np.clip(xs + dx, 0, WIDTH - 1), np.clip(ys + dy, 0, HEIGHT - 1)) for dx, dy in DIRECTIONS]
    target = np.stack(moved, axis=1)
    landing = np.where(tiles[target] == WALL, np.arange(CELLS)[:, None], target)
    looked = np.maximum(tiles[target], 0)
    cells = tuple(np.flatnonzero(tiles != WALL).tolist())
    return Layout(tiles, pads, cells, landing.reshape(-1), looked.reshape(-1))


MAPS = {
    "three_small": """
        ########
        #11..33#
        #11..33#
        #......#
        #......#
        #..22..#
        #..22..#
        ########""",
    "three": """
        ################
        #1111......3333#
        #1111......3333#
        #1111......3333#
        #1111......3333#
        #..............#
        #..............#
        #..............#
        #..............#
        #.....2222.....#
        #.....2222.....#
        #.....2222.....#
        #.....2222.....#
        ################""",
    "four": """
        ################
        #1111......4444#
        #1111......4444#
        #1111......4444#
        #1111......4444#
        #..............#
        #..............#
        #..............#
        #..............#
        #3333......2222#
        #3333......2222#
        #3333......2222#
        #3333......2222#
        ################""",
    "five": """
        ################
        #..........4444#
        #111.......4444#
        #111.......4444#
        #111...........#
        #111........555#
        #...........555#
        #...........555#
        #333........555#
        #333...........#
        #333.......2222#
        #333.......2222#
        #..........2222#
        ################""",
    "six": """
        ################
        #111........555#
        #111........555#
        #111........555#
        #..............#
        #33..........66#
        #33..........66#
        #33..........66#
        #33..........66#
        #..............#
        #444........222#
        #444........222#
        #444........222#
        ################""",
    "seven": """
        ################
        #111........444#
        #111........444#
        #11..........44#
        #..............#
        #33..........55#
        #33..........55#
        #33..........55#
        #33..........55#
        #..............#
        #66..........22#
        #666..7777..222#
        #666..7777..222#
        ################""",
    "eight": """
        ################
        #111..8888..444#
        #111..8888..444#
        #11..........44#
        #..............#
        #33..........55#
        #33..........55#
        #33..........55#
        #33..........55#
        #..............#
        #66..........22#
        #666..7777..222#
        #666..7777..222#
        ################""",
}
