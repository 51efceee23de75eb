"""Sequences drawn and steps inserted per second: our replay against others', beside what copying the same bytes takes.

    python benchmarks/replay.py --pairs 5 --seconds 1

The first call installs the others into benchmarks/.venv-peers, with the same torch: dreamerv3 1.5.0, which holds the replay
from which that of Hieros descends (its time-balanced selectors are in no package); torchrl; cpprb. Each store lives in a
process of its own, on one thread, filled with the same steps. All are measured in turn; a ratio is of two measurements of one
round. Seconds are of CPU time, so that other work on the machine counts less.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from peer_venv import interpreter
from replay_peers import BATCH, LENGTH, SELECTORS, step_bytes

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv-peers"
PEERS = ("torchrl==0.14.1", "tensordict==0.14.3", "cpprb==11.0.0")
ALONE = "dreamerv3==1.5.0"  # without what it depends on: its replay needs only numpy
SIZES = ((10_000, 64), (100_000, 64), (10_000, 8), (1_000_000, 8))  # sequences held, pixels a side
WAYS = {
    "floor": ("reused", "rotated"),
    "ours": SELECTORS,
    "embodied": ("sequences", "batch"),
    "torchrl": ("sample",),
    "cpprb": ("steps",),
}

BATCHED = ("floor", "torchrl", "cpprb")  # that take many steps at once
SLOW = {"torchrl": 2048}  # fewer steps a measurement

# Sequences per second of the original's own selectors on a similar machine of 2 cores: measured earlier, not here.
ORIGINAL: dict[tuple[int, int], dict[str, float]] = {
    (10_000, 64): dict(zip(SELECTORS, (5158, 3571, 494, 4058), strict=True)),
    (100_000, 64): dict(zip(SELECTORS, (4808, 3152, 63.8, 2832), strict=True)),
    (1_000_000, 8): dict(zip(SELECTORS, (4605, 4763, 4.8, 7009), strict=True)),
}

Rates = dict[str, list[float]]


# -- Stores in processes of their own ----------------------------------------------------------------------------------


class Server:
    """A store that answers questions."""

    def __init__(self, name: str, items: int, side: int, streams: int = 1, folder: str = ""):
        self.name = name
        python = sys.executable if name in ("ours", "floor") else interpreter(VENV, PEERS, ALONE)
        command = [python, HERE / "replay_peers.py", name, str(items), str(side), str(streams), folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.facts = self._answer()

    def ask(self, question: str) -> float:
        assert self.process.stdin is not None
        print(question, file=self.process.stdin, flush=True)
        return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if re.match(r"[\d{]", line):  # torchrl prints lines of its own
                return json.loads(line)
        raise SystemExit(f"{self.name} ended")


@contextmanager
def serving(*wanted: Callable[[], Server]) -> Iterator[list[Server]]:
    with ExitStack() as stack:
        servers = []
        for start in wanted:
            servers.append(start())
            stack.callback(servers[-1].close)
        yield servers


# -- Measuring ---------------------------------------------------------------------------------------------------------


def rounds(questions: dict[str, Callable[[], float]], count: int) -> Rates:
    """All questions in turn, every second time backwards."""
    found: Rates = {name: [] for name in questions}
    for turn in range(count):
        for name in list(questions)[:: -1 if turn % 2 else 1]:
            found[name].append(questions[name]())
    return found


def middle(rates: list[float]) -> str:
    return f"{statistics.median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"


def against(rates: list[float], others: list[float]) -> str:
    """The median over rounds of the ratio, and its range."""
    found = sorted(x / y for x, y in zip(rates, others, strict=True))
    return f"{statistics.median(found):.2f} ({found[0]:.2f} to {found[-1]:.2f})"


def drawing(servers: list[Server], original: dict[str, float], pairs: int, seconds: float) -> None:
    def asker(server: Server, way: str) -> Callable[[], float]:
        return lambda: server.ask(f"draw {way} {seconds}")

    rates = rounds({f"{s.name} {way}": asker(s, way) for s in servers for way in WAYS[s.name]}, pairs)
    print("| drawn from | sequences/s | of the copy floor | times DreamerV3's | the original, elsewhere |")
    print("|---|---|---|---|---|")
    for name, found in rates.items():
        store, way = name.split()
        quoted = f"{original[way]:,}" if store == "ours" and original else "-"
        ratios = against(found, rates["floor rotated"]), against(found, rates["embodied sequences"])
        print(f"| {name} | {middle(found)} | {' | '.join(ratios)} | {quoted} |")


class Insertion(NamedTuple):
    """Steps going in: to which store, how many at once."""

    name: str
    server: Server
    at_once: int
    what: str = "insert"
    steps: int = 16_384

    def rate(self) -> float:
        return self.server.ask(f"{self.what} {self.at_once} {self.steps}")


def inserting(plans: list[Insertion], pairs: int) -> None:
    rates = rounds({plan.name: plan.rate for plan in plans}, pairs)
    print("\n| inserted into a full store | steps/s | first fill |\n|---|---|---|")
    for plan in plans:
        print(f"| {plan.name} | {middle(rates[plan.name])} | {plan.server.facts['fill']:,.0f} |")


def memory(servers: list[Server], side: int) -> None:
    raw = step_bytes(side)
    print(f"\n| memory a step ({raw:,} bytes of data) | arrays | resident |\n|---|---|---|")
    for server in servers:
        held, grown = server.facts["held"], server.facts["grown"]
        arrays = f"{held:,.0f} ({held / raw:.3f})" if held else "-"
        print(f"| {server.name} | {arrays} | {grown:,.0f} ({grown / raw:.3f}) |")


def benchmark(items: int, side: int, pairs: int, seconds: float) -> None:
    told = f"{items:,} sequences of {LENGTH} x {side}x{side}x3, batches of {BATCH}"
    print(f"\n## {told}; load {os.getloadavg()[0]:.1f}\n", flush=True)
    start = partial(partial, Server, items=items, side=side)
    with serving(*map(start, WAYS)) as servers:
        drawing(servers, ORIGINAL.get((items, side), {}), pairs, seconds)
        inserting([Insertion(f"{s.name}, one by one", s, 1, steps=SLOW.get(s.name, 16_384)) for s in servers], pairs)
        memory([server for server in servers if server.name != "floor"], side)
    with serving(start("ours", streams=64), *map(start, BATCHED)) as servers:
        inserting([Insertion(f"{server.name}, 64 at once", server, 64) for server in servers], pairs)
    with (
        tempfile.TemporaryDirectory() as one,
        tempfile.TemporaryDirectory() as many,
        serving(start("ours", folder=one), start("ours", streams=64, folder=many)) as servers,
    ):
        named = list(zip(("one by one", "64 at once"), servers, strict=True))
        inserting([Insertion(f"ours, {how}, with files", s, 1, "insert") for how, s in named], pairs)
        inserting([Insertion(f"ours, {how}, with files and their writer", s, 1, "write") for how, s in named], pairs)
    print(f"\nload {os.getloadavg()[0]:.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time of each measurement of drawing")
    sizes = sorted({items for items, _ in SIZES})
    parser.add_argument("--sizes", type=int, nargs="*", choices=sizes, default=sizes, help="sequences held")
    arguments = parser.parse_args()
    for items, side in SIZES:
        if items in arguments.sizes:
            benchmark(items, side, arguments.pairs, arguments.seconds)


if __name__ == "__main__":
    main()
