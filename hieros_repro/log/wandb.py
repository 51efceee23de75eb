"""Weights & Biases, offline unless told otherwise."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from hieros_repro.log.base import Silent


class WandB(Silent):
    """Shows every metric. An offline run cannot be resumed by W&B itself, so a resumed run is a new one fed from the start."""

    wants_history = True

    def __init__(
        self,
        folder: Path,
        mode: Literal["offline", "online"],
        project: str,
        entity: str | None,
        name: str,
        config: Mapping[str, Any],
    ):
        import wandb

        self._run = wandb.init(
            project=project, entity=entity, name=name, config=dict(config), dir=str(folder), mode=mode, reinit="create_new"
        )
        self._wandb = wandb

    def metrics(self, row: Mapping[str, Any]) -> None:
        self._run.log({**row}, step=row["step"])

    def timing(self, row: Mapping[str, Any]) -> None:
        self._run.log({f"timing/{name}": value for name, value in row.items() if name != "step"}, step=row["step"])

    def video(self, step: int, name: str, path: Path) -> None:
        shown: Any = self._wandb.Image(str(path)) if path.suffix == ".png" else self._film(path)
        self._run.log({name: shown}, step=step)

    def _film(self, path: Path) -> Any:
        return self._wandb.Video(str(path), format="gif" if path.suffix == ".gif" else "mp4")

    def end(self, chosen: Mapping[str, Any], results: Mapping[str, float]) -> None:
        self._run.config.update({"chosen": dict(chosen)}, allow_val_change=True)
        self._run.summary.update({f"results/{name}": value for name, value in results.items()})

    def close(self) -> None:
        self._run.finish()
