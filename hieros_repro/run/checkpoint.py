"""Checkpoints: complete or absent, tensors and plain data only, every file's SHA-256 in a manifest.

A checkpoint is written aside, synced and renamed, so that a crash at any instant leaves either all of it or nothing of it.
Nothing in it can execute: it is read with weights_only.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hieros_repro.atomic import PARTIAL, sync
from hieros_repro.records import Damaged, Tree
from hieros_repro.replay.storage import Stored, verified

FORMAT = 4
MANIFEST = "manifest.json"
_ARRAY = "__numpy__"


def _to_2(parts: dict[str, Tree]) -> dict[str, Tree]:
    """Environments may have snapshots and say how long their episodes are; episodes may have accounts."""
    if "envs" in parts.get("env", {}):
        envs = parts["env"]["envs"]
        envs |= {"snapshots": [None] * len(envs["actions"]), "lengths": [len(actions) for actions in envs["actions"]]}
    if "loop" in parts:
        parts["loop"]["counters"]["tally"].append({})
    return parts


def _to_3(parts: dict[str, Tree]) -> dict[str, Tree]:
    """Batches may have been chosen and not yet learned from."""
    if "loop" in parts:
        parts["loop"]["feed"] = []
    return parts


def _to_4(parts: dict[str, Tree]) -> dict[str, Tree]:
    """Agents that dream may have worlds over worlds."""
    if "slow" in parts.get("agent", {}):
        raise Damaged(
            "a checkpoint of an agent that dreams in format 3: go on with the version of the code that its run.json names"
        )
    return parts


MIGRATIONS: dict[int, Callable[[dict[str, Tree]], dict[str, Tree]]] = {1: _to_2, 2: _to_3, 3: _to_4}  # from format n to n + 1


# -- Writing -----------------------------------------------------------------------------------------------------------


def save(folder: Path, name: str, parts: Mapping[str, Tree], facts: Mapping[str, Any]) -> Path:
    """Writes `parts`, one file each, as folder/name. `facts` go into the manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    partial, final = folder / f"{PARTIAL}{name}", folder / name
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    files = {}
    for part, tree in parts.items():
        path = partial / f"{part}.pt"
        _write(path, _plain(tree))
        files[path.name] = {"sha256": file_digest(path), "bytes": path.stat().st_size}
    manifest = {"format": FORMAT, "name": name, **facts, "files": files}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf8")
    for path in partial.iterdir():
        sync(path)
    sync(partial)
    if final.exists():  # damaged or overtaken: a run reaches a step once
        old = folder / f"{PARTIAL}old-{name}"
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
    partial.rename(final)
    sync(folder)
    sweep_partial(folder)
    return final


