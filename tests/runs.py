"""Making runs in tests: in this process where that is enough, in real processes where the promise is about processes."""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig

from hieros_repro.command import composer
from hieros_repro.determinism.settings import environment as pinned
from hieros_repro.records import Stopped
from hieros_repro.run import stop
from hieros_repro.run.folder import RunFolder
from hieros_repro.train import train
from tests.checking import checked_once

ROOT = Path(__file__).resolve().parents[1]
FILES = ("metrics.jsonl", "episodes.jsonl", "ledger.jsonl")
COMMON = (  # a run of a second that logs, evaluates and saves at many points
    "run.steps=600",
    "run.checkpoint_every=150",
    "run.eval_every=200",
    "run.eval_episodes=2",
    "run.final_episodes=3",
    "run.eval_envs=2",
    "run.log_every=100",
    "run.fingerprint_every=1",
    "env.num_envs=2",
    "agent.hidden=[16,16]",
    "log=quiet",
)
SHORT = (*COMMON, "replay.length=32", "agent.minibatch_size=32", "agent.epochs=2")
SHORT_DQN = (  # the same of an agent that learns from past experience, of which the oldest is forgotten before the end
    *COMMON,
    "agent=dqn",
    "agent.batch_size=16",
    "agent.train_ratio=8",
    "agent.n_step=2",
    "agent.exploration_steps=300",
    "agent.target_every=10",
    "replay.size=240",
    "replay.min_size=60",
    "replay.chunk=32",
)

DREAMS = (  # what agents that dream need to be tiny
    *(override for override in COMMON if not override.startswith("agent.hidden")),
    "run.steps=360",
    "run.checkpoint_every=100",
    "run.eval_every=120",
    "env=pinpad",
    "env.task=three_small",
    "env.size=16",
    "env.length=50",
    "agent.batch_size=4",
    "agent.batch_length=8",
    "agent.train_ratio=8",
    "agent.imag_horizon=8",
    *(f"size.{name}={width}" for name, width in {"deter": 16, "depth": 4, "stoch": 4, "classes": 4, "units": 16}.items()),
    "size.layers=1",
    "size.head_units=16",
    "replay.size=240",
    "replay.min_size=60",
    "replay.chunk=32",
)
SHORT_DIRECTOR = ("agent=director", *DREAMS)
SHORT_DREAMER = ("agent=dreamer", *DREAMS)
SHORT_HIEROS = (  # three levels, each with a world of its own
    "agent=hieros",
    *DREAMS,
    "size.state=4",
    "agent.goals.codes=3",
    "agent.goals.classes=4",
    "agent.goals.code_units=16",
    "agent.subactor_update_every=2",
    "agent.optimiser.warmup=0",
)


def compose(*overrides: str, name: str = "train") -> DictConfig:
    """A configuration as the command line would give it."""
    folders = [override for override in overrides if override.startswith("run.dir=/")]
    config = copy.deepcopy(_composed(name, *(override for override in overrides if override not in folders)))
    for folder in folders:
        config.run.dir = folder.partition("=")[2]
    return config


@cache
def _composed(name: str, *overrides: str) -> DictConfig:
    """Composing takes as long as a short run, and many runs differ in nothing but their folders."""
    with composer() as composed:
        return composed(config_name=name, overrides=list(overrides))


def run(folder: Path, *overrides: str, usual: tuple[str, ...] = SHORT) -> Path:
    """A short run in this process. Later overrides win over the usual ones."""
    typed = short(folder, *overrides, usual=usual)
    with checked_once(typed):
        train(compose(*typed), typed)
    return folder


def _given(override: str, overrides: tuple[str, ...]) -> bool:
    return any(other.partition("=")[0] == override.partition("=")[0] for other in overrides)


def environment(**changes: str) -> dict[str, str]:
    """What the script that starts the program would have, with this checkout importable from anywhere."""
    own = ("HIEROS_RESTARTED", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS")
    kept = {name: value for name, value in os.environ.items() if name not in own and not name.startswith("PYTEST")}
    return {**kept, **pinned("error", 0), "PYTHONPATH": str(ROOT), **changes}


def command(verb: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"hieros_repro.{verb}", *arguments]


def process(verb: str, *arguments: str, cwd: Path, seconds: int = 300, **changes: str) -> subprocess.CompletedProcess[str]:
    """A verb in a process of its own, from start to end. Never raises: the exit code is part of what is tested."""
    return subprocess.run(
        command(verb, *arguments), cwd=cwd, env=environment(**changes), capture_output=True, text=True, timeout=seconds
    )


def short(folder: Path, *overrides: str, usual: tuple[str, ...] = SHORT) -> list[str]:
    """The arguments of a short run for a process."""
    return [*(o for o in usual if not _given(o, overrides)), *overrides, f"run.dir={folder}"]


def stopped(folder: Path, after: int, *overrides: str, usual: tuple[str, ...] = SHORT) -> Path:
    """A run in this process that is asked to stop: it asks so often, about once a tick, and is told no."""
    asked: list[int] = []

    @contextmanager
    def asking() -> Iterator[Callable[[], bool]]:
        yield lambda: asked.append(1) or len(asked) > after  # type: ignore[func-returns-value]

    with pytest.MonkeyPatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(stop, "stop_on_signal", asking)
        run(folder, *overrides, usual=usual)
    return folder


def facts(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text(encoding="utf8"))


def unequal_files(a: Path, b: Path) -> list[str]:
    """The deterministic files of two runs that are not equal byte for byte."""
    return [name for name in FILES if (a / name).read_bytes() != (b / name).read_bytes()]


def assert_equal(a: Path, b: Path) -> None:
    """Two runs that came to the same, bit by bit."""
    assert unequal_files(a, b) == []
    assert facts(a)["digests"] == facts(b)["digests"]
    assert facts(a)["results"] == facts(b)["results"]


def killed(folder: Path, typed: Sequence[str], cwd: Path, pauses: Sequence[float]) -> list[int]:
    """The same run started again and again in real processes, each killed so many seconds after it began; how they ended."""
    ends = []
    for pause in pauses:
        running = subprocess.Popen(
            command("train", *typed), cwd=cwd, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        while running.poll() is None and not RunFolder(folder).is_held():
            time.sleep(0.01)
        time.sleep(pause)
        running.kill()
        errors = running.communicate()[1]
        ends.append(running.returncode)
        assert running.returncode in (0, -signal.SIGKILL), errors.decode()
    return ends
