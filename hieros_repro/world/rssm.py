"""Recurrent state-space models (Hafner et al. 2019): a certain part carried by a gated recurrent cell, and a categorical part
drawn given it. `cell=gru` is that of Director and of DreamerV3's first version, `cell=block` that of its newest.

    deter_t = cell(deter_{t-1}, stoch_{t-1}, action_{t-1})
    prior      p(stoch_t | deter_t)              posterior  q(stoch_t | deter_t, obs_t)

What does not depend on the step before is computed for all steps at once, outside the loop over time.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hieros_repro.nn.block import MLP, Affine, BlockAffine, Norm, Style
from hieros_repro.nn.mlp import ACTIVATIONS, Constant
from hieros_repro.ops.action import one_hot_mode, straight_through, within
from hieros_repro.records import Fault, Space, takes_also
from hieros_repro.world.base import Latent, Observed
from hieros_repro.world.categorical import CategoricalWorld, Joint, entropy


class GRU(nn.Module):
    """One gated recurrent unit over everything, normalised before its gates.

    z = norm(W [deter, x]),  x = dense([stoch, action]);   reset, candidate, update = z
    deter' = u tanh(sigmoid(reset) candidate) + (1 - u) deter,   u = sigmoid(update - 1)
    """

    def __init__(self, deter: int, stoch: int, action: int, units: int, style: Style, blocks: int):
        super().__init__()
        self.inner = Joint((stoch, action), units, style)
        self.gates = Affine(deter + units, 3 * deter, style, bias=False)
        self.norm = Norm(3 * deter, style)

    def prepare(self) -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The step (deter, stoch, projected action) -> deter, and how actions, of as many steps as there are, are projected."""
        of_stoch, of_action = self.inner.columns()

        def project(action: Tensor) -> Tensor:
            return within(action) @ of_action

        def step(deter: Tensor, stoch: Tensor, projected: Tensor) -> Tensor:
            x = self.inner.close(torch.addmm(projected, stoch, of_stoch))
            return gated(self.norm(self.gates(torch.cat([deter, x], -1))).chunk(3, -1), deter)

        return step, project


class BlockGRU(nn.Module):
    """The same, its gates from a hidden layer of independent blocks, each of which sees a slice of deter and all the rest."""

    def __init__(self, deter: int, stoch: int, action: int, units: int, style: Style, blocks: int):
        super().__init__()
        self.blocks, self.units = blocks, units
        self.of_deter, self.of_stoch, self.of_action = (MLP(n, 1, units, style) for n in (deter, stoch, action))
        self.hidden = BlockAffine(deter + blocks * 3 * units, deter, blocks, style)
        self.norm = Norm(deter, style)
        self.activation = ACTIVATIONS[style.activation]
        self.gates = BlockAffine(deter, 3 * deter, blocks, style)

    def prepare(self) -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """What all blocks see goes through one product: side by side, their weights are those of one map of it."""
        deter, units = self.hidden.weight.shape[1] - 3 * self.units, self.units
        own, shared = self.hidden.weight.split([deter, 3 * units], 1)
        of_state, of_action = shared.transpose(0, 1).flatten(1).split([2 * units, units])

        def project(action: Tensor) -> Tensor:
            return self.of_action(within(action)) @ of_action + self.hidden.bias

        def step(deter: Tensor, stoch: Tensor, projected: Tensor) -> Tensor:
            x = torch.cat([self.of_deter(deter), self.of_stoch(stoch)], -1)
            blocks = torch.bmm(deter.unflatten(-1, (self.blocks, -1)).transpose(0, 1), own).transpose(0, 1).flatten(-2)
            hidden = self.activation(self.norm(torch.addmm(projected, x, of_state) + blocks))
            gates = self.gates.grouped(hidden).transpose(0, 1).unflatten(-1, (3, -1)).unbind(-2)
            return gated(tuple(gate.flatten(-2) for gate in gates), deter)

        return step, project


CELLS: dict[str, type[GRU] | type[BlockGRU]] = {"gru": GRU, "block": BlockGRU}


def gated(gates: tuple[Tensor, ...], deter: Tensor) -> Tensor:
    """The new deter from (reset, candidate, update) and the old, in float32 like every state that is carried."""
    reset, candidate, update = (gate.float() for gate in gates)
    return torch.lerp(deter, torch.tanh(torch.sigmoid(reset) * candidate), torch.sigmoid(update - 1))


