"""Which folder a run lives in, what configuration it has, and which checkpoint it starts from."""

import copy
import datetime
import fnmatch
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from hieros_repro.check import nearest
from hieros_repro.command import choices
from hieros_repro.determinism.numerics import changed as numerics_changed
from hieros_repro.determinism.numerics import differences
from hieros_repro.policy import read_config
from hieros_repro.provenance.code import code
from hieros_repro.records import UserError
from hieros_repro.run import checkpoint as checkpoints
from hieros_repro.run.folder import RunFolder, title
from hieros_repro.run.loop import Loop

# What a run continued in place may change: what is looked at, how often, by how many workers; and more steps.
CHANGEABLE = (
    "resume", "resume_numerics", "plugins*", "log.*", "sweep.*", "replay.workers", "replay.recover", "replay.dataset",
    "env.processes", "env.worker_timeout", "determinism.resume",
    "run.dir", "run.*_every", "run.keep_*", "run.*_episodes", "run.eval_envs", "run.video_fps", "run.target_score",
)  # fmt: skip


BOUNDARIES = ("exact", "episode_boundary")  # resume=<one of them> is short for determinism.resume=


class Start(NamedTuple):
    """How a run starts: in a new folder, continuing one, or branching off a checkpoint of another."""

    folder: Path
    config: dict[str, Any]
    checkpoint: Path | None  # to start from
    parent: dict[str, Any] | None  # of a branch
    continues: bool
    finished: dict[str, Any] | None = None  # the account of a run that has nothing left to do


def start(config: dict[str, Any], asked: list[str]) -> Start:
    """Reads `resume` and `run.dir`. `asked` are the overrides as typed: only those are compared with a continued run."""
    wanted = config["resume"]
    if wanted in BOUNDARIES:  # how to come back, said of a run that starts
        config = {**config, "resume": None, "determinism": {**config["determinism"], "resume": wanted}}
        return start(config, asked)
    folder = Path(config["run"]["dir"] or _fresh_name(config))
    if wanted is None:
        if (folder / "config.yaml").exists():
            raise UserError(f"run.dir={folder}: it holds a run already; continue it with resume={folder}, or choose another")
        return Start(folder, _settled(config, folder), None, None, continues=False)
    if wanted == "auto":
        exists = (folder / "config.yaml").exists()
        return _continue(folder, config, asked, everything=True) if exists else start({**config, "resume": None}, asked)
    name, at, step = wanted.rpartition("@")
    if not at:
        return _continue(Path(wanted), config, asked)
    return _branch(Path(name), step, config, asked)


def spelt_out(asked: list[str]) -> list[str]:
    """Overrides as typed, without abbreviations."""
    return [f"determinism.{override}" if override.removeprefix("resume=") in BOUNDARIES else override for override in asked]


def restored(start: Start, numerics: dict[str, Any]) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """The state to start from, and what run.json must say about it. Refuses other numerics under strict."""
    _open_dataset(start.config.get("replay") or {})
    if start.checkpoint is None:
        return None, {}
    parts, facts = checkpoints.load(start.checkpoint)
    changed = numerics_changed(facts["numerics"], numerics)
    if changed and start.continues:
        listed = "\n".join(f"  {path}: {old!r} then, {new!r} now" for path, (old, new) in changed.items())
        strict = start.config["determinism"]["algorithms"] == "error"
        if strict and start.config["resume_numerics"] == "refuse":
            raise UserError(
                f"{start.checkpoint}: the numerics differ, so the run would not continue bit by bit:\n{listed}\n"
                "restore them, or continue all the same with resume_numerics=accept (the run is then marked)"
            )
        print(f"the numerics differ from the checkpoint's, so this run is marked not bit-comparable:\n{listed}")
    if start.parent is not None:
        _fit_branch(parts, start.parent["changes"])
    marks: dict[str, Any] = {"bit_comparable": False, "numerics_changed": _listed(changed)} if changed else {}
    if start.continues and start.config["determinism"]["resume"] == "episode_boundary":
        print("the episodes under way are given up and new ones start, so this run is marked not bit-comparable")
        marks |= {"bit_comparable": False, "resumed_at": "episode_boundary"}
    before = RunFolder(start.folder).read().get("code", {}).get("sources") if start.continues else None
    if before not in (None, code(start.config["plugins"])["sources"]):
        print(f"{start.folder}: the code is not the one this run began with, so this run is marked not bit-comparable")
        marks |= {"bit_comparable": False, "code_changed_from": before}
    return parts, marks


