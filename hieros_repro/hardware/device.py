"""Where and how precisely a run computes. What the machine cannot do is an error, never a silent other choice."""

import contextlib
import gc
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from hieros_repro.determinism import numerics
from hieros_repro.hardware.recording import Recorded
from hieros_repro.records import Count, Fault, UserError

PIN_FROM = 2**20  # bytes from which a copy through pinned memory, which need not be waited for, is worth its own copy
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The group `hardware`."""

    device: Literal["cpu", "cuda", "tpu"]
    precision: Literal["fp32", "bf16", "fp16"]
    threads: Count
    compile: Literal["record", "default", "reduce-overhead", "max-autotune"] | None
    ranks: Count

    @classmethod
    def check(cls, *, device: str, precision: str, threads: int, compile: str | None, ranks: int) -> Iterator[Fault]:
        """What only this machine can tell."""
        if device == "cuda" and not torch.cuda.is_available():
            yield Fault("device", f"'cuda' was asked for, but this machine offers {_available()}; use hardware=cpu")
        if device == "tpu" and _accelerator() != "tpu":
            yield Fault("device", f"'tpu' was asked for, but this machine offers {_available()}; a TPU needs the extra [tpu]")
        if compile == "record" and device != "cpu":
            yield Fault("compile", f"'record' is for the CPU; on {device!r} use null or a mode of torch.compile")
        cores = os.cpu_count() or 1
        if threads > cores:
            yield Fault("threads", f"{threads} is more than this machine's {cores} cores")
        if ranks > 1:
            yield Fault("ranks", f"{ranks}: data-parallel training on several ranks is not built yet; only 1 is allowed")

    def apply(self) -> None:
        """Threads are part of the numerics: set at every job start under every launcher, never left to the machine."""
        torch.set_num_threads(self.threads)
        if torch.get_num_threads() != self.threads:
            raise UserError(f"hardware.threads={self.threads}: torch kept {torch.get_num_threads()} threads")
        if gc.get_freeze_count():  # by the job before
            gc.unfreeze()
            gc.collect()
        gc.freeze()  # the garbage collector need not walk again and again through all that has been imported

    def numerics(self) -> dict[str, Any]:
        return numerics.numerics(self.device, self.precision, self.compile, self.ranks)

    def warnings(self) -> Iterator[str]:
        """What is allowed and probably not meant."""
        if self.device == "cpu" and self.precision == "bf16" and not numerics.fast_bf16():
            yield "hardware.precision=bf16: this CPU has no bfloat16 arithmetic (AMX, AVX512-BF16), so fp32 is faster here"

    def to_device(self, value: Any) -> Any:
        """numpy arrays and tensors, or nests of them, as tensors on the device. On the CPU nothing is copied."""
        if isinstance(value, np.ndarray):
            value = torch.from_numpy(value)
        if isinstance(value, torch.Tensor):
            if self.device == "cuda" and not value.is_cuda and value.nbytes >= PIN_FROM:
                value = value.pin_memory()
            return value if self.device == "cpu" else value.to(self.device, non_blocking=True)
        return {name: self.to_device(child) for name, child in value.items()}

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Forward passes run inside; parameters, optimiser state and losses stay in float32."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device, dtype=PRECISIONS[self.precision])

    def recorded(self, function: Callable[..., Any], held: Sequence[Tensor]) -> Callable[..., Any]:
        """With compile=record a faster form of a function of tensors, same bits. `held`: what it reads or changes besides."""
        if self.compile != "record" or self.precision == "fp16":  # fp16's loss scale decides on the host
            return function
        return Recorded(function, held)

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile wraps pure code from outside; without a mode of torch.compile the function is left alone."""
        if self.compile in (None, "record"):
            return function
        import torch._inductor.config

        torch._inductor.config.deterministic = torch.are_deterministic_algorithms_enabled()
        return torch.compile(function, mode=self.compile)


def _accelerator() -> str | None:
    found = torch.accelerator.current_accelerator(check_available=True)
    return found.type if found is not None else None


def _available() -> str:
    found = ["cpu"]
    if torch.cuda.is_available():
        found += [f"cuda ({torch.cuda.get_device_name(i)})" for i in range(torch.cuda.device_count())]
    elif accelerator := _accelerator():
        found.append(accelerator)
    return ", ".join(found)
