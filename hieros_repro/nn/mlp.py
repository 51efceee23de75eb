"""Dense layers and stacks of them."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.init import Fillable, orthogonal


class Tanh(torch.autograd.Function):
    """tanh x = 2 / (1 + exp(-2 x)) - 1. On a CPU torch's logistic function takes a fifth of its tanh, but for a few numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        large = x.device.type == "cpu" and x.numel() > 4096
        y = torch.sigmoid(x + x).mul_(2.0).sub_(1.0) if large else torch.tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return torch.ops.aten.tanh_backward(gradient, *ctx.saved_tensors)


ACTIVATIONS = {"tanh": Tanh.apply, "relu": torch.relu, "silu": functional.silu, "elu": functional.elu}


class Linear(Fillable):
    """y = x W^T + b, W orthogonal with a gain, b zero."""

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.gain = gain

    def fill(self, key: Key) -> None:
        self.weight.copy_(orthogonal(key, self.weight.shape, self.gain))
        self.bias.zero_()

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        return functional.linear(x, self.weight, self.bias)


class Side(Fillable):
    """The parameters of S dense layers of the same shape side by side: y_s = x_s W_s + b_s."""

    def __init__(self, members: int, inputs: int, outputs: int, gain: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(members, 1, outputs))
        self.gain = gain

    def fill(self, key: Key) -> None:
        for member, weight in enumerate(self.weight):
            weight.copy_(orthogonal(key(member), weight.T.shape, self.gain).T)
        self.bias.zero_()


class Constant(Fillable):
    """A learned vector that does not depend on the input."""

    def __init__(self, size: int, value: float):
        super().__init__()
        self.value = nn.Parameter(torch.empty(size))
        self.start = value

    def fill(self, key: Key) -> None:
        self.value.fill_(self.start)


class Towers(nn.Module):
    """S multi-layer perceptrons of the same shape that share nothing, as one batched product per layer.

    Small networks cost their operations' overhead, not their arithmetic: two side by side cost about as much as one.
    """

    def __init__(self, members: int, inputs: int, hidden: Sequence[int], activation: str):
        super().__init__()
        self.members = members
        self.activation = ACTIVATIONS[activation]
        widths = [inputs, *hidden]
        sides = [Side(members, i, o, gain=2**0.5) for i, o in zip(widths, hidden, strict=False)]
        self.layers = nn.ModuleList(sides)
        self.pairs = [(side.weight, side.bias) for side in sides]  # looking up a module's attribute costs as much

    def forward(self, x: Float[Tensor, "B I"]) -> tuple[Float[Tensor, "B O"], ...]:
        y = x.expand(self.members, *x.shape)
        for weight, bias in self.pairs:
            y = self.activation(torch.baddbmm(bias, y, weight))
        return y.unbind(0)

    def member(self, index: int, x: Float[Tensor, "B I"]) -> Float[Tensor, "B O"]:
        """One tower alone."""
        for weight, bias in self.pairs:
            x = self.activation(torch.addmm(bias[index], x, weight[index]))
        return x
