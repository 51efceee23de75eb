"""Goals: states that a level is told to reach, spoken of in a small discrete code."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.block import MLP, Affine, Dense, Style
from hieros_repro.nn.control import Weight
from hieros_repro.ops.action import Actions, Codes, one_hot_mode, straight_through
from hieros_repro.ops.divergence import kl as divergence
from hieros_repro.ops.transform import symexp, symlog
from hieros_repro.records import Arrays, Between, Count, Natural, NonNegative, Positive, UserError


class Code(nn.Module, ABC):
    """How goals are spoken of. A goal is a code Z; a policy is told the code or the state it stands for."""

    width: int  # of what a policy is told
    size: int  # of a code
    shape: tuple[int, int]  # categoricals and classes
    squashes = False  # whether it pays symlog x, and nothing below 0
    from_dreams: bool  # whether it learns from states that were dreamt, not from those that were seen

    @abstractmethod
    def actions(self, unimix: float) -> Actions:
        """Codes as the actions of the level that sets the goals."""

    @abstractmethod
    def tell(self, code: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B W"]:
        """What a policy is told of a code."""

    @abstractmethod
    def meaning(self, told: Float[Tensor, "*B W"]) -> Float[Tensor, "*B D"]:
        """The state that what was told stands for, in the code's own space; nothing told, zeros, stands for zeros."""

    @abstractmethod
    def space(self, deter: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """States in the code's own space."""

    @abstractmethod
    def state(self, meaning: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """From there back to states."""

    @abstractmethod
    def noise(self, key: Key, rows: int, states: int) -> Arrays:
        """For `losses` of that many rows and for `novelty` of that many states."""

    @abstractmethod
    def losses(self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        """name -> scalar; their sum is what it minimises. And how it rebuilt the states, if `novelty` of the same ones would
        rebuild them no differently."""

    @abstractmethod
    def novelty(
        self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor], rebuilt: Float[Tensor, "N D"] | None
    ) -> Float[Tensor, "N"]:
        """How little is known of states; `rebuilt`: by `losses`, if these are the states that it learned from."""

    def reward(self, measured: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        """What is paid for a novelty, or for how near a goal is."""
        return symlog(measured.clamp(min=0.0)) if self.squashes else measured


class NoGoals(Code):
    """For a single level, which nobody tells anything: goals of width 0."""

    width = size = 0
    shape = (0, 0)
    from_dreams = False

    def __init__(self, width: int, style: Style):
        super().__init__()

    def actions(self, unimix: float) -> Actions:
        raise UserError("agent.goals: levels tell each other goals, so more than one needs hieros_repro.agent.goal.Goals")

    def tell(self, code: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B W"]:
        return code[..., :0]

    def meaning(self, told: Float[Tensor, "*B W"]) -> Float[Tensor, "*B D"]:
        return told

    def space(self, deter: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return deter

    def state(self, meaning: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return meaning

    def noise(self, key: Key, rows: int, states: int) -> Arrays:
        return {}

    def losses(self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], None]:
        return {}, None

    def novelty(
        self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor], rebuilt: Float[Tensor, "N D"] | None
    ) -> Float[Tensor, "N"]:
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
        classes: Annotated[int, Between(2, 255)],  # a replay keeps the one told in a byte, and 255 for none
        layers: Natural,
        units: Count,
        code_units: Count,
        scale: NonNegative,
        output: Literal["linear", "activated"],
        draw: Literal["sampled", "likeliest"],
        told: Literal["state", "code"],
        states: Literal["plain", "symlog"],
        novelty: Literal["matching", "mixed"],
        error: Literal["sum", "mean"],
        reward: Literal["plain", "symlog"],
        learn_from: Literal["replay", "dreams"],
        kl: Callable[..., Weight],
        kl_aim: Positive,
    ):
        super().__init__()
        self.shape, self.size = (codes, classes), codes * classes
        self.tells_states, self.width = told == "state", width if told == "state" else self.size
        self.symlog, self.drawn, self.mean = states == "symlog", draw == "sampled", error == "mean"
        self.mixed, self.squashes, self.from_dreams = novelty == "mixed", reward == "symlog", learn_from == "dreams"
        last = output == "activated"  # and then the last of the layers is the output
        self.encoder, self.encoder_out = _net(width, self.size, layers, code_units, style, scale, last)
        self.decoder, self.decoder_out = _net(self.size, width, layers, units, style, scale, last)
        self.kl = kl(kl_aim)

    def noise(self, key: Key, rows: int, states: int) -> Arrays:
        shapes = {"learn": rows, "novelty": states} if self.drawn else {}
        return {name: key(name).uniform((count, self.shape[0])) for name, count in shapes.items()}

    def actions(self, unimix: float) -> Codes:
        return Codes((self.shape[1],) * self.shape[0], unimix, "multidiscrete")

    # -- States and codes ----------------------------------------------------------------------------------------------

    def space(self, deter: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return symlog(deter) if self.symlog else deter

    def state(self, meaning: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        return symexp(meaning) if self.symlog else meaning

    def encode(self, deter: Float[Tensor, "*B D"]) -> Float[Tensor, "*B G C"]:
        """Log-probabilities of the codes."""
        return self.encoder_out(self.encoder(self.space(deter))).unflatten(-1, self.shape).float().log_softmax(-1)

    def decode(self, code: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B D"]:
        """The state, in the code's own space, that a code stands for."""
        return self.decoder_out(self.decoder(code)).float()

    def tell(self, code: Float[Tensor, "*B Z"]) -> Float[Tensor, "*B W"]:
        return self.decode(code) if self.tells_states else code

    def meaning(self, told: Float[Tensor, "*B W"]) -> Float[Tensor, "*B D"]:
        return told if self.tells_states else self.decode(told) * told.any(-1, keepdim=True)

    def _code(self, log_code: Tensor, noise: Tensor | None) -> Float[Tensor, "N Z"]:
        """With the gradient of the probabilities: drawn, or without noise the likeliest."""
        if noise is not None:
            return straight_through(log_code, noise).flatten(-2)
        p = log_code.exp()
        return (one_hot_mode(log_code) + (p - p.detach())).flatten(-2)

    # -- Learning ------------------------------------------------------------------------------------------------------

    def losses(self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor | None]:
        log_code = self.encode(deter)
        rebuilt = self.decode(self._code(log_code, noise.get("learn")))
        uniform = torch.full_like(log_code, 1 / self.shape[1]).log()
        spread = divergence(log_code, uniform).mean()
        weight = self.kl(spread.detach().unsqueeze(0)).squeeze(0)
        error = (rebuilt - self.space(deter)).square()
        error = error.mean(-1) if self.mean else error.sum(-1)
        return {"subgoal_error": error.mean(), "subgoal_kl": weight * spread}, None if self.drawn else rebuilt

    def novelty(
        self, deter: Float[Tensor, "N D"], noise: Mapping[str, Tensor], rebuilt: Float[Tensor, "N D"] | None
    ) -> Float[Tensor, "N"]:
        """How badly states are rebuilt: mean over dimensions of (dec(z) - s)^2."""
        if rebuilt is None:
            rebuilt = self.decode(self._code(self.encode(deter), noise.get("novelty")))
        return (rebuilt - (deter if self.mixed else self.space(deter))).square().mean(-1)


def _net(
    inputs: int, outputs: int, layers: int, units: int, style: Style, scale: float, activated: bool
) -> tuple[MLP, nn.Module]:
    """So many layers, and what turns them into outputs; `activated`: the last of the layers does, normalised and activated."""
    body = MLP(inputs, layers - 1 if activated else layers, units, style)
    out = Dense(body.outputs, outputs, style) if activated else Affine(body.outputs, outputs, style, scale=scale)
    return body, out
