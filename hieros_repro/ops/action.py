"""Actions as vectors that a world model can take: categoricals as one-hot vectors, continuous ones between -1 and 1.

Every kind turns `width` outputs of a network into a vector of length `size`, and vectors into actions of the environment and
back. Noise comes in as data. Inside everything is float32, also where the outputs are not.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import accumulate, groupby
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from hieros_repro.determinism.keys import Key
from hieros_repro.records import Space

IMPOSSIBLE = -1e9  # log-probability of a class that does not exist: its exponential is exactly 0, 0 times it is not NaN
FEW = 16  # classes
WHOLE = 2.0**23  # units into which a distribution is divided to draw from it: their sums are exact in float32

# -- Categoricals: G independent ones of C classes ---------------------------------------------------------------------


def unimix(logits: Float[Tensor, "*P G C"], mix: float, exists: Bool[Tensor, "G C"] | None = None) -> Float[Tensor, "*P G C"]:
    """log p with p = (1 - mix) softmax(logits) + mix / n, n the classes of a group that exist (all, unless said otherwise)."""
    logits = logits.float()
    if exists is not None:
        logits = logits.masked_fill(~exists, IMPOSSIBLE)
    if not mix:
        return _log_softmax(logits)
    if exists is None:
        return ((1.0 - mix) * _softmax(logits) + mix / logits.shape[-1]).log()
    p = (1.0 - mix) * _softmax(logits) + mix * exists / exists.sum(-1, keepdim=True)
    return p.masked_fill(~exists, 1.0).log().masked_fill(~exists, IMPOSSIBLE)  # a logarithm of 0 would have no gradient


def one_hot_sample(log_prob: Float[Tensor, "*P G C"], uniform: Float[Tensor, "*P G"]) -> Float[Tensor, "*P G C"]:
    """The class whose slice of [0, 1) holds `uniform`, as a one-hot vector without gradient."""
    return _draw(log_prob.detach().float().exp(), uniform)


def one_hot_mode(log_prob: Float[Tensor, "*P G C"]) -> Float[Tensor, "*P G C"]:
    """The most probable class as a one-hot vector without gradient."""
    return _one_hot(log_prob.argmax(-1), log_prob.shape[-1])


def straight_through(log_prob: Float[Tensor, "*P G C"], uniform: Float[Tensor, "*P G"]) -> Float[Tensor, "*P G C"]:
    """A one-hot sample with the gradient of the probabilities: sample + p - sg(p)."""
    p = log_prob.float().exp()
    constant = p.detach()
    return _draw(constant, uniform) + (p - constant)


def _draw(p: Float[Tensor, "*P G C"], uniform: Float[Tensor, "*P G"]) -> Float[Tensor, "*P G C"]:
    """1 for the class whose slice [cum_{c-1}, cum_c) of the total holds the fraction `uniform` of it, else 0.

    Probabilities become whole numbers of 2^-23 first. Sums of whole numbers are exact: the slices touch without gap or
    overlap, end at the total, and are empty for classes without probability, whatever the order of summation. So exactly one
    class is drawn, it is a possible one, and equal probabilities draw the same one in every batch and on every device. (A
    cumulative sum of floats promises none of this, and raises on CUDA under strict determinism; one of integers does not.)
    """
    slices = (p * WHOLE).to(torch.int32)
    ends = _sums(slices)
    point = (uniform.float().unsqueeze(-1) * ends[..., -1:]).to(torch.int32)  # below the total: u <= 1 - 2^-24
    return ((ends > point) & (ends - slices <= point)).float()


# Over a few classes a CPU computes these several times faster from whole columns than torch's own, which go row by row.


def _softmax(logits: Tensor) -> Tensor:
    if logits.shape[-1] > FEW:
        return logits.softmax(-1)
    e = (logits - logits.detach().amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def _log_softmax(logits: Tensor) -> Tensor:
    if logits.shape[-1] > FEW:
        return logits.log_softmax(-1)
    logits = logits - logits.detach().amax(-1, keepdim=True)
    return logits - logits.exp().sum(-1, keepdim=True).log()


def _sums(x: Tensor) -> Tensor:
    """Of each entry and all before it, exact for whole numbers."""
    if x.shape[-1] > FEW:
        return x.cumsum(-1, dtype=x.dtype)
    first, *rest = x.unbind(-1)
    return torch.stack(list(accumulate(rest, initial=first)), -1)


def _one_hot(index: Tensor, classes: int) -> Tensor:
    return (index.unsqueeze(-1) == torch.arange(classes, device=index.device)).float()


def within(action: Float[Tensor, "*B A"]) -> Float[Tensor, "*B A"]:
    """Actions beyond one as one."""
    return action / action.abs().clamp(min=1.0)


# -- Actions -----------------------------------------------------------------------------------------------------------


def actions(space: Space, unimix: float, low_std: float, high_std: float, shift: float) -> "Actions":
    """The kind of vectors that fits an action space: unimix is of the categoricals, the rest of the continuous ones."""
    if space.kind == "continuous":
        return Bounded(math.prod(space.shape), low_std, high_std, shift, space.low, space.high, space.shape)
    if space.kind == "discrete" or space.kind == "multidiscrete" or space.kind == "onehot":
        return Codes(space.sizes, unimix, space.kind, space.shape)
    raise ValueError(f"no vectors for an action space of kind {space.kind!r}")


class Actions(ABC):
    """What every kind offers. *P is the batch's shape, W the width, S the size, G the groups."""

    width: int  # network outputs per action
    size: int  # length of the vector
    groups: int  # independent parts, with an entropy each
    max_entropy: list[float]  # per group
    min_entropy: list[float]

    @abstractmethod
    def noise(self, key: Key, shape: tuple[int, ...]) -> np.ndarray:
        """The random numbers of `shape` samples."""

    @abstractmethod
    def sample(self, params: Tensor, noise: Tensor) -> Tensor:
        """A vector drawn from the distribution with these parameters."""

    @abstractmethod
    def mode(self, params: Tensor) -> Tensor:
        """The most probable vector."""

    @abstractmethod
    def log_prob(self, params: Tensor, vector: Tensor) -> Tensor:
        """The logarithm of a vector's probability (density), summed over the groups."""

    @abstractmethod
    def entropy(self, params: Tensor) -> Tensor:
        """The entropy of each group."""

    @abstractmethod
    def to_env(self, vector: Tensor) -> Tensor:
        """The action of the environment that a vector stands for."""

    @abstractmethod
    def from_env(self, action: Tensor) -> Tensor:
        """The vector that stands for an action of the environment."""


