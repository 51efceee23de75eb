"""Which machine ran it, and with which packages."""

import os
import platform
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def packages() -> dict[str, str]:
    """Every installed distribution and its version, from the names of their folders: reading their files takes longer."""
    folders = (path for place in reversed(sys.path) if Path(place).is_dir() for path in Path(place).glob("*-*.dist-info"))
    named = (path.name.removesuffix(".dist-info").rpartition("-") for path in folders)
    return dict(sorted((normalised(name), version) for name, _, version in named))


def lock() -> dict[str, str]:
    """The versions this project pins, or nothing where the lock file did not travel along."""
    path = Path(__file__).resolve().parents[2] / "requirements.lock"
    if not path.exists():
        return {}
    lines = (line.split("#")[0].strip() for line in path.read_text(encoding="utf8").splitlines())
    return {normalised(name): version for name, _, version in (line.partition("==") for line in lines if line)}


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def free_gb(path: Path) -> float:
    """Free disk where `path` is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free / 2**30


def _cpu_name() -> str:
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(encoding="utf8"), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.processor()
