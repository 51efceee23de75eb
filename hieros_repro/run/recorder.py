"""What a run writes about itself: run.json, its checkpoints, its videos."""

import contextlib
import datetime
import errno
import shutil
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from hieros_repro.determinism.ledger import describe_all
from hieros_repro.provenance.code import code, patch
from hieros_repro.provenance.machine import free_gb, machine, packages
from hieros_repro.records import Damaged, Diverged, Stopped, Tree, UserError
from hieros_repro.replay.filing import link, prune
from hieros_repro.run import checkpoint as checkpoints
from hieros_repro.run.evaluation import Result
from hieros_repro.run.folder import RunFolder, invocation
from hieros_repro.run.loop import Loop
from hieros_repro.run.schedule import Plan

ACCOUNT = ("config.yaml", "overrides.yaml", "code.patch", "run.json")


class Recorder:
    """Keeps a run folder's account of the run. It reads the run and changes nothing in it."""

    def __init__(self, folder: RunFolder, plan: Plan, numerics: Mapping[str, Any]):
        self.folder, self.plan, self.numerics = folder, plan, dict(numerics)
        self.checkpoints, self.replay = folder.path / "checkpoints", folder.path / "replay"
        self._started = time.perf_counter()
        # What a run that is continued said of itself, until it has come back; None: there was no such file.
        self._previous: dict[str, str | None] = {}

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """While nobody can be told yet: a run that goes on is as it was if this fails, any other failed."""
        try:
            yield
        except BaseException as error:
            self.close(error)
            raise

    def begin(
        self, config: Mapping[str, Any], asked: list[str], parent: Any, marks: Mapping[str, Any], state: Tree = None
    ) -> None:
        """Configuration, code, machine: everything known before the first step. `state`: what the run starts from."""
        checkpoints.sweep_partial(self.checkpoints)
        before = self.folder.read()
        if self.folder.exists():
            paths = {name: self.folder.path / name for name in ACCOUNT}
            self._previous = {n: path.read_text(encoding="utf8") if path.exists() else None for n, path in paths.items()}
        self._replay_files(parent, state)
        self.folder.write("overrides.yaml", yaml.safe_dump(once(self._typed(parent) + asked)))
        self.folder.write("code.patch", patch())
        self.folder.update(
            status="running",
            seed=config["seed"],
            started=before.get("started") or _now(),
            parent=before.get("parent") or parent,
            plugins=config["plugins"],
            code=code(config["plugins"]),
            numerics=self.numerics,
            machine=machine(),
            packages=packages(),
            wall_seconds=before.get("wall_seconds", 0.0),
            restarts=before.get("restarts", -1) + 1,
            error=None,
            **marks,
        )
        self.folder.write("config.yaml", yaml.safe_dump(_lasting(config), sort_keys=False))  # last: with it, this is a run

    def _replay_files(self, parent: Any, state: Tree) -> None:
        """A run from its start has none; a branch takes those that what it starts from names."""
        if state is None and self.folder.ours:  # what else somebody may keep in such a folder is not ours to delete
            shutil.rmtree(self.replay, ignore_errors=True)
        for name, tree in state["replay"].items() if state and parent else ():
            for stored in tree.get("files", ()):
                link(Path(parent["run"]) / "replay" / name / stored[0], self.replay / name)

    def _typed(self, parent: Any) -> list[str]:
        """What was typed before for this run, or for the run it branches off, but for what concerned that one start."""
        own = self.folder.path / "overrides.yaml"
        path = Path(parent["run"]) / "overrides.yaml" if parent and not own.exists() else own
        before = yaml.safe_load(path.read_text(encoding="utf8")) if path.exists() else []
        return [override for override in before if not override.startswith(("resume", "run.dir="))]

    def opened(self, loop: Loop) -> None:
        """What is known once everything is built; refuses a run whose checkpoints cannot fit on the disk."""
        parameters = loop.parts.agent.parameters()
        self.folder.update(spaces=loop.parts.envs.spaces.plain(), parameters=sum(t.numel() for t in parameters.values()))
        if datasets := {name: dict(facts) for name, replay in loop.parts.replays.items() if (facts := replay.facts())}:
            self.folder.update(datasets=datasets)
        copies = self.plan.keep_last + 1 + self.plan.keep_best
        if self.plan.keep_every:
            copies += self.plan.steps // self.plan.keep_every
        state = [loop.parts.agent.state(), [replay.state() for replay in loop.parts.replays.values()]]
        files = sum(replay.need() for replay in loop.parts.replays.values())
        there = sum(path.stat().st_size for folder in (self.checkpoints, self.replay) for path in folder.rglob("*"))
        need, free = (size(state) * copies + files - there) / 2**30, free_gb(self.folder.path)
        if need > free:
            raise UserError(
                f"run.dir={self.folder.path}: {copies} checkpoints and the replay need about {need:.1f} GB and {free:.1f} GB "
                "are free; lower run.keep_last, run.keep_every or replay.size, or choose another disk"
            )

    def loaded(self, loop: Loop) -> None:
        """What a run that goes on must say of how it came back. Nothing refuses it any more."""
        self._previous.clear()
        self.folder.begun = True
        if changed := [name for name, replay in loop.parts.replays.items() if replay.changed]:
            self.folder.update(bit_comparable=False, replay_changed=changed)

    # -- Checkpoints ---------------------------------------------------------------------------------------------------

    def save(self, step: int, parts: Mapping[str, Tree]) -> None:
        files = {name: tree["files"] for name, tree in parts["replay"].items() if "files" in tree}
        facts = {"step": step, "numerics": self.numerics, "replay": files}
        try:
            checkpoints.save(self.checkpoints, f"step_{step}", parts, facts)
        except OSError as error:
            checkpoints.sweep_partial(self.checkpoints)
            if error.errno != errno.ENOSPC:
                raise
            raise UserError(f"{self.checkpoints}: the disk is full, so the checkpoint of step {step} was not kept") from error
        checkpoints.prune(self.checkpoints, self.plan.keep_last, self.plan.keep_every)
        self._prune_replay()

    def _prune_replay(self) -> None:
        """Deletes the files of replays that no checkpoint needs any more."""
        try:
            named = [checkpoints.replay_files(self.checkpoints / f"step_{n}") for n in checkpoints.steps(self.checkpoints)]
        except Damaged:  # who knows what it needs
            return
        for folder in self.replay.iterdir() if self.replay.is_dir() else ():
            prune(folder, {stored.name for files in named for stored in files.get(folder.name, ())})

    def keep_best(self, step: int, score: float, parts: Mapping[str, Tree]) -> None:
        """What acting needs, of the best scheduled evaluation so far."""
        checkpoints.save(self.checkpoints, "best", parts, {"step": step, "score": score, "numerics": self.numerics})

    # -- The end -------------------------------------------------------------------------------------------------------

    def finish(self, loop: Loop, final: Result | None, operations: list[str]) -> dict[str, Any]:
        """Marks the run finished and returns its results."""
        results: dict[str, Any] = {"step": loop.step, "updates": loop.update}
        if final is not None:
            results |= {**final.metrics(), "scores": final.scores}
        if self.plan.target_score is not None:
            reached = [step for step, score in loop.evaluations if score >= self.plan.target_score]
            results["convergence_step"] = reached[0] if reached else None
        digests = {"parameters": describe_all(loop.parts.agent.parameters())}
        self._end("finished", results=results, digests=digests, nondeterministic_operations=operations)
        return results

    def close(self, error: BaseException) -> str:
        """Marks a run that did not finish, and says how to go on."""
        for name, text in self._previous.items():  # it was refused: nothing of it has happened
            if text is None:
                (self.folder.path / name).unlink(missing_ok=True)
            else:
                self.folder.write(name, text)
        if self._previous:
            return f"{self.folder.path}: the run is as it was"
        if isinstance(error, UserError) and not self.folder.begun:
            return f"{self.folder.path}: the run was not begun, and nothing is left of it"
        stopped = isinstance(error, Stopped | KeyboardInterrupt)
        account = None if stopped else {
            "kind": type(error).__name__,
            "text": str(error),
            "traceback": "".join(traceback.format_exception(error)),
        }  # fmt: skip
        self._end("stopped" if stopped else "failed", error=account)
        found = checkpoints.steps(self.checkpoints)
        where = f"its newest checkpoint is step {found[-1]:,}" if found else "it has no checkpoint and would start from step 0"
        command = f"{invocation('train')} resume={self.folder.path}"
        if isinstance(error, Diverged):
            if not found:
                return f"{where}; the same configuration meets the same numbers again"
            return f"{where}; replaying from there meets the same numbers again: {command}@{found[-1]} run.dir=<new folder>"
        return f"{where}; continue with: {command}"

    def _end(self, status: str, **facts: Any) -> None:
        spent = self.folder.read().get("wall_seconds", 0.0) + time.perf_counter() - self._started
        try:
            self.folder.update(status=status, ended=_now(), wall_seconds=spent, **facts)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise


def once(overrides: Sequence[str]) -> list[str]:
    """Every key's last override, where it stands: a run that is begun anew may have been typed anew. Hydra merges mappings, so
    those all stay."""
    found: dict[str, str] = {}
    for override in overrides:
        key = override if "={" in override else override.partition("=")[0].lstrip("+")
        found.pop(key, None)
        found[key] = override
    return list(found.values())


def _lasting(config: Mapping[str, Any]) -> dict[str, Any]:
    """Without what was agreed to for one start only."""
    replay = config.get("replay")
    return {**config, "replay": {**replay, "recover": False}} if replay and "recover" in replay else dict(config)


def size(tree: Tree) -> int:
    """Bytes of the tensors and arrays in a tree."""
    if isinstance(tree, Mapping):
        return sum(map(size, tree.values()))
    if isinstance(tree, list | tuple):
        return sum(map(size, tree))
    return int(tree.nbytes) if isinstance(tree, torch.Tensor) or hasattr(tree, "nbytes") else 8


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
