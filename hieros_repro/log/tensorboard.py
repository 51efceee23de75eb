"""TensorBoard."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from hieros_repro.log.base import Silent
from hieros_repro.log.video import write_video


class TensorBoard(Silent):
    """Writes every metric as a scalar. A resumed run starts a new event file and shows it the whole history, so nothing that
    a crash made undone stays visible."""

    wants_history = True

    def __init__(self, folder: Path):
        from torch.utils.tensorboard import SummaryWriter

        for stale in folder.glob("events.out.tfevents.*"):
            stale.unlink()
        self._writer = SummaryWriter(str(folder))

    def metrics(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def timing(self, row: Mapping[str, Any]) -> None:
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(f"timing/{name}", value, row["step"])

    def video(self, step: int, name: str, path: Path) -> None:
        """As an animated image: the writer's own video needs a package that writes nothing in its current version."""
        from PIL import Image
        from tensorboard.compat.proto.summary_pb2 import Summary

        content = path.read_bytes() if path.suffix in (".gif", ".png") else _animated(path)
        with Image.open(BytesIO(content)) as image:
            width, height = image.size
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=content)
        summary = Summary(value=[Summary.Value(tag=name, image=picture)])
        self._writer._get_file_writer().add_summary(summary, step)

    def end(self, chosen: Mapping[str, Any], results: Mapping[str, float]) -> None:
        """What was chosen and what it came to, so that the tab HParams compares a sweep's runs. Into the same file: the
        writer's own way makes another folder, named by the clock."""
        from torch.utils.tensorboard.summary import hparams

        step = round(results.get("step", 0))
        for name, value in results.items():
            self._writer.add_scalar(f"results/{name}", value, step)
        metrics: dict[str, Any] = {f"results/{name}": value for name, value in results.items()}
        for summary in hparams(dict(chosen), metrics):
            self._writer._get_file_writer().add_summary(summary)

    def close(self) -> None:
        self._writer.close()


def _animated(path: Path) -> bytes:
    """A film of another format as a gif."""
    import imageio.v2 as imageio

    reader: Any
    with imageio.get_reader(path) as reader, TemporaryDirectory() as folder:
        frames = [np.asarray(frame) for frame in reader]
        return write_video(Path(folder) / "film", frames, round(reader.get_meta_data()["fps"]), "gif").read_bytes()
