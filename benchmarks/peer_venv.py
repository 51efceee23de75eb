"""Interpreters of their own for the packages that benchmarks compare with."""

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def interpreter(venv: Path, packages: Sequence[str], alone: str) -> Path:
    """Python with `packages`, and `alone` without what it would bring; made at the first call, torch and numpy as locked."""
    python = venv / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        lock = Path(__file__).resolve().parents[1] / "requirements.lock"
        locked = re.findall(r"^(?:torch|numpy)==.*$", lock.read_text(), re.M)
        pip = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *locked], check=True)
        subprocess.run([*pip, *locked, *packages], check=True)
        subprocess.run([*pip, "--no-deps", alone], check=True)
    return python
