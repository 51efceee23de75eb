"""Hierarchies of worlds that live through scripted episodes, and what they remember of it."""

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch

from hieros_repro import build
from hieros_repro.agent.hierarchy import Hierarchy
from hieros_repro.agent.upward import NOTHING
from hieros_repro.check import check
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.records import Spaces, Step
from hieros_repro.world.base import Latent, World
from tests.agent.dreaming import TINY
from tests.agent.making import ONE_ACTION, hardware
from tests.runs import compose

WORLDS = (  # three levels that act every 1, 2 and 4 steps
    "agent=hieros", "env=dummy", *TINY, "size.state=4", "agent.imag_horizon=4", "agent.subactor_update_every=2",
    "agent.goals.codes=3", "agent.goals.classes=4", "agent.goals.code_units=16", "agent.optimiser.warmup=0",
)  # fmt: skip


@cache
def settings(*changes: str) -> dict[str, Any]:
    """The checked values of the group `agent`."""
    return check(compose(*WORLDS, *changes))["agent"]


def hieros(*changes: str, spaces: Spaces = ONE_ACTION, seed: int = 0, how: Hardware | None = None) -> Hierarchy:
    return build.construct(settings(*changes), spaces, Key(seed)("init"), how or hardware(), 1000)


class Tick(NamedTuple):
    """What was shown and done at one moment, and all that remains of it."""

    now: Step
    action: np.ndarray
    carry: dict[str, Any]
    rows: dict[str, Any]
    noise: dict[str, np.ndarray]


def script(lengths: Sequence[Sequence[int]], rewards: Sequence[Sequence[float]], ticks: int) -> list[Step]:
    """Per environment, episodes of so many steps, one after the other (every second one ends by a time-out), and the reward
    that comes with every tick. What is seen is unlike at every tick and in every environment."""
    flags = np.zeros((3, ticks, len(lengths)), bool)
    for env, own in enumerate(lengths):
        ends = np.cumsum(np.array(own) + 1) - 1
        begins = np.concatenate([[0], ends + 1])
        for which, at in enumerate((begins, ends, ends[::2])):
            flags[which, at[at < ticks], env] = True
    seen = np.random.default_rng(0).normal(size=(ticks, len(lengths), 3)).astype(np.float32)
    paid = np.array(rewards, np.float32).T
    return [Step({"vector": seen[t]}, paid[t], *flags[:, t]) for t in range(ticks)]


def live(agent: Hierarchy, steps: Sequence[Step]) -> list[Tick]:
    envs = len(steps[0].reward)
    carry, noise, found = agent.initial(envs), agent.act_noise(Key(0)("act"), len(steps), envs), []
    for t, now in enumerate(steps):
        drawn = {name: block[t] for name, block in noise.items()}
        action, carry, rows = agent.act(now, carry, drawn)
        found.append(Tick(now, action, carry, rows, drawn))
    return found


def replay(place: int) -> str:
    return f"windows_{place}" if place else "windows"


def remembered(life: Sequence[Tick], place: int, env: int) -> dict[int, dict[str, Any]]:
    """By tick, the rows of a level in one environment. What the lowest has of the environment's is put beside its own."""
    found = {}
    for t, tick in enumerate(life):
        if replay(place) not in tick.rows:
            continue
        rows = tick.rows[replay(place)]
        if rows.mask is not None and not rows.mask[env]:
            continue
        flags = {name: getattr(tick.now, name) for name in ("reward", "is_first", "is_last", "is_terminal")}
        shown = {} if place else {"obs.vector": tick.now.obs["vector"], **flags}
        found[t] = {name: value[env] for name, value in {**shown, **rows.values}.items()}
    return found


def states(life: Sequence[Tick], place: int, env: int) -> list[Latent]:
    """A level's state after every tick."""
    return [Latent(*(part[env] for part in tick.carry["tiers"][place]["state"].values())) for tick in life]


def shown_ticks(row: dict[str, Any], t: int, world: World, below: Sequence[Latent]) -> list[int | str]:
    """The window of a row of tick t, as the ticks at which the states in it came about; "empty": nothing, "none": the state
    that is carried before anything was seen."""
    found: list[int | str] = []
    for deter, stoch in zip(row["obs.deter"], row["obs.stoch"], strict=True):
        slot = world.restored({"deter": torch.as_tensor(deter), "stoch": torch.as_tensor(stoch)})
        equal = [torch.equal(one.feature, slot.feature) for one in below[: t + 1]]
        if not any(equal):
            assert not deter.any(), "a state that nobody was ever in"
            found.append("empty" if (stoch == NOTHING).all() else "none")
            continue
        came = max(when for when, same in enumerate(equal) if same)
        while came and equal[came - 1]:
            came -= 1
        found.append(came)
    return found
