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
import subprocess
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import Rounds, Seconds, against, clock, counted, head, line, opening, peaks, rounds, seconds, told
from peer_venv import interpreter

from hieros_repro import build
from hieros_repro.agent.base import Agent
from hieros_repro.check import check
from hieros_repro.command import composer
from hieros_repro.construct import construct
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.records import Space, Spaces, Step

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv-peers-dreamer"
NEEDED = ("lightning==2.6.6", "hydra-core==1.3.8", "gymnasium==1.4.0", "rich", "python-dotenv", "opencv-python-headless")
ALONE = "sheeprl==0.8.4"  # the environments and loggers it depends on are not needed for an update

MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
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


def composed(overrides: Sequence[str]) -> dict[str, Any]:
    with composer() as compose:
        return check(compose(config_name="train", overrides=["hardware=cpu", *overrides]))


def built(config: dict[str, Any]) -> tuple[Agent, Spaces, Hardware]:
    """The agent as a run would have it, what it sees, and where it is."""
    hardware = construct(config["hardware"])
    construct(config["determinism"]).apply()
    hardware.apply()
    spaces = build.recipe(config["env"]).training(lambda i, n: Key(0)("env", i, n).seed()).spaces
    return build.agent(config, spaces, hardware), spaces, hardware


class Update:
    """An agent with a batch and noise: calling it learns from them once more."""

    def __init__(self, overrides: Sequence[str]):
        self.config = composed(overrides)
        self.agent, spaces, hardware = built(self.config)
        batches = experience(self.agent, spaces)
        self.given = hardware.to_device(batches), hardware.to_device(self.agent.learn_noise(Key(0)("learn", 0), batches))

    def __call__(self) -> None:
        self.agent.learn(*self.given, 0)

    def part(self, replay: str) -> None:
        """Learns from one of its replays alone."""
        batches, noise = self.given
        self.agent.learn({replay: batches[replay]}, {replay: noise[replay]}, 0)

    def warm(self) -> "Update":
        self()
        self()
        return self

    def seconds(self) -> Seconds:
        return seconds(self)

    def parameters(self) -> int:
        return sum(tensor.numel() for tensor in self.agent.parameters().values())


def experience(agent: Agent, spaces: Spaces) -> dict[str, Any]:
    """By replay, a batch of windows of noise, some across the ends of episodes, with whatever else the agent keeps with its
    rows. What levels see that observe other levels is what they saw in a life among such noise."""
    [request, *others], draw = agent.due(0), np.random.default_rng(0)
    shape = (request.batch, request.length)
    obs = {name: observed(space, shape, draw) for name, space in spaces.observation.items()}
    ends = draw.random(shape) < 0.05
    life = lived(agent, obs, request.length if others else 1)
    own, before = life.pop("windows"), agent.replays()["windows"].refreshed  # of which the first is the context
    kept = {name: value[:, 0] if name in before else value for name, value in own.items() if others or name in before}
    batch = {"obs": obs, **kept, "action": draw.integers(0, spaces.action.sizes[0], shape), **flow(ends, draw)}
    return {"windows": batch} | {name: rows | flow(draw.random(shape) < 0.05, draw) for name, rows in life.items()}


def flow(ends: np.ndarray, draw: np.random.Generator) -> dict[str, np.ndarray]:
    """What comes with rows of episodes that end here and there."""
    reward = draw.normal(size=ends.shape).astype(np.float32)
    return {"reward": reward, "is_first": np.roll(ends, 1, axis=1), "is_last": ends, "is_terminal": ends}


def lived(agent: Agent, obs: dict[str, np.ndarray], length: int) -> dict[str, Any]:
    """So many rows of every replay, side by side. Every tick is said to be an episode's last, so that all levels act at it."""
    width = len(next(iter(obs.values())))
    nothing, no, yes = np.zeros(width, np.float32), np.zeros(width, bool), np.ones(width, bool)
    carry, rows = agent.initial(width), {name: list[dict[str, Any]]() for name in agent.replays()}
    for t in count():
        if all(len(of) >= length for of in rows.values()):
            break
        now = Step({name: value[:, t % length] for name, value in obs.items()}, nothing, no, yes, no)
        noise = {name: value[0] for name, value in agent.act_noise(Key(0)("act", t), 1, width).items()}
        _, carry, found = agent.act(now, carry, noise)
        for name, row in found.items():
            rows[name].append(dict(row.values))
    sides = {name: {key: np.stack([row[key] for row in of[:length]], 1) for key in of[0]} for name, of in rows.items()}
    return {name: nested(side) for name, side in sides.items()}


