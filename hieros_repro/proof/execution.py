"""Executing a run that there is once more, in a process and a folder of its own. The run itself is only read."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from hieros_repro.determinism.settings import environment
from hieros_repro.proof.difference import existing
from hieros_repro.records import UserError
from hieros_repro.run import checkpoint

SCRIPT = Path(__file__).with_name("tracing.py")
OWN = (  # what a verb's own process was given for itself
    "HIEROS_RESTARTED", "HIEROS_SCRIPT", "PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
)  # fmt: skip
TAIL = 2000  # characters of what a failed process said


def read(run: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A run's configuration and account as they stand."""
    existing(run)
    for name in ("config.yaml", "run.json"):
        if not (run / name).exists():
            raise UserError(f"{run}: not a run folder (it has no {name})")
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf8"))
    return config, json.loads((run / "run.json").read_text(encoding="utf8"))


def starts(run: Path) -> dict[int, Path]:
    """The checkpoints from which a run can be executed, by step: its own, and the one it branched off."""
    parent = read(run)[1].get("parent")
    before = {parent["checkpoint"]: Path(parent["run"]) / "checkpoints" / f"step_{parent['checkpoint']}"} if parent else {}
    return before | {step: run.resolve() / "checkpoints" / f"step_{step}" for step in checkpoint.steps(run / "checkpoints")}


def request(run: Path, folder: Path, changes: Mapping[str, Any], step: int | None = None, **more: Any) -> dict[str, Any]:
    """What to execute: a run from its beginning or from its checkpoint of a step; a branch begins where it left its parent."""
    parent = read(run)[1].get("parent")
    step = parent["checkpoint"] if parent and step is None else step
    resume, asked = None, yaml.safe_load((run / "overrides.yaml").read_text(encoding="utf8")) or []
    if step is not None:
        path = starts(run)[step]
        if not path.is_dir():
            raise UserError(f"{run}: it branched off {path}, which is not there any more")
        resume, asked = f"{path.parents[1]}@{step}", [f"{name}=" for name in changes]
        if parent and path.parents[1] != run.resolve():
            asked += [f"{name}=" for name in parent["changes"]]
    own = {"run": str(run.resolve()), "folder": str(folder), "changes": dict(changes), "asked": asked, "resume": resume}
    return {**own, **more}


def start(wanted: Mapping[str, Any], tree: Path, said: Path) -> subprocess.Popen[str]:
    """The process that executes a request with the package that lies in `tree`. What it says goes into a file."""
    config = read(Path(wanted["run"]))[0]
    path = said.with_suffix(".json")
    path.write_text(json.dumps(wanted), encoding="utf8")
    kept = {name: value for name, value in os.environ.items() if name not in OWN}
    places = os.pathsep.join(filter(None, [str(tree), os.getcwd(), kept.get("PYTHONPATH")]))
    with said.open("w", encoding="utf8") as file:
        return subprocess.Popen(
            [sys.executable, "-P", str(SCRIPT), str(path)],
            env={**kept, **_before_start(config), "PYTHONPATH": places}, stdout=file, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip


def execute(wanted: Mapping[str, Any], tree: Path) -> Path:
    """Executes a request to its end; its folder."""
    folder = Path(wanted["folder"])
    said = folder.with_name(f"{folder.name}.txt")
    process = start(wanted, tree, said)
    try:
        code = process.wait()
    finally:
        process.kill()
    if code:
        text = said.read_text(encoding="utf8").strip()
        raise UserError(f"{wanted['run']} could not be executed again (exit code {code}):\n{text[-TAIL:]}")
    return folder


def _before_start(config: Mapping[str, Any]) -> dict[str, str]:
    """Variables that act only before the interpreter or a library starts."""
    settings, threads = config["determinism"], str(config["hardware"]["threads"])
    names: Iterable[str] = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    return {**environment(settings["algorithms"], settings["hash_seed"]), **dict.fromkeys(names, threads)}
