"""One training run of ours, timed: python -m hieros_repro.train in a process of its own, imports excluded."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BASELINE = ("experiment=cartpole_baseline", "run.eval_every=0", "run.final_episodes=0")


def train(*overrides: str) -> float:
    """Seconds from the checked configuration to the end of the run: building, training, ledger, logs and checkpoints."""
    with tempfile.TemporaryDirectory() as folder:
        return json.loads((run(Path(folder, "run"), *overrides) / "run.json").read_text())["wall_seconds"]


def run(folder: Path, *overrides: str) -> Path:
    """One run in a process of its own."""
    command = [sys.executable, "-m", "hieros_repro.train", *overrides, f"run.dir={folder}", "log=quiet"]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.DEVNULL)
    return folder
