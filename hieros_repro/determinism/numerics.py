"""The numerics fingerprint: everything besides code, config and seed that legitimately changes bits."""

import importlib.metadata
import os
import platform
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

# Installed or not, a different version of these may compute different numbers.
PACKAGES = ("torch", "numpy", "gymnasium", "ale-py", "mujoco", "dm-control", "opencv-python-headless", "pillow",
            "crafter", "minigrid")  # fmt: skip
VARIABLES = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR", "OPENBLAS_CORETYPE",
             "CUBLAS_WORKSPACE_CONFIG")  # fmt: skip


def numerics(device: str, precision: str, compile_mode: str | None, ranks: int) -> dict[str, Any]:
    """Read back from the libraries, not from the config: what is in force, not what was asked for."""
    import torch

    cuda = torch.device(device).type == "cuda"
    return {
        "packages": {name: version(name) for name in PACKAGES},
        "machine": platform.machine(),
        "blas": _blas(),
        "cpu_level": torch.backends.cpu.get_cpu_capability(),
        "cpu_amx": "amx_bf16" in _cpu_flags(),
        "device": torch.cuda.get_device_name(device) if cuda else torch.device(device).type,
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "threads": torch.get_num_threads(),
        "ranks": ranks,
        "precision": precision,
        "compile": compile_mode,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "variables": {name: os.environ.get(name) for name in VARIABLES},
    }


def differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Key path -> (value in a, value in b), for every value that differs."""
    found: dict[str, tuple[Any, Any]] = {}
    for name in sorted({*a, *b}):
        left, right = a.get(name), b.get(name)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            found |= differences(left, right, f"{prefix}{name}.")
        elif left != right:
            found[prefix + name] = (left, right)
    return found


def changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The differences in what was recorded then: an older version recorded less."""
    return differences(then, _only(now, then))


def _only(values: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {n: _only(values[n], v) if isinstance(v, Mapping) else values[n] for n, v in names.items() if n in values}


@cache
def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _blas() -> str:
    import torch

    names = r"Math Kernel Library Version [\d.]+|MKL-DNN v[\d.]+|OpenBLAS[ \w.]*"
    return ", ".join(re.findall(names, torch.__config__.show()))


def fast_bf16() -> bool:
    """Whether this machine's CPU is known to multiply in bfloat16 by itself; where nothing is known, that it does."""
    return not _cpu_flags() or bool(_cpu_flags() & {"amx_bf16", "avx512_bf16", "bf16"})


def _cpu_flags() -> frozenset[str]:
    """What the first core says it can do: x86 calls it flags, ARM features."""
    try:
        with open("/proc/cpuinfo", encoding="utf8") as file:
            listed = re.search(r"^(?:flags|Features)\s*:(.*)$", file.read(20_000), re.MULTILINE)
    except OSError:
        return frozenset()
    return frozenset(listed[1].split()) if listed else frozenset()
