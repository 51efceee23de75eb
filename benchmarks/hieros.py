"""Hieros on a CPU: what an update of its levels takes, of time and of memory, and what acting and its recurrence take.

    python benchmarks/hieros.py --threads 2 --pairs 5
    python benchmarks/hieros.py --only update --cases "one level 16 x 64"
    python benchmarks/hieros.py --only memory act scan
    python benchmarks/hieros.py --pairs 1 size=nano world.layers=1 agent.batch_size=2    a try: what is given changes every case

update  As world_models.py has it: an update on a batch and noise that are there, variants in turn, against the floor of its
        arithmetic. Of several levels each is timed alone, then come all by schedule: what an update of the lowest costs with
        its share of the others, which learn at every k-th and every k^2-th.
memory  The same updates, each variant in a process of its own, in GB of 10^9 bytes: the agent built, with a batch; the highest
        during the first update, which records where it is recorded; the highest during the next. What is resident counts, with
        Python and its libraries, as Linux' VmHWM has it; getrusage's maximum would count the process that started this one.
act     `agent.act` on what 4 environments show, one thread, noise drawn before. A period is the k^2 ticks after which all
        levels are due together again: its mean per tick, then its slowest tick, that with the highest median over periods.
        Two periods go before.
scan    One state-space layer of 256 inputs and 128 states on 64 rows of 16 sequences, of which a twentieth begin anew: from
        parameters to outputs, and back to the gradients of parameters and inputs. The floor is its two products with D u
        alone, forwards and backwards, from matrices that are there.

What the code of the paper's authors takes was measured on another machine, of 2 cores with AMX (fp32 350 GFLOP/s, bf16 2,170),
with 2 threads in fp32, on PinPad and with the widths of its defaults (11.3 M parameters in a lowest level):

    one level 16 x 64       does not fit in 24 GiB; with its costliest line mended 6.41 s, 4.8 GB and 599 GFLOP
    three levels 8 x 16     3.38, 3.36 and 3.39 s; 4.44 s by schedule; 5.7 GB
    acting                  19 ms for 4 environments and three levels
    scan                    26.7 ms forwards and backwards, of a floor of 4.6 ms
"""

import argparse
import ctypes
import gc
import json
import os
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import Rounds, Seconds, against, counted, head, line, opening, peaks, rounds, seconds, told
from torch import Tensor
from torch.nn import functional
from world_models import VARIANTS, Case, Plan, Update, built, cells, composed, observed, recordable, titles

from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.recording import Recorded
from hieros_repro.nn.s5 import StateSpaces
from hieros_repro.ops.scan import Form, scan
from hieros_repro.records import Step

SMALL = ("agent=hieros", "env=pinpad", "size=small")
NANO = ("experiment=pinpad_hieros_cpu",)
CASES = (
    Case("one level 16 x 64", (*SMALL, "agent.max_hierarchy=1")),
    Case("three levels 8 x 16", (*SMALL, "agent.batch_size=8", "agent.batch_length=16")),
    Case("nano", NANO),
)
ACTING = (Case("small", SMALL), Case("nano", NANO))
ENVS = 4
HELD = 1.5  # how much of what these updates make is there at once while they are recorded, at most
LENGTH, BATCH, MODEL, STATE, BLOCKS = 64, 16, 256, 128, 4  # of the recurrence
STATUS = Path("/proc/self/status")


# -- Update ------------------------------------------------------------------------------------------------------------


class Share(NamedTuple):
    """A level that learns by itself, or several together."""

    name: str
    parameters: int
    often: Mapping[str, float]  # by replay: how often per update of the lowest


def shares(case: Case, agent: Any) -> list[Share]:
    """Every level; if there are several, then all of them by schedule."""
    sizes = [sum(p.numel() for p in tier.net.parameters() if p.requires_grad) for tier in agent.tiers]
    often = {name: agent.train_every**-place for place, name in enumerate(agent.replays())}
    if len(sizes) == 1:
        return [Share(case.name, sum(sizes), often)]
    of_levels = zip(often, sizes, strict=True)
    apart = [Share(f"{case.name}, level {i}", size, {name: 1.0}) for i, (name, size) in enumerate(of_levels)]
    return [*apart, Share(f"{case.name}, by schedule", sum(sizes), often)]


