"""Process-wide determinism: what must be set before the interpreter starts, and what is set at every job start, both ways."""

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from hieros_repro.records import Between

WORKSPACE = ":4096:8"  # the cuBLAS workspace that makes its GEMMs repeat


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The group `determinism`. Every field is applied at every job start, so nothing leaks to the next job of a sweep."""

    algorithms: Literal["error", "warn", "off"]
    hash_seed: Annotated[int, Between(0, 2**32 - 1)] | None
    env_seeds: Literal["offset", "keyed"]
    save_rng: bool
    resume: Literal["exact", "episode_boundary"]
    fill_uninitialized: bool

    def apply(self) -> None:
        import torch

        strict = self.algorithms != "off"
        # As torch.use_deterministic_algorithms, without importing the compiler; Hardware.compiled tells it when it is used.
        torch.set_deterministic_debug_mode({"error": "error", "warn": "warn", "off": "default"}[self.algorithms])
        torch.utils.deterministic.fill_uninitialized_memory = self.fill_uninitialized  # type: ignore[attr-defined]
        torch.backends.cudnn.deterministic = strict
        torch.backends.cudnn.benchmark = not strict
        torch.backends.cudnn.allow_tf32 = not strict
        torch.set_float32_matmul_precision("highest" if strict else "high")

    def promise(self) -> str:
        """What this run may be told about itself, in one line."""
        if self.resume == "episode_boundary" and self.algorithms != "off":
            return "same bits as long as a run is not resumed (then new episodes start) and its environments are exact"
        return {
            "error": "same code, config, seed and numerics give the same bits",
            "warn": "as strict, but operations without a deterministic form run and are listed in run.json",
            "off": "none: fast paths are allowed and two runs may differ",
        }[self.algorithms]


def environment(algorithms: str, hash_seed: int | None) -> dict[str, str]:
    """Variables that act only if they are set before the interpreter (or CUDA) starts."""
    wanted = {} if hash_seed is None else {"PYTHONHASHSEED": str(hash_seed)}
    if algorithms != "off":
        wanted["CUBLAS_WORKSPACE_CONFIG"] = WORKSPACE
    return wanted


def restart_with(wanted: dict[str, str]) -> None:
    """Replaces this process by the same command under the wanted variables, once and only if they differ."""
    if all(os.environ.get(name) == value for name, value in wanted.items()):
        return
    if os.environ.get("HIEROS_RESTARTED") == "1":
        lines = ", ".join(f"{name}={os.environ.get(name)!r} instead of {value!r}" for name, value in wanted.items())
        raise RuntimeError(f"restarting did not set the interpreter's environment: {lines}")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **wanted, "HIEROS_RESTARTED": "1"})


@contextlib.contextmanager
def nondeterministic_operations() -> Iterator[list[str]]:
    """Collects, once each, the operations that torch warns about under `algorithms=warn`."""
    seen: list[str] = []
    show = warnings.showwarning

    def listen(message, category, filename, lineno, file=None, line=None):  # type: ignore[no-untyped-def]
        text = str(message)
        if "does not have a deterministic implementation" in text:
            operation = text.split(" ", 1)[0]
            if operation in seen:
                return
            seen.append(operation)
        show(message, category, filename, lineno, file, line)

    warnings.showwarning = listen
    try:
        yield seen
    finally:
        warnings.showwarning = show
