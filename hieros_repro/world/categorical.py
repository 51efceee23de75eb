"""World models whose states have a categorical part: what they share around their dynamics, which are of their own kind.

    posterior  q(stoch_t | what is seen)         prior  p(stoch_t | the past)

Encoder and decoder, heads for reward and continuation, how stoch is drawn and stored, and the losses.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.block import MLP, Affine, Norm, Style
from hieros_repro.nn.control import Weight
from hieros_repro.nn.mlp import ACTIVATIONS, Constant
from hieros_repro.ops.action import unimix
from hieros_repro.ops.divergence import kl
from hieros_repro.records import Arrays, Between, Count, Fraction, Natural, NonNegative, Positive, Space
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


class CategoricalWorld(World):
    """A subclass takes `**shared` besides its own settings and says what its `dynamics` are made of: modules by name, given the
    width of what the encoder says. Among them are those below."""

    prior_body: MLP
    prior_out: Affine
    first: Constant  # from which the first state of an episode is made

    def __init__(
        self,
        observation: Mapping[str, Space],
        style: Style,
        dynamics: Callable[[int], Mapping[str, nn.Module]],
        *,
        deter: Count,
        blocks: Count,
        stoch: Count,
        classes: Annotated[int, Between(1, 255)],  # a replay keeps the one drawn in a byte, and 255 for none
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
        for name, module in dynamics(self.encoder.outputs).items():
            self.add_module(name, module)
        self.first.requires_grad_(start == "learned")
        shown: dict[str, Any] = {"sigmoid": image_sigmoid, "image_scale": image_scale, "groups": blocks}
        self.decoder = Decoder(observation, deter, self.stoch, style, **codec, **shown)
        self.reward_head = HEADS[reward_head](self.feature, reward_layers, head_units, style, head_scale)
        self.continue_head = Binary(self.feature, continue_layers, head_units, style, head_scale)
        self.kl = kl(kl_aim)

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
        deter, stoch = stored["deter"], (stored["stoch"].unsqueeze(-1) == classes).float().flatten(-2)
        return Latent(deter, stoch, deter.new_zeros(()).expand(*deter.shape[:-1], self.carried))

    def _prior(self, state: Tensor) -> Tensor:
        return self._grouped(self.prior_out(self.prior_body(state)))

    def _grouped(self, logits: Tensor) -> Tensor:
        return unimix(logits.unflatten(-1, self.groups), self.unimix)

    # -- Learning ------------------------------------------------------------------------------------------------------

    def losses(self, seen: Observed, rows: Rows) -> dict[str, Tensor]:
        """Reconstruction, reward, continuation, and the KL that trains the prior towards the posterior and, less, the
        posterior towards the prior:

            kl = w ( d max(free, KL[sg q || p]) + r max(free, KL[q || sg p]) )
        """
        deter, stoch, _ = seen.latent.flat()
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
        return {name: entropy(log).mean() for name, log in of.items()} | {"kl_weight": self.kl.weight.mean()}

    def reward(self, feature: Float[Tensor, "*B F"]) -> Float[Tensor, "*B"]:
        return self.reward_head.mean(self.reward_head(feature))

    def proceeds(self, feature: Float[Tensor, "*B F"]) -> Float[Tensor, "*B"]:
        return self.continue_head.mean(self.continue_head(feature))

    def decoded(self, latent: Latent) -> dict[str, Tensor]:
        return self.decoder.vectors(self.decoder(latent.deter, latent.stoch))

    def pictures(self, latent: Latent) -> dict[str, Tensor]:
        return self.decoder.pictures(self.decoder(latent.deter, latent.stoch))


def entropy(log_prob: Float[Tensor, "*B G C"]) -> Float[Tensor, "*B"]:
    """Of G independent categoricals, in nats."""
    return -(log_prob.exp() * log_prob).sum((-1, -2))
