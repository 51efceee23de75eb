"""The stores that `benchmarks/replay.py` compares: each fills itself in a process of its own and answers on its standard input.

    python benchmarks/replay_peers.py NAME ITEMS SIDE STREAMS FOLDER

A store holds ITEMS sequences of 64 steps: SIDE x SIDE x 3 pictures, actions, rewards and flags. STREAMS and FOLDER (empty for
none) matter to ours alone. It prints one line of JSON about itself, then answers each line

    draw HOW SECONDS           sequences per second
    insert AT_ONCE STEPS       steps per second of the thread that inserts, while others write files
    write AT_ONCE STEPS        steps per second, those of the writer included

where seconds are of CPU time.
"""

import gc
import importlib.util
import inspect
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count, cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LENGTH, BATCH, ACTIONS, EPISODE = 64, 16, 5, 500
BLOCK = 1024  # steps prepared at a time, before the clock starts
SELECTORS = ("uniform", "time_balanced", "time_balanced_naive", "efficient_time_balanced")


class Store(NamedTuple):
    """Something that remembers steps. `prepare` makes what `insert` takes in turn, as an environment's loop would hold it."""

    prepare: Callable[[int, int], list[Any]]  # so many steps, so many at once
    insert: Callable[[Any], Any]
    draws: dict[str, Callable[[], Any]]  # each gives one batch of 16 sequences
    held: Callable[[], int] | None = None  # bytes of the store's arrays, where it knows
    finish: Callable[[], Any] = lambda: None  # waits for what is written in the background


# -- The same experience for all ---------------------------------------------------------------------------------------


