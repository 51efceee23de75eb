"""Recurrent state-space models (Hafner et al. 2019): a certain part carried by a gated recurrent cell, and a categorical part
drawn given it. `cell=gru` is that of Director and of DreamerV3's first version, `cell=block` that of its newest.

    deter_t = cell(deter_{t-1}, stoch_{t-1}, action_{t-1})
    prior      p(stoch_t | deter_t)              posterior  q(stoch_t | deter_t, obs_t)

What does not depend on the step before is computed for all steps at once, outside the loop over time.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.block import MLP, Affine, BlockAffine, Norm, Style
from hieros_repro.nn.control import Weight
from hieros_repro.nn.mlp import ACTIVATIONS, Constant
from hieros_repro.ops.action import one_hot_mode, straight_through, unimix
from hieros_repro.ops.divergence import kl
from hieros_repro.records import Arrays, Between, Count, Fault, Fraction, Natural, NonNegative, Positive, Space
from hieros_repro.world.base import Latent, Observed, Rows, World
from hieros_repro.world.decoder import Decoder
from hieros_repro.world.encoder import Encoder
from hieros_repro.world.heads import HEADS, Binary


class Joint(nn.Module):
    """A dense layer of several inputs side by side, each of which may be projected at a time of its own."""

    def __init__(self, inputs: tuple[int, ...], outputs: int, style: Style):
        super().__init__()
        self.inputs = list(inputs)
        self.affine = Affine(sum(inputs), outputs, style, bias=style.norm == "rms")
        self.norm = Norm(outputs, style)
        self.activation = ACTIVATIONS[style.activation]

    def columns(self) -> tuple[Tensor, ...]:
        """The weights (I, outputs) of each input: taken once before a loop."""
        return self.affine.weight.t().split(self.inputs)

    def close(self, total: Tensor) -> Tensor:
        """From the sum of the projections to the layer's output."""
        return self.activation(self.norm(total if self.affine.bias is None else total + self.affine.bias))


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

    def prepare(self, action: Float[Tensor, "*B A"]) -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Tensor]:
        """The step (deter, stoch, projected action) -> deter, and the projected actions of all steps."""
        of_stoch, of_action = self.inner.columns()
        action = action / action.abs().clamp(min=1.0)

        def step(deter: Tensor, stoch: Tensor, projected: Tensor) -> Tensor:
            x = self.inner.close(torch.addmm(projected, stoch, of_stoch))
            return gated(self.norm(self.gates(torch.cat([deter, x], -1))).chunk(3, -1), deter)

        return step, action @ of_action


class BlockGRU(nn.Module):
    """The same, its gates from a hidden layer of independent blocks, each of which sees a slice of deter and all the rest."""

    def __init__(self, deter: int, stoch: int, action: int, units: int, style: Style, blocks: int):
        super().__init__()
        self.blocks = blocks
        self.of_deter, self.of_stoch, self.of_action = (MLP(n, 1, units, style) for n in (deter, stoch, action))
        self.hidden = BlockAffine(deter + blocks * 3 * units, deter, blocks, style)
        self.norm = Norm(deter, style)
        self.activation = ACTIVATIONS[style.activation]
        self.gates = BlockAffine(deter, 3 * deter, blocks, style)

    def prepare(self, action: Float[Tensor, "*B A"]) -> tuple[Callable[[Tensor, Tensor, Tensor], Tensor], Tensor]:
        action = action / action.abs().clamp(min=1.0)

        def step(deter: Tensor, stoch: Tensor, projected: Tensor) -> Tensor:
            x = torch.cat([self.of_deter(deter), self.of_stoch(stoch), projected], -1)
            shared = x.unsqueeze(-2).expand(-1, self.blocks, -1)
            grouped = torch.cat([deter.unflatten(-1, (self.blocks, -1)), shared], -1).flatten(-2)
            hidden = self.activation(self.norm(self.hidden(grouped)))
            gates = self.gates(hidden).unflatten(-1, (self.blocks, 3, -1)).unbind(-2)
            return gated(tuple(gate.flatten(-2) for gate in gates), deter)

        return step, self.of_action(action)


CELLS: dict[str, type[GRU] | type[BlockGRU]] = {"gru": GRU, "block": BlockGRU}


