"""What a run folder says about its run, small enough to hold thousands of them at once."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hieros_repro.log import jsonl
from hieros_repro.run.folder import RunFolder, names

# What two runs of one group may differ in: the seed, where they are, what is looked at and how work is shared out.
NOT_THE_RUN = (
    "seed", "resume", "resume_numerics", "sweep.", "log.", "run.dir", "run.keep_", "run.video_", "run.final_video",
    "run.checkpoint_every", "run.log_every", "run.fingerprint_every", "run.eval_envs", "replay.workers", "replay.recover",
    "env.processes", "env.worker_timeout",
)  # fmt: skip


class Record(NamedTuple):
    """One run. `facts` is flat: every key of the configuration and every result, `env`, `agent` and the account's words."""

    folder: str
    status: str
    seed: int | None
    group: str  # a digest of the configuration without what NOT_THE_RUN names: equal for seeds of one experiment
    facts: dict[str, Any]
    typed: list[str]  # overrides as typed, the seed aside
    scores: list[float]  # of the final evaluation's episodes
    evaluations: list[dict[str, float]]  # rows of metrics.jsonl that hold an evaluation, the final one included
    error: str | None = None

    def curve(self, metric: str) -> list[tuple[float, float]]:
        """The metric over scheduled and final evaluations: (step, value)."""
        return [(row["step"], row[metric]) for row in self.evaluations if metric in row]

    def value(self, metric: str) -> float | None:
        """Its final value; None for a run that has not finished."""
        return self.facts.get(metric) if self.status == "finished" else None


def read(folder: Path) -> Record:
    """The record of a run folder. One that holds nothing yet is pending; one whose files cannot be read is damaged, and says
    so instead of keeping all others from being read."""
    try:
        return _read(folder)
    except (ValueError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        text = " ".join(f"{folder}: its files cannot be read: {type(error).__name__}: {error}".split())[:300]
        return Record(str(folder), "damaged", None, "", {"status": "damaged"}, [], [], [], text)


def _read(folder: Path) -> Record:
    account = RunFolder(folder).read()
    config = _yaml(folder / "config.yaml") or {}
    typed = [o for o in _yaml(folder / "overrides.yaml") or [] if not o.startswith(("seed=", "run.dir=", "resume", "++sweep."))]
    error = account.get("error") or {}
    results = dict(account.get("results") or {})
    scores = results.pop("scores", [])
    facts = dict(flat(config)) | results | _account(account) | played(config)
    seed = account.get("seed")
    return Record(
        str(folder),
        account.get("status", "pending"),
        None if seed is None else int(seed),
        identity(config),
        facts,
        typed,
        scores,
        list(evaluations(folder / "metrics.jsonl")),
        f"{error['kind']}: {error['text']}" if error else None,
    )


def played(config: Mapping[str, Any]) -> dict[str, Any]:
    """What is played and by whom, by the names that people type."""
    if not config:
        return {}
    task, agent = names(config)
    return {"env": task.removesuffix(f"-{config['env'].get('task')}".lower()), "task": task, "agent": agent}


def _account(account: Mapping[str, Any]) -> dict[str, Any]:
    """Of run.json what runs are told apart by."""
    code, machine = account.get("code") or {}, account.get("machine") or {}
    numerics = account.get("numerics") or {}
    return {
        "status": account.get("status", "pending"),
        "digest": (account.get("digests") or {}).get("parameters"),
        "commit": code.get("commit"),
        "changed": code.get("changed"),
        "sources": code.get("sources"),
        "numerics": _digest(numerics) if numerics else None,
        "device": numerics.get("device"),
        "torch": (numerics.get("packages") or {}).get("torch"),
        "cpu": machine.get("cpu"),
        "host": machine.get("host"),
        "started": account.get("started"),
        "wall_seconds": account.get("wall_seconds"),
        "restarts": account.get("restarts"),
        "parameters": account.get("parameters"),
        "bit_comparable": account.get("bit_comparable", True),
        "operations": len(account.get("nondeterministic_operations") or ()),
        "parent": (account.get("parent") or {}).get("run"),
    }


def flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Key path and value of every leaf; a list is a leaf."""
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def identity(config: Mapping[str, Any]) -> str:
    """A digest of what the run is, whatever its seed."""
    kept = {path: value for path, value in flat(config) if not path.startswith(NOT_THE_RUN)}
    return _digest(kept) if kept else ""


def evaluations(path: Path) -> Iterator[dict[str, float]]:
    """Rows with an evaluation; the others are passed over unread, since there may be many."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if b'"eval/' in line and line.endswith(b"\n"):
                yield {name: value for name, value in json.loads(line).items() if name == "step" or name.startswith("eval/")}


def costs(folder: str | Path) -> dict[str, float]:
    """The last row of timing.jsonl: speed, memory, where the time went. Wall clock: never part of a comparison of bits."""
    last: dict[str, float] = {}
    for row in jsonl.read(Path(folder) / "timing.jsonl"):
        last = row
    return last


def _yaml(path: Path) -> Any:
    if not path.exists():
        return None
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same documents, ten times as fast
    return yaml.load(path.read_bytes(), Loader=loader)


def _digest(tree: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:16]
