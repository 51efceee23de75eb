"""The world model of Hieros (Mattes et al. 2024): what happens between two rows goes through blocks of state-space layers.

    posterior  q(stoch_t | obs_t)                                        of the row alone
    out_t, x_t = blocks([stoch_{t-1}, action_{t-1}], x_{t-1})            x: the states of all layers
    prior      p(stoch_t | W out_t)
    deter_t    = symlog(V Re x_t)

As no draw depends on one before it, the rows of a sequence go through every part at once. What the next step needs is x, and
deter does not say it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.block import MLP, Affine, Style
from hieros_repro.nn.mlp import Constant
from hieros_repro.nn.s5 import Blocks
from hieros_repro.ops.action import one_hot_mode, straight_through, within
from hieros_repro.ops.transform import symlog
from hieros_repro.records import Arrays, Between, Count, Fault, Natural, Space, takes_also
from hieros_repro.world.base import Latent, Observed
from hieros_repro.world.categorical import CategoricalWorld, Joint, entropy

LAST: Mapping[str, Callable[[Tensor], Tensor]] = {"symlog": symlog, "tanh": torch.tanh, "none": lambda x: x}


class S5(CategoricalWorld):
    """`carried` holds the states of all layers, real and imaginary parts in turn, then the entropy of what stoch was drawn
    from, twice, as it is made of pairs. No gradient goes through it."""

    remembers: ClassVar[tuple[str, ...]] = ()
    narrow: ClassVar[tuple[str, ...]] = ("deter", "units", "model", "state", "head_units", "vector_units")

    inner: Joint
    between: Blocks
    out: Affine
    read: Affine
    posterior_body: MLP
    posterior_out: Affine

    @takes_also(CategoricalWorld.__init__)
    def __init__(
        self,
        observation: Mapping[str, Space],
        action: int,
        style: Style,
        *,
        model: Count,
        state: Count,
        layers: Count,
        block: Literal["single", "double"],
        ff_layers: Natural,
        dropout: Annotated[float, Between(0, 0.99)],
        state_as_deter: bool,
        final_output: Literal["symlog", "tanh", "none"],
        stochastic: bool,
        scan: Literal["auto", "loop", "parallel"],
        **shared: Any,
    ):
        deter, units, stoch = shared["deter"], shared["units"], shared["stoch"] * shared["classes"]

        def dynamics(encoded: int) -> dict[str, nn.Module]:
            between = Blocks(
                layers, model, state, shared["blocks"], style, kind=block, forwards=ff_layers, dropout=dropout
            )  # fmt: skip
            read = {"read": Affine(between.shape[0] * state, deter, style)} if state_as_deter else {}
            return {
                "inner": Joint((stoch, action), model, style),
                "between": between,
                "out": Affine(model, deter, style),
                **read,
                "prior_body": MLP(deter, shared["prior_layers"], units, style),
                "prior_out": Affine(units, stoch, style),
                "posterior_body": MLP(encoded, 1, units, style),
                "posterior_out": Affine(units, stoch, style),
                "first": Constant(deter, 0.0),
            }

        super().__init__(observation, style, dynamics, **shared)
        self.reads, self.last, self.stochastic, self.form = state_as_deter, LAST[final_output], stochastic, scan
        self.held = 2 * self.between.shape[0] * state
        self.carried = self.held + 2

    @classmethod
    def check(
        cls, *, state: int, blocks: int, image_codec: str, deter: int, image_depth: int, **others: Any
    ) -> Iterator[Fault]:
        """Blocks are of one size."""
        for key, value, where in (("state", state, ""), ("deter", deter, "pooled"), ("image_depth", 4 * image_depth, "pooled")):
            if where in ("", image_codec) and value % blocks:
                whole = -(-value // blocks) * blocks
                what = f"4 times it, {value}," if key == "image_depth" else str(value)
                yield Fault(key, f"{what} is no multiple of blocks={blocks}; {whole} would be")

    # -- States --------------------------------------------------------------------------------------------------------

    def noise(self, key: Key, shape: tuple[int, ...]) -> Arrays:
        """What is drawn, and which numbers within the blocks are dropped, if any are."""
        drawn = super().noise(key, shape) if self.stochastic else {}
        dropped = self.between.noise if self.between.dropout else None
        return drawn if dropped is None else {**drawn, "dropout": key("dropout").uniform((*shape, *dropped))}

    def initial(self, batch: int) -> Latent:
        """A learned start is known by its likeliest draw alone, through which it learns."""
        value = self.first.value
        zeros = value.new_zeros(1, self.held)
        if not value.requires_grad:
            first = Latent(value.new_zeros(1, self.deter), value.new_zeros(1, self.stoch), functional.pad(zeros, (0, 2)))
        else:
            deter = functional.gelu(value).unsqueeze(0)
            prior = self._prior(deter)
            first = Latent(deter, likeliest(prior).flatten(-2), carried([zeros], prior))
        return first.map(lambda part: part.expand(batch, -1))

    def complete(self, deter: Float[Tensor, "*B D"], near: Latent) -> Latent:
        return Latent(deter, near.stoch, near.carried)

    def entropy(self, latent: Latent) -> Float[Tensor, "*B"]:
        """Of the posterior where a row was seen, of the prior where none was."""
        return latent.carried[..., -1]

    def observe(
        self,
        obs: Mapping[str, Tensor],
        action: Float[Tensor, "T B A"],
        is_first: Bool[Tensor, "T B"] | None,
        start: Latent,
        noise: Mapping[str, Tensor],
    ) -> Observed:
        embed = self.encoder({name: value.flatten(0, 1) for name, value in obs.items()})
        posterior = self._grouped(self.posterior_out(self.posterior_body(embed))).unflatten(0, action.shape[:2])
        stoch = self._draw(posterior, noise)
        of_stoch, of_action = self.inner.columns()
        past = torch.cat([(start.stoch @ of_stoch).unsqueeze(0), stoch[:-1] @ of_stoch])
        if is_first is not None:
            reset = is_first.unsqueeze(-1)
            past, action = torch.where(reset, self.initial(1).stoch @ of_stoch, past), action.masked_fill(reset, 0.0)
        v = self.inner.close(past + within(action) @ of_action).float()
        out, states = self.between.sequence(v, is_first, self._states(start), noise.get("dropout"), self.form)
        out = self.out(out)
        parts = [torch.view_as_real(x).flatten(-2) for x in states]
        return Observed(Latent(self._deter(out, states), stoch, carried(parts, posterior)), posterior, self._prior(out))

    def dreaming(self) -> Callable[[Latent, Tensor, Mapping[str, Tensor]], Latent]:
        step, (of_stoch, of_action) = self.between.stepping(), self.inner.columns()

        def ahead(latent: Latent, action: Tensor, noise: Mapping[str, Tensor]) -> Latent:
            v = self.inner.close(latent.stoch @ of_stoch + within(action) @ of_action).float()
            out, states = step(v, self._states(latent), noise.get("dropout"))
            out = self.out(out)
            prior = self._prior(out)
            parts = [torch.view_as_real(x).flatten(-2) for x in states]
            return Latent(self._deter(out, states), self._draw(prior, noise), carried(parts, prior))

        return ahead

    def _states(self, latent: Latent) -> Tensor:
        """(B, L, P), complex."""
        return torch.view_as_complex(latent.carried[..., : self.held].unflatten(-1, (*self.between.shape, 2)))

    def _deter(self, out: Tensor, states: list[Tensor]) -> Tensor:
        """From the states, or else from what the blocks came to."""
        if self.reads:
            out = self.read(torch.cat([torch.view_as_real(x)[..., 0] for x in states], -1))
        return self.last(out.float())

    def _draw(self, log_prob: Tensor, noise: Mapping[str, Tensor]) -> Tensor:
        drawn = straight_through(log_prob, noise["stoch"]) if self.stochastic else likeliest(log_prob)
        return drawn.flatten(-2)


def likeliest(log_prob: Float[Tensor, "*B G C"]) -> Float[Tensor, "*B G C"]:
    """The mode as one-hot vectors, with the gradient of the probabilities: mode + p - sg(p)."""
    p = log_prob.exp()
    return one_hot_mode(log_prob) + (p - p.detach())


def carried(parts: list[Tensor], log_prob: Float[Tensor, "*B G C"]) -> Float[Tensor, "*B M"]:
    drawn_from = entropy(log_prob.detach()).unsqueeze(-1)
    return torch.cat([*(part.detach() for part in parts), drawn_from, drawn_from], -1)
