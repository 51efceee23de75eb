"""What each fault of Hieros' public code changes, in what it is about, on the smallest thing that shows it.

    python benchmarks/hieros_faults.py                        eight seeds, half an hour of one core
    python benchmarks/hieros_faults.py --seeds 42 --only alive ring

Whether a fault changes the score in the end is multirun_scripts/hieros_fixes.sh's question, and takes many runs to answer. Here
every switch is set alone, and its direct effect is measured: mean and 95 % t-interval over seeds, with it and without.

alive   Untrained agents of three levels walk on a frozen lake of 3 x 3 (one hole; 1 for its far corner, nothing else) for 400
        ticks in 8 environments. What do the rows say that their replays are given?
ring    A counter modulo 4 to which actions add -1, 0 or 1. After 200 updates from random play: how often does what is dreamt
        after an action show what that action causes?
lake    Two levels learn on that lake, about 190 updates. `error` and `novelty`: of states that the goal code rebuilds, relative
        to the states' own mean square. `negative`: the share of negative numbers in what codes mean, relative to that in
        states. `drift`: max-cosine of what a goal stands for that was set about 125 updates ago and what its code means now,
        over 512 codes.
        `promised`: what the lowest level is paid for its goal in dreams, per step; `kept`: what it then gets in life. `lasts`:
        how many steps a goal of the lowest level lasts in dreams of 16 steps that begin anywhere; in life it is 4.
lake x 100   One level, with 100 for the corner and -100 for the hole, and the weight of entropy fixed: the size of what its
        policy's gradient is made of, its advantages, relative to that with 1 and -1; the entropy of its policy.
shares  Of 10,000 windows stored where a million could be: how many of the draws are the newest one, at temperature 1? How many
        are among the oldest three tenths, at 0.3?
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import head, line
from torch import Tensor
from world_models import built, composed

import hieros_repro
from hieros_repro import build
from hieros_repro.agent.hierarchy import Hierarchy
from hieros_repro.command import composer
from hieros_repro.determinism.keys import Key
from hieros_repro.env.making import training_seeds
from hieros_repro.log import jsonl
from hieros_repro.ops.divergence import max_cosine
from hieros_repro.policy import read_config
from hieros_repro.records import Rows, Space, Spaces, Step
from hieros_repro.replay.selector import EfficientTimeBalanced
from hieros_repro.run.checkpoint import steps
from hieros_repro.run.evaluation import NoiseFeed
from hieros_repro.stats.aggregate import summarise
from hieros_repro.train import train

LAKE = (
    "env=gymnasium", "env.id=FrozenLake-v1", "+env.kwargs.is_slippery=false", "+env.kwargs.desc=[SFF,FHF,FFG]",
    "env.num_envs=8", "agent=hieros", "size=nano", "agent.batch_size=8", "agent.batch_length=16", "agent.imag_starts=64",
    "agent.imag_horizon=16", "agent.train_ratio=16", "agent.norm=rms", "agent.learning_rate=1e-3",
    "agent.behaviour_learning_rate=3e-4", "agent.optimiser.warmup=0",
)  # fmt: skip
RUN = (
    "replay.min_size=500", "run.steps=2000", "run.eval_every=0", "run.final_episodes=0", "run.checkpoint_every=1000",
    "run.keep_last=9", "run.log_every=1000", "run.fingerprint_every=0", "log=quiet",
)  # fmt: skip
TICKS, CODES, TOLD, CELLS = 400, 512, 4, 9
RING, WINDOWS, LENGTH, UPDATES = 4, 32, 4, 200
COUNTER = (
    "env=dummy", "agent=hieros", "size=nano", "size.deter=16", "size.stoch=4", "size.classes=4", "size.units=16",
    "size.head_units=16", "size.layers=1", "size.state=4", "world.layers=1", "world.block=single", "world.dynamics_scale=1.0",
    "world.free_nats=0.0", "agent.max_hierarchy=1", f"agent.batch_size={WINDOWS}", f"agent.batch_length={LENGTH}",
    "agent.imag_horizon=2", "agent.imag_starts=2", "agent.learning_rate=1e-2", "agent.norm=rms", "agent.goals.codes=1",
    "agent.goals.classes=3", "agent.optimiser.warmup=0",
)  # fmt: skip


class Row(NamedTuple):
    """A fault, what is looked at, and how that is found: (seed, overrides) -> a number."""

    fault: str
    switches: tuple[str, ...]
    what: str
    found: Callable[[int, tuple[str, ...]], float]


# -- Alive -------------------------------------------------------------------------------------------------------------


class Lived(NamedTuple):
    """A tick: what is shown, what replays are told of it, and the agent's carry before and after."""

    now: Step
    rows: Mapping[str, Rows]
    before: Any
    carry: Any


