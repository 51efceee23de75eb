"""Families of action distributions, as functions of their parameters. Noise comes in as data; nothing here draws.

A family turns the outputs of a network into actions: `width` outputs per action, `noise_shape` random numbers per action.
"""

import math
from abc import ABC, abstractmethod
from itertools import accumulate

import torch
from jaxtyping import Float, Int
from torch import Tensor

from hieros_repro.determinism.keys import Key
from hieros_repro.records import Space


def family(space: Space) -> "Family":
    """The family that fits an action space."""
    if space.kind == "continuous":
        return Gaussian(math.prod(space.shape))
    if space.kind == "discrete":
        return Categorical(space.sizes[0])
    if space.kind == "multidiscrete":
        return Categoricals(space.sizes)
    if space.kind == "onehot":
        return OneHot(space.sizes[0])
    raise ValueError(f"no family of distributions for an action space of kind {space.kind!r}")


class Family(ABC):
    """What every family offers. P is the batch's shape, W the family's width."""

    width: int  # network outputs per action
    scales: int  # free log standard deviations, apart from the network (0 where there are none)

    @abstractmethod
    def noise(self, key: Key, shape: tuple[int, ...]): ...  # type: ignore[no-untyped-def]

    @abstractmethod
    def sample(self, params: Tensor, noise: Tensor) -> Tensor: ...

    @abstractmethod
    def mode(self, params: Tensor) -> Tensor: ...

    @abstractmethod
    def log_prob(self, params: Tensor, action: Tensor) -> Tensor: ...

    @abstractmethod
    def entropy(self, params: Tensor) -> Tensor: ...


class Categorical(Family):
    """One of n classes; parameters are logits."""

    scales = 0

    def __init__(self, classes: int):
        self.width = classes

    def noise(self, key: Key, shape: tuple[int, ...]):  # type: ignore[no-untyped-def]
        return key.uniform(shape)

    def sample(self, params: Float[Tensor, "*P W"], noise: Float[Tensor, "*P"]) -> Int[Tensor, "*P"]:
        return inverse_cdf(params, noise)

    def mode(self, params: Float[Tensor, "*P W"]) -> Int[Tensor, "*P"]:
        return params.argmax(-1)

    def log_prob(self, params: Float[Tensor, "*P W"], action: Int[Tensor, "*P"]) -> Float[Tensor, "*P"]:
        return params.float().log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)

    def entropy(self, params: Float[Tensor, "*P W"]) -> Float[Tensor, "*P"]:
        log = params.float().log_softmax(-1)
        return -(log.exp() * log).sum(-1)


class OneHot(Categorical):
    """The same as a vector: 1 at the class, 0 elsewhere."""

    def sample(self, params: Float[Tensor, "*P W"], noise: Float[Tensor, "*P"]) -> Float[Tensor, "*P W"]:
        return self._vector(super().sample(params, noise))

    def mode(self, params: Float[Tensor, "*P W"]) -> Float[Tensor, "*P W"]:
        return self._vector(super().mode(params))

    def log_prob(self, params: Float[Tensor, "*P W"], action: Float[Tensor, "*P W"]) -> Float[Tensor, "*P"]:
        return super().log_prob(params, action.argmax(-1))

    def _vector(self, index: Int[Tensor, "*P"]) -> Float[Tensor, "*P W"]:
        return (index.unsqueeze(-1) == torch.arange(self.width, device=index.device)).float()


class Categoricals(Family):
    """Several independent categoricals of given sizes; log-probability and entropy are sums over them."""

    scales = 0

    def __init__(self, sizes: tuple[int, ...]):
        self.sizes = sizes
        self.width = sum(sizes)
        ends = list(accumulate(sizes))
        self._parts = [(Categorical(size), slice(end - size, end)) for size, end in zip(sizes, ends, strict=True)]

    def noise(self, key: Key, shape: tuple[int, ...]):  # type: ignore[no-untyped-def]
        return key.uniform((*shape, len(self.sizes)))

    def sample(self, params: Float[Tensor, "*P W"], noise: Float[Tensor, "*P D"]) -> Int[Tensor, "*P D"]:
        return torch.stack([inverse_cdf(params[..., s], noise[..., i]) for i, (_, s) in enumerate(self._parts)], -1)

    def mode(self, params: Float[Tensor, "*P W"]) -> Int[Tensor, "*P D"]:
        return torch.stack([part.mode(params[..., s]) for part, s in self._parts], -1)

    def log_prob(self, params: Float[Tensor, "*P W"], action: Int[Tensor, "*P D"]) -> Float[Tensor, "*P"]:
        return torch.stack([part.log_prob(params[..., s], action[..., i]) for i, (part, s) in enumerate(self._parts)]).sum(0)

    def entropy(self, params: Float[Tensor, "*P W"]) -> Float[Tensor, "*P"]:
        return torch.stack([part.entropy(params[..., s]) for part, s in self._parts]).sum(0)


class Gaussian(Family):
    """Independent normals; parameters are means, then log standard deviations: D2 = 2 D numbers."""

    def __init__(self, dimensions: int):
        self.dimensions = dimensions
        self.width = dimensions
        self.scales = dimensions

    def noise(self, key: Key, shape: tuple[int, ...]):  # type: ignore[no-untyped-def]
        return key.normal((*shape, self.dimensions))

    def sample(self, params: Float[Tensor, "*P D2"], noise: Float[Tensor, "*P D"]) -> Float[Tensor, "*P D"]:
        mean, log_std = params.float().chunk(2, -1)
        return mean + log_std.exp() * noise

    def mode(self, params: Float[Tensor, "*P D2"]) -> Float[Tensor, "*P D"]:
        return params.float().chunk(2, -1)[0]

    def log_prob(self, params: Float[Tensor, "*P D2"], action: Float[Tensor, "*P D"]) -> Float[Tensor, "*P"]:
        """-1/2 sum_d [ ((a_d - mean_d) / std_d)^2 + 2 log std_d + log 2 pi ]"""
        mean, log_std = params.float().chunk(2, -1)
        score = ((action - mean) * (-log_std).exp()).square() + 2 * log_std + math.log(2 * math.pi)
        return -0.5 * score.sum(-1)

    def entropy(self, params: Float[Tensor, "*P D2"]) -> Float[Tensor, "*P"]:
        """sum_d [ log std_d + 1/2 log(2 pi e) ]"""
        log_std = params.float().chunk(2, -1)[1]
        return (log_std + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


def inverse_cdf(logits: Float[Tensor, "*P W"], uniform: Float[Tensor, "*P"]) -> Int[Tensor, "*P"]:
    """The class whose slice of [0, 1) holds `uniform`: the number of cumulative probabilities at or below it.

    The prefix sums are additions in a fixed order (a cumulative sum raises on CUDA under strict determinism), and the last
    class is whatever is left, so rounding can never produce a class that does not exist.
    """
    probability = logits.float().softmax(-1)
    if probability.shape[-1] > 16:
        ones = torch.ones(probability.shape[-1], probability.shape[-1], device=logits.device).triu()
        cumulative = probability @ ones
        return (cumulative[..., :-1] <= uniform.unsqueeze(-1)).sum(-1)
    edge = probability[..., 0]
    index = (edge <= uniform).long()
    for column in range(1, probability.shape[-1] - 1):
        edge = edge + probability[..., column]
        index = index + (edge <= uniform)
    return index
