"""One update of world-model agents: how long it takes, and how much of that is arithmetic.

    python benchmarks/world_models.py --pairs 5 --threads 2
    python benchmarks/world_models.py --only "director nano" settings --threads 1
    python benchmarks/world_models.py --only peer
    python benchmarks/world_models.py --long                            times director paper and dreamer 12m, too
    python benchmarks/world_models.py agent.batch_size=2 size.depth=2   a try: what is given changes every case

An update is `agent.learn` on a batch and noise that are there, under determinism=strict, as a run has it. All variants of a
case are timed in turn, every second round backwards, after two updates that do not count (the first is the recording).
GFLOP: torch's FlopCounterMode on the eager update (matrix products and convolutions, forwards and backwards; a multiplication
with its addition is 2), on tensors without contents, so that any size can be counted. Peak: a product of two 2048x2048
matrices, the median of 9, in that precision and with that many threads, right before. Floor: GFLOP / peak. Milliseconds are by
the clock, then of CPU time over all threads: medians and ranges. The share of the floor is of the clock's median. GB made: all
tensors that an eager update in fp32 makes, not all there at once but while it is being recorded, up to twice; where twice that
is more than nine tenths of the memory, recorded updates are left out.

The peer is SheepRL 0.8.4 (PyTorch), its DreamerV3 with the widths of "dreamer hieros", eager as its configuration has it, its
metrics off, its pictures float32 as its replay gives them. It and ours differ in the rest: SheepRL learns world, actor and
critic one after the other with three optimisers, ours by one loss and gradient; ours learns values of replayed rows besides,
and clips every tensor by itself. The first call installs it into benchmarks/.venv-peers-dreamer with the same torch, and
without what only its environments, logs and other agents need:

    python -m venv benchmarks/.venv-peers-dreamer
    pip install torch==2.13.0 numpy==2.4.6                   as in requirements.lock
    pip install torch==2.13.0 numpy==2.4.6 lightning==2.6.6 hydra-core==1.3.8 gymnasium==1.4.0 rich python-dotenv
                opencv-python-headless
    pip install --no-deps sheeprl==0.8.4
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from peer_venv import interpreter
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from hieros_repro import build
from hieros_repro.agent.base import Agent
from hieros_repro.check import check
from hieros_repro.command import composer
from hieros_repro.construct import construct
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Space, Spaces, Step

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv-peers-dreamer"
NEEDED = ("lightning==2.6.6", "hydra-core==1.3.8", "gymnasium==1.4.0", "rich", "python-dotenv", "opencv-python-headless")
ALONE = "sheeprl==0.8.4"  # the environments and loggers it depends on are not needed for an update

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
SIDE = 2048  # of the matrices whose product is the peak
VARIANTS = {
    "fp32 eager": ("hardware.precision=fp32", "hardware.compile=null"),
    "fp32 recorded": ("hardware.precision=fp32", "hardware.compile=record"),
    "bf16 recorded": ("hardware.precision=bf16", "hardware.compile=record"),
}
PEERS = {"SheepRL fp32": "32-true", "SheepRL bf16": "bf16-mixed"}


class Case(NamedTuple):
    """One line of the table."""

    name: str
    overrides: tuple[str, ...]
    long: bool = False


# The dense GRU of DreamerV3's first version with the widths of Hieros, and DreamerV3's heads.
HIEROS = ("agent=dreamer", "env=pinpad", "size=small", "world=rssm", "world.reward_head=two_hot",
          "world.continue_target=0.996996997")  # fmt: skip

CASES = (
    Case("director nano", ("experiment=pinpad_cpu",)),
    Case("director small", ("agent=director", "env=pinpad", "size=small")),
    Case("director paper", ("experiment=director_paper",), long=True),
    Case("dreamer nano", ("agent=dreamer", "env=pinpad", "env.size=16", "size=nano")),
    Case("dreamer hieros", HIEROS),
    Case("dreamer 1m", ("agent=dreamer", "env=pinpad", "size=1m")),
    Case("dreamer 12m", ("agent=dreamer", "env=pinpad", "size=12m"), long=True),
)


# -- An update ---------------------------------------------------------------------------------------------------------


class Seconds(NamedTuple):
    """What something took."""

    wall: float
    cpu: float


Timed = Callable[[], Seconds]
Rounds = dict[str, list[Seconds]]


def seconds(call: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    with composer() as compose:
        return check(compose(config_name="train", overrides=["hardware=cpu", *overrides]))


class Update:
    """An agent with a batch and noise: calling it learns from them once more."""

    def __init__(self, overrides: Sequence[str]):
        self.config = composed(overrides)
        hardware = construct(self.config["hardware"])
        construct(self.config["determinism"]).apply()
        hardware.apply()
        spaces = build.recipe(self.config["env"]).training(lambda i, n: Key(0)("env", i, n).seed()).spaces
        self.agent = build.agent(self.config, spaces, hardware)
        batches = experience(self.agent, spaces)
        self.given = hardware.to_device(batches), hardware.to_device(self.agent.learn_noise(Key(0)("learn", 0), batches))

    def __call__(self) -> None:
        self.agent.learn(*self.given, 0)

    def warm(self) -> "Update":
        self()
        self()
        return self

    def seconds(self) -> Seconds:
        return seconds(self)

    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.agent.parameters().values())

    def counted(self) -> tuple[int, int]:
        """FLOP, and bytes of all that is made on the way. Nothing is computed or changed but the agent's number of updates."""
        with FakeTensorMode(allow_non_fake_inputs=True), Made() as made, FlopCounterMode(display=False) as counter:
            self()
        return counter.get_total_flops(), made.bytes


