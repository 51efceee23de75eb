"""Making runs in tests: in this process where that is enough, in real processes where the promise is about processes."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from hieros_repro.command import composer
from hieros_repro.train import train

ROOT = Path(__file__).resolve().parents[1]
FILES = ("metrics.jsonl", "episodes.jsonl", "ledger.jsonl")
SHORT = (  # a run of a second that logs, evaluates and saves at many points
    "run.steps=600",
    "run.checkpoint_every=150",
    "run.eval_every=200",
    "run.eval_episodes=2",
    "run.final_episodes=3",
    "run.eval_envs=2",
    "run.log_every=100",
    "run.fingerprint_every=1",
    "env.num_envs=2",
    "replay.length=32",
    "agent.minibatch_size=32",
    "agent.epochs=2",
    "agent.hidden=[16,16]",
    "log=quiet",
)


def compose(*overrides: str, name: str = "train") -> DictConfig:
    """A configuration as the command line would give it."""
    with composer() as composed:
        return composed(config_name=name, overrides=list(overrides))


def run(folder: Path, *overrides: str) -> Path:
    """A short run in this process. Later overrides win over those of SHORT."""
    typed = [*(o for o in SHORT if not _given(o, overrides)), *overrides, f"run.dir={folder}"]
    train(compose(*typed), typed)
    return folder


def _given(override: str, overrides: tuple[str, ...]) -> bool:
    return any(other.partition("=")[0] == override.partition("=")[0] for other in overrides)


def environment(**changes: str) -> dict[str, str]:
    """What a user's shell would have, with this checkout importable from anywhere."""
    own = ("HIEROS_RESTARTED", "PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in own and not name.startswith("PYTEST")}
    return {**kept, "PYTHONPATH": str(ROOT), **changes}


def command(verb: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"hieros_repro.{verb}", *arguments]


def process(verb: str, *arguments: str, cwd: Path, seconds: int = 300, **changes: str) -> subprocess.CompletedProcess[str]:
    """A verb in a process of its own, from start to end. Never raises: the exit code is part of what is tested."""
    return subprocess.run(
        command(verb, *arguments), cwd=cwd, env=environment(**changes), capture_output=True, text=True, timeout=seconds
    )


def short(folder: Path, *overrides: str) -> list[str]:
    """The arguments of a short run for a process."""
    return [*(o for o in SHORT if not _given(o, overrides)), *overrides, f"run.dir={folder}"]


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf8"))


def unequal_files(a: Path, b: Path) -> list[str]:
    """The deterministic files of two runs that are not equal byte for byte."""
    return [name for name in FILES if (a / name).read_bytes() != (b / name).read_bytes()]
