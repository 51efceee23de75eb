"""Dreaming in one world that all levels share: a joint roll-out, and each level's own view of it.

Level i acts every k^i steps. Above the lowest, an action is a code that names the goal of the level below for its next k steps.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from hieros_repro.agent.goal import Code
from hieros_repro.agent.level import Level, Trajectory
from hieros_repro.ops.divergence import max_cosine
from hieros_repro.ops.sequence import every, product_steps, split_states, split_steps, summed_steps
from hieros_repro.world.base import Latent, World


class Stack(NamedTuple):
    """Who dreams: levels from the lowest up, in one world, with one code for goals."""

    world: World
    goals: Code
    levels: Sequence[Level]
    clock: int

    def decide(self, i: int, feature: Tensor, aims: list[Tensor], noise: Tensor | None) -> Tensor:
        """Level i's action, for the goal it has; it becomes the goal of the level below."""
        action = self.levels[i].actor.act(torch.cat([feature, aims[i]], -1), noise)
        if i:
            aims[i - 1] = self.goals.decode(action)
        return action

    def no_aims(self, feature: Float[Tensor, "N F"]) -> list[Tensor]:
        """Nothing to aim at yet; the highest level never has anything."""
        widths = [self.goals.width] * (len(self.levels) - 1) + [0]
        return [feature.new_zeros(len(feature), width) for width in widths]


class RollOut(NamedTuple):
    """N dreams of H steps."""

    latent: Latent  # (H + 1, N, .)
    actions: list[Tensor]  # by level: (H / k^i, N, .)
    aims: list[Tensor]  # by level: (H + 1, N, W), what it aims at from each state on


def roll_out(who: Stack, start: Latent, noise: Mapping[str, Tensor], drawn: Sequence[Tensor], horizon: int) -> RollOut:
    """From N states, H steps. `noise`: the world's, (H, N, ...); `drawn`: each level's, one per action."""
    latent, aims = start, who.no_aims(start.deter)
    latents, told = [], []
    actions: list[list[Tensor]] = [[] for _ in who.levels]
    for t in range(horizon + 1):
        for i in reversed(range(len(who.levels))):
            if t % who.clock**i == 0 and (i or t < horizon):  # what is aimed at from the last state on is told too
                actions[i].append(who.decide(i, latent.feature, aims, drawn[i][t // who.clock**i]))
        latents.append(latent)
        told.append(tuple(aims))
        if t < horizon:
            latent = who.world.imagine(latent, actions[0][-1], {name: value[t] for name, value in noise.items()})
    return RollOut(
        Latent(*map(torch.stack, zip(*latents, strict=True))),
        [torch.stack(taken[: horizon // who.clock**i]) for i, taken in enumerate(actions)],
        [torch.stack(aim) for aim in zip(*told, strict=True)],
    )


def trajectories(
    who: Stack, dream: RollOut, went_on: Float[Tensor, "N"], noise: Mapping[str, Tensor], renewed: bool, mean: bool
) -> list[Trajectory]:
    """What each level learns from: the highest whole dreams, every other one pieces of k steps, each under one goal.

    `went_on`: whether the starts were no ends. `renewed`: the last state of a piece is judged by the goal that follows instead
    of the one it was reached under. `mean`: a long step's reward is the mean, not the sum, of the rewards on its way.
    """
    feature, deter = dream.latent.feature, dream.latent.deter
    horizon = len(deter) - 1
    proceeds = torch.cat([went_on.unsqueeze(0), who.world.proceeds(feature[1:])])
    rewards = _rewards(who, dream, noise, renewed)
    found = []
    for i, level in enumerate(who.levels):
        period = who.clock**i
        span = who.clock if i + 1 < len(who.levels) else horizon // period
        aim = split_states(every(dream.aims[i], period), span)[:1].expand(span + 1, -1, -1)
        state = torch.cat([split_states(every(feature, period), span), aim], -1)
        paid = {name: summed_steps(rewards[name](i), proceeds[1:], period, mean) for name in level.weights}
        lasting = torch.cat([proceeds[:1], product_steps(proceeds[1:], period)])
        paid = {name: split_steps(reward, span) for name, reward in paid.items()}
        found.append(Trajectory(state, split_steps(dream.actions[i], span), paid, split_states(lasting, span)))
    return found


def _rewards(who: Stack, dream: RollOut, noise: Mapping[str, Tensor], renewed: bool) -> dict[str, Callable[[int], Tensor]]:
    """By name: a level's reward (H, N) for every step, computed when asked for."""
    arrived = dream.latent.feature[1:]
    deter = dream.latent.deter[1:]

    @cache
    def extrinsic(level: int) -> Tensor:
        return who.world.reward(arrived) if level == 0 else extrinsic(0)

    @cache
    def novelty(level: int) -> Tensor:
        return who.goals.novelty(deter.flatten(0, 1), noise).unflatten(0, deter.shape[:2]) if level == 0 else novelty(0)

    def goal(level: int) -> Tensor:
        aims = dream.aims[level]
        return max_cosine(aims[1:] if renewed else aims[:-1], deter)

    return {"extrinsic": extrinsic, "novelty": novelty, "goal": goal}