class Made(TorchDispatchMode):
    """Sums the bytes of new tensors, views and changes in place left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if all(returned.alias_info is None for returned in func._schema.returns):
            self.bytes += sum(tensor.nbytes for tensor in tree_iter(result) if isinstance(tensor, torch.Tensor))
        return result


def experience(agent: Agent, spaces: Spaces) -> dict[str, Any]:
    """A batch of windows of noise, some across the ends of episodes, with whatever else the agent keeps in its replay."""
    [request], draw = agent.due(0), np.random.default_rng(0)
    shape = (request.batch, request.length)
    obs = {name: observed(space, shape, draw) for name, space in spaces.observation.items()}
    ends = draw.random(shape) < 0.05
    now = Step(
        {name: value[:, 0] for name, value in obs.items()}, np.zeros(shape[0], np.float32), *np.zeros((3, shape[0]), bool)
    )
    noise = {name: value[0] for name, value in agent.act_noise(Key(0)("act"), 1, request.batch).items()}
    kept = agent.act(now, agent.initial(request.batch), noise)[2]["windows"].values
    batch = {
        "obs": obs,
        "action": draw.integers(0, spaces.action.sizes[0], shape),
        "reward": draw.normal(size=shape).astype(np.float32),
        "is_first": np.roll(ends, 1, axis=1),
        "is_last": ends,
        "is_terminal": ends,
    }
    return {"windows": batch | {name: kept[name] for name in agent.replays()["windows"].refreshed}}


def observed(space: Space, shape: tuple[int, int], draw: np.random.Generator) -> np.ndarray:
    full = (*shape, *space.shape)
    return draw.integers(0, 256, full, np.uint8) if space.kind == "image" else draw.normal(size=full).astype(np.float32)


def peak(precision: torch.dtype) -> float:
    """FLOP per second of a product of two big matrices."""
    a, b = (torch.ones(SIDE, SIDE, dtype=precision) for _ in range(2))
    torch.mm(a, b)
    return 2 * SIDE**3 / statistics.median(seconds(lambda: torch.mm(a, b)).wall for _ in range(9))


# -- The peer ----------------------------------------------------------------------------------------------------------


class Peer:
    """SheepRL's DreamerV3 in a process of its own."""

    def __init__(self, config: dict[str, Any], threads: int, precision: str):
        command = [
            str(interpreter(VENV, NEEDED, ALONE)),
            str(HERE / "peers" / "sheeprl_dreamer.py"),
            json.dumps(widths(config, threads, precision)),
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        self.facts = self._answer()

    def seconds(self) -> Seconds:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return Seconds(*self._answer())

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if re.match(r"[{\[]", line):  # its libraries print lines of their own
                return json.loads(line)
        raise SystemExit("the peer ended")


def widths(config: dict[str, Any], threads: int, precision: str) -> dict[str, Any]:
    """What the peer must be told to be as wide as ours."""
    agent, size = config["agent"], config["size"]
    same = {name: size[name] for name in ("units", "deter", "depth", "stoch", "classes", "layers")}
    batch = {"batch": agent["batch_size"], "length": agent["batch_length"], "horizon": agent["imag_horizon"]}
    return {**same, **batch, "side": config["env"]["size"], "actions": 5, "precision": precision, "threads": threads}


# -- Measuring ---------------------------------------------------------------------------------------------------------


def rounds(questions: dict[str, Timed], count: int) -> Rounds:
    """All in turn, every second time backwards."""
    found: Rounds = {name: [] for name in questions}
    for turn in range(count):
        for name in list(questions)[:: -1 if turn % 2 else 1]:
            found[name].append(questions[name]())
    return found


def middle(values: list[float]) -> str:
    """In milliseconds."""
    low, median, high = (1000 * value for value in (min(values), statistics.median(values), max(values)))
    digits = 0 if median >= 100 else 1
    return f"{median:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def told(found: list[Seconds]) -> str:
    """By the clock; of CPU time."""
    return f"{middle([s.wall for s in found])}; {middle([s.cpu for s in found])}"


def clock(found: list[Seconds]) -> float:
    return statistics.median(s.wall for s in found)


def against(found: list[Seconds], others: list[Seconds]) -> str:
    """The median over rounds of the ratio, and its range: by the clock; of CPU time."""
    texts = []
    for field in Seconds._fields:
        ratios = sorted(getattr(a, field) / getattr(b, field) for a, b in zip(found, others, strict=True))
        texts.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return "; ".join(texts)


def line(cells: Sequence[object]) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def head(*names: str) -> None:
    print()
    line(names)
    print("|" + "---|" * len(names))


class Plan(NamedTuple):
    """What was asked for."""

    pairs: int
    long: bool
    overrides: tuple[str, ...]

    def update(self, case: Case, *changes: str) -> Update:
        return Update((*case.overrides, *self.overrides, *changes))


def row(case: Case, plan: Plan) -> None:
    """A case against the floor."""
    eager = plan.update(case, *VARIANTS["fp32 eager"])
    parameters, (flop, made) = eager.parameters(), eager.counted()
    del eager
    peaks = {precision: peak(dtype) for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
    floors = {precision: flop / rate for precision, rate in peaks.items()}
    found = timed(case, plan, made) if plan.long or not case.long else {}
    cells = {name: told(found[name]) if name in found else "-" for name in VARIANTS}
    shares = {name: f"{floors[name[:4]] / clock(found[name]):.2f}" if name in found else "-" for name in VARIANTS}
    shown = {p: [f"{peaks[p] / 1e9:,.0f}", f"{1000 * floors[p]:,.1f}"] for p in peaks}
    fp32 = [*shown["fp32"], *(text for name in ("fp32 eager", "fp32 recorded") for text in (cells[name], shares[name]))]
    bf16 = [*shown["bf16"], cells["bf16 recorded"], shares["bf16 recorded"]]
    line([case.name, f"{parameters:,}", f"{flop / 1e9:,.2f}", f"{made / 1e9:,.1f}", *fp32, *bf16])


def timed(case: Case, plan: Plan, made: int) -> Rounds:
    """The variants in turn. While it records, an update holds up to twice what it makes: where that is too much, eager only."""
    names = [name for name in VARIANTS if name.endswith("eager") or 2 * made < 0.9 * MEMORY]
    updates = {name: plan.update(case, *VARIANTS[name]).warm() for name in names}
    return rounds({name: update.seconds for name, update in updates.items()}, plan.pairs)


def table(cases: Sequence[Case], plan: Plan) -> None:
    floor, share = ("GFLOP/s", "floor, ms"), "share of floor"
    fp32 = [*(f"fp32 {name}" for name in floor), "fp32 eager, ms", share, "fp32 recorded, ms", share]
    bf16 = [*(f"bf16 {name}" for name in floor), "bf16 recorded, ms", share]
    head("update", "parameters", "GFLOP", "GB made", *fp32, *bf16)
    for case in cases:
        row(case, plan)


def settings(plan: Plan) -> None:
    """What an update of director nano takes with one setting changed, fp32 recorded."""
    case = CASES[0]
    agent = composed((*case.overrides, *plan.overrides))["agent"]
    rows = agent["batch_size"] * agent["batch_length"]
    starts = f"agent.imag_starts={min(agent['imag_starts'] or rows, rows) // 2}"
    batch = f"agent.batch_size={agent['batch_size'] // 2}"
    changed: dict[str, tuple[str, ...]] = {
        "as it is": (),
        "layer norm, ELU": ("agent.norm=layer", "agent.activation=elu"),
        "half the starts": (starts,),
        "half the batch": (batch,),
        "half the batch, half the starts": (batch, starts),
    }
    updates = {name: plan.update(case, *VARIANTS["fp32 recorded"], *changes).warm() for name, changes in changed.items()}
    found = rounds({name: update.seconds for name, update in updates.items()}, plan.pairs)
    head(f"{case.name}, fp32 recorded", "settings", "ms", "times as it is")
    for name, times in found.items():
        line([name, " ".join(changed[name]) or "-", told(times), against(times, found["as it is"])])


def peer(plan: Plan) -> None:
    """Ours with the widths of Hieros, and SheepRL with the same."""
    case = Case("dreamer hieros", HIEROS)
    updates = {name: plan.update(case, *changes).warm() for name, changes in VARIANTS.items()}
    eager = updates["fp32 eager"]
    ours = {"parameters": eager.parameters(), "flop": eager.counted()[0]}
    peers: dict[str, Peer] = {}
    try:
        for name, precision in PEERS.items():
            peers[name] = Peer(eager.config, torch.get_num_threads(), precision)
        found = rounds({name: update.seconds for name, update in (updates | peers).items()}, plan.pairs)
    finally:
        for other in peers.values():
            other.close()
    head("dreamer hieros, against SheepRL", "parameters", "GFLOP", "ms", "times SheepRL fp32", "times SheepRL bf16")
    for name, times in found.items():
        facts = peers[name].facts if name in peers else ours
        ratios = [against(times, found[other]) for other in PEERS]
        line([name, f"{facts['parameters']:,}", f"{facts['flop'] / 1e9:,.2f}", told(times), *ratios])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*(case.name for case in CASES), "settings", "peer"]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5, help="rounds: how often each variant is timed")
    parser.add_argument("--long", action="store_true", help="time the cases that take minutes, too")
    parser.add_argument("overrides", nargs="*", help="changes to every case")
    asked = parser.parse_args()
    plan = Plan(asked.pairs, asked.long, (f"hardware.threads={asked.threads}", *asked.overrides))
    torch.set_num_threads(asked.threads)
    print(
        f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {asked.threads} threads, {asked.pairs} rounds;"
    )
    print(f"milliseconds by the clock; of CPU time; load {os.getloadavg()[0]:.1f}")
    cases = [case for case in CASES if case.name in asked.only]
    if cases:
        table(cases, plan)
    for name, measure in (("settings", settings), ("peer", peer)):
        if name in asked.only:
            measure(plan)
    print(f"\nload {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