def nested(rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """Observations among rows, which are named obs.<name>, as a mapping of their own."""
    obs = {name.removeprefix("obs."): value for name, value in rows.items() if name.startswith("obs.")}
    return {name: value for name, value in rows.items() if not name.startswith("obs.")} | ({"obs": obs} if obs else {})


def observed(space: Space, shape: tuple[int, int], draw: np.random.Generator) -> np.ndarray:
    full = (*shape, *space.shape)
    return draw.integers(0, 256, full, np.uint8) if space.kind == "image" else draw.normal(size=full).astype(np.float32)


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
        for answer in self.process.stdout:
            if re.match(r"[{\[]", answer):  # its libraries print lines of their own
                return json.loads(answer)
        raise SystemExit("the peer ended")


def widths(config: dict[str, Any], threads: int, precision: str) -> dict[str, Any]:
    """What the peer must be told to be as wide as ours."""
    agent, size = config["agent"], config["size"]
    same = {name: size[name] for name in ("units", "deter", "depth", "stoch", "classes", "layers")}
    batch = {"batch": agent["batch_size"], "length": agent["batch_length"], "horizon": agent["imag_horizon"]}
    return {**same, **batch, "side": config["env"]["size"], "actions": 5, "precision": precision, "threads": threads}


# -- Tables ------------------------------------------------------------------------------------------------------------


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
    parameters, (flop, made) = eager.parameters(), counted(eager)
    del eager
    rates = peaks()
    found = timed(case, plan, made) if plan.long or not case.long else {}
    line([case.name, f"{parameters:,}", *cells(flop, made, rates, found)])


def cells(flop: float, made: float, rates: dict[str, float], found: Rounds) -> list[str]:
    """What comes behind a number of parameters; of the variants that were timed."""
    floors = {precision: flop / rate for precision, rate in rates.items()}
    times = {name: told(found[name]) if name in found else "-" for name in VARIANTS}
    shares = {name: f"{floors[name[:4]] / clock(found[name]):.2f}" if name in found else "-" for name in VARIANTS}
    shown = {p: [f"{rates[p] / 1e9:,.0f}", f"{1000 * floors[p]:,.1f}"] for p in rates}
    fp32 = [*shown["fp32"], *(text for name in ("fp32 eager", "fp32 recorded") for text in (times[name], shares[name]))]
    bf16 = [*shown["bf16"], times["bf16 recorded"], shares["bf16 recorded"]]
    return [f"{flop / 1e9:,.2f}", f"{made / 1e9:,.1f}", *fp32, *bf16]


def timed(case: Case, plan: Plan, made: int) -> Rounds:
    """The variants in turn. While it records, an update holds up to twice what it makes: where that is too much, eager only."""
    updates = {name: plan.update(case, *VARIANTS[name]).warm() for name in recordable(made)}
    return rounds({name: update.seconds for name, update in updates.items()}, plan.pairs)


def recordable(made: int, held: float = 2.0) -> list[str]:
    """The variants that there is memory for. `held`: how much of what is made is there at once during the recording."""
    return [name for name in VARIANTS if name.endswith("eager") or held * made < 0.9 * MEMORY]


def titles() -> None:
    floor, share = ("GFLOP/s", "floor, ms"), "share of floor"
    fp32 = [*(f"fp32 {name}" for name in floor), "fp32 eager, ms", share, "fp32 recorded, ms", share]
    bf16 = [*(f"bf16 {name}" for name in floor), "bf16 recorded, ms", share]
    head("update", "parameters", "GFLOP", "GB made", *fp32, *bf16)


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
    ours = {"parameters": eager.parameters(), "flop": counted(eager)[0]}
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
    opening(asked.threads, asked.pairs)
    cases = [case for case in CASES if case.name in asked.only]
    if cases:
        titles()
    for case in cases:
        row(case, plan)
    for name, measure in (("settings", settings), ("peer", peer)):
        if name in asked.only:
            measure(plan)
    print(f"\nload {os.getloadavg()[0]:.1f}", flush=True)


if __name__ == "__main__":
    main()