def _write(path: Path, tree: Tree) -> None:
    try:
        with path.open("wb") as file:
            torch.save(tree, file)
    except RuntimeError as error:  # torch's writer wraps what the operating system said, a full disk for example
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def prune(folder: Path, keep_last: int, keep_every: int) -> None:
    """Deletes all but the newest `keep_last` checkpoints and the first at or past each multiple of `keep_every`."""
    found = steps(folder)
    kept = set(found[-keep_last:])
    last_multiple: dict[int, int] = {}
    for step in found if keep_every else ():
        last_multiple.setdefault(step // keep_every, step)
    for step in found:
        if step not in kept and step not in last_multiple.values():
            shutil.rmtree(folder / f"step_{step}")


def sweep_partial(folder: Path) -> None:
    """Removes what a killed process left half-written; what it had just put aside and not yet replaced comes back."""
    for old in folder.glob(f"{PARTIAL}old-*"):
        if not (folder / old.name.removeprefix(f"{PARTIAL}old-")).exists():
            old.rename(folder / old.name.removeprefix(f"{PARTIAL}old-"))
    for path in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(path, ignore_errors=True)


# -- Reading -----------------------------------------------------------------------------------------------------------


def steps(folder: Path) -> list[int]:
    """The steps of all checkpoints in a folder, ascending, intact or not."""
    names = (re.fullmatch(r"step_(\d+)", path.name) for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(int(match[1]) for match in names if match)


def manifest(path: Path) -> dict[str, Any]:
    """The manifest, after checking every file against it."""
    if not path.is_dir():
        raise Damaged(f"{path}: there is no such checkpoint")
    facts = _facts(path)
    files = facts["files"]
    for name, expected in files.items():
        file = path / name
        if not file.is_file():
            raise Damaged(f"{file}: missing")
        if file.stat().st_size != expected["bytes"]:
            raise Damaged(f"{file}: {file.stat().st_size} bytes instead of {expected['bytes']}: truncated or changed")
        if file_digest(file) != expected["sha256"]:
            raise Damaged(f"{file}: its SHA-256 is not the manifest's: corrupted or changed")
    foreign = sorted({file.name for file in path.iterdir()} - {*files, MANIFEST})
    if foreign:
        raise Damaged(f"{path / foreign[0]}: not part of this checkpoint")
    return facts


def _facts(path: Path) -> dict[str, Any]:
    """The manifest as it is."""
    try:
        facts = json.loads((path / MANIFEST).read_text(encoding="utf8"))
        facts["files"].items()
        return facts
    except FileNotFoundError:
        raise Damaged(f"{path / MANIFEST}: missing, so this is not a complete checkpoint") from None
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path / MANIFEST}: not a manifest ({error})") from None


def load(path: Path) -> tuple[dict[str, Tree], dict[str, Any]]:
    """The parts and the manifest of an intact checkpoint."""
    facts = manifest(path)
    if facts["format"] > FORMAT:
        raise Damaged(f"{path}: written in format {facts['format']}; this version reads up to {FORMAT}: update hieros_repro")
    parts = {}
    for name in facts["files"]:
        try:
            parts[Path(name).stem] = _restore(torch.load(path / name, weights_only=True, map_location="cpu"))
        except Exception as error:
            raise Damaged(f"{path / name}: holds more than tensors and plain data ({error})") from error
    for version in range(facts["format"], FORMAT):
        if version not in MIGRATIONS:
            raise Damaged(f"{path}: format {version} is too old: there is no way from it to {version + 1}")
        parts = MIGRATIONS[version](parts)
    return parts, facts


def replay_files(path: Path) -> dict[str, list[Stored]]:
    """The files of steps that a checkpoint names, by replay; they lie beside the folder of checkpoints."""
    named = _facts(path).get("replay", {})
    return {name: [Stored(*stored) for stored in files] for name, files in named.items()}


def replay_problems(path: Path) -> Iterable[str]:
    """What is wrong with the files of steps that a checkpoint names."""
    for name, files in replay_files(path).items():
        for stored in files:
            try:
                verified(path.parents[1] / "replay" / name, stored)
            except Damaged as error:
                yield str(error)


def newest(folder: Path, complain: Callable[[str], None], replay: bool = False) -> int | None:
    """The step of the newest intact checkpoint. Damaged ones are named and passed over.

    `replay`: together with the files of steps it names. Where those alone are damaged, of every checkpoint, that is an error.
    """
    broken = None
    for step in reversed(steps(folder)):
        path = folder / f"step_{step}"
        try:
            manifest(path)
        except Damaged as error:
            complain(f"passing over a damaged checkpoint: {error}")
            continue
        problem = next(iter(replay_problems(path)), None) if replay else None
        if problem is None:
            return step
        broken = broken or problem
        complain(f"passing over {path}, which needs a damaged file: {problem}")
    if broken is not None:
        raise Damaged(f"{broken}; every checkpoint needs it; replay.recover=true goes on without the steps it holds")
    return None


# -- Plain data --------------------------------------------------------------------------------------------------------


def _plain(tree: Tree) -> Tree:
    """Arrays become marked tensors, everything else must be tensors and plain values."""
    if isinstance(tree, np.ndarray):
        return {_ARRAY: torch.from_numpy(np.ascontiguousarray(tree).reshape(tree.shape).copy())}
    if isinstance(tree, np.generic):
        return tree.item()
    if isinstance(tree, torch.Tensor):
        return tree.detach().cpu().clone()
    if isinstance(tree, Mapping):
        return {key: _plain(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_plain(value) for value in tree)
    if tree is None or isinstance(tree, bool | int | float | str | bytes):
        return tree
    raise TypeError(f"a checkpoint holds tensors and plain data only, not {type(tree).__name__}")


def _restore(tree: Tree) -> Tree:
    if isinstance(tree, dict):
        return tree[_ARRAY].numpy() if tree.keys() == {_ARRAY} else {k: _restore(v) for k, v in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_restore(value) for value in tree)
    return tree


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe(parts: Mapping[str, Tree]) -> Iterable[tuple[str, str]]:
    """What a checkpoint holds, one (name, meaning) per leaf."""

    def walk(tree: Tree, path: str) -> Iterable[tuple[str, str]]:
        if isinstance(tree, Mapping) and tree:
            for key, value in tree.items():
                yield from walk(value, f"{path}.{key}" if path else str(key))
        elif isinstance(tree, np.ndarray | torch.Tensor):
            yield path, f"{str(tree.dtype).removeprefix('torch.')}{list(tree.shape)}"
        elif isinstance(tree, list | tuple) and len(repr(tree)) > 60:
            yield path, f"{type(tree).__name__} of {len(tree)}"
        else:
            yield path, repr(tree)

    return walk(parts, "")