def gated(gates: tuple[Tensor, ...], deter: Tensor) -> Tensor:
    """The new deter from (reset, candidate, update) and the old, in float32 like every state that is carried."""
    reset, candidate, update = (gate.float() for gate in gates)
    return torch.lerp(deter, torch.tanh(torch.sigmoid(reset) * candidate), torch.sigmoid(update - 1))


class RSSM(World):
    remembers: ClassVar[tuple[str, ...]] = ("deter", "stoch")

    def __init__(
        self,
        observation: Mapping[str, Space],
        action: int,
        style: Style,
        *,
        cell: Literal["gru", "block"],
        deter: Count,
        blocks: Count,
        stoch: Count,
        classes: Annotated[int, Between(1, 256)],  # a replay keeps the one drawn in a byte
        units: Count,
        prior_layers: Count,
        unimix: Fraction,
        start: Literal["learned", "zeros"],
        image_codec: Literal["strided", "pooled"],
        image_padding: Literal["valid", "same"],
        image_depth: Count,
        image_sigmoid: bool,
        image_scale: Positive,
        vector_layers: Natural,
        vector_units: Count,
        head_units: Count,
        reward_layers: Natural,
        continue_layers: Natural,
        reward_head: Literal["symlog", "two_hot"],
        head_scale: NonNegative,
        continue_target: Fraction,
        dynamics_scale: NonNegative,
        representation_scale: NonNegative,
        free_nats: NonNegative,
        kl: Callable[..., Weight],
        kl_aim: Positive,
    ):
        super().__init__()
        self.groups, self.unimix, self.continue_target = (stoch, classes), unimix, continue_target
        self.deter, self.stoch = deter, stoch * classes
        self.dynamics_scale, self.representation_scale, self.free_nats = dynamics_scale, representation_scale, free_nats
        codec: dict[str, Any] = {"kind": image_codec, "padding": image_padding, "depth": image_depth}
        codec |= {"layers": vector_layers, "units": vector_units, "symlog_vectors": True}
        self.encoder = Encoder(observation, style, **codec)
        self.cell = CELLS[cell](deter, self.stoch, action, units, style, blocks)
        self.prior_body = MLP(deter, prior_layers, units, style)
        self.prior_out = Affine(units, self.stoch, style)
        self.posterior_body = Joint((deter, self.encoder.outputs), units, style)
        self.posterior_out = Affine(units, self.stoch, style)
        self.first = Constant(deter, 0.0).requires_grad_(start == "learned")
        shown: dict[str, Any] = {"sigmoid": image_sigmoid, "image_scale": image_scale, "groups": blocks}
        self.decoder = Decoder(observation, deter, self.stoch, style, **codec, **shown)
        self.reward_head = HEADS[reward_head](self.feature, reward_layers, head_units, style, head_scale)
        self.continue_head = Binary(self.feature, continue_layers, head_units, style, head_scale)
        self.kl = kl(kl_aim)

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

    @property
    def least_kl(self) -> float:
        """What KL / its weight is where no row's exceeds the free nats."""
        return (self.dynamics_scale + self.representation_scale) * self.free_nats

    # -- States --------------------------------------------------------------------------------------------------------

    def noise(self, key: Key, shape: tuple[int, ...]) -> Arrays:
        return {"stoch": key.uniform((*shape, self.groups[0]))}

    def stored(self, latent: Latent) -> dict[str, Tensor]:
        """The classes drawn, as bytes; a state takes 4 D + S bytes."""
        return {"deter": latent.deter, "stoch": latent.stoch.unflatten(-1, self.groups).argmax(-1).to(torch.uint8)}

    def restored(self, stored: Mapping[str, Tensor]) -> Latent:
        classes = torch.arange(self.groups[1], device=stored["stoch"].device)
        return Latent(stored["deter"], (stored["stoch"].unsqueeze(-1) == classes).float().flatten(-2))

    def initial(self, batch: int) -> Latent:
        if not self.first.value.requires_grad:
            zeros = self.first.value.new_zeros
            return Latent(zeros(batch, self.deter), zeros(batch, self.stoch))
        first = self.complete(torch.tanh(self.first.value).unsqueeze(0))
        return Latent(first.deter.expand(batch, -1), first.stoch.expand(batch, -1))

    def complete(self, deter: Float[Tensor, "*B D"]) -> Latent:
        return Latent(deter, one_hot_mode(self._prior(deter)).flatten(-2).to(deter.dtype))

    def observe(
        self,
        obs: Mapping[str, Tensor],
        action: Float[Tensor, "T B A"],
        is_first: Bool[Tensor, "T B"],
        start: Latent,
        noise: Mapping[str, Tensor],
    ) -> Observed:
        steps, batch = is_first.shape
        embed = self.encoder({name: value.flatten(0, 1) for name, value in obs.items()})
        of_deter, of_embed = self.posterior_body.columns()
        embedded = (embed @ of_embed).unflatten(0, (steps, batch))
        reset = is_first.unsqueeze(-1)
        step, projected = self.cell.prepare(action.masked_fill(reset, 0.0))
        first, (deter, stoch) = self.initial(batch), start
        found = []
        inputs = (reset, projected, embedded, noise["stoch"])
        for reset_t, action_t, embed_t, uniform in zip(*(x.unbind(0) for x in inputs), strict=True):
            deter, stoch = torch.where(reset_t, first.deter, deter), torch.where(reset_t, first.stoch, stoch)
            deter = step(deter, stoch, action_t)
            logit = self._grouped(self.posterior_out(self.posterior_body.close(torch.addmm(embed_t, deter, of_deter))))
            stoch = straight_through(logit, uniform).flatten(-2)
            found.append((deter, stoch, logit))
        deter, stoch, posterior = map(torch.stack, zip(*found, strict=True))
        return Observed(Latent(deter, stoch), posterior, self._prior(deter))

    def imagine(self, latent: Latent, action: Float[Tensor, "B A"], noise: Mapping[str, Tensor]) -> Latent:
        step, projected = self.cell.prepare(action)
        deter = step(latent.deter, latent.stoch, projected)
        return Latent(deter, straight_through(self._prior(deter), noise["stoch"]).flatten(-2))

    def _prior(self, deter: Tensor) -> Tensor:
        return self._grouped(self.prior_out(self.prior_body(deter)))

    def _grouped(self, logits: Tensor) -> Tensor:
        return unimix(logits.unflatten(-1, self.groups), self.unimix)

    # -- Learning ------------------------------------------------------------------------------------------------------

    def losses(self, seen: Observed, rows: Rows) -> dict[str, Tensor]:
        """Reconstruction, reward, continuation, and the KL that trains the prior towards the posterior and, less, the
        posterior towards the prior:

            kl = w ( d max(free, KL[sg q || p]) + r max(free, KL[q || sg p]) )
        """
        deter, stoch = seen.latent.flat()
        feature, shape = seen.latent.feature, rows.reward.shape
        images = self.decoder.loss(self.decoder(deter, stoch), {name: value.flatten(0, 1) for name, value in rows.obs.items()})
        goes_on = self.continue_target * (~rows.is_terminal).float()
        dynamics = kl(seen.posterior.detach(), seen.prior).clamp(min=self.free_nats)
        representation = kl(seen.posterior, seen.prior.detach()).clamp(min=self.free_nats)
        balanced = self.dynamics_scale * dynamics + self.representation_scale * representation
        return {
            **{f"{name}_loss": loss.unflatten(0, shape) for name, loss in images.items()},
            "reward_loss": self.reward_head.loss(self.reward_head(feature), rows.reward),
            "cont_loss": self.continue_head.loss(self.continue_head(feature), goes_on),
            "kl": self.kl(dynamics.detach().mean().unsqueeze(0)) * balanced,
        }

    def account(self, seen: Observed) -> dict[str, Tensor]:
        of = {"prior_entropy": seen.prior, "posterior_entropy": seen.posterior}
        return {name: -(log.exp() * log).sum((-1, -2)).mean() for name, log in of.items()} | {
            "kl_weight": self.kl.weight.mean()
        }

    def reward(self, feature: Float[Tensor, "*B F"]) -> Float[Tensor, "*B"]:
        return self.reward_head.mean(self.reward_head(feature))

    def proceeds(self, feature: Float[Tensor, "*B F"]) -> Float[Tensor, "*B"]:
        return self.continue_head.mean(self.continue_head(feature))

    def pictures(self, latent: Latent) -> dict[str, Tensor]:
        return self.decoder.pictures(self.decoder(*latent))
