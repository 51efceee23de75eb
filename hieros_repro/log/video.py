"""Writing frames as mp4 (with the extra [video]) or gif (always), and single pictures as png."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hieros_repro import atomic


def write_video(path: Path, frames: Sequence[np.ndarray], fps: int, form: str = "auto") -> Path:
    """Writes frames (height, width, 3) uint8 to `path` with the suffix of the chosen format, and returns that path."""
    if form == "auto":
        form = "mp4" if importlib.util.find_spec("imageio_ffmpeg") else "gif"
    path = path.with_suffix(f".{form}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replaced(path) as partial:
        (_write_mp4 if form == "mp4" else _write_gif)(partial, frames, fps)
    return path


def write_picture(path: Path, image: np.ndarray) -> Path:
    """Writes an image (height, width, 3) uint8 to `path` with the suffix .png, and returns that path."""
    from PIL import Image

    path = path.with_suffix(".png")
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replaced(path) as partial:
        Image.fromarray(image).save(partial, format="PNG")
    return path


def _write_mp4(path: Path, frames: Sequence[np.ndarray], fps: int) -> None:
    import imageio.v2 as imageio

    writer: Any
    with imageio.get_writer(path, format="FFMPEG", fps=fps, codec="libx264", macro_block_size=2, quality=8) as writer:
        for frame in frames:
            writer.append_data(frame)


def _write_gif(path: Path, frames: Sequence[np.ndarray], fps: int) -> None:
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    duration = max(20, round(1000 / fps))  # viewers show anything faster at 100 ms a frame
    images[0].save(path, format="GIF", save_all=True, append_images=images[1:], duration=duration, loop=0)
