"""What was digested when, in causal order, and the first place where two ledgers part.

An entry is a few lines of ledger.jsonl, one per component. Observations and actions are digested cumulatively from the start of
the run, so that no difference escapes between two entries and entries at common steps agree whatever the cadence. Losses and
gradients are those of the update's first optimiser step: they come before any parameter has changed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from hieros_repro.determinism.fingerprint import Stream, combine, digest, tick_sums
from hieros_repro.records import Step

# Causal order within an entry. "weights" are the parameters acted with, before the update; "parameters" those after it.
COMPONENTS = ("weights", "observation", "action", "batch", "noise", "losses", "gradients", "parameters")
PENDING_BYTES = 4 << 20  # experience waiting to be digested
TICKS = 4096  # latest ticks of which an entry keeps a mark each, to tell whether an observation or an action differed first

MEANINGS = {
    "weights": "a parameter changed outside learning (or one run started from other weights)",
    "observation": "the environments showed something else (or paid it): look at their seeds, versions and wrappers",
    "action": "same weights, same observations, other actions: look at exploration noise and at the acting code",
    "batch": "the same experience, but learning was shown other rows: look at selection, shuffling and loading",
    "noise": "the update was given other random numbers: look at the seed and the stream names",
    "losses": "same weights, batch and noise, another loss: look at the loss code and its coefficients",
    "gradients": "same losses, other gradients: look at the backward pass and at precision flags",
    "parameters": "same gradients, other parameters: look at the optimiser (learning rate, clipping, its state)",
}

Line = dict[str, Any]


class Ledger:
    """Collects what the loop shows it and writes entries. Its streams are state, saved with every checkpoint."""

    def __init__(self, write: Callable[[Line], None], every: int):
        self._write = write
        self.every = every
        self._streams: dict[str, dict[str, Stream]] = {"observation": {}, "action": {}}
        self._pending: dict[str, list[Mapping[str, np.ndarray]]] = {"observation": [], "action": []}
        self._ticks: dict[str, str] = {"observation": "", "action": ""}  # since the last entry, four digits each
        self._bytes = 0

    def see(self, obs: Mapping[str, np.ndarray], action: np.ndarray | None = None) -> None:
        """What the environments show, and the action that led there (none at the start). Only references are kept; digesting
        waits for the next entry or for enough bytes."""
        if not self.every:
            return
        if action is not None:
            self._pending["action"].append({"action": action})
            self._bytes += action.nbytes
        self._pending["observation"].append(obs)
        self._bytes += sum(array.nbytes for array in obs.values())
        if self._bytes > PENDING_BYTES:
            self._flush()

    def entry(self, step: int, update: int, components: Mapping[str, Mapping[str, Any]]) -> None:
        """Writes one entry: of an update, or without a batch the run's last. `components`: name -> named tensors, nested or
        not, for all but observation and action, which the ledger has seen."""
        kind = "update" if "batch" in components else "end"
        latest = {name: pending[-1] for name, pending in self._pending.items() if pending}
        self._flush()
        for component in COMPONENTS:
            if component in self._streams:
                streams = self._streams[component]
                tensors: dict[str, Any] = {name: {"digest": stream.hexdigest()} for name, stream in streams.items()}
                for name, array in latest.get(component, {}).items():
                    tensors[name]["latest"] = _head(array)
            elif component in components:
                tensors = {name: _describe(value) for name, value in _leaves(components[component])}
            else:
                continue
            total = combine(f"{name}={tensors[name]['digest']}" for name in sorted(tensors))
            line = {"step": step, "update": update, "entry": kind, "component": component, "digest": total, "tensors": tensors}
            self._write(line | ({"ticks": self._ticks[component]} if component in self._streams else {}))
        self._ticks = dict.fromkeys(self._ticks, "")

    def _flush(self) -> None:
        for component, pending in self._pending.items():
            for name in pending[0] if pending else ():
                stream = self._streams[component].setdefault(name, Stream())
                stream.add(np.stack([arrays[name] for arrays in pending]))
            self._ticks[component] = (self._ticks[component] + _marks(pending))[-4 * TICKS :]
            pending.clear()
        self._bytes = 0

    def state(self) -> dict[str, Any]:
        self._flush()
        streams = {
            component: {name: [stream.position, f"{stream.total:016x}"] for name, stream in streams.items()}
            for component, streams in self._streams.items()
        }
        return {"streams": streams, "ticks": dict(self._ticks)}

    def load(self, state: Mapping[str, Any]) -> None:
        self._ticks = dict(state["ticks"])
        for component, streams in state["streams"].items():
            for name, (position, total) in streams.items():
                stream = self._streams[component][name] = Stream()
                stream.position, stream.total = position, int(total, 16)


def shown(step: Step) -> dict[str, np.ndarray]:
    """Everything a row shows, by name."""
    return {**step.obs, "step.reward": step.reward, "step.is_last": step.is_last, "step.is_terminal": step.is_terminal}


def describe_all(tensors: Mapping[str, Any]) -> str:
    """One digest for named tensors, as run.json records it."""
    return combine(f"{name}={digest(tensors[name])}" for name in sorted(tensors))


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested names joined by dots."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _marks(pending: list[Mapping[str, np.ndarray]]) -> str:
    """Four digits for each tick."""
    total = np.zeros(len(pending), np.uint64)
    for number, name in enumerate(sorted(pending[0]) if pending else ()):
        total += tick_sums(np.stack([arrays[name] for arrays in pending])) * np.uint64(2 * number + 1)
    return "".join(f"{mark:04x}" for mark in (total >> np.uint64(48)).tolist())


def _describe(value: Any) -> dict[str, Any]:
    array = value if isinstance(value, np.ndarray | torch.Tensor) else np.asarray(value)
    facts: dict[str, Any] = {"digest": digest(array), "head": _head(array)}
    if isinstance(array, torch.Tensor) and array.is_floating_point() and array.numel() > 1:
        facts["norm"] = float(torch.linalg.vector_norm(array.detach().float()))
    return facts


def _head(array: Any, count: int = 4) -> list[float]:
    flat = array.detach().flatten()[:count].cpu() if isinstance(array, torch.Tensor) else np.ravel(array)[:count]
    return flat.tolist()


# -- Comparing ---------------------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """Where two ledgers part first."""

    step: int
    update: int
    component: str
    tensors: dict[str, tuple[Any, Any]]  # name -> (facts in A, facts in B), those that differ
    agreed: int | None  # the last common step at which everything was equal
    ticks_before: int | None = None  # of an observation or action: how many ticks before that step


def first_difference(a: Iterable[Line], b: Iterable[Line]) -> tuple[Difference | None, int]:
    """The first difference between entries of the same update, in causal order; and how many digests were compared."""
    entries_b = _entries(b)
    agreed, compared = None, 0
    for key, lines in _entries(a).items():
        other = entries_b.get(key, {})
        for component in COMPONENTS:
            left, right = lines.get(component), other.get(component)
            if left is None or right is None:
                continue
            compared += 1
            if left["digest"] != right["digest"]:
                component, ticks = _first_of_experience(component, lines, other)
                differing = _differing(lines[component]["tensors"], other[component]["tensors"])
                return Difference(left["step"], left["update"], component, differing, agreed, ticks), compared
        agreed = next(iter(lines.values()))["step"] if other else agreed
    return None, compared


def _first_of_experience(component: str, a: Mapping[str, Line], b: Mapping[str, Line]) -> tuple[str, int | None]:
    """Which came first where observations differ: an action that led to them? And how many ticks before the entry."""
    if component not in ("observation", "action"):
        return component, None
    ages = {name: _age(a[name]["ticks"], b[name]["ticks"]) for name in ("observation", "action") if name in a and name in b}
    observation, action = ages.get("observation"), ages.get("action")
    # The last observation comes after the last action, so of equal age the action is older.
    if action is not None and (observation is None or action >= observation):
        return "action", action
    return component, observation


def _age(a: str, b: str) -> int | None:
    """The oldest of the latest common ticks whose marks differ, counted from the last one."""
    marks = [[text[i : i + 4] for i in range(0, len(text), 4)][::-1] for text in (a, b)]
    return max((age for age, (x, y) in enumerate(zip(*marks, strict=False)) if x != y), default=None)


def _entries(lines: Iterable[Line]) -> dict[tuple[int, str], dict[str, Line]]:
    entries: dict[tuple[int, str], dict[str, Line]] = {}
    for line in lines:
        entries.setdefault((line["update"], line["entry"]), {})[line["component"]] = line
    return entries


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = [*a, *(name for name in b if name not in a)]
    facts = {name: (a.get(name), b.get(name)) for name in names}
    return {name: (x, y) for name, (x, y) in facts.items() if x is None or y is None or x["digest"] != y["digest"]}
