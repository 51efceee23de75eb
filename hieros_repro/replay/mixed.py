"""Own experience and a recorded dataset, in fixed shares of every batch; or either alone."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from hieros_repro.determinism.keys import Key
from hieros_repro.determinism.numerics import differences
from hieros_repro.records import Fraction, Memory, Request, Rows, Step, Tree, UserError
from hieros_repro.replay import parts
from hieros_repro.replay.base import Choice, Held, Replay
from hieros_repro.replay.dataset import Dataset
from hieros_repro.replay.windows import Windows


class Mixed(Replay):
    """Of every batch the last `share`, rounded, comes from windows that were recorded before and never change."""

    kind: ClassVar[str] = "windows"
    lasts = True

    def __init__(self, own: Windows, recorded: Windows, source: Dataset, part: str | None, share: float):
        self.own, self.recorded, self.source, self.part, self.share = own, recorded, source, part, share
        self.lead, self.workers = own.lead, own.workers

    def _split(self, request: Request) -> tuple[Request, Request]:
        recorded = max(1, round(self.share * request.batch))
        return request._replace(batch=request.batch - recorded), request._replace(batch=recorded)

    def add(self, before: Step, rows: Rows, after: Step) -> None:
        self.own.add(before, rows, after)

    def cut(self) -> None:
        self.own.cut()

    def ready(self, request: Request, ending: bool) -> bool:
        own, _ = self._split(request)
        return own.batch == 0 or self.own.ready(own, ending)

    def choose(self, key: Key, request: Request) -> Choice:
        both = zip((self.own, self.recorded), self._split(request), ("own", "recorded"), strict=True)
        chosen = [replay.choose(key(name), part) for replay, part, name in both if part.batch]
        own = chosen[0].places if self._split(request)[0].batch else []
        return Choice(lambda: _joined([choice.gather() for choice in chosen]), own, sum(choice.bytes for choice in chosen))

    def write_back(self, places: Tree, values: Any) -> None:
        """What is recorded stays as it is."""
        self.own.write_back(places, {name: value[: len(places)] for name, value in values.items()})

    def account(self) -> Mapping[str, float]:
        return self.own.account()

    def facts(self) -> Mapping[str, Any]:
        source = {"path": str(self.source.path), "version": self.source.version, "sha256": self.source.digest}
        return {**source, "part": self.part, "episodes": len(self.source.members(self.part)), "share": self.share}

    def need(self) -> int:
        return self.own.need()

    def room(self, steps: int) -> int:
        return self.own.room(steps) + self.recorded.room(self.recorded.buffer.steps)

    def state(self) -> Tree:
        recorded = self.recorded.selector.state()
        return {**self.own.state(), "dataset": self.source.digest, "episodes": self._episodes(), "recorded": recorded}

    def _episodes(self) -> str:
        """Which ones of the dataset, as a digest."""
        return parts.sha256(self.source.members(self.part))

    def load(self, state: Tree) -> None:
        learned = state.get("dataset", "no dataset")  # None: of another one, which a branch has put aside
        if learned not in (None, self.source.digest):
            raise UserError(
                f"replay.dataset={self.source.path}: its digest is {self.source.digest[:16]}, the checkpoint learned from "
                f"{learned[:16]}; a branch may change it"
            )
        if learned is not None and state["episodes"] != self._episodes():
            raise UserError(f"replay.dataset_part={self.part}: the checkpoint learned from other episodes of this dataset")
        self.own.load({**state, "dataset": None})
        self.changed = self.own.changed or learned is None
        if learned is not None and state["selector"][0] == type(self.recorded.selector).__name__:
            self.recorded.selector.load(state["recorded"])

    def close(self) -> None:
        self.own.close()


def require_fillable(dataset: str | None, memories: Mapping[str, Memory]) -> None:
    """Refuses a dataset to an agent with replays of what only it can make. A dataset holds what was shown, at every step."""
    own = [name for name, memory in memories.items() if not memory.observes or memory.every > 1]
    states = sorted({state for memory in memories.values() for state in memory.refreshed})
    if dataset is None or not (own or states):
        return
    what, use = (", ".join(own), "use") if own else (", ".join(states), "use agent.replay_context=0 or")
    raise UserError(
        f"replay.dataset={dataset}: this agent learns from rows that only it can make ({what}); {use} replay.dataset=null"
    )


def mixed(
    own: Windows, recorded: Callable[..., Windows], held: Held, *,
    dataset: str | None, dataset_part: str | None, dataset_share: Fraction,
) -> Replay:  # fmt: skip
    """Own windows, with a dataset's beside them where one is named. `recorded`: makes windows like the own ones.

    Whoever calls has asked `require_fillable`.
    """
    if dataset is None:
        return own
    source = Dataset.open(dataset)
    if unlike := differences(source.spaces.plain(), held.spaces.plain()):
        listed = "".join(f"\n  {path}: {then!r} there, {now!r} here" for path, (then, now) in unlike.items())
        raise UserError(f"replay.dataset={dataset}: it was recorded in another environment:{listed}")
    members = set(source.members(dataset_part))
    count = sum(episode.length + 1 for episode in source.episodes if episode.number in members)
    if count < held.memory.length:
        raise UserError(f"replay.dataset={dataset}: its {count} rows are less than one window of {held.memory.length}")
    windows = recorded(held._replace(num_envs=1, filed=False), size=count, online=False)
    for rows in source.rows(dataset_part):
        windows.fill(rows)
    return Mixed(own, windows, source, dataset_part, dataset_share)


def _joined(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Batches one after the other, name by name."""
    first, *others = batches
    if missing := sorted({name for batch in others for name in first.keys() ^ batch.keys()}):
        raise UserError(f"replay.dataset: {', '.join(missing)} is not both in its rows and in those of this agent")
    if not others:
        return first

    def join(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return _joined(values)
        return torch.cat(values) if isinstance(values[0], torch.Tensor) else np.concatenate(values)

    return {name: join([batch[name] for batch in batches]) for name in first}
