"""Windows of experience: every L consecutive steps of a stream, as many as `size` allows, chosen by a selector."""

from collections import deque
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal
from weakref import ref

import numpy as np

from hieros_repro.determinism.keys import Key
from hieros_repro.records import Arrays, Between, Count, Natural, Positive, Request, Rows, Space, Step, Tree, UserError
from hieros_repro.replay.bank import BANKS, Mapped
from hieros_repro.replay.base import Choice, Held, Once, Replay
from hieros_repro.replay.buffer import Buffer, Places
from hieros_repro.replay.filing import Files
from hieros_repro.replay.selector import Selector

OBS = "obs."
_MANY = 100  # batches chosen since the last step, some of which nobody needs any more
_FLAGS = 7  # bytes of a step's reward and flags
_SHRINKS = 10  # times, at least, that pictures of games shrink when compressed


class Windows(Replay):
    """Row t of a window is what an environment showed at t and the action taken there; its reward and flags came with it.

    Windows reach across episodes (is_first and is_last mark them); the first row of each is marked as first. Steps go to
    files as they come, so that a checkpoint holds only those since the last file.
    """

    kind: ClassVar[str] = "windows"
    lasts = True

    def __init__(
        self,
        selector: Callable[[int], Selector],
        held: Held,
        *,
        size: Count,
        place: Literal["memory", "mapped", "device"],
        lead: Annotated[int, Between(0, 64)],
        workers: Natural | None,
        min_size: Natural,
        samples_per_insert: Positive | None,
        online: bool,
        chunk: Count,
        compress: bool,
        recover: bool,
    ):
        self.spaces, self.memory = held.spaces, held.memory
        self.lead, self.workers = lead, workers
        self.samples_per_insert, self.online, self.recover = samples_per_insert, online, recover
        num_envs, folder, enough = held.num_envs, held.folder, held.num_envs * held.memory.length
        size, self.min_size = (_share(steps, held.memory.every, enough) for steps in (size, min_size))
        steps = -(-size // num_envs)
        if steps < held.memory.length:
            raise UserError(
                f"replay.size={size}: {steps} steps of each of {num_envs} environments are less than one window of "
                f"{held.memory.length}; it must be at least {enough}"
            )
        slack = max(1, min(steps // 100, 1024))
        self.selector = selector(num_envs * (steps - held.memory.length + 1))
        self.bank = BANKS[place](num_envs * (steps + slack), folder, held.device)
        self.buffer = Buffer(self.bank, num_envs, steps, held.memory.length)
        self.files = Files(folder, self.buffer, chunk, compress) if folder is not None and held.filed else None
        self.sampled = 0  # steps that were chosen
        self._ticks = 0
        self._readings: list[tuple[int, ref[Once]]] = []  # what must have been read before this tick, if anybody needs it
        self._unseen: deque[int] = deque()  # online: windows to be shown before any other
        self._queued = 0  # online: the first window that has not been considered for them
        self._marks: list[tuple[str, int, int]] = []  # flags that were set later: which, stream, step
        self._gap = np.zeros(num_envs, bool)  # of which streams the steps before the next one are missing
        self._everyone = np.arange(num_envs)

    # -- Steps in ------------------------------------------------------------------------------------------------------

    def add(self, before: Step, rows: Rows, after: Step) -> None:
        own = self._everyone if rows.mask is None else np.flatnonzero(rows.mask)
        if not len(own):
            return
        if self._readings:
            self._read_in_time()
        self.buffer.add(self._row(before, rows), None if rows.mask is None else own)
        self._ticks += 1
        self._bridge(own)
        if self.files is not None:
            reading = self.files.came(own, self._lasting())
            if reading is not None:
                self._readings.append((self._ticks + reading.ticks, ref(reading.work)))

    def _lasting(self) -> list[str]:
        """The names of what never changes once it is stored, in an order that does not depend on who came first."""
        return sorted(name for name in self.bank.arrays if name not in self.memory.refreshed)

    def _row(self, before: Step, rows: Rows) -> dict[str, np.ndarray]:
        """What the environments showed, unless the agent has values of its own under the same names."""
        shown = {OBS + name: value for name, value in before.obs.items()} if self.memory.observes else {}
        flags = {"is_first": before.is_first, "is_last": before.is_last, "is_terminal": before.is_terminal}
        return {**shown, "reward": before.reward, **flags, **rows.values}

    def _read_in_time(self) -> None:
        """Nothing is overwritten that somebody still has to read: what has not been read by now is read here."""
        waiting = []
        for deadline, reference in self._readings:
            work = reference()
            if work is None or work.done:
                continue
            if deadline <= self._ticks:
                work()
            else:
                waiting.append((deadline, reference))
        self._readings = waiting

    def cut(self) -> None:
        """The newest row of every stream becomes its episode's last, by a time-out: what its action led to is not known."""
        self._mark("is_last", self.buffer.latest())

    def _mark(self, flag: str, places: Places) -> None:
        """Sets a flag of steps that are still stored, and keeps in mind that no file has it so."""
        places = places.only(self.buffer.kept(places))
        if len(places.at):
            self.bank.put(self.buffer.slots(places), {flag: np.ones(len(places.at), bool)})
            self._marks += [(flag, stream, at) for stream, at in places.pairs()]

    # -- Batches out ---------------------------------------------------------------------------------------------------

    def ready(self, request: Request, ending: bool) -> bool:
        if self.buffer.total < self.min_size:
            return False
        sampled, allowed = self.sampled + request.batch * request.length, self.samples_per_insert
        if allowed is not None and sampled > allowed * self.buffer.total:
            return False
        self._settle()
        count = self.buffer.end - self.buffer.first
        full = count == self.selector.capacity or self.buffer.first > 0  # where some were forgotten, no more would fit
        return count >= request.batch or (full and count > 0)

    def choose(self, key: Key, request: Request) -> Choice:
        assert request.length == self.memory.length, f"windows have {self.memory.length} steps, not {request.length}"
        if len(self._readings) > _MANY:
            self._read_in_time()
        self._settle()
        unseen = self._take_unseen(request.batch)
        numbers = self.selector.choose(key, request.batch - len(unseen), self.buffer.first, self.buffer.end)
        self.selector.shown(unseen)
        places = self.buffer.places(np.concatenate([unseen, numbers]))
        self.sampled += request.batch * request.length
        fresh = {name: self.bank.take(name, self.buffer.slots(places)) for name in self.memory.refreshed}
        names = self._lasting()
        gather = Once(lambda: self._gather(places, names, fresh))
        self._readings.append((self._ticks + self.buffer.slack, ref(gather)))
        return Choice(gather, places.pairs(), request.batch * request.length * self._row_bytes(names))

    def _gather(self, places: Places, names: list[str], fresh: Mapping[str, Any]) -> dict[str, Any]:
        """The batch; of what updates write back only the first step's, as it was when the batch was chosen."""
        flat = self.buffer.gather(places, names)
        flat["is_first"][:, 0] = True
        obs = {name.removeprefix(OBS): flat.pop(name) for name in names if name.startswith(OBS)}
        return {"obs": obs, **flat, **fresh}

    def _row_bytes(self, names: list[str]) -> int:
        return sum(self.bank.arrays[name].nbytes for name in names) // self.bank.count

    def _settle(self) -> None:
        self.buffer.settle()
        start, self._queued = max(self._queued, self.buffer.first), self.buffer.end
        if self.online and start < self.buffer.end:
            numbers = np.arange(start, self.buffer.end)
            self._unseen.extend(numbers[self.buffer.places(numbers).at % self.memory.length == 0].tolist())
        while self._unseen and self._unseen[0] < self.buffer.first:
            self._unseen.popleft()

    def _take_unseen(self, most: int) -> np.ndarray:
        """Each step once, in windows side by side, as soon as they are full."""
        return np.array([self._unseen.popleft() for _ in range(min(most, len(self._unseen)))], np.int64)

    def write_back(self, places: Tree, values: Any) -> None:
        """Values (B, n, ...) for the last n steps of the windows that an update was shown; a later row wins over an earlier."""
        rows = len(next(iter(values.values()))[0]) if values else self.memory.length
        steps = Places.of(places).spread(self.memory.length).last(rows)
        kept = self.buffer.kept(steps)
        slots = self.buffer.slots(steps)[kept]
        _, last = np.unique(slots[::-1], return_index=True)
        winner = len(slots) - 1 - last
        for name, value in values.items():
            if name not in self.memory.refreshed:
                raise ValueError(
                    f"{name!r} was written back, and the agent announced {', '.join(self.memory.refreshed) or 'none'}"
                )
            array = value.detach().cpu().numpy() if hasattr(value, "detach") else np.asarray(value)
            self.bank.put(slots[winner], {name: array[kept][winner]})

    def account(self) -> dict[str, float]:
        self._settle()
        steps = int(np.minimum(self.buffer.lengths, self.buffer.steps).sum())
        windows = self.buffer.end - self.buffer.first
        return {"steps": steps, "windows": windows, "replayed": self.sampled / max(self.buffer.total, 1)}

    # -- State ---------------------------------------------------------------------------------------------------------

    def need(self) -> int:
        rows, memory = self.buffer.streams * self.buffer.steps, self.memory
        shown = rows * self._step_bytes()
        own = 0 if memory.refreshed and memory.observes else rows * memory.row_bytes  # no file has what updates write back
        compress = self.files is not None and self.files.compress
        return (shown // _SHRINKS if compress else shown) + own

    def _step_bytes(self) -> int:
        """What is shown and done in a step."""
        shown = sum(_bytes(space) for space in self.spaces.observation.values()) if self.memory.observes else 0
        return shown + _bytes(self.spaces.action)

    def room(self, steps: int) -> int:
        rows = 0 if isinstance(self.bank, Mapped) else min(-(-steps // self.memory.every), self.bank.count)
        return rows * (self._step_bytes() + _FLAGS + self.memory.row_bytes)

    def state(self) -> Tree:
        if self.files is None:
            raise ValueError("a replay without a folder for its files has no state")
        self._settle()
        oldest = self.buffer.oldest()
        stored = self.buffer.slots(Places.between(oldest, self.buffer.lengths))
        refreshed = self.memory.refreshed if self.bank.arrays else ()
        return {
            **self.files.state(self._lasting()),
            "first": self.buffer.first,
            "end": self.buffer.end,
            "oldest": oldest,
            "refreshed": {name: self.bank.fetch(name, stored) for name in refreshed},
            "windows": [self.memory.length, self.buffer.steps],
            "selector": [type(self.selector).__name__, self.selector.state()],
            "sampled": self.sampled,
            "unseen": list(self._unseen),
            "marks": [list(mark) for mark in self._marks if self.buffer.kept(Places.of([mark[1:]]))[0]],
            "gap": self._gap.copy(),
        }

    def load(self, state: Tree) -> None:
        if self.files is None:
            raise ValueError("a replay without a folder for its files cannot be restored")
        if state.get("dataset") is not None:
            raise UserError("replay.dataset=null: the checkpoint learned from a dataset as well; a branch may leave it out")
        streams = state["before"].shape[1]
        if streams != self.buffer.streams:
            raise ValueError(f"the checkpoint's replay holds {streams} streams, this run has {self.buffer.streams}")
        for piece in self.files.load(state, self.recover):
            if piece.rows is not None:
                self.buffer.extend(piece.rows, piece.own)
                self._bridge(piece.own)
            else:
                self._mark("is_last", self.buffer.latest().of_streams(np.unique(piece.own)))
                self._gap[piece.own] = self.changed = True
        self._gap |= state["gap"]
        self._load_changes(state)
        self.sampled = state["sampled"]
        self.changed |= state["windows"] != [self.memory.length, self.buffer.steps]
        if not self.changed:  # otherwise windows have other numbers: they count as never chosen
            self.buffer.renumber(state["first"], state["end"])
            self._unseen.extend(state["unseen"])
            if state["selector"][0] == type(self.selector).__name__:
                self.selector.load(state["selector"][1])
        self._queued = self.buffer.end

    def _bridge(self, own: np.ndarray) -> None:
        """Where these newest steps follow a gap, each stream's first one begins an episode."""
        if not self._gap.any():
            return
        stream, counts = np.unique(own, return_counts=True)
        self._mark("is_first", Places(stream, self.buffer.lengths[stream] - counts).only(self._gap[stream]))
        self._gap[stream] = False

    def _load_changes(self, state: Tree) -> None:
        """What was changed after it was stored: flags, and what updates wrote back."""
        assert self.files is not None
        for flag, *place in state["marks"]:
            self._mark(flag, self.files.moved(Places.of([place]))[0])
        if state["refreshed"] and self.bank.arrays:
            places, found = self.files.moved(Places.between(state["oldest"], self.buffer.lengths))
            kept = self.buffer.kept(places)
            slots = self.buffer.slots(places.only(kept))
            for name, values in state["refreshed"].items():
                self.bank.open(name, values.shape[1:], values.dtype)
                self.bank.put(slots, {name: values[found][kept]})

    def fill(self, rows: Arrays) -> None:
        """Steps that were recorded before: of the first stream, in order. Nobody waits for them, as for those that come."""
        self.buffer.extend(rows, np.zeros(len(rows["reward"]), np.int64))
        self._queued = self.buffer.end

    def close(self) -> None:
        if self.files is not None:
            self.files.close()


def _share(steps: int, every: int, enough: int) -> int:
    """One of `every` steps, rounded up; but what is enough stays enough."""
    return max(-(-steps // every), min(steps, enough))


def _bytes(space: Space) -> int:
    return int(np.prod(space.shape)) * space.dtype.itemsize
