"""Films of what world-model agents think, of the batch they learned from last.

    open_loop       what followed after a few rows of context, as it was and as the world model dreams it from the same actions
    open_loop_<p>   the same of the p-th world above: the newest state of each window, down to the image it stands for
    goals_manager   from states that were seen, the worker pursues in a dream one goal for a long time: the manager's,
    goals_above     or, where the level above has a world of its own, the one that it told in life,
    goals_prior     that of a code drawn uniformly,
    goals_replay    or what the goal code makes of a state that another sequence came to

Looking changes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hieros_repro.agent.dream import Stack
from hieros_repro.agent.goal import Goals
from hieros_repro.agent.picture import DREAMT, OVER, PLAIN, SEEN, Row, grid
from hieros_repro.agent.tier import Tier
from hieros_repro.determinism.keys import Key
from hieros_repro.ops.action import one_hot_mode
from hieros_repro.ops.divergence import max_cosine
from hieros_repro.world.base import Latent, Rows, World

CONTEXT = 5  # rows that are seen before a dream
COUNT = 6  # sequences side by side
STEPS = 64  # for which a goal is pursued
TOLD = {
    "manager": "goal of the manager",
    "above": "goal of the level above",
    "prior": "goal of a random code",
    "replay": "goal from another window",
}

Frames = list[np.ndarray]


def noise(tiers: Sequence[Tier], key: Key) -> dict[str, Any]:
    """The random numbers of `films`."""
    (lowest, *upper), practice = tiers, tiers[0].practice
    who, steps, count = lowest.who, practice.batch_length, min(COUNT, practice.batch_size)
    levels = [level.actor.actions for level in who.levels]
    drawn = {
        "observe": who.world.noise(key("observe"), (steps, count)),
        "upper": {str(tier.place): tier.who.world.noise(key("upper", tier.place), (steps, count)) for tier in upper},
        "dream": who.world.noise(key("dream"), (STEPS, count)),
        "worker": levels[0].noise(key("worker"), (STEPS, count)),
        "above": {str(i): actions.noise(key("above", i), (count,)) for i, actions in enumerate(levels[1:], 1)},
    }
    return drawn | ({"prior": who.goals.actions(0.0).noise(key("prior"), (count,))} if aimed(who) else {})


def films(tiers: Sequence[Tier], batches: Sequence[Any], noise: Mapping[str, Any]) -> dict[str, Frames]:
    """By name; none of agents that see no images. `batches`: of every tier, None where it has had none."""
    lowest, who = tiers[0], tiers[0].who
    rows, seen = watched(lowest, batches[0], noise["observe"])
    name = next(iter(who.world.pictures(_row(seen, 0))), None)
    if name is None:
        return {}
    found = {"open_loop": foreseen(tiers, 0, rows, seen, noise["observe"], rows.obs[name].cpu().numpy())}
    for tier, batch in zip(tiers[1:], batches[1:], strict=True):
        if batch is not None:
            drawn = noise["upper"][str(tier.place)]
            found[f"open_loop_{tier.place}"] = foreseen(tiers, tier.place, *watched(tier, batch, drawn), drawn)
    t = min(CONTEXT, len(rows.is_first)) - 1
    begin, told = _row(seen, t), lowest.told(batches[0]).aim[t, :COUNT]
    for kind, goal in (goals(who, seen, begin, noise, told) if aimed(who) else {}).items():
        found[f"goals_{kind}"] = pursuit(who, kind, begin, goal, nearest(who, goal, seen.flat()), noise)
    return found


def aims(tiers: Sequence[Tier], carries: Mapping[int, Any]) -> dict[str, np.ndarray]:
    """The goals of the first environment as images, the lowest level's first; none of agents that see no images."""
    found = {}
    for tier in tiers:
        who, carry = tier.who, carries[tier.place]
        near = Latent(**carry["state"]).map(lambda part: part[:1])
        for i in range(len(who.levels) - 1 + who.told):
            state = lowered(tiers, tier.place, meant(who, carry["aims"][i][:1], near))
            for image in list(tiers[0].who.world.pictures(state).values())[:1]:
                found[f"goal of level {tier.place + i}"] = image[0].cpu().numpy()
    return found


# -- States as images --------------------------------------------------------------------------------------------------


def picture(world: World, latent: Latent) -> np.ndarray:
    """How the first image the world observes looks in (N, .) states: (N, height, width, channels)."""
    return next(iter(world.pictures(latent).values())).cpu().numpy()


def meant(who: Stack, told: Tensor, near: Latent) -> Latent:
    """The states that what was told stands for."""
    return who.world.complete(who.goals.state(who.goals.meaning(told)), near)


def lowered(tiers: Sequence[Tier], place: int, latent: Latent) -> Latent:
    """The states of the lowest world that states of the one at `place` stand for, decoded world by world."""
    for tier in reversed(tiers[1 : place + 1]):
        assert tier.below is not None
        latent = newest(tier.below, tier.who.world.decoded(latent))
    return latent


def newest(below: World, window: Mapping[str, Tensor]) -> Latent:
    """The last state of a window that the world above is shown, or believes it is: of each categorical the likeliest class."""
    deter, stoch = window["deter"][..., -below.deter :], window["stoch"][..., -below.stoch :]
    return below.restored(below.stored(Latent(deter, stoch, deter[..., :0])))


