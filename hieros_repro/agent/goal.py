"""Goals: states that a level is told to reach, spoken of in a small discrete code."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.block import MLP, Affine, Style
from hieros_repro.nn.control import Weight
from hieros_repro.ops.action import Actions, Codes, straight_through
from hieros_repro.ops.divergence import kl as divergence
from hieros_repro.records import Arrays, Between, Count, Natural, Positive, UserError


class Code(nn.Module, ABC):
    """How goals are spoken of."""

    width: int  # of a goal

    @abstractmethod
    def actions(self, unimix: float) -> Actions:
        """Codes as the actions of the level that sets the goals."""

    @abstractmethod
    def decode(self, code: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B D"]:
        """The state a code stands for."""

    @abstractmethod
    def noise(self, key: Key, rows: int, states: int) -> Arrays:
        """For `losses` of that many rows and for `novelty` of that many states."""

    @abstractmethod
    def losses(self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """name -> scalar; their sum is what it minimises."""

    @abstractmethod
    def novelty(self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor]) -> Float[Tensor, "N"]:
        """How little is known of states."""


class NoGoals(Code):
    """For a single level, which nobody tells anything: goals of width 0."""

    width = 0

    def __init__(self, width: int, style: Style):
        super().__init__()

    def actions(self, unimix: float) -> Actions:
        raise UserError("agent.goals: levels tell each other goals, so more than one needs hieros_repro.agent.goal.Goals")

    def decode(self, code: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B D"]:
        return code[..., :0]

    def noise(self, key: Key, rows: int, states: int) -> Arrays:
        return {}

    def losses(self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {}

    def novelty(self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor]) -> Float[Tensor, "N"]:
        return deter.new_zeros(len(deter))


class Goals(Code):
    """An autoencoder of states (Hafner et al. 2022): G categoricals of C classes in the middle, drawn with straight-through
    gradients, kept near uniform so that every code means some state.

        loss = |dec(z) - s|^2 + w KL[ enc(s) || uniform ],   z ~ enc(s)
    """

    def __init__(
        self,
        width: int,
        style: Style,
        *,
        codes: Count,
        classes: Annotated[int, Between(2)],
        layers: Natural,
        units: Count,
        scale: Positive,
        kl: Callable[..., Weight],
        kl_aim: Positive,
    ):
        super().__init__()
        self.width = width
        self.shape = (codes, classes)
        self.encoder, self.encoder_out = (
            MLP(width, layers, units, style),
            Affine(units if layers else width, codes * classes, style, scale=scale),
        )
        self.decoder = MLP(codes * classes, layers, units, style)
        self.decoder_out = Affine(units if layers else codes * classes, width, style, scale=scale)
        self.kl = kl(kl_aim)

    def noise(self, key: Key, rows: int, states: int) -> Arrays:
        shapes = {"learn": rows, "novelty": states}
        return {name: key(name).uniform((count, self.shape[0])) for name, count in shapes.items()}

    def actions(self, unimix: float) -> Codes:
        return Codes((self.shape[1],) * self.shape[0], unimix)

    def encode(self, deter: Float[Tensor, "*B D"]) -> Float[Tensor, "*B G C"]:
        """Log-probabilities of the codes."""
        return self.encoder_out(self.encoder(deter)).unflatten(-1, self.shape).float().log_softmax(-1)

    def decode(self, code: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B D"]:
        return self.decoder_out(self.decoder(code)).float()

    def losses(self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor]) -> dict[str, Tensor]:
        log_code = self.encode(deter)
        rebuilt = self.decode(straight_through(log_code, noise["learn"]).flatten(-2))
        uniform = torch.full_like(log_code, 1 / self.shape[1]).log()
        spread = divergence(log_code, uniform).mean()
        weight = self.kl(spread.detach().unsqueeze(0)).squeeze(0)
        return {"subgoal_error": (rebuilt - deter).square().sum(-1).mean(), "subgoal_kl": weight * spread}

    def novelty(self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor]) -> Float[Tensor, "N"]:
        """How badly states are rebuilt: mean over dimensions of (dec(z) - s)^2."""
        rebuilt = self.decode(straight_through(self.encode(deter), noise["novelty"]).flatten(-2))
        return (rebuilt - deter).square().mean(-1)