def updates(case: Case, plan: Plan) -> None:
    """A case against the floor, level by level."""
    eager = plan.update(case, *VARIANTS["fp32 eager"])
    of = shares(case, eager.agent)
    counts = {replay: counted(partial(eager.part, replay)) for replay in eager.given[0]}
    del eager
    rates = peaks()
    found = timed(case, plan, max(made for _, made in counts.values()))
    for share in of:
        flop = sum(counts[replay][0] * often for replay, often in share.often.items())
        made = max(counts[replay][1] for replay in share.often)
        times = {name: together(parts, share.often) for name, parts in found.items()}
        line([share.name, f"{share.parameters:,}", *cells(flop, made, rates, times)])


def timed(case: Case, plan: Plan, made: int) -> dict[str, Rounds]:
    """By variant and replay, all in turn."""
    ready = {name: plan.update(case, *VARIANTS[name]).warm() for name in recordable(made, HELD)}
    questions = {
        (name, replay): partial(seconds, partial(update.part, replay))
        for name, update in ready.items()
        for replay in update.given[0]
    }
    found = rounds(questions, plan.pairs)
    return {name: {replay: found[name, replay] for replay in update.given[0]} for name, update in ready.items()}


def together(parts: Rounds, often: Mapping[str, float]) -> list[Seconds]:
    """Round by round, the sum over replays, each as often as it says."""
    turns = zip(*(parts[replay] for replay in often), strict=True)
    return [Seconds(*np.array(list(often.values())) @ np.array(turn)) for turn in turns]


# -- Memory ------------------------------------------------------------------------------------------------------------


def memory(case: Case, plan: Plan) -> None:
    """The variants of a case, one process each."""
    made = counted(plan.update(case, *VARIANTS["fp32 eager"]))[1]
    for name in recordable(made, HELD):
        overrides = (*case.overrides, *plan.overrides, *VARIANTS[name])
        command = [sys.executable, str(Path(__file__).resolve()), "--alone", *overrides]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ)
        ready, *peaks_of = json.loads(answer.stdout)
        shown = (f"{top / 1e9:.2f} ({(top - ready) / 1e9:+.2f})" for top in peaks_of)
        line([case.name, name, f"{made / 1e9:,.1f}", f"{ready / 1e9:.2f}", *shown])


def alone(overrides: Sequence[str]) -> None:
    """In a process of its own: bytes resident with the agent built, and at most during its first and its second update."""
    update = Update(overrides)
    ready = resident("VmRSS")
    print(json.dumps([ready, highest(update), highest(update)]))