# -- What the world will be --------------------------------------------------------------------------------------------


def watched(tier: Tier, batch: Mapping[str, Any], noise: Mapping[str, Tensor]) -> tuple[Rows, Latent]:
    """The first windows of a tier's batch, and the states it sees there."""
    rows, start = tier.rows(batch)
    obs = {name: value[:, :COUNT] for name, value in rows.obs.items()}
    rows, start = Rows(obs, *(part[:, :COUNT] for part in rows[1:])), start.map(lambda part: part[:COUNT])
    return rows, tier.who.world.observe(rows.obs, rows.action, rows.is_first, start, noise).latent


def dreamt(world: World, seen: Latent, action: Tensor, noise: Mapping[str, Tensor], context: int) -> list[Latent]:
    """The states of T rows: those seen up to the context's end, then what comes of the actions that were taken."""
    states = [_row(seen, t) for t in range(context)]
    for t in range(context, len(action)):
        states.append(world.imagine(states[-1], action[t], {name: value[t] for name, value in noise.items()}))
    return states


def foreseen(
    tiers: Sequence[Tier], place: int, rows: Rows, seen: Latent, noise: Mapping[str, Tensor], truth: np.ndarray | None = None
) -> Frames:
    """`open_loop` of a tier. `truth`: the images it saw; None: those that the windows it saw stand for."""
    world, context = tiers[0].who.world, min(CONTEXT, len(rows.is_first))
    states = dreamt(tiers[place].who.world, seen, rows.action, noise, context)
    model = np.stack([picture(world, lowered(tiers, place, state)) for state in states])
    if truth is None:
        windows = [{name: value[t] for name, value in rows.obs.items()} for t in range(len(rows.is_first))]
        states = [newest(tiers[place - 1].who.world, window) for window in windows]
        truth = np.stack([picture(world, lowered(tiers, place - 1, state)) for state in states])
    of = f"level {place} (decoded), " if place else ""
    return open_loop(truth, model, rows.is_first.cpu().numpy(), context, of)


def open_loop(truth: np.ndarray, model: np.ndarray, is_first: np.ndarray, context: int, of: str = "") -> Frames:
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
        frames.append(grid(f"{of}step {t + 1} of {len(truth)}: {what}", heads, rows))
    return frames


# -- Where the worker gets to ------------------------------------------------------------------------------------------


def aimed(who: Stack) -> bool:
    """Whether the lowest level has goals."""
    return len(who.levels) > 1 or who.told


def goals(who: Stack, seen: Latent, begin: Latent, noise: Mapping[str, Any], told: Tensor) -> dict[str, Tensor]:
    """(N, W) by where they come from. `told`: what the highest level was told from elsewhere."""
    assert isinstance(who.goals, Goals), "nothing else is told"
    codes = who.goals.actions(0.0)
    aims = [*who.no_aims(begin.deter)[:-1], told]
    for i in reversed(range(1, len(who.levels))):
        who.decide(i, who.look(begin), aims, noise["above"][str(i)])
    uniform = codes.sample(begin.deter.new_zeros(len(begin.deter), codes.width), noise["prior"])
    elsewhere = seen.deter[-1].roll(1, 0)  # where the window to the left ends
    rebuilt = one_hot_mode(who.goals.encode(elsewhere)).flatten(-2)
    return {"above" if who.told else "manager": aims[0], "prior": who.goals.tell(uniform), "replay": who.goals.tell(rebuilt)}


def nearest(who: Stack, goal: Tensor, seen: Latent) -> Latent:
    """Of M states that were seen those which are nearest to (N, W) goals, as reaching them is paid."""
    pairs = torch.broadcast_tensors(who.goals.meaning(goal).unsqueeze(1), who.goals.space(seen.deter).unsqueeze(0))
    return seen.take(max_cosine(*pairs).argmax(-1))


def pursuit(who: Stack, kind: str, begin: Latent, goal: Tensor, near: Latent, noise: Mapping[str, Any]) -> Frames:
    """The lowest level acts in a dream under one goal; the numbers are its reward for that goal, at most 1. `near`: states
    like those it wants, from which a goal's image has what the goal does not say."""
    still = [Row("start", list(picture(who.world, begin)), [SEEN] * len(goal))]
    still.append(Row("goal", list(picture(who.world, meant(who, goal, near))), [PLAIN] * len(goal)))
    frames, state = [], begin
    for t in range(STEPS + 1):
        if t:
            action = who.levels[0].actor.act(torch.cat([who.look(state), goal], -1), noise["worker"][t - 1])
            state = who.world.imagine(state, action, {name: value[t - 1] for name, value in noise["dream"].items()})
        moving = Row("roll-out", list(picture(who.world, state)), [DREAMT if t else SEEN] * len(goal))
        heads = [
            f"reward {reward:.2f}" for reward in max_cosine(who.goals.meaning(goal), who.goals.space(state.deter)).tolist()
        ]
        frames.append(grid(f"{TOLD[kind]}: dreamt step {t} of {STEPS}", heads, [*still, moving]))
    return frames


def _row(latent: Latent, t: int) -> Latent:
    return latent.map(lambda part: part[t])