def load(start: Start, loop: Loop, state: dict[str, Any]) -> None:
    """The state into the parts of the run, which have room for it unless a branch has changed them."""
    if not start.continues:
        _refuse_other_parameters(start, loop.parts.agent.state().get("parameters"), state["agent"].get("parameters", {}))
    loop.load(state)


def _refuse_other_parameters(start: Start, wanted: Mapping[str, Any] | None, found: Mapping[str, Any]) -> None:
    """A branch goes on with the parameters of its checkpoint, so it needs some of the same names and shapes, or none at all."""
    if not wanted or start.parent is None:
        return
    then, now = ({name: list(tensor.shape) for name, tensor in parameters.items()} for parameters in (found, wanted))
    parted = {name: pair for name, pair in differences(then, now).items() if any(pair)}  # not a lone number
    if not parted:
        return
    changes = {path: pair for path, pair in start.parent["changes"].items() if not _changeable(path)}
    blamed = {path: pair for path, pair in changes.items() if path.startswith(("agent.", "env.", "size.", "world."))} or changes
    keys = [f"  {path}: {old!r} in the run, {new!r} now" for path, (old, new) in blamed.items()]
    named = [f"  {name}: {_shape(old)} in the checkpoint, {_shape(new)} now" for name, (old, new) in parted.items()]
    raise UserError(
        f"{start.checkpoint}: its parameters do not fit into the branch, whose configuration differs from the run's in\n"
        f"{_first(keys, 8)}\nso that these do not fit:\n{_first(named, 3)}\n"
        "leave these keys as they are in the run, or start a run of its own without resume"
    )


def _first(lines: list[str], count: int) -> str:
    return "\n".join([*lines[:count], *([f"  and {len(lines) - count} more"] if len(lines) > count else [])])


def _shape(shape: list[int] | None) -> str:
    return "none" if shape is None else "x".join(map(str, shape)) or "a number"


def _open_dataset(replay: dict[str, Any]) -> None:
    """Refuses a dataset that is not there or has no such part, before anything is written."""
    if replay.get("dataset") is None:
        return
    from hieros_repro.replay.dataset import Dataset

    try:
        members = Dataset.open(replay["dataset"]).members(replay["dataset_part"])
    except UserError as error:
        raise UserError(f"replay.dataset={replay['dataset']}: {error}") from error
    if not members:
        raise UserError(f"replay.dataset={replay['dataset']}: there is no episode in it")


def _fit_branch(parts: dict[str, Any], changes: dict[str, Any]) -> None:
    """A branch writes its own logs from the start; what its changes made meaningless starts anew."""
    parts["loop"]["log"] = None
    parts["loop"]["counters"]["evaluations"] = []
    changes = {path: pair for path, pair in changes.items() if not _changeable(path) or path == "replay.dataset"}
    if any(path == "seed" or path.startswith("env.") for path in changes):
        parts["env"].pop("envs")
        parts["env"]["normaliser"].pop("running")
        parts["loop"].pop("carry")
    if any(path == "seed" or path.startswith("env.") for path in changes):
        if any("files" in tree for tree in parts["replay"].values()):
            print("the environments are not those of the checkpoint, so the branch starts with an empty replay")
        parts["replay"] = {}
    if any(path.startswith("replay.") for path in changes):  # stored steps serve any selector; what is half gathered does not
        parts["replay"] = {name: tree for name, tree in parts["replay"].items() if "files" in tree}
    if any(path.startswith("replay.dataset") for path in changes):  # which windows of another dataset were shown: none
        parts["replay"] = {name: {**tree, "dataset": None} for name, tree in parts["replay"].items()}
    if any(path.startswith(("agent.", "replay.")) for path in changes):
        parts["loop"]["feed"] = []


