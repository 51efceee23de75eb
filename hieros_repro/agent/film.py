"""Films of what world-model agents think, of the batch they learned from last.

    open_loop       what followed after a few rows of context, as it was and as the world model dreams it from the same actions
    goals_manager   from states that were seen, the worker pursues in a dream one goal for a long time: the manager's,
    goals_prior     that of a code drawn uniformly,
    goals_replay    or what the goal code makes of a state that another sequence came to

Looking changes nothing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hieros_repro.agent.dream import Stack
from hieros_repro.agent.goal import Goals
from hieros_repro.agent.picture import DREAMT, OVER, PLAIN, SEEN, Row, grid
from hieros_repro.determinism.keys import Key
from hieros_repro.ops.action import one_hot_mode
from hieros_repro.ops.divergence import max_cosine
from hieros_repro.world.base import Latent, Rows, World

CONTEXT = 5  # rows that are seen before a dream
COUNT = 6  # sequences side by side
STEPS = 64  # for which a goal is pursued
TOLD = {"manager": "goal of the manager", "prior": "goal of a random code", "replay": "goal from another window"}

Frames = list[np.ndarray]


def noise(who: Stack, key: Key, steps: int, batch: int) -> dict[str, Any]:
    """The random numbers of `films` of a batch of that many sequences of so many rows."""
    count, levels = min(COUNT, batch), [level.actor.actions for level in who.levels]
    return {
        "observe": who.world.noise(key("observe"), (steps, count)),
        "dream": who.world.noise(key("dream"), (STEPS, count)),
        "worker": levels[0].noise(key("worker"), (STEPS, count)),
        "above": {str(i): actions.noise(key("above", i), (count,)) for i, actions in enumerate(levels[1:], 1)},
        "prior": levels[-1].noise(key("prior"), (count,)),
    }


def films(who: Stack, rows: Rows, start: Latent, noise: Mapping[str, Any]) -> dict[str, Frames]:
    """By name; none of agents that see no images. `start` precedes the first row."""
    count = min(COUNT, rows.is_first.shape[1])
    obs, first = {name: value[:, :count] for name, value in rows.obs.items()}, rows.is_first[:, :count]
    action, start = rows.action[:, :count], Latent(start.deter[:count], start.stoch[:count])
    seen = who.world.observe(obs, action, first, start, noise["observe"]).latent
    context = min(CONTEXT, len(first))
    name = next(iter(who.world.pictures(_row(seen, 0))), None)
    if name is None:
        return {}
    states = dreamt(who.world, seen, action, noise["observe"], context)
    model = np.stack([picture(who.world, state) for state in states])
    found = {"open_loop": open_loop(obs[name].cpu().numpy(), model, first.cpu().numpy(), context)}
    begin = _row(seen, context - 1)
    for kind, goal in (goals(who, seen, begin, noise) if len(who.levels) > 1 else {}).items():
        found[f"goals_{kind}"] = pursuit(who, kind, begin, goal, noise)
    return found


def picture(world: World, latent: Latent) -> np.ndarray:
    """How the first image the world observes looks in (N, .) states: (N, height, width, channels)."""
    return next(iter(world.pictures(latent).values())).cpu().numpy()


def aim(who: Stack, goal: Tensor) -> np.ndarray | None:
    """The first of (N, W) goals as an image, where levels tell each other goals and the world has images."""
    images = list(who.world.pictures(who.world.complete(goal[:1])).values()) if len(who.levels) > 1 else []
    return images[0][0].cpu().numpy() if images else None


# -- What the world will be --------------------------------------------------------------------------------------------


def dreamt(world: World, seen: Latent, action: Tensor, noise: Mapping[str, Tensor], context: int) -> list[Latent]:
    """The states of T rows: those seen up to the context's end, then what comes of the actions that were taken."""
    states = [_row(seen, t) for t in range(context)]
    for t in range(context, len(action)):
        states.append(world.imagine(states[-1], action[t], {name: value[t] for name, value in noise.items()}))
    return states


def open_loop(truth: np.ndarray, model: np.ndarray, is_first: np.ndarray, context: int) -> Frames:
    """Truth, model and (model - truth + 1) / 2, by row. Where a new episode has begun, which nobody could have dreamt, the
    comparison is over."""
    error = ((model.astype(np.int16) - truth + 255) // 2).astype(np.uint8)
    frames, over = [], np.zeros(truth.shape[1], bool)
    for t, images in enumerate(zip(truth, model, error, strict=True)):
        over |= is_first[t] & (t >= context)
        borders = [SEEN if t < context else OVER if ended else DREAMT for ended in over]
        heads = ["new episode" if ended else f"window {i}" for i, ended in enumerate(over, 1)]
        what = "seen (context)" if t < context else "dreamt from the actions taken"
        rows = [Row(name, list(shown), borders) for name, shown in zip(("truth", "model", "error"), images, strict=True)]
        frames.append(grid(f"step {t + 1} of {len(truth)}: {what}", heads, rows))
    return frames


# -- Where the worker gets to ------------------------------------------------------------------------------------------


def goals(who: Stack, seen: Latent, begin: Latent, noise: Mapping[str, Any]) -> dict[str, Tensor]:
    """(N, W) by where they come from."""
    assert isinstance(who.goals, Goals), "nothing else is told"
    aims, codes = who.no_aims(begin.deter), who.levels[-1].actor.actions
    for i in reversed(range(1, len(who.levels))):
        who.decide(i, begin.feature, aims, noise["above"][str(i)])
    uniform = codes.sample(begin.deter.new_zeros(len(begin.deter), codes.width), noise["prior"])
    elsewhere = seen.deter[-1].roll(1, 0)  # where the window to the left ends
    rebuilt = one_hot_mode(who.goals.encode(elsewhere)).flatten(-2)
    return {"manager": aims[0], "prior": who.goals.decode(uniform), "replay": who.goals.decode(rebuilt)}


def pursuit(who: Stack, kind: str, begin: Latent, goal: Tensor, noise: Mapping[str, Any]) -> Frames:
    """The lowest level acts in a dream under one goal; the numbers are its reward for that goal, at most 1."""
    still = [Row("start", list(picture(who.world, begin)), [SEEN] * len(goal))]
    still.append(Row("goal", list(picture(who.world, who.world.complete(goal))), [PLAIN] * len(goal)))
    frames, state = [], begin
    for t in range(STEPS + 1):
        if t:
            action = who.levels[0].actor.act(torch.cat([state.feature, goal], -1), noise["worker"][t - 1])
            state = who.world.imagine(state, action, {name: value[t - 1] for name, value in noise["dream"].items()})
        moving = Row("roll-out", list(picture(who.world, state)), [DREAMT if t else SEEN] * len(goal))
        heads = [f"reward {reward:.2f}" for reward in max_cosine(goal, state.deter).tolist()]
        frames.append(grid(f"{TOLD[kind]}: dreamt step {t} of {STEPS}", heads, [*still, moving]))
    return frames


def _row(latent: Latent, t: int) -> Latent:
    return Latent(latent.deter[t], latent.stoch[t])
