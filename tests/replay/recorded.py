"""Small datasets whose every number is known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hieros_repro.records import Space, Spaces
from hieros_repro.replay.dataset import Dataset, Writer, episode

IMAGES = Spaces({"image": Space("image", (4, 6, 3)), "vector": Space("vector", (2,))}, Space("discrete", (), sizes=(3,)))
SOURCE = {"env": {"id": "Known-v0"}, "agent": "none"}


def rows(number: int, length: int, spaces: Spaces = IMAGES) -> dict[str, np.ndarray]:
    """Row t of episode n shows 100 n + t and is paid t; actions count up; odd episodes end, even ones time out."""
    seen = 100 * number + np.arange(length + 1)
    obs = {
        "image": np.broadcast_to((seen % 256)[:, None, None, None], (length + 1, 4, 6, 3)).astype(np.uint8),
        "vector": np.stack([seen, -seen], 1).astype(np.float32),
    }
    obs = {name: obs[name] for name in spaces.observation}
    return episode(spaces, obs, np.arange(length) % 3, 1 + np.arange(length), number % 2 == 1)


def written(path: Path, lengths: Sequence[int] = (3, 1, 2, 4), rows_per_file: int = 6, **made: str) -> Dataset:
    """Episode n is of lengths[n] steps, reset with the seed 7 n; its account says n."""
    with Writer(path, IMAGES, rows_per_file) as writer:
        for number, length in enumerate(lengths):
            writer.add(rows(number, length), 7 * number, {"nth": float(number)})
        return writer.finish(SOURCE, [], made)


def plain(found: dict[str, np.ndarray]) -> dict[str, list]:
    return {name: value.tolist() for name, value in found.items()}