class RSSM(CategoricalWorld):
    remembers: ClassVar[tuple[str, ...]] = ("deter", "stoch")
    narrow: ClassVar[tuple[str, ...]] = ("deter", "units", "head_units", "vector_units")
    carried = 0

    cell: GRU | BlockGRU
    posterior_body: Joint
    posterior_out: Affine

    @takes_also(CategoricalWorld.__init__)
    def __init__(
        self,
        observation: Mapping[str, Space],
        action: int,
        style: Style,
        *,
        cell: Literal["gru", "block"],
        **shared: Any,
    ):
        deter, units, stoch = shared["deter"], shared["units"], shared["stoch"] * shared["classes"]

        def dynamics(encoded: int) -> dict[str, nn.Module]:
            return {
                "cell": CELLS[cell](deter, stoch, action, units, style, shared["blocks"]),
                "prior_body": MLP(deter, shared["prior_layers"], units, style),
                "prior_out": Affine(units, stoch, style),
                "posterior_body": Joint((deter, encoded), units, style),
                "posterior_out": Affine(units, stoch, style),
                "first": Constant(deter, 0.0),
            }

        super().__init__(observation, style, dynamics, **shared)

    @classmethod
    def check(cls, *, cell: str, image_codec: str, deter: int, blocks: int, image_depth: int, **others: Any) -> Iterator[Fault]:
        """Independent blocks are of one size."""
        split = [
            f"{key}={value}" for key, value in (("cell", cell), ("image_codec", image_codec)) if value in ("block", "pooled")
        ]
        if split and deter % blocks:
            whole = -(-deter // blocks) * blocks
            yield Fault("deter", f"{deter}: with {' and '.join(split)} a multiple of blocks={blocks} is needed, e.g. {whole}")
        if image_codec == "pooled" and 4 * image_depth % blocks:
            yield Fault(
                "image_depth", f"{image_depth}: image_codec=pooled needs 4 times it to be a multiple of blocks={blocks}"
            )

    # -- States --------------------------------------------------------------------------------------------------------

    def initial(self, batch: int) -> Latent:
        if not self.first.value.requires_grad:
            zeros = self.first.value.new_zeros
            return Latent(zeros(batch, self.deter), zeros(batch, self.stoch), zeros(batch, 0))
        first = self._likeliest(torch.tanh(self.first.value).unsqueeze(0))
        return first.map(lambda part: part.expand(batch, -1))

    def complete(self, deter: Float[Tensor, "*B D"], near: Latent) -> Latent:
        return self._likeliest(deter)

    def _likeliest(self, deter: Tensor) -> Latent:
        return Latent(deter, one_hot_mode(self._prior(deter)).flatten(-2).to(deter.dtype), nothing(deter))

    def entropy(self, latent: Latent) -> Float[Tensor, "*B"]:
        """Of the prior: what is certain does not say what was seen."""
        return entropy(self._prior(latent.deter))

    def observe(
        self,
        obs: Mapping[str, Tensor],
        action: Float[Tensor, "T B A"],
        is_first: Bool[Tensor, "T B"] | None,
        start: Latent,
        noise: Mapping[str, Tensor],
    ) -> Observed:
        steps, batch = action.shape[:2]
        embed = self.encoder({name: value.flatten(0, 1) for name, value in obs.items()})
        of_deter, of_embed = self.posterior_body.columns()
        embedded = (embed @ of_embed).unflatten(0, (steps, batch))
        step, project = self.cell.prepare()
        deter, stoch, reset = start.deter, start.stoch, None if is_first is None else is_first.unsqueeze(-1)
        if reset is not None:
            first, action = self.initial(batch), action.masked_fill(reset, 0.0)
        found = []
        inputs = (project(action), embedded, noise["stoch"])
        for t, (action_t, embed_t, uniform) in enumerate(zip(*(x.unbind(0) for x in inputs), strict=True)):
            if reset is not None:
                deter, stoch = torch.where(reset[t], first.deter, deter), torch.where(reset[t], first.stoch, stoch)
            deter = step(deter, stoch, action_t)
            logit = self._grouped(self.posterior_out(self.posterior_body.close(torch.addmm(embed_t, deter, of_deter))))
            stoch = straight_through(logit, uniform).flatten(-2)
            found.append((deter, stoch, logit))
        deter, stoch, posterior = map(torch.stack, zip(*found, strict=True))
        return Observed(Latent(deter, stoch, nothing(deter)), posterior, self._prior(deter))

    def dreaming(self) -> Callable[[Latent, Tensor, Mapping[str, Tensor]], Latent]:
        step, project = self.cell.prepare()

        def ahead(latent: Latent, action: Tensor, noise: Mapping[str, Tensor]) -> Latent:
            deter = step(latent.deter, latent.stoch, project(action))
            return Latent(deter, straight_through(self._prior(deter), noise["stoch"]).flatten(-2), latent.carried)

        return ahead


def nothing(deter: Float[Tensor, "*B D"]) -> Float[Tensor, "*B M"]:
    """All that such worlds carry besides."""
    return deter.new_zeros(*deter.shape[:-1], 0)