def _continue(folder: Path, config: dict[str, Any], asked: list[str], everything: bool = False) -> Start:
    stored = read_config(folder)
    merged = config if everything or any(o.startswith("experiment=") for o in asked) else _merged(stored, config, asked)
    merged = _settled(merged, folder, stored["run"]["horizon"])
    refused = {path: (old, new) for path, (old, new) in differences(stored, merged).items() if not _changeable(path)}
    if stored["run"]["steps"] <= merged["run"]["steps"]:
        refused.pop("run.steps", None)
    if refused:
        listed = "\n".join(f"  {path}: {old!r} in the run, {new!r} now" for path, (old, new) in refused.items())
        raise UserError(
            f"resume={folder} continues the run in place, so these may not change:\n{listed}\n"
            f"to change them, branch off: resume={folder}@<step> run.dir=<new folder>"
        )
    facts, recover = RunFolder(folder).read(), (merged.get("replay") or {}).get("recover", False)
    newest = checkpoints.newest(folder / "checkpoints", print, replay=not recover)
    origin = facts.get("parent") if newest is None else None  # a branch that has no checkpoint of its own yet
    if newest is not None:
        path: Path | None = folder / "checkpoints" / f"step_{newest}"
    else:
        path = Path(origin["run"]) / "checkpoints" / f"step_{origin['checkpoint']}" if origin else None
    asks_more = any(not name.startswith(("resume", "log.", "sweep.", "run.dir")) for name in differences(stored, merged))
    finished = facts if facts.get("status") == "finished" and not asks_more else None
    if path is None:
        print(f"{folder}: it has no checkpoint, so it starts again from step 0")
    return Start(folder, merged, path, origin, continues=True, finished=finished)


def _changeable(path: str) -> bool:
    return any(fnmatch.fnmatch(path, allowed) for allowed in CHANGEABLE)


def _branch(parent: Path, step: str, config: dict[str, Any], asked: list[str]) -> Start:
    stored = read_config(parent)
    if config["run"]["dir"] is None:
        raise UserError(f"resume={parent}@{step} branches off, which needs a new folder: add run.dir=<new folder>")
    folder = Path(config["run"]["dir"])
    if (folder / "config.yaml").exists():
        raise UserError(f"run.dir={folder}: it holds a run already; a branch needs a new folder")
    path = parent / "checkpoints" / f"step_{step}"
    found = [str(s) for s in checkpoints.steps(parent / "checkpoints")]
    if step not in found:
        raise UserError(f"{path}: no such checkpoint; there are {', '.join(found) or 'none'}{nearest(step, found)}")
    checkpoints.manifest(path)
    merged = _settled(_merged(stored, config, asked), folder, stored["run"]["horizon"])
    origin = {"run": str(parent.resolve()), "checkpoint": int(step), "changes": _listed(differences(stored, merged))}
    return Start(folder, merged, path, origin, continues=False)


def _merged(stored: dict[str, Any], config: dict[str, Any], asked: list[str]) -> dict[str, Any]:
    """The stored configuration with what was typed on top."""
    merged = copy.deepcopy(stored)
    for override in asked:
        path = re.split(r"[=@]", override.lstrip("+~"), maxsplit=1)[0].replace("/", ".")
        source, into = config, merged
        *parents, last = path.split(".")
        for name in parents:
            source, into = source.get(name, {}), into.setdefault(name, {})
        if last in source:
            into[last] = source[last]
    for path, (default, value) in _dependents(config, asked):
        *parents, last = path.split(".")
        into = functools.reduce(lambda node, name: node.get(name, {}), parents, merged)
        if into.get(last) == default:
            into[last] = value
    return merged


def _dependents(config: dict[str, Any], asked: list[str]) -> list[tuple[str, tuple[Any, Any]]]:
    """What else is other than by default because of what was typed: values that refer to other values.

    Another machine by itself is no reason for another size: a size that follows the hardware does so when a run begins.
    """
    if not GlobalHydra.instance().is_initialized():
        return []
    sized = any(override.startswith("size=") for override in asked)
    moved = [override for override in asked if override.startswith("hardware=") and not sized]
    chosen = [override for override in choices(asked) if not (moved and override.startswith("hardware="))] + moved
    default: Any = OmegaConf.to_container(hydra.compose(config_name="train", overrides=chosen), resolve=True)
    return [(path, pair) for path, pair in differences(default, config).items() if not path.startswith(("run.dir", "sweep."))]


def _settled(config: dict[str, Any], folder: Path, horizon: int | None = None) -> dict[str, Any]:
    """With everything decided that was left open: the folder, and the horizon that schedules keep when a run is extended."""
    run, replay = config["run"], config.get("replay")
    if replay and replay.get("dataset") is not None:
        config = {**config, "replay": {**replay, "dataset": str(Path(replay["dataset"]).resolve())}}
    return {**config, "run": {**run, "dir": str(folder), "horizon": run["horizon"] or horizon or run["steps"]}}


def _fresh_name(config: dict[str, Any]) -> Path:
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S-%f")[:-3]
    return Path("outputs") / title(config) / f"{now}_seed-{config['seed']}"


def _listed(found: dict[str, tuple[Any, Any]]) -> dict[str, list[Any]]:
    return {path: [old, new] for path, (old, new) in found.items() if path not in ("resume", "run.dir")}
