"""Simplified structured state-space layers (Smith et al. 2023), in blocks as Hieros stacks them (Mattes et al. 2024).

    x_t = a x_{t-1} + B u_t,      y_t = Re(C x_t) + D u_t,      x complex, P numbers that have nothing to do with each other

Of several layers everything that does not depend on what comes in is computed at once, for all the steps that follow. What is
carried is float32, the products around it have whatever precision products have.
"""

import math
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor, nn
from torch.nn import functional

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.block import Affine, Dense, Norm, Style, initial
from hieros_repro.nn.init import Fillable
from hieros_repro.ops.scan import Form, scan

LEAST_STEP, GREATEST_STEP = 1e-3, 1e-1  # of the first time steps
CUT = 0.87962566103423978  # standard deviation of a normal that is cut at +-2; both input and output are drawn with its square


class Discrete(NamedTuple):
    """A layer in discrete time, as matrices between real numbers."""

    decay: Tensor  # (P,) complex
    inward: Tensor  # (2P, H): real and imaginary parts in turn
    outward: Tensor  # (H, 2P)
    past: Tensor  # (H,) of what passes by the states

    def enter(self, u: Float[Tensor, "*B H"]) -> Complex[Tensor, "*B P"]:
        """B u."""
        return torch.view_as_complex(single(functional.linear(u, self.inward)).unflatten(-1, (-1, 2)))

    def leave(self, states: Complex[Tensor, "*B P"], u: Float[Tensor, "*B H"]) -> Float[Tensor, "*B H"]:
        """Re(C x) + D u."""
        seen = functional.linear(torch.view_as_real(states).flatten(-2), self.outward)
        return single(seen).addcmul_(self.past, u)