class Experience:
    """An endless stream of steps whose pictures have coloured tiles, as a game's have."""

    def __init__(self, side: int, distinct: int = 997):
        rng = np.random.default_rng(0)
        tiles = rng.integers(0, 255, (distinct, 8, 8, 3), np.uint8)
        self.pictures = tiles.repeat(side // 8, 1).repeat(side // 8, 2)
        self.actions = np.eye(ACTIONS, dtype=np.float32)[rng.integers(0, ACTIONS, distinct)]
        self.rewards = rng.random(distinct, np.float32)
        self.taken = 0

    def take(self, count: int) -> dict[str, np.ndarray]:
        """The next steps, each in new memory."""
        at = np.arange(self.taken, self.taken + count)
        self.taken += count
        which, last = at % len(self.pictures), at % EPISODE == EPISODE - 1
        first, terminal = at % EPISODE == 0, np.zeros(count, bool)
        flags = {"is_first": first, "is_last": last, "is_terminal": terminal}
        return {"image": self.pictures[which], "action": self.actions[which], "reward": self.rewards[which], **flags}


def step_bytes(side: int) -> int:
    """Of one step of experience, without any overhead."""
    return sum(rows.nbytes for rows in Experience(side, 1).take(1).values())


# -- Stores ------------------------------------------------------------------------------------------------------------


class Place(NamedTuple):
    """What a store is to hold."""

    items: int
    side: int
    streams: int = 1
    folder: str = ""

    @property
    def steps(self) -> int:
        return self.items + (LENGTH - 1) * self.streams


def ours(place: Place) -> Store:
    """Windows, with each selector in turn, as `conf/replay` has them."""
    from hieros_repro.determinism.keys import Key
    from hieros_repro.records import Memory, Request, Rows, Space, Spaces, Step
    from hieros_repro.replay.base import Held
    from hieros_repro.replay.windows import Windows

    spaces = Spaces({"image": Space("image", (place.side, place.side, 3))}, Space("onehot", (ACTIONS,), (ACTIONS,)))
    held = Held(spaces, place.streams, Memory(LENGTH), Path(place.folder) if place.folder else None)
    asked = {**settings("_windows"), "size": place.steps, "workers": 0, "min_size": 1}
    own = {name: value for name, value in asked.items() if name in inspect.signature(Windows).parameters}
    store = Windows(selector("uniform"), held, **own)
    by_name = {name: selector(name)(store.selector.capacity) for name in SELECTORS}
    experience, request, updates = Experience(place.side), Request("windows", BATCH, LENGTH), count()

    def step(rows: dict[str, np.ndarray]) -> Step:
        return Step({"image": rows["image"]}, rows["reward"], rows["is_first"], rows["is_last"], rows["is_terminal"])

    def prepare(steps: int, many: int) -> list[tuple[Step, Rows, Step]]:
        ticks = [experience.take(place.streams) for _ in range(steps // place.streams)]
        return [(step(rows), Rows({"action": rows["action"]}), step(rows)) for rows in ticks]

    def draw(name: str) -> dict[str, Any]:
        store.selector = by_name[name]
        return store.choose(Key(0)("replay", next(updates)), request).gather()

    draws: dict[str, Callable[[], Any]] = {name: partial(draw, name) for name in SELECTORS}
    finish = store.state if place.folder else lambda: None
    return Store(
        prepare, lambda tick: store.add(*tick), draws, lambda: sum(a.nbytes for a in store.bank.arrays.values()), finish
    )


def settings(file: str) -> dict[str, Any]:
    """The hyperparameters in a file of `conf/replay`."""
    from omegaconf import OmegaConf

    found = OmegaConf.to_container(OmegaConf.load(Path(__file__).resolve().parent.parent / "conf" / "replay" / f"{file}.yaml"))
    assert isinstance(found, dict)
    return {str(name): value for name, value in found.items() if name != "defaults"}


def selector(name: str) -> Callable[[int], Any]:
    from hydra.utils import get_class

    arguments = settings(name)
    return partial(get_class(arguments.pop("_target_")), **arguments)


def floor(place: Place) -> Store:
    """Nothing but np.copyto of the same bytes, from random places of a big array."""
    width, rng = step_bytes(place.side), np.random.default_rng(0)
    big, shape = np.zeros((place.steps, width), np.uint8), (BATCH, LENGTH, width)
    reused, rotated = np.ones(shape, np.uint8), cycle([np.ones(shape, np.uint8) for _ in range(32)])
    at = 0

    def copy(into: np.ndarray) -> None:
        for row, start in zip(into, rng.integers(0, place.items, BATCH).tolist(), strict=True):
            np.copyto(row, big[start : start + LENGTH])

    def insert(steps: np.ndarray) -> None:
        nonlocal at
        at = at if at + len(steps) <= len(big) else 0
        np.copyto(big[at : at + len(steps)], steps)
        at += len(steps)

    def prepare(count: int, many: int) -> list[np.ndarray]:
        return [np.ones((min(many, count - start), width), np.uint8) for start in range(0, count, many)]

    draws = {"reused": lambda: copy(reused), "rotated": lambda: copy(next(rotated))}
    return Store(prepare, insert, draws, lambda: big.nbytes)


def embodied(place: Place) -> Store:
    """The replay that came with DreamerV3's first release, from which that of Hieros descends; in memory only."""
    found = importlib.util.find_spec("dreamerv3")
    assert found is not None and found.submodule_search_locations is not None
    sys.path.append(found.submodule_search_locations[0])  # the package itself would import all of JAX
    from embodied import replay

    store, experience = replay.Uniform(LENGTH, capacity=place.items), Experience(place.side)

    def prepare(count: int, many: int) -> list[dict[str, np.ndarray]]:
        rows = experience.take(count)
        return [{name: row[i].copy() for name, row in rows.items()} for i in range(count)]

    def sequences() -> list[dict[str, np.ndarray]]:
        return [store._sample() for _ in range(BATCH)]

    def batch() -> dict[str, np.ndarray]:
        found = sequences()
        return {name: np.stack([sequence[name] for sequence in found]) for name in found[0]}

    return Store(prepare, store.add, {"sequences": sequences, "batch": batch})


def torchrl(place: Place) -> Store:
    """TensorDictReplayBuffer with a SliceSampler, the whole stream one trajectory."""
    import torch
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, SliceSampler, TensorDictReplayBuffer

    torch.set_num_threads(1)
    sampler = SliceSampler(slice_len=LENGTH, traj_key="stream", cache_values=True)
    storage = LazyTensorStorage(place.steps)
    store = TensorDictReplayBuffer(storage=storage, sampler=sampler, batch_size=BATCH * LENGTH)
    experience = Experience(place.side)

    def prepare(count: int, many: int) -> list[Any]:
        rows = {**experience.take(count), "stream": np.zeros(count, np.int64)}
        whole = TensorDict({name: torch.from_numpy(row) for name, row in rows.items()}, [count])
        return [whole[at : at + many].clone() for at in range(0, count, many)]

    return Store(prepare, store.extend, {"sample": store.sample})


def cpprb(place: Place) -> Store:
    """ReplayBuffer, which knows no sequences: 1024 single steps, the same bytes."""
    from cpprb import ReplayBuffer

    experience = Experience(place.side)
    env = {name: {"shape": rows.shape[1:] or 1, "dtype": rows.dtype} for name, rows in experience.take(1).items()}
    store = ReplayBuffer(place.steps, env)

    def prepare(count: int, many: int) -> list[dict[str, np.ndarray]]:
        rows = experience.take(count)
        return [{name: row[at : at + many] for name, row in rows.items()} for at in range(0, count, many)]

    return Store(prepare, lambda rows: store.add(**rows), {"steps": lambda: store.sample(BATCH * LENGTH)})


STORES = {store.__name__: store for store in (ours, floor, embodied, torchrl, cpprb)}


# -- Answering ---------------------------------------------------------------------------------------------------------


def timed_insert(store: Store, count: int, many: int, clock: Callable[[], float] = time.thread_time) -> float:
    """Seconds spent inserting, not preparing."""
    spent = 0.0
    for start in range(0, count, BLOCK):
        prepared = store.prepare(min(BLOCK, count - start), many)
        began = clock()
        for steps in prepared:
            store.insert(steps)
        if clock is time.process_time:
            store.finish()
        spent += clock() - began
    store.finish()
    return spent


def drawn(draw: Callable[[], Any], seconds: float) -> float:
    """Sequences per second. A batch is let go only when the next one is there, as in training."""
    batches, start = 0, time.thread_time()
    while (spent := time.thread_time() - start) < seconds:
        batch = draw()  # noqa: F841
        batches += 1
    return batches * BATCH / spent


def resident() -> int:
    """Bytes of this process that are in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def answers(name: str, place: Place) -> Iterator[Any]:
    small = STORES[name](Place(2 * BLOCK, place.side, place.streams))  # imports, and what preparing takes
    timed_insert(small, 2 * BLOCK, 64)
    before = resident()
    store = STORES[name](place)
    filled = place.steps / timed_insert(store, place.steps, 64)
    grown = (resident() - before) / place.steps
    yield {"fill": filled, "grown": grown, "held": store.held() / place.steps if store.held else None}
    for line in sys.stdin:
        what, how, amount = line.split()
        if what == "draw":
            yield drawn(store.draws[how], float(amount))
        else:
            clock = time.process_time if what == "write" else time.thread_time
            yield int(amount) / timed_insert(store, int(amount), int(how), clock)


def main() -> None:
    name, items, side, streams, folder = sys.argv[1:6]
    for answer in answers(name, Place(int(items), int(side), int(streams), folder)):
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
