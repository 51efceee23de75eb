"""What is seen: the map, the player and, in the two rows below, the pads looked at, oldest first."""

import numpy as np

from hieros_repro.env.pinpad.layout import CELLS, HEIGHT, WALL, WIDTH, Layout, position_of

GRID = 16  # a picture has 16 x 16 cells, whatever the map's size
WHITE, PAUSED, GREY, BLACK = (255, 255, 255), (223, 255, 223), (192, 192, 192), (0, 0, 0)
COLOURS = np.array(
    [GREY, (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255), (128, 0, 128), (0, 128, 128)],
    np.uint8,
)  # of pads by number; 0, no pad looked at, is the bar


def canvas(layout: Layout, pad: int, paused: bool) -> np.ndarray:
    """(16, 16, 3): a map with the player on that pad (0: on none), without player and history."""
    pale = (COLOURS + np.uint16(9 * 255)) // 10  # a tenth of the colour, the rest white
    palette = np.concatenate([[PAUSED if paused else WHITE], pale[1:], [GREY]])  # FREE = 0, pads, WALL = -1: as tiles index it
    if pad:
        palette[pad] = COLOURS[pad]
    cells = np.full((GRID, GRID, 3), GREY, np.uint8)
    cells[:HEIGHT, :WIDTH] = palette[layout.tiles].reshape(HEIGHT, WIDTH, 3)
    return cells


def picture(layout: Layout, cell: int, paused: bool, sequence: str, size: int) -> np.ndarray:
    """(size, size, 3): said plainly, one cell after the other. The painter paints the same faster."""
    cells = canvas(layout, max(int(layout.tiles[cell]), 0), paused)
    x, y = position_of(cell)
    cells[y, x] = BLACK
    for i, pad in enumerate(sequence):
        cells[HEIGHT, 2 * i + 1] = COLOURS[int(pad)]
    return enlarged(cells, size)


def enlarged(cells: np.ndarray, size: int) -> np.ndarray:
    return cells.repeat(size // GRID, axis=0).repeat(size // GRID, axis=1)


class Painter:
    """Paints many pictures at once: what changes rarely is painted beforehand, then a few cells over it."""

    def __init__(self, layout: Layout, size: int):
        if size < GRID or size % GRID:
            raise ValueError(f"size={size!r} is no multiple of {GRID}, so that cells would differ in size")
        self.layout, self.size, self.scale = layout, size, size // GRID
        pictures = [enlarged(canvas(layout, pad, paused), size) for pad in range(layout.pads + 1) for paused in (False, True)]
        self.backgrounds = np.stack(pictures)  # 2 * pad under the player + paused
        self._under = 2 * np.maximum(layout.tiles, 0)
        # A cell's row of pixels is one element of this type, so that a cell is painted by `scale` assignments.
        self._row = np.dtype((np.void, 3 * self.scale))
        self._colours = COLOURS.repeat(self.scale, axis=0).reshape(len(COLOURS), -1).view(self._row)  # (9, 1)
        self._bar = slice(HEIGHT * self.scale, (HEIGHT + 1) * self.scale), slice(1, 2 * layout.pads, 2)
        self._first = np.arange(CELLS) // WIDTH * self.scale * GRID + np.arange(CELLS) % WIDTH  # a cell's first row of pixels
        self._rows = np.arange(self.scale)[:, None] * GRID
        self._black = np.zeros(1, self._row)[0]

    def paint(self, cell: int, paused: bool, sequence: str) -> np.ndarray:
        """One picture of its own."""
        image, k = self.backgrounds[self._under[cell] + paused].copy(), self.scale
        x, y = cell % WIDTH * k, cell // WIDTH * k
        image[y : y + k, x : x + k] = 0
        for i, pad in enumerate(sequence):
            image[HEIGHT * k : (HEIGHT + 1) * k, (2 * i + 1) * k : (2 * i + 2) * k] = COLOURS[int(pad)]
        return image

    def paint_all(self, images: np.ndarray, cells: np.ndarray, paused: np.ndarray, history: np.ndarray) -> None:
        """Into images (n, size, size, 3), whose history is (n, pads) with zeros after the latest."""
        assert images.flags.c_contiguous
        np.take(self.backgrounds, self._under[cells] + paused, axis=0, out=images, mode="clip")
        rows = images.reshape(len(images), -1).view(self._row)
        first = self._first[cells] + np.arange(len(images)) * rows.shape[1]
        rows.reshape(-1)[first + self._rows] = self._black
        rows.reshape(len(images), self.size, GRID)[:, *self._bar] = self._colours[history, 0][:, None]


def heat_map(layout: Layout, visits: np.ndarray, size: int = 256) -> np.ndarray:
    """(size, size, 3): how often each cell was visited, from blue over cyan, green and yellow to red; never: white."""
    counts = np.asarray(visits).reshape(-1)
    share = counts / max(int(counts.max()), 1)
    stops = np.linspace(0, 1, 5)
    ramp = [np.interp(share, stops, levels) for levels in ((0, 0, 0, 255, 255), (0, 255, 255, 255, 0), (255, 255, 0, 0, 0))]
    colours = np.where((counts > 0)[:, None], np.stack(ramp, axis=1), WHITE).astype(np.uint8)
    colours[layout.tiles == WALL] = GREY
    cells = np.full((GRID, GRID, 3), GREY, np.uint8)
    cells[:HEIGHT, :WIDTH] = colours.reshape(HEIGHT, WIDTH, 3)
    return enlarged(cells, size)
