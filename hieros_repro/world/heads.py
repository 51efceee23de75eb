"""Heads: what a state says about one number, learned from what the number turned out to be."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hieros_repro.nn.block import MLP, Affine, Style
from hieros_repro.ops.transform import symexp, symexp_bins, symlog, two_hot_loss, two_hot_mean


class Head(nn.Module, ABC):
    """States -> outputs; outputs -> the number that is expected, or how wrong they are about the one that came."""

    width = 1

    def __init__(self, inputs: int, layers: int, units: int, style: Style, scale: float):
        super().__init__()
        self.body = MLP(inputs, layers, units, style)
        self.out = Affine(self.body.outputs, self.width, style, scale=scale)

    def forward(self, state: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        return self.out(self.body(state)).float()

    @abstractmethod
    def mean(self, outputs: Float[Tensor, "*B O"]) -> Float[Tensor, "*B"]: ...

    @abstractmethod
    def loss(self, outputs: Float[Tensor, "*B O"], target: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]: ...


class Symlog(Head):
    """The symlog of the number, by squared error: (f(s) - symlog y)^2."""

    def mean(self, outputs: Float[Tensor, "*B O"]) -> Float[Tensor, "*B"]:
        return symexp(outputs.squeeze(-1))

    def loss(self, outputs: Float[Tensor, "*B O"], target: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return (outputs.squeeze(-1) - symlog(target)).square()


class TwoHot(Head):
    """A distribution over 255 bins, symexp-spaced: the cross entropy to the two bins around y."""

    width = 255

    def __init__(self, inputs: int, layers: int, units: int, style: Style, scale: float):
        super().__init__(inputs, layers, units, style, scale)
        self.register_buffer("bins", symexp_bins(self.width), persistent=False)

    def mean(self, outputs: Float[Tensor, "*B O"]) -> Float[Tensor, "*B"]:
        return two_hot_mean(outputs, self.bins)  # type: ignore[arg-type]

    def loss(self, outputs: Float[Tensor, "*B O"], target: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return two_hot_loss(outputs, target, self.bins)  # type: ignore[arg-type]


class Binary(Head):
    """A probability; the target may be one too."""

    def mean(self, outputs: Float[Tensor, "*B O"]) -> Float[Tensor, "*B"]:
        return torch.sigmoid(outputs.squeeze(-1))

    def loss(self, outputs: Float[Tensor, "*B O"], target: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
        return functional.binary_cross_entropy_with_logits(outputs.squeeze(-1), target, reduction="none")


HEADS: dict[str, type[Head]] = {"symlog": Symlog, "two_hot": TwoHot}  # for numbers of any size
