"""Dreaming in one world that some levels share: a joint roll-out, and each level's own view of it.

The i-th of them acts every k^i steps. Above the lowest, an action is a code that names the goal of the level below for its next
k steps. What the highest of them is told comes from elsewhere, or is nothing.
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
from hieros_repro.ops.transform import symlog
from hieros_repro.world.base import Latent, World

INPUTS: dict[str, Callable[[World, Latent], Tensor]] = {  # what policies and critics may see besides a state's features
    "reward": lambda world, latent: world.reward(latent.feature),
    "continue": lambda world, latent: world.proceeds(latent.feature),
    "entropy": lambda world, latent: world.entropy(latent),
}


class Stack(NamedTuple):
    """Who dreams: levels from the lowest up, in one world, with one code for goals."""

    world: World
    goals: Code
    levels: Sequence[Level]
    clock: int
    inputs: Sequence[str]  # of INPUTS
    told: bool  # whether somebody tells the highest level something

    def look(self, latent: Latent) -> Float[Tensor, "*B L"]:
        """What a level sees of a state: its features, and what the world makes of it."""
        return self.seen(latent.feature, self.made_of(latent))

    def made_of(self, latent: Latent) -> dict[str, Float[Tensor, "*B"]]:
        """What the world makes of a state, as far as anybody sees it."""
        return {name: INPUTS[name](self.world, latent) for name in self.inputs}

    def seen(self, feature: Float[Tensor, "*B F"], made: Mapping[str, Float[Tensor, "*B"]]) -> Float[Tensor, "*B L"]:
        return torch.cat([feature, *(symlog(number).unsqueeze(-1) for number in made.values())], -1) if made else feature

    def decide(self, i: int, look: Tensor, aims: list[Tensor], noise: Tensor | None) -> Tensor:
        """Level i's action, for the goal it has; it becomes the goal of the level below."""
        action = self.levels[i].actor.act(torch.cat([look, aims[i]], -1), noise)
        if i:
            aims[i - 1] = self.goals.tell(action)
        return action

    def hear(self, code: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B W"]:
        """What the highest level is told; of no code, zeros, nothing."""
        return self.goals.tell(code) * code.any(-1, keepdim=True)

    def no_aims(self, feature: Float[Tensor, "N F"]) -> list[Tensor]:
        """Nothing to aim at yet."""
        widths = [self.goals.width] * (len(self.levels) - 1) + [self.goals.width * self.told]
        return [feature.new_zeros(len(feature), width) for width in widths]


class Told(NamedTuple):
    """What comes from elsewhere with every state of N dreams of H steps: what the highest level is told, and the state that
    stands for. Nothing is of width 0."""

    aim: Tensor  # (H + 1, N, W)
    meaning: Tensor  # (H + 1, N, D)


class Pay(NamedTuple):
    """How steps are rewarded."""

    renewed: bool  # a state reached as a goal changes is judged by the next, not by the one it was reached under
    mean: bool  # a long step's reward is the mean, not the sum, of the rewards on its way


class RollOut(NamedTuple):
    """N dreams of H steps."""

    looks: Tensor  # (H + 1, N, L)
    made: Mapping[str, Tensor]  # (H + 1, N) by name of INPUTS: what the world made of the states, as far as anybody saw it
    deter: Tensor  # (H + 1, N, D)
    actions: list[Tensor]  # by level: (H / k^i, N, .)
    aims: list[Tensor]  # by level: (H + 1, N, W), what it aims at from each state on


def roll_out(
    who: Stack, start: Latent, noise: Mapping[str, Tensor], drawn: Sequence[Tensor], horizon: int, told: Float[Tensor, "H1 N W"]
) -> RollOut:
    """From N states, H steps. `noise`: the world's, (H, N, ...); `drawn`: each level's, one per action; `told`: what the
    highest level aims at."""
    latent, aims, step = start, who.no_aims(start.deter), who.world.dreaming()
    looks, made, deter, aimed = [], [], [], []
    actions: list[list[Tensor]] = [[] for _ in who.levels]
    for t in range(horizon + 1):
        aims[-1] = told[t]
        made.append(who.made_of(latent))
        look = who.seen(latent.feature, made[-1])
        for i in reversed(range(len(who.levels))):
            if t % who.clock**i == 0 and (i or t < horizon):  # what is aimed at from the last state on is told too
                actions[i].append(who.decide(i, look, aims, drawn[i][t // who.clock**i]))
        looks.append(look)
        deter.append(latent.deter)
        aimed.append(tuple(aims))
        if t < horizon:
            latent = step(latent, actions[0][-1], {name: value[t] for name, value in noise.items()})
    return RollOut(
        torch.stack(looks),
        {name: torch.stack([of_state[name] for of_state in made]) for name in who.inputs},
        torch.stack(deter),
        [torch.stack(taken[: horizon // who.clock**i]) for i, taken in enumerate(actions)],
        [torch.stack(aim) for aim in zip(*aimed, strict=True)],
    )


def trajectories(
    who: Stack,
    dream: RollOut,
    meaning: Tensor,
    went_on: Float[Tensor, "N"],
    noise: Mapping[str, Tensor],
    pay: Pay,
    rebuilt: Tensor | None,
) -> list[Trajectory]:
    """What each level learns from: the highest whole dreams, every other one pieces of k steps, each under one goal.

    `meaning`: what the highest level was told, as states; `went_on`: whether the starts were no ends; `rebuilt`: what the code
    made of the states arrived at, one after the other, if it has been asked already.
    """
    horizon = len(dream.deter) - 1
    proceeds = torch.cat([went_on.unsqueeze(0), _arrived(dream, "continue", who.world.feature, who.world.proceeds)])
    rewards = _rewards(who, dream, meaning, noise, pay, rebuilt)
    found = []
    for i, level in enumerate(who.levels):
        period, highest = who.clock**i, i + 1 == len(who.levels)
        span = horizon // period if highest else who.clock
        aim = split_states(every(dream.aims[i], period), span)
        if not highest:
            aim = aim[:1].expand(span + 1, -1, -1)
        state = torch.cat([split_states(every(dream.looks, period), span), aim], -1)
        paid = {name: summed_steps(rewards[name](i), proceeds[1:], period, pay.mean) for name in level.weights}
        lasting = torch.cat([proceeds[:1], product_steps(proceeds[1:], period)])
        paid = {name: split_steps(reward, span) for name, reward in paid.items()}
        found.append(Trajectory(state, split_steps(dream.actions[i], span), paid, split_states(lasting, span)))
    return found


def _rewards(
    who: Stack, dream: RollOut, meaning: Tensor, noise: Mapping[str, Tensor], pay: Pay, rebuilt: Tensor | None
) -> dict[str, Callable[[int], Tensor]]:
    """By name: a level's reward (H, N) for every step, computed when asked for."""
    deter = dream.deter[1:]

    @cache
    def extrinsic(level: int) -> Tensor:
        return extrinsic(0) if level else _arrived(dream, "reward", who.world.feature, who.world.reward)

    @cache
    def novelty(level: int) -> Tensor:
        if level:
            return novelty(0)
        unknown = who.goals.novelty(deter.flatten(0, 1), noise, rebuilt)
        return who.goals.reward(unknown.unflatten(0, deter.shape[:2]))

    def goal(level: int) -> Tensor:
        goals = meaning if level + 1 == len(who.levels) else who.goals.meaning(dream.aims[level])
        return who.goals.reward(max_cosine(goals[1:] if pay.renewed else goals[:-1], who.goals.space(deter)))

    return {"extrinsic": extrinsic, "novelty": novelty, "goal": goal}


def _arrived(dream: RollOut, name: str, width: int, head: Callable[[Tensor], Tensor]) -> Float[Tensor, "H N"]:
    """What the world makes of the states arrived at: what it made of them on the way, or else of all at once."""
    return dream.made[name][1:] if name in dream.made else head(dream.looks[1:, :, :width])
