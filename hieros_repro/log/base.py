"""One log for a run: it writes the JSON lines, and shows every row to the sinks that are switched on."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import yaml

from hieros_repro.log import jsonl
from hieros_repro.log.health import Health
from hieros_repro.log.jsonl import JsonLines
from hieros_repro.log.video import write_picture, write_video
from hieros_repro.records import Episode, Hint, Metrics, Tree

FILES = ("metrics", "timing", "episodes", "ledger")

# What the loop itself measures. Agents add their own `meanings`.
MEANINGS = {
    "step": "environment transitions so far, over all environments",
    "updates": "calls of learn so far",
    "replay/<name>/steps": "steps that a replay holds",
    "replay/<name>/windows": "windows of them that it chooses from",
    "replay/<name>/replayed": "how often a step that was ever stored has been shown, on average",
    "train/reward": "mean reward per step since the previous row, as the environment paid it",
    "episode/score": "mean undiscounted return of the training episodes that ended since the previous row",
    "episode/length": "their mean length in steps",
    "episode/count": "how many they are",
    "eval/score": "mean return over evaluation episodes: the main score",
    "eval/human_normalised": "(score - random) / (human - random): 0 plays like chance, 1 like a human",
    "eval/score_std": "sample standard deviation over those episodes",
    "eval/score_min": "worst evaluation episode",
    "eval/score_max": "best evaluation episode",
    "eval/length": "mean length of evaluation episodes",
    "eval/episodes": "number of evaluation episodes",
}


def meaning(name: str, meanings: Mapping[str, str]) -> str | None:
    """What a metric means: that of its own name, or of a name with <...> for what varies."""
    varying = (re.sub(r"<\\?\w+>", r"[^/]+", re.escape(known)) for known in meanings)
    return next((text for text, form in zip(meanings.values(), varying, strict=True) if re.fullmatch(form, name)), None)


class Sink(Protocol):
    """Somewhere rows are shown. What a sink is shown cannot come back."""

    def metrics(self, row: Mapping[str, Any]) -> None: ...
    def timing(self, row: Mapping[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...
    def video(self, step: int, name: str, path: Path) -> None: ...
    def end(self, chosen: Mapping[str, Any], results: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class Silent:
    """A sink that shows nothing; the others start from it."""

    def metrics(self, row: Mapping[str, Any]) -> None: ...
    def timing(self, row: Mapping[str, Any]) -> None: ...
    def say(self, text: str) -> None: ...
    def video(self, step: int, name: str, path: Path) -> None: ...
    def end(self, chosen: Mapping[str, Any], results: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class Options:
    """The group `log`: what to show besides the files, which are always written."""

    def __init__(
        self,
        *,
        terminal: Literal["auto", "panel", "lines", "quiet"],
        tensorboard: bool,
        wandb: Literal["disabled", "offline", "online"],
        wandb_project: str,
        wandb_entity: str | None,
        wandb_name: str | None,
        wandb_prefix: str,
        video_format: Literal["auto", "mp4", "gif"],
    ):
        self.terminal, self.tensorboard, self.wandb = terminal, tensorboard, wandb
        self.wandb_project, self.wandb_entity = wandb_project, wandb_entity
        self.wandb_name, self.wandb_prefix = wandb_name, wandb_prefix
        self.video_format = video_format

    def sinks(self, folder: Path, config: Mapping[str, Any], facts: Mapping[str, str]) -> list[Sink]:
        """The sinks that are switched on; their packages are imported only then."""
        from hieros_repro.log.terminal import terminal

        found: list[Sink] = [terminal(self.terminal, folder, config, facts)]
        if self.tensorboard:
            from hieros_repro.log.tensorboard import TensorBoard

            found.append(TensorBoard(folder / "tensorboard"))
        if self.wandb != "disabled":
            from hieros_repro.log.wandb import WandB

            name = self.wandb_name or folder.name
            found.append(WandB(folder, self.wandb, self.wandb_project, self.wandb_entity, self.wandb_prefix + name, config))
        return found


class Log:
    """The files of a run folder, and the sinks."""

    def __init__(self, folder: Path, options: Options, config: Mapping[str, Any], facts: Mapping[str, str]):
        self.folder = folder
        self.video_format = options.video_format
        self.sinks = options.sinks(folder, config, facts)
        self.files = {name: JsonLines(folder / f"{name}.jsonl") for name in FILES}
        self.health = Health()

    def watch(self, hints: Sequence[Hint]) -> None:
        """Says from now on which metrics leave the bands that hints give them."""
        self.health = Health(hints)

    def metrics(self, row: Metrics) -> None:
        """A row of numbers that are functions of (code, config, seed, numerics) alone."""
        plain = {name: plain_number(value) for name, value in row.items()}
        self.files["metrics"].write(plain)
        for name in ("ledger", "metrics"):  # whoever follows both finds what led to a row before the row
            self.files[name].flush()
        for sink in self.sinks:
            sink.metrics(plain)
        for text in self.health.see(plain):
            self.say(text)

    def timing(self, row: Mapping[str, Any]) -> None:
        self.files["timing"].write(dict(row))
        for name in ("timing", "episodes", "ledger"):
            self.files[name].flush()
        for sink in self.sinks:
            sink.timing(row)

    def episodes(self, step: int, episodes: Iterable[Episode]) -> None:
        for env, length, score, account in episodes:
            self.files["episodes"].write({"step": step, "env": env, "length": length, "return": score, **account})

    def ledger(self, line: dict[str, Any]) -> None:
        self.files["ledger"].write(line)

    def say(self, text: str) -> None:
        for sink in self.sinks:
            sink.say(text)

    def video(self, step: int, name: str, frames: Sequence[np.ndarray], fps: int) -> Path:
        return self._shown(step, name, write_video(self._film(step, name), frames, fps, self.video_format))

    def pictures(self, step: int, images: Mapping[str, np.ndarray]) -> list[Path]:
        return [self._shown(step, name, write_picture(self._film(step, name), image)) for name, image in images.items()]

    def _film(self, step: int, name: str) -> Path:
        return self.folder / "videos" / f"{name}-step_{step}"

    def _shown(self, step: int, name: str, path: Path) -> Path:
        for sink in self.sinks:
            sink.video(step, name, path)
        return path

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        ended = outcome(self.folder)
        for sink in self.sinks:
            if ended is not None:
                sink.end(*ended)
            sink.close()

    def state(self) -> Tree:
        """The length of every file."""
        return {name: file.offset() for name, file in self.files.items()}

    def load(self, state: Tree | None) -> None:
        """Cuts every file back to its length at the checkpoint; None: to nothing."""
        for name, file in self.files.items():
            file.cut(state[name] if state else 0)
        for row in jsonl.read(self.folder / "metrics.jsonl"):
            self.health.see(row)
            for sink in self.sinks:
                if getattr(sink, "wants_history", False):
                    sink.metrics(row)


def outcome(folder: Path) -> tuple[dict[str, Any], dict[str, float]] | None:
    """What was chosen for a run, by key, and what it came to; None unless it has finished. As its folder says, so that a sink
    shows of a run that was continued the same as of one that was not."""
    account, typed = folder / "run.json", folder / "overrides.yaml"
    facts = json.loads(account.read_text(encoding="utf8")) if account.exists() else {}
    if facts.get("status") != "finished":
        return None
    overrides = (yaml.safe_load(typed.read_text(encoding="utf8")) or []) if typed.exists() else []
    chosen = dict(override.lstrip("+").partition("=")[::2] for override in overrides if not override.startswith("~"))
    kept = {key: _scalar(value) for key, value in chosen.items() if not key.startswith(("run.dir", "resume", "sweep.", "log"))}
    results = {name: float(value) for name, value in facts["results"].items() if isinstance(value, int | float)}
    return {**kept, "seed": facts["seed"]}, results


def _scalar(text: str) -> str | int | float | bool:
    """What the command line means by it, if that is a plain value; else the text itself."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, str | int | float | bool) else text


def plain_number(value: Any) -> Any:
    """A plain number; a tensor is read back from its device only here."""
    return value.item() if hasattr(value, "item") else value
