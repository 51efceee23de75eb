"""One actor, and one critic per reward."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hieros_repro.nn.block import MLP, Affine, Style
from hieros_repro.nn.ema import Slow
from hieros_repro.ops.action import Actions
from hieros_repro.records import Count, Fraction, Natural, NonNegative
from hieros_repro.world.heads import HEADS


class Actor(nn.Module):
    """States -> the parameters of a distribution of actions."""

    def __init__(self, inputs: int, actions: Actions, style: Style, layers: int, units: int, scale: float):
        super().__init__()
        self.actions = actions
        self.body = MLP(inputs, layers, units, style)
        self.out = Affine(self.body.outputs, actions.width, style, scale=scale)

    def forward(self, state: Float[Tensor, "*B F"]) -> Float[Tensor, "*B W"]:
        return self.out(self.body(state)).float()

    def act(self, state: Tensor, noise: Tensor | None) -> Float[Tensor, "*B A"]:
        """A drawn action; without noise the likeliest."""
        params = self(state)
        return self.actions.mode(params) if noise is None else self.actions.sample(params, noise)


class Values(NamedTuple):
    """What a critic says of T + 1 states."""

    outputs: Tensor  # (T + 1, M, O) of the critic that learns
    slow: Tensor  # (T + 1, M) of its slow copy
    value: Tensor  # (T + 1, M) that returns and advantages build on


class Critic(nn.Module):
    """The expected return of one reward. A slow copy steadies it: as what it aims at, or as what it must not leave far."""

    def __init__(
        self,
        inputs: int,
        style: Style,
        *,
        head: Literal["symlog", "two_hot"],
        layers: Natural,
        units: Count,
        scale: NonNegative,
        bootstrap: Literal["slow", "fast"],
        slow_weight: NonNegative,
        slow_rate: Fraction,
        slow_every: Count,
        returns: Callable[[], nn.Module],
    ):
        super().__init__()
        self.net = HEADS[head](inputs, layers, units, style, scale)
        self.bootstrap, self.slow_weight, self.slow_rate, self.slow_every = bootstrap, slow_weight, slow_rate, slow_every
        self.returns = returns()

    def followed(self) -> "Critic":
        """Itself, from now on with a slow copy: the parameters are where they will stay."""
        self.slow = Slow(self.net)
        return self

    def mix(self, update: int) -> float:
        """How far the slow copy goes towards the critic after this update."""
        return self.slow_rate if update % self.slow_every == 0 else 0.0

    def values(self, state: Float[Tensor, "T M F"]) -> Values:
        outputs = self.net(state)
        with torch.no_grad():
            slow = self.net.mean(self.slow.module(state))
        return Values(outputs, slow, slow if self.bootstrap == "slow" else self.net.mean(outputs.detach()))

    def loss(self, values: Values, target: Float[Tensor, "t M"]) -> Float[Tensor, "t M"]:
        """Towards the target, and a little towards the slow copy, over the first t states."""
        outputs = values.outputs[: len(target)]
        loss = self.net.loss(outputs, target)
        return loss + self.slow_weight * self.net.loss(outputs, values.slow[: len(target)]) if self.slow_weight else loss