def life(agent: Hierarchy, config: dict[str, Any], seed: int, ticks: int) -> Iterator[Lived]:
    """An agent acts, its policies drawn from, and learns nothing."""
    key = Key(seed)
    with closing(build.recipe(config["env"]).training(training_seeds(key, seed, "keyed"))) as envs:
        noise, now, carry = NoiseFeed(key("act"), agent, envs.num_envs), envs.reset(), agent.initial(envs.num_envs)
        for tick in range(ticks):
            before = carry
            action, carry, rows = agent.act(now, before, noise(tick))
            yield Lived(now, rows, before, carry)
            now = envs.step(action)


@cache
def alive(seed: int, overrides: tuple[str, ...]) -> dict[str, float]:
    """What replays are told, as shares of what there was."""
    config = composed([*LAKE, "agent.max_hierarchy=3", f"seed={seed}", *overrides])
    agent, _, _ = built(config)
    assert isinstance(agent, Hierarchy)
    paid, ends, kept, seen, rows, mixed, present = 0.0, 0, [0.0, 0.0], 0, 0, 0, 0
    age = np.zeros(config["env"]["num_envs"], int)
    for tick in life(agent, config, seed, TICKS):
        now = tick.now
        age = np.where(now.is_first, 0, age + 1)
        paid, ends = paid + float(now.reward.sum()), ends + int(now.is_last.sum())
        kept[0] += float(np.sum(tick.rows["windows"].values.get("reward", now.reward)))
        if (upper := tick.rows.get("windows_1")) is None or upper.mask is None:
            continue
        kept[1] += float(upper.values["reward"][upper.mask].sum())
        seen += int((now.is_last & upper.mask).sum())
        window, deter = upper.values["obs.deter"], tick.carry["tiers"][0]["state"]["deter"].numpy()
        older = np.arange(window.shape[1])[::-1]  # how many ticks ago each of its states was, if it shows those
        mixed += int(((older > age[:, None]) & (window != 0).any(-1)).any(1)[upper.mask].sum())
        present += int((window[:, -1] == deter).all(-1)[upper.mask].sum())
        rows += int(upper.mask.sum())
    assert paid and ends and rows, f"seed {seed}: nobody came to the corner in {TICKS} ticks; try another"
    of_rows = {"mixed": mixed / rows, "present": present / rows}
    return {"kept_0": kept[0] / paid, "kept_1": kept[1] / paid, "ends": seen / ends, **of_rows}


# -- Ring --------------------------------------------------------------------------------------------------------------


def counted(number: int) -> dict[str, Tensor]:
    """Windows of the counter under random actions: that of row t leads to row t + 1."""
    key, shape = Key(number)("data"), (WINDOWS, LENGTH)
    action, start = key("action").integers(3, shape), key("start").integers(RING, (WINDOWS, 1))
    count = (start + np.cumsum(np.concatenate([np.zeros_like(start), action[:, :-1] - 1], 1), 1)) % RING
    flags = {name: np.zeros(shape, bool) for name in ("is_first", "is_last", "is_terminal")}
    flags["is_first"][:, 0] = True
    shown = {"vector": 4 * np.eye(RING, dtype=np.float32)[count]}
    return {"obs": shown, "action": action, **flags, "reward": np.zeros(shape, np.float32)}


@torch.no_grad()
def foreseen(seed: int, overrides: tuple[str, ...]) -> float:
    """How often what is dreamt after a seen state and an action decodes to what the action causes."""
    config = composed([*COUNTER, f"seed={seed}", *overrides])
    hardware = build.construct(config["hardware"])
    agent = build.agent(config, Spaces({"vector": Space("vector", (RING,))}, Space("discrete", (), sizes=(3,))), hardware)
    assert isinstance(agent, Hierarchy)
    for number in range(UPDATES):
        batches = {"windows": hardware.to_device(counted(number))}
        agent.learn(batches, hardware.to_device(agent.learn_noise(Key(seed)("learn", number), batches)), 0)
    world, (rows, start) = agent.tiers[0].who.world, agent.tiers[0].rows(hardware.to_device(counted(UPDATES)))
    groups = config["size"]["stoch"]
    drawn = {"stoch": torch.full((*rows.is_first.shape, groups), 0.5)}
    seen = world.observe(rows.obs, rows.action, rows.is_first, start, drawn).latent
    last, count, right = type(seen)(*(part[-1] for part in seen)), rows.obs["vector"][-1].argmax(-1), 0
    for action in range(3):
        done = agent.tiers[0].actions.from_env(torch.full((WINDOWS,), action))
        dreamt = world.decoded(world.imagine(last, done, {"stoch": torch.full((WINDOWS, groups), 0.5)}))
        right += int((dreamt["vector"].argmax(-1) == (count + action - 1) % RING).sum())
    return right / (3 * WINDOWS)