class Codes(Actions):
    """One categorical per group of sizes n_1 .. n_G; the vector is their one-hot vectors, each of length C = max n_g.

    p = (1 - unimix) softmax(logits) + unimix / n_g; columns beyond a group's own size have probability 0.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        unimix: float,
        kind: Literal["discrete", "multidiscrete", "onehot"] = "onehot",
        shape: tuple[int, ...] | None = None,
    ):
        self.sizes, self.unimix, self.kind = tuple(sizes), unimix, kind
        self.groups, self.classes = len(self.sizes), max(self.sizes)
        self.width = self.size = self.groups * self.classes
        self.shape = shape if shape is not None else {"discrete": (), "onehot": (self.size,)}.get(kind, (self.groups,))
        self.max_entropy = [math.log(n) for n in self.sizes]
        self.min_entropy = [0.0] * self.groups

    def noise(self, key: Key, shape: tuple[int, ...]) -> np.ndarray:
        return key.uniform((*shape, self.groups))

    def log_probs(self, params: Float[Tensor, "*P W"]) -> Float[Tensor, "*P G C"]:
        """The log-probability of every class of every group."""
        exists = None
        if min(self.sizes) < self.classes:  # made here by operations, so that a recording needs no constant from outside
            column = torch.arange(self.classes, device=params.device)
            exists = torch.stack([column < n for n in self.sizes])
        return unimix(params.unflatten(-1, (self.groups, self.classes)), self.unimix, exists)

    def sample(self, params: Float[Tensor, "*P W"], noise: Float[Tensor, "*P G"]) -> Float[Tensor, "*P W"]:
        return one_hot_sample(self.log_probs(params), noise).flatten(-2)

    def mode(self, params: Float[Tensor, "*P W"]) -> Float[Tensor, "*P W"]:
        return one_hot_mode(self.log_probs(params)).flatten(-2)

    def log_prob(self, params: Float[Tensor, "*P W"], vector: Float[Tensor, "*P W"]) -> Float[Tensor, "*P"]:
        return (self.log_probs(params).flatten(-2) * vector).sum(-1)

    def entropy(self, params: Float[Tensor, "*P W"]) -> Float[Tensor, "*P G"]:
        log = self.log_probs(params)
        return -(log.exp() * log).sum(-1)

    def to_env(self, vector: Float[Tensor, "*P W"]) -> Tensor:
        if self.kind == "onehot":
            return vector.float()
        index = vector.unflatten(-1, (self.groups, self.classes)).argmax(-1)
        return index.reshape(index.shape[:-1] + self.shape)

    def from_env(self, action: Tensor) -> Tensor:
        if self.kind == "onehot":
            return action.float()
        batch = action.shape[: action.ndim - len(self.shape)]
        return _one_hot(action.reshape(*batch, self.groups), self.classes).flatten(-2)


class Bounded(Actions):
    """Independent normals, D of them, for actions between -1 and 1; parameters are D means, then D deviations.

        mean = tanh(m),      std = low_std + (high_std - low_std) sigmoid(s + shift)

    A sample may lie beyond -1 and 1; the environment sees it clipped, and stretched to its own bounds (-1 or 1 for an
    infinite one).
    """

    groups = 1

    def __init__(
        self,
        dimensions: int,
        low_std: float,
        high_std: float,
        shift: float,
        low: Sequence[float],
        high: Sequence[float],
        shape: tuple[int, ...] | None = None,
    ):
        if not 0.0 < low_std <= high_std:
            raise ValueError(f"standard deviations lie between low_std and high_std, 0 < {low_std} <= {high_std} is not so")
        self.size, self.width = dimensions, 2 * dimensions
        self.low_std, self.high_std, self.shift = low_std, high_std, shift
        self.shape = (dimensions,) if shape is None else shape
        self.low = [bound if math.isfinite(bound) else -1.0 for bound in low]
        self.high = [bound if math.isfinite(bound) else 1.0 for bound in high]
        self.centre = [(a + b) / 2 for a, b in zip(self.low, self.high, strict=True)]
        self.half = [(b - a) / 2 for a, b in zip(self.low, self.high, strict=True)]
        self.min_entropy, self.max_entropy = ([dimensions * _normal_entropy(std)] for std in (low_std, high_std))

    def noise(self, key: Key, shape: tuple[int, ...]) -> np.ndarray:
        return key.normal((*shape, self.size))

    def mean_and_std(self, params: Float[Tensor, "*P W"]) -> tuple[Float[Tensor, "*P S"], Float[Tensor, "*P S"]]:
        mean, spread = params.float().chunk(2, -1)
        return mean.tanh(), self.low_std + (self.high_std - self.low_std) * (spread + self.shift).sigmoid()

    def sample(self, params: Float[Tensor, "*P W"], noise: Float[Tensor, "*P S"]) -> Float[Tensor, "*P S"]:
        mean, std = self.mean_and_std(params)
        return mean + std * noise

    def mode(self, params: Float[Tensor, "*P W"]) -> Float[Tensor, "*P S"]:
        return self.mean_and_std(params)[0]

    def log_prob(self, params: Float[Tensor, "*P W"], vector: Float[Tensor, "*P S"]) -> Float[Tensor, "*P"]:
        """-1/2 sum_d [ ((a_d - mean_d) / std_d)^2 + 2 log std_d + log 2 pi ]"""
        mean, std = self.mean_and_std(params)
        score = ((vector - mean) / std).square() + 2 * std.log() + math.log(2 * math.pi)
        return -0.5 * score.sum(-1)

    def entropy(self, params: Float[Tensor, "*P W"]) -> Float[Tensor, "*P 1"]:
        """sum_d [ log std_d + 1/2 log(2 pi e) ]"""
        return (self.mean_and_std(params)[1].log() + _normal_entropy(1.0)).sum(-1, keepdim=True)

    def to_env(self, vector: Float[Tensor, "*P S"]) -> Tensor:
        action = vector.float().clamp(-1.0, 1.0)
        if any(self.centre) or any(half != 1.0 for half in self.half):
            action = _row(self.centre, action) + _row(self.half, action) * action
            action = action.clamp(_row(self.low, action), _row(self.high, action))  # rounding must not leave the bounds
        return action.reshape(vector.shape[:-1] + self.shape)

    def from_env(self, action: Tensor) -> Tensor:
        batch = action.shape[: action.ndim - len(self.shape)]
        vector = action.float().reshape(*batch, self.size)
        return (vector - _row(self.centre, vector)) / _row([half or 1.0 for half in self.half], vector)


def _normal_entropy(std: float) -> float:
    return math.log(std) + 0.5 * math.log(2 * math.pi * math.e)


def _row(values: Sequence[float], like: Tensor) -> Tensor:
    """The values as a tensor, made by operations alone: one per run of equal values."""
    return torch.cat([like.new_full((len(list(run)),), value) for value, run in groupby(values)])
