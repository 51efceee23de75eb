"""Experience whose every number is known, and replays for it."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Memory, Request, Rows, Space, Spaces, Step
from hieros_repro.replay import selector
from hieros_repro.replay.base import Held, Replay
from hieros_repro.replay.windows import Windows
from hieros_repro.run import checkpoint

ENVS = 3
SPACES = Spaces({"id": Space("vector", (2,)), "image": Space("image", (2, 2, 3))}, Space("discrete", (), sizes=(1000,)))
EPISODE = 7  # rows; environment e is e rows ahead


def seen(tick: int, envs: int = ENVS) -> Step:
    """What environments show at a tick: every value tells which one, and when."""
    env = np.arange(envs)
    row = (tick + env) % EPISODE
    obs = {
        "id": np.stack([np.full(envs, tick), env], 1).astype(np.float32),
        "image": ((tick * 31 + env * 7)[:, None, None, None] + np.arange(12).reshape(2, 2, 3)).astype(np.uint8),
    }
    reward, last = np.where(row == 0, 0, tick + env / 8).astype(np.float32), row == EPISODE - 1
    return Step(obs, reward, row == 0, last, last & (tick // EPISODE % 2 == 0))


def done(tick: int, envs: int = ENVS) -> np.ndarray:
    """What was done there."""
    return (tick * 5 + np.arange(envs)) % 1000


def remembered(tick: int, envs: int = ENVS) -> Rows:
    return Rows({"action": done(tick, envs)})


def add(replay: Replay, start: int, end: int, rows: Callable[[int], Rows] = remembered, envs: int = ENVS) -> Replay:
    for tick in range(start, end):
        replay.add(seen(tick, envs), rows(tick), seen(tick + 1, envs))
    return replay


def batch_of(replay: Replay, request: Request, number: int) -> dict[str, Any]:
    return replay.choose(Key(7)("replay", number), request).gather()


def drive(
    replay: Replay, request: Request, start: int, end: int, rows: Callable[[int], Rows] = remembered, every: int = 3
) -> list[str]:
    """A batch whenever one can be had, every third tick. Returns their digests."""
    found = []
    for tick in range(start, end):
        add(replay, tick, tick + 1, rows)
        if tick % every == 0 and replay.ready(request, ending=False):
            found.append(digest_tree(batch_of(replay, request, tick)))
    return found


def through_a_file(folder: Path, state: Any) -> Any:
    """A state as a checkpoint brings it back."""
    return checkpoint.load(checkpoint.save(folder, "step_1", {"replay": state}, {}))[0]["replay"]


def told(batch: Mapping[str, Any], name: str) -> np.ndarray:
    value = batch["obs"][name.removeprefix("obs.")] if name.startswith("obs.") else batch[name]
    return np.asarray(value)


# -- Work for a thread ---------------------------------------------------------------------------------------------------


def who() -> str:
    return threading.current_thread().name


def answer(error: bool = False) -> int:
    if error:
        raise KeyError("broken")
    return 42


# -- Windows -------------------------------------------------------------------------------------------------------------

SELECTORS: dict[str, Any] = {
    "uniform": selector.Uniform,
    "time_balanced": lambda capacity: selector.TimeBalanced(capacity, bias=1.5),
    "efficient": lambda capacity: selector.EfficientTimeBalanced(capacity, temperature=0.3, scale="size"),
    "naive": lambda capacity: selector.TimeBalancedNaive(capacity, bias=2.0),
}
REQUEST = Request("windows", 6, 4)
FOUR = Memory(4)
VALUES = {
    "size": 120, "place": "memory", "lead": 1, "workers": 0, "min_size": 1, "samples_per_insert": None, "online": False,
    "chunk": 32, "compress": True, "recover": False,
}  # fmt: skip


def windows(
    folder: Path | None,
    choose: str = "uniform",
    memory: Memory = FOUR,
    envs: int = ENVS,
    spaces: Spaces = SPACES,
    **changes: Any,
) -> Windows:
    return Windows(SELECTORS[choose], Held(spaces, envs, memory, folder), **{**VALUES, **changes})


def sparse(tick: int) -> Rows:
    """Environment 0 is remembered at every tick, 1 at every second and 2 at every fifth."""
    return Rows({"action": done(tick)}, tick % np.array([1, 2, 5]) == 0)


def filled(folder: Path, ticks: int = 50, rows: Any = None, **changes: Any) -> Windows:
    """33 steps a file: 11 ticks of 3 environments. 40 ticks are kept."""
    return add(windows(folder, **changes), 0, ticks, *([rows] if rows else []))


def all_windows(replay: Windows) -> dict[str, np.ndarray]:
    replay.buffer.settle()
    numbers = np.arange(replay.buffer.first, replay.buffer.end)
    return replay.buffer.gather(replay.buffer.places(numbers), sorted(replay.bank.arrays))