# -- Lake --------------------------------------------------------------------------------------------------------------


@cache
@torch.no_grad()
def learned(seed: int, overrides: tuple[str, ...]) -> dict[str, float]:
    """What two levels came to on the lake."""
    with tempfile.TemporaryDirectory() as place:
        folder, typed = Path(place) / "run", [*LAKE, *RUN, "agent.max_hierarchy=2", f"seed={seed}", *overrides]
        last = trained(folder, typed)
        agent, halfway = (hieros_repro.load(folder, step).agent for step in (None, steps(folder / "checkpoints")[0]))
        config = read_config(folder)
    assert isinstance(agent, Hierarchy) and isinstance(halfway, Hierarchy)
    goals, promise = agent.tiers[0].who.goals, last["Subactor-0/goal_reward"]
    codes = torch.eye(goals.shape[1])[torch.from_numpy(Key(seed)("data").integers(goals.shape[1], (CODES, goals.shape[0])))]
    meant, means = (part.tiers[0].who.goals.meaning(codes.flatten(1)) for part in (halfway, agent))
    states, kept, rows = [], [], []
    for tick in life(agent, config, seed, TICKS // 4):
        before, after = tick.before["tiers"][0], tick.carry["tiers"][0]
        going_on = torch.from_numpy(~tick.now.is_first)
        aim = goals.meaning(list(before["aims"].values())[-1])
        states.append(after["state"]["deter"])
        kept.append(max_cosine(aim, goals.space(after["state"]["deter"]))[going_on])
        rows.append({"reward": tick.now.reward, **tick.rows["windows"].values})
    size = torch.cat(states).square().mean().item()
    return {
        "error": last["Subactor-0/subgoal_error"] / goals.space(torch.cat(states)).square().mean().item(),
        "novelty": last["Subactor-0/novelty_reward"] / size,
        "negative": (means < 0).float().mean().item() / max((torch.cat(states) < 0).float().mean().item(), 1e-9),
        "drift": 1.0 if agent.tiers[0].practice.downward.fresh else max_cosine(meant, means).mean().item(),
        "promised": promise,
        "kept": torch.cat(kept).mean().item(),
        "lasts": lasting(agent, rows),
    }


def lasting(agent: Hierarchy, rows: Sequence[Mapping[str, np.ndarray]]) -> float:
    """How many steps a goal lasts in dreams that begin in these rows, tick by tick of all environments; those of the last few
    rows, whose goals have no sequel, are left out."""
    tier, horizon = agent.tiers[0], agent.tiers[0].practice.horizon
    assert not tier.practice.context, "rows of context begin no dream"
    batch = {name: torch.from_numpy(np.stack([row[name] for row in rows], 1)) for name in rows[0]}
    began = torch.arange((len(rows) - horizon) * len(batch["reward"]))
    aim = tier.told_in_dreams(batch, began).aim[:-1]
    changes = (aim[1:] != aim[:-1]).any(-1).sum()
    return horizon * len(began) / (len(began) + changes.item())


def trained(folder: Path, typed: Sequence[str]) -> dict[str, float]:
    """A run to its end; the last value of each of its metrics."""
    asked = [*typed, f"run.dir={folder}"]
    with composer() as compose:
        train(compose(config_name="train", overrides=asked), asked)
    return {name: value for row in jsonl.read(folder / "metrics.jsonl") for name, value in row.items()}


@cache
def paid(seed: int, overrides: tuple[str, ...], stake: int) -> dict[str, float]:
    """What one level came to in the end, where the corner pays so much and the hole costs it."""
    given = (f"+env.kwargs.reward_schedule=[{stake},-{stake},0]", "agent.max_hierarchy=1", "agent.actor_entropy=3e-3")
    with tempfile.TemporaryDirectory() as place:
        last = trained(Path(place) / "run", [*LAKE, *RUN, *given, f"seed={seed}", *overrides])
    return {name: last[f"Subactor-0/{name}"] for name in ("entropy", "advantage")}


def louder(seed: int, overrides: tuple[str, ...]) -> float:
    """How much larger advantages are when a hundred times as much is at stake."""
    return paid(seed, overrides, 100)["advantage"] / paid(seed, overrides, 1)["advantage"]


def entropy(seed: int, overrides: tuple[str, ...]) -> float:
    """Of the policy, in nats, when a hundred is at stake."""
    return paid(seed, overrides, 100)["entropy"]


# -- Shares ------------------------------------------------------------------------------------------------------------


def drawn(temperature: float, low: int, high: int) -> Callable[[int, tuple[str, ...]], float]:
    """The share of draws that are windows low to high - 1 of 10,000, the oldest first, in a replay with room for a million."""

    def share(seed: int, overrides: tuple[str, ...]) -> float:
        scale = "capacity" if overrides == B13 else "size"
        selector = EfficientTimeBalanced(1_000_000, temperature=temperature, scale=scale)  # type: ignore[arg-type]
        chosen = selector.choose(Key(seed)("replay"), 100_000, 0, 10_000)
        return float(np.mean((low <= chosen) & (chosen < high)))

    return share


# -- The table ---------------------------------------------------------------------------------------------------------


def told(name: str, of: Callable[[int, tuple[str, ...]], dict[str, float]]) -> Callable[[int, tuple[str, ...]], float]:
    return lambda seed, overrides: of(seed, overrides)[name]


B7, B9, B10 = ("agent.goals.output=activated",), ("agent.downward.meaning=stored",), ("agent.downward.in_dreams=held",)
B8 = ("agent.goals.states=symlog", "agent.goals.novelty=mixed")
B11 = tuple(f"agent.levels.level_0.critic.returns.{name}" for name in ("lower=0.5", "upper=0.5", "floor=1.0"))
B13 = ("replay.scale=capacity",)
SECTIONS: dict[str, list[Row]] = {
    "alive": [
        Row("B2, B3", ("agent.upward.last_reward=lost",), "rewards that level 0's rows hold", told("kept_0", alive)),
        Row("B2, B3", ("agent.upward.last_reward=lost",), "rewards that level 1's rows hold", told("kept_1", alive)),
        Row("B4", ("agent.upward.flags=seen",), "ends of episodes that level 1's rows show", told("ends", alive)),
        Row("B5", ("agent.upward.episodes=mixed",), "level 1's rows that show two episodes", told("mixed", alive)),
        Row("B6", ("agent.upward.states=stale",), "level 1's rows that show the present state", told("present", alive)),
    ],
    "ring": [Row("B1", ("agent.world_action=chosen_there",), "actions whose effect is foreseen", foreseen)],
    "lake": [
        Row("B7", B7, "error", told("error", learned)),
        Row("B7", B7, "negative", told("negative", learned)),
        Row("B8", B8, "novelty", told("novelty", learned)),
        *(Row("B9", B9, what, told(what, learned)) for what in ("drift", "promised", "kept")),
        *(Row("B10", B10, what, told(what, learned)) for what in ("lasts", "promised", "kept")),
    ],
    "lake x 100": [
        Row("B11", B11, "size of advantages, relative", louder),
        Row("B11", B11, "entropy, of at most 1.39 nats", entropy),
    ],
    "shares": [
        Row("B13", B13, "draws that are the newest window, temperature 1", drawn(1.0, 9_999, 10_000)),
        Row("B13", B13, "draws among the oldest three tenths, temperature 0.3", drawn(0.3, 0, 3_000)),
    ],
}  # fmt: skip


def shown(values: Sequence[float]) -> str:
    found = summarise(list(values))
    return f"{found.mean:.3g}" if found.low is None else f"{found.mean:.3g} [{found.low:.3g}, {found.high:.3g}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", nargs="+", type=int, default=[42, 123, 456, 789, 1024, 2048, 4096, 8192])
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS), metavar="SECTION")
    asked = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, seeds {' '.join(map(str, asked.seeds))}\n")
    head("section", "fault", "what", "right", "with the fault")
    for section in asked.only:
        for row in SECTIONS[section]:
            pair = ([row.found(seed, switches) for seed in asked.seeds] for switches in ((), row.switches))
            line([section, row.fault, row.what, *map(shown, pair)])


if __name__ == "__main__":
    main()
