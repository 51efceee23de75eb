"""Pictures for people: small images made large enough to see, in rows, with their names and coloured borders."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

TILE = 96  # pixels that the shorter side of an image gets at least
BORDER, GAP = 3, 4
WIDTH = 400  # pixels that a picture has at least: room for its title
TEXT = 14
INK, PAPER = (235, 235, 235), (24, 24, 24)
SEEN, DREAMT, OVER, PLAIN = (40, 200, 80), (230, 60, 50), (120, 120, 120), PAPER


class Row(NamedTuple):
    """Images (height, width, channels) uint8 side by side, each with the colour of its border."""

    name: str
    images: Sequence[np.ndarray]
    borders: Sequence[tuple[int, int, int]]


def grid(title: str, heads: Sequence[str], rows: Sequence[Row]) -> np.ndarray:
    """One frame (height, width, 3) uint8: rows of images under a title and the heads of their columns.

    All tiles are of one height, scaled without blurring. The frame's size depends on the images' and on the rows' names only.
    """
    from PIL import Image, ImageDraw

    tall = max(_tall(image.shape) for row in rows for image in row.images)
    wides = [max(_wide(image.shape, tall) for image in column) for column in zip(*(row.images for row in rows), strict=True)]
    margin, line = GAP + max(round(_font().getlength(row.name)) for row in rows) + GAP, TEXT + 2 * GAP
    lefts = [margin + sum(wides[:i]) + i * (2 * BORDER + GAP) for i in range(len(wides) + 1)]
    width, height = max(WIDTH, lefts[-1]), 2 * line + len(rows) * (tall + 2 * BORDER + GAP)
    canvas = Image.new("RGB", (width + width % 2, height + height % 2), PAPER)  # films want even sides
    draw = ImageDraw.Draw(canvas)
    draw.text((GAP, GAP), title, INK, _font())
    for left, head in zip(lefts, heads, strict=False):
        draw.text((left + BORDER, line + GAP), head, INK, _font())
    for y, row in enumerate(rows):
        top = 2 * line + y * (tall + 2 * BORDER + GAP)
        draw.text((GAP, top + tall / 2), row.name, INK, _font(), anchor="lm")
        for left, wide, image, border in zip(lefts, wides, row.images, row.borders, strict=False):
            draw.rectangle((left, top, left + wide + 2 * BORDER - 1, top + tall + 2 * BORDER - 1), border)
            size = _wide(image.shape, tall), tall
            tile = Image.fromarray(_coloured(image)).resize(size, Image.Resampling.NEAREST)
            canvas.paste(tile, (left + BORDER, top + BORDER))
    return np.asarray(canvas)


def _tall(shape: Sequence[int]) -> int:
    """The height at which an image is shown: a whole multiple of its own."""
    return shape[0] * -(-TILE // min(shape[:2]))


def _wide(shape: Sequence[int], tall: int) -> int:
    return round(tall * shape[1] / shape[0])


def _coloured(image: np.ndarray) -> np.ndarray:
    """In three channels; of several images on top of each other the newest, which is the last."""
    channels = image.shape[-1]
    return image[..., -3:] if channels % 3 == 0 else np.repeat(image[..., -1:], 3, -1)


@cache
def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(TEXT)