def highest(call: Callable[[], object]) -> int:
    """Bytes resident at most during a call, with nothing left over from before."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    call()
    return resident("VmHWM")


def resident(field: str) -> int:
    found = re.search(rf"{field}:\s+(\d+) kB", STATUS.read_text())
    assert found is not None, f"{STATUS} does not say {field}"
    return 1024 * int(found[1])


# -- Acting ------------------------------------------------------------------------------------------------------------


class Acting:
    """An agent in the middle of episodes that do not end."""

    def __init__(self, overrides: Sequence[str]):
        self.agent, spaces, _ = built(composed(overrides))
        draw, self.tick = np.random.default_rng(0), 0
        self.count = self.agent.clock ** (len(self.agent.tiers) - 1)
        self.obs = {name: observed(space, (self.count, ENVS), draw) for name, space in spaces.observation.items()}
        self.noise = self.agent.act_noise(Key(0)("act"), self.count, ENVS)
        self.carry = self.agent.initial(ENVS)

    def period(self) -> list[Seconds]:
        """Tick by tick."""
        return [seconds(partial(self._act, t)) for t in range(self.count)]

    def warm(self) -> "Acting":
        self.period()
        self.period()
        return self

    def _act(self, t: int) -> None:
        no = np.zeros(ENVS, bool)
        now = Step(
            {name: value[t] for name, value in self.obs.items()}, np.zeros(ENVS, np.float32), no | (self.tick == 0), no, no
        )
        noise = {name: value[t] for name, value in self.noise.items()}
        self.carry = self.agent.act(now, self.carry, noise)[1]
        self.tick += 1


def act(plan: Plan) -> None:
    head("act, 1 thread", "levels", "variant", "ms a tick, mean of a period", "ms, slowest tick", "which")
    for case in ACTING:
        given = (*case.overrides, *plan.overrides, "hardware.threads=1")
        acting = {name: Acting((*given, *changes)).warm() for name, changes in VARIANTS.items()}
        found = rounds({name: agent.period for name, agent in acting.items()}, plan.pairs)
        for name, periods in found.items():
            count, levels = acting[name].count, len(acting[name].agent.tiers)
            means = [Seconds(*np.mean(period, 0)) for period in periods]
            ticks = [[period[t] for period in periods] for t in range(count)]
            slowest = max(range(count), key=lambda t: statistics.median(tick.wall for tick in ticks[t]))
            line([case.name, levels, name, told(means), told(ticks[slowest]), f"{slowest} of {count}"])


# -- The recurrence ----------------------------------------------------------------------------------------------------


class Layer:
    """A state-space layer and what goes through it."""

    def __init__(self) -> None:
        self.spaces, draw = StateSpaces(1, MODEL, STATE, BLOCKS), np.random.default_rng(0)
        with torch.no_grad():
            self.spaces.fill(Key(0)("init"))
        self.u = torch.from_numpy(draw.normal(size=(LENGTH, BATCH, MODEL)).astype(np.float32)).requires_grad_()
        self.reset = torch.from_numpy(draw.random((LENGTH, BATCH)) < 0.05)
        self.start = torch.zeros(BATCH, STATE, dtype=torch.complex64)
        [layer] = self.spaces.discrete()
        self.inward, self.outward, self.past = (part.detach().requires_grad_() for part in layer[1:])

    def whole(self, form: Form) -> tuple[Tensor, list[Tensor]]:
        """What comes out, and what it depends on."""
        [layer] = self.spaces.discrete()
        states = scan(layer.decay, layer.enter(self.u), self.reset, self.start, form)
        return layer.leave(states, self.u), [self.u, *self.spaces.parameters()]

    def floor(self) -> tuple[Tensor, list[Tensor]]:
        through = functional.linear(functional.linear(self.u, self.inward), self.outward)
        return torch.addcmul(through, self.past, self.u), [self.u, self.inward, self.outward, self.past]


def scans(threads: Sequence[int], count: int) -> None:
    layer = Layer()
    forms: dict[str, Callable[[], tuple[Tensor, list[Tensor]]]] = {
        "floor: two products, D u": layer.floor,
        "loop": lambda: layer.whole("loop"),
        "parallel": lambda: layer.whole("parallel"),
    }

    def back(form: str) -> tuple[Tensor, ...]:
        out, sources = forms[form]()
        return torch.autograd.grad(out, sources, torch.ones_like(out))

    held = [*layer.spaces.parameters(), layer.u, layer.reset, layer.start]
    replayed = Recorded(lambda: back("loop"), held)
    calls: dict[str, Callable[[], object]] = {f"{name}, forwards": form for name, form in forms.items()}
    calls |= {name: partial(back, name) for name in forms} | {"loop, recorded": replayed}
    questions = {name: partial(seconds, call) for name, call in calls.items()}
    head("scan", "threads", "ms forwards", "ms forwards and backwards", "times the floor")
    for number in threads:
        torch.set_num_threads(number)
        rounds(questions, 2)
        found = rounds(questions, count)
        for name in (*forms, "loop, recorded"):
            there = told(found[f"{name}, forwards"]) if name in forms else "-"
            line([name, number, there, told(found[name]), against(found[name], found["floor: two products, D u"])])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections, cases = ("update", "memory", "act", "scan"), [case.name for case in CASES]
    parser.add_argument("--only", nargs="+", choices=sections, default=sections, metavar="SECTION", help=", ".join(sections))
    parser.add_argument("--cases", nargs="+", choices=cases, default=cases, metavar="CASE", help=", ".join(cases))
    parser.add_argument("--threads", type=int, default=2, help="of updates")
    parser.add_argument(
        "--pairs", type=int, default=5, help="rounds: how often each variant is timed; 5 times as often in scan"
    )
    parser.add_argument("--alone", action="store_true", help="one update, and only how much memory it takes; used by memory")
    parser.add_argument("overrides", nargs="*", help="changes to every case")
    asked = parser.parse_args()
    if asked.alone:
        return alone(asked.overrides)
    plan = Plan(asked.pairs, False, (f"hardware.threads={asked.threads}", *asked.overrides))
    torch.set_num_threads(asked.threads)
    opening(asked.threads, asked.pairs)
    chosen = [case for case in CASES if case.name in asked.cases]
    if "update" in asked.only:
        titles()
        for case in chosen:
            updates(case, plan)
    if "memory" in asked.only:
        head("memory", "variant", "GB made", "GB built", "GB at most, first update (more than built)", "GB at most, next")
        for case in chosen:
            memory(case, plan)
    if "act" in asked.only:
        act(plan)
    if "scan" in asked.only:
        scans((1, 2), 5 * asked.pairs)
    print(f"\nload {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