class StateSpaces(Fillable):
    """The parameters of L layers of the same shape side by side; complex ones as pairs of real ones.

    In continuous time dx/dt = rate x + input u. Held between steps of length s = exp(log_step):

        a = exp(s rate),      B = (a - 1) / rate  input,      C = conj output

    (`output` is the conjugate, for Re(C x) = Re output . Re x + Im output . Im x.) At first the rates are those of HiPPO-LegS,
    in blocks of P / blocks, in its eigenbasis V: input = V^-1 B_0 and C = C_0 V, with D in [0, 1) and log_step uniform.
    Rates, D and log_step are flat: they are no matrices, and what is meant for those, as decay is, must not take them for some.
    B_0 has variance CUT^4 / P. C_0 has CUT^4 / (P H): as published, though a layer of P inputs would have H times that, so at
    first nearly all that comes out has passed by the states.
    """

    def __init__(self, layers: int, model: int, state: int, blocks: int):
        super().__init__()
        assert state % blocks == 0, f"{state} states do not divide into {blocks} blocks"
        self.rate = nn.Parameter(torch.empty(layers * state * 2))
        self.input = nn.Parameter(torch.empty(layers, state, model, 2))
        self.output = nn.Parameter(torch.empty(layers, model, state, 2))
        self.past = nn.Parameter(torch.empty(layers * model))
        self.log_step = nn.Parameter(torch.empty(layers * state))
        self.blocks = blocks

    def fill(self, key: Key) -> None:
        layers, state, model, _ = self.input.shape
        rates, basis = legs(state // self.blocks)
        self.rate.copy_(_pairs(np.tile(rates, layers * self.blocks)).flatten())
        first_step, ratio = math.log(LEAST_STEP), math.log(GREATEST_STEP / LEAST_STEP)
        for layer in range(layers):
            of = key(layer)
            inward = _drawn(of("input"), (state, model), state).reshape(self.blocks, -1, model)
            self.input[layer] = _pairs((basis.conj().T @ inward).reshape(state, model))
            real, imaginary = (_drawn(of("output", part), (model, state), state * model) for part in ("real", "imaginary"))
            outward = (real + 1j * imaginary).reshape(model, self.blocks, -1)
            self.output[layer] = _pairs((outward @ basis).reshape(model, state).conj())
            self.past.view(layers, -1)[layer] = torch.from_numpy(of("past").uniform((model,)))
            self.log_step.view(layers, -1)[layer] = torch.from_numpy(first_step + ratio * of("log_step").uniform64((state,)))

    def vectors(self) -> tuple[Complex[Tensor, "L P"], Float[Tensor, "L H"], Float[Tensor, "L P"]]:
        """Rates, D and log_step, a row per layer."""
        layers = len(self.input)
        rate = torch.view_as_complex(self.rate.view(layers, -1, 2))
        return rate, self.past.view(layers, -1), self.log_step.view(layers, -1)

    def discrete(self) -> list[Discrete]:
        """One per layer."""
        rate, past, log_step = self.vectors()
        decay = torch.exp(rate * log_step.exp())
        held = ((decay - 1) / rate).unsqueeze(-1) * torch.view_as_complex(self.input)
        inward = torch.view_as_real(held).transpose(-1, -2).flatten(1, 2)
        parts = (decay, inward, self.output.flatten(-2), past)
        return [Discrete(*layer) for layer in zip(*(part.unbind(0) for part in parts), strict=True)]


def single(x: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """In float32, unless it is more exact."""
    return x if x.dtype == torch.float64 else x.float()


def legs(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (N,) and eigenvectors (N, N) of the normal part of HiPPO-LegS (Gu et al. 2020), in float64:

        S = A + q q^T,     A_nm = -sqrt(2n + 1) sqrt(2m + 1) for n > m, -(n + 1) for n = m,     q_n = sqrt(n + 1/2)

    S + 1/2 is antisymmetric, so all real parts are -1/2. Ascending by imaginary part; every eigenvector's first entry is real
    and positive, for their phase is free.
    """
    n = np.arange(size, dtype=np.float64)
    p, q = np.sqrt(2 * n + 1), np.sqrt(n + 0.5)
    normal = -np.tril(np.outer(p, p)) + np.diag(n) + np.outer(q, q)
    frequency, basis = np.linalg.eigh(-1j * (normal - np.diag(np.diag(normal))))
    basis = basis * (basis[0].conj() / np.abs(basis[0]))
    return np.diag(normal).mean() + 1j * frequency, basis


def _drawn(key: Key, shape: tuple[int, int], fan: int) -> np.ndarray:
    """Normal and cut at +-2 standard deviations, with a variance of CUT^4 / fan."""
    return initial(key, shape, (fan, fan), Style("layer", "gelu", "fan_in"), CUT**2).double().numpy()


def _pairs(x: np.ndarray) -> Tensor:
    """Complex numbers (...) as real ones (..., 2)."""
    return torch.view_as_real(torch.from_numpy(x))


class Blocks(nn.Module):
    """State-space layers with residual connections around them and gelu behind, and after one or two of them a norm:

    v <- v + drop(gelu(L S5(norm(v))))      once (single) or twice (double)
    v <- v + F(norm(v))                     F: `forwards` dense layers, each with its drop; none: the identity
    """

    def __init__(
        self,
        count: int,
        model: int,
        state: int,
        groups: int,
        style: Style,
        *,
        kind: Literal["single", "double"],
        forwards: int,
        dropout: float,
    ):
        super().__init__()
        self.each, self.forwards, self.dropout = {"single": 1, "double": 2}[kind], forwards, dropout
        self.shape = (count * self.each, state)
        self.spaces = StateSpaces(count * self.each, model, state, groups)
        self.norms = nn.ModuleList(Norm(model, style) for _ in range(count * self.each))
        self.mixers = nn.ModuleList(Affine(model, model, style, bias=False) for _ in range(count * self.each))
        self.ends = nn.ModuleList(Norm(model, style) for _ in range(count))
        self.denses = nn.ModuleList(Dense(model, model, style) for _ in range(count * forwards))
        self.noise = (count * (self.each + forwards), model)  # uniform numbers per step where anything is dropped

    def sequence(
        self,
        v: Float[Tensor, "T B H"],
        reset: Bool[Tensor, "T B"] | None,
        start: Complex[Tensor, "B L P"],
        uniform: Float[Tensor, "T B N H"] | None,
        form: Form,
    ) -> tuple[Float[Tensor, "T B H"], list[Complex[Tensor, "T B P"]]]:
        """What comes out of T steps at once, and the states of every layer."""

        def advanced(layer: Discrete, entering: Tensor, before: Tensor) -> Tensor:
            return scan(layer.decay, entering, reset, before, form)

        return self._through(v, self.spaces.discrete(), start, advanced, uniform)

    def stepping(self) -> Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, list[Tensor]]]:
        """One step: (v (B, H), states (B, L, P), uniform) -> what comes out, and the next states of every layer."""
        layers = self.spaces.discrete()

        def advanced(layer: Discrete, entering: Tensor, before: Tensor) -> Tensor:
            return torch.addcmul(entering, layer.decay, before)

        return lambda v, states, uniform: self._through(v, layers, states, advanced, uniform)

    def _through(
        self,
        v: Tensor,
        layers: Sequence[Discrete],
        start: Tensor,
        advanced: Callable[[Discrete, Tensor, Tensor], Tensor],
        uniform: Tensor | None,
    ) -> tuple[Tensor, list[Tensor]]:
        states: list[Tensor] = []
        drop = dropping(self.dropout, uniform)
        spaces, denses = zip(layers, self.norms, self.mixers, start.unbind(-2), strict=True), iter(self.denses)
        for end in self.ends:
            for layer, norm, mixer, before in islice(spaces, self.each):
                u = norm(v)
                states.append(advanced(layer, layer.enter(u), before))
                v = v + drop(functional.gelu(mixer(layer.leave(states[-1], u))))
            w = end(v)
            for dense in islice(denses, self.forwards):
                w = drop(dense(w))
            v = v + w
        return v, states


def dropping(rate: float, uniform: Float[Tensor, "*B N H"] | None) -> Callable[[Tensor], Tensor]:
    """Sets numbers to zero where the next `uniform` ones are below the rate, and divides those that stay by 1 - rate."""
    if not rate or uniform is None:
        return lambda x: x
    parts = iter(uniform.unbind(-2))
    return lambda x: x * (next(parts) >= rate) / (1.0 - rate)
