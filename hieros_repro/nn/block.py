"""The blocks of world models: affine map -> norm -> activation, in the manner that a Style names; and their convolutions.

Images are (N, H, W, C), channels last: what a convolution gives is normalised over its channels without a copy.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hieros_repro.determinism.keys import Key, normal_quantile
from hieros_repro.nn.init import Fillable
from hieros_repro.nn.mlp import ACTIVATIONS
from hieros_repro.records import UserError


class Style(NamedTuple):
    """How the layers of a model are made."""

    norm: Literal["layer", "rms"]
    activation: str  # a key of ACTIVATIONS
    init: Literal["glorot", "fan_in"]

    @property
    def bias(self) -> bool:
        """Whether what a norm follows has a bias. A layer norm takes the mean out and brings an offset of its own."""
        return self.norm == "rms"


# -- First values ------------------------------------------------------------------------------------------------------

_BELOW = 0.022750131948179207  # P(N(0, 1) < -2)


def initial(key: Key, shape: tuple[int, ...], fans: tuple[int, int], style: Style, scale: float) -> Tensor:
    """First weights of a map with so many inputs and outputs per unit, `fans`.

    glorot: uniform in +-sqrt(3 scale / mean(fans))   (variance scale / mean(fans): Glorot & Bengio 2010 for scale 1).
    fan_in: 1.1368 scale sqrt(1 / fan_in) n, n normal, cut at +-2; without the cut's loss of variance 1.1368 would be 1.
    """
    u = key.uniform(shape).astype(np.float64) + 2.0**-25  # the middles of the grid's cells: as much above 1/2 as below
    if style.init == "glorot":
        drawn = (2 * u - 1) * np.sqrt(3 * scale / (sum(fans) / 2))
    else:
        drawn = normal_quantile(_BELOW + u * (1 - 2 * _BELOW)) * (1.1368 * scale * np.sqrt(1 / fans[0]))
    return torch.from_numpy(drawn).float()


# -- Vectors -----------------------------------------------------------------------------------------------------------


class Affine(Fillable):
    """y = x W^T + b, b zero at first; with scale 0 W is too."""

    def __init__(self, inputs: int, outputs: int, style: Style, bias: bool = True, scale: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.style, self.scale = style, scale

    def fill(self, key: Key) -> None:
        outputs, inputs = self.weight.shape
        self.weight.copy_(initial(key, (outputs, inputs), (inputs, outputs), self.style, self.scale))
        _clear(self.bias)

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        return functional.linear(x, self.weight, self.bias)


class BlockAffine(Fillable):
    """x in G groups, each with an affine map of its own: y_g = x_g W_g + b_g. Its first weights have the size of those of one
    map of everything (as DreamerV3's), so outputs start out small."""

    def __init__(self, inputs: int, outputs: int, groups: int, style: Style):
        super().__init__()
        if inputs % groups or outputs % groups:
            raise UserError(f"{inputs} inputs and {outputs} outputs cannot be split in {groups} groups of the same size")
        self.weight = nn.Parameter(torch.empty(groups, inputs // groups, outputs // groups))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.style = style

    def fill(self, key: Key) -> None:
        groups, inputs, outputs = self.weight.shape
        fans = (groups * inputs, groups * outputs)
        self.weight.copy_(initial(key, (groups, inputs, outputs), fans, self.style, 1.0))
        _clear(self.bias)

    def grouped(self, x: Float[Tensor, "N I"]) -> Float[Tensor, "G N P"]:
        """The groups' outputs apart."""
        groups, inputs, outputs = self.weight.shape
        apart = x.view(len(x), groups, inputs).transpose(0, 1)
        return torch.baddbmm(self.bias.view(groups, 1, outputs), apart, self.weight)

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        y = self.grouped(x.reshape(-1, x.shape[-1]))
        return y.transpose(0, 1).reshape(*x.shape[:-1], -1)


class RMS(torch.autograd.Function):
    """y = w x r with r = 1 / sqrt(mean x^2 + eps), in half the time that torch's takes on a CPU, where it is not one operation.

    dL/dx = r (g w - x r mean(g w x r)),     dL/dw = sum g x r,     g = dL/dy
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        root = x.square().mean(-1, keepdim=True).add_(eps).rsqrt_()
        normal = x * root
        ctx.save_for_backward(normal, root, weight)
        return normal * weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        normal, root, weight = ctx.saved_tensors
        product = gradient * normal
        share = (product @ weight).unsqueeze(-1) / -len(weight)
        of_x = (gradient * weight).addcmul_(normal, share).mul_(root)
        return of_x, product.flatten(0, -2).sum(0), None


def rms_norm(x: Tensor, weight: Tensor, eps: float = 1e-4) -> Tensor:
    """Over the last axis."""
    if x.device.type == "cpu" and x.dim() > 1:
        return RMS.apply(x, weight, eps)
    return functional.rms_norm(x, weight.shape, weight, eps)


class Norm(Fillable):
    """Over the last axis and in float32, with x's own type as the result.

    layer: w (x - mean x) / sqrt(var x + 0.001) + b.     rms: w x / sqrt(mean x^2 + 0.0001).
    """

    def __init__(self, features: int, style: Style):
        super().__init__()
        self.scale = nn.Parameter(torch.empty(features))
        self.offset = nn.Parameter(torch.empty(features)) if style.norm == "layer" else None

    def fill(self, key: Key) -> None:
        self.scale.fill_(1.0)
        _clear(self.offset)

    def forward(self, x: Float[Tensor, "*B F"]) -> Float[Tensor, "*B F"]:
        if self.offset is None:
            return rms_norm(x.float(), self.scale).to(x.dtype)
        return functional.layer_norm(x.float(), self.scale.shape, self.scale, self.offset, 1e-3).to(x.dtype)


class Dense(nn.Module):
    """Affine map -> norm -> activation."""

    def __init__(self, inputs: int, outputs: int, style: Style):
        super().__init__()
        self.affine = Affine(inputs, outputs, style, bias=style.bias)
        self.norm = Norm(outputs, style)
        self.activation = ACTIVATIONS[style.activation]

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        return self.activation(self.norm(self.affine(x)))


class MLP(nn.Module):
    """Dense blocks of the same width one after another; none of them: what comes in goes out."""

    def __init__(self, inputs: int, layers: int, units: int, style: Style):
        super().__init__()
        self.blocks = nn.ModuleList(Dense(units if i else inputs, units, style) for i in range(layers))
        self.outputs = units if layers else inputs

    def forward(self, x: Float[Tensor, "*B I"]) -> Float[Tensor, "*B O"]:
        for block in self.blocks:
            x = block(x)
        return x


# -- Images ------------------------------------------------------------------------------------------------------------


class Convolution(Fillable):
    """Slides a square kernel over images, in steps of `stride`, after `padding` zeros on every side."""

    def __init__(self, inputs: int, outputs: int, size: int, style: Style, *, stride: int, padding: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, size, size))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.stride, self.padding, self.style = stride, padding, style

    def fill(self, key: Key) -> None:
        outputs, inputs, size, _ = shape = tuple(self.weight.shape)
        self.weight.copy_(initial(key, shape, (inputs * size**2, outputs * size**2), self.style, 1.0))
        _clear(self.bias)

    def forward(self, x: Float[Tensor, "N H W I"]) -> Float[Tensor, "N H2 W2 O"]:
        y = functional.conv2d(x.permute(0, 3, 1, 2), self.weight, self.bias, self.stride, self.padding)
        return y.permute(0, 2, 3, 1)


class Transposed(Fillable):
    """The transposed convolution: every pixel spreads a square kernel, `stride` pixels from its neighbours'."""

    def __init__(self, inputs: int, outputs: int, size: int, style: Style, *, stride: int, padding: int, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs, size, size))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.stride, self.padding, self.style = stride, padding, style

    def fill(self, key: Key) -> None:
        inputs, outputs, size, _ = shape = tuple(self.weight.shape)
        self.weight.copy_(initial(key, shape, (inputs * size**2, outputs * size**2), self.style, 1.0))
        _clear(self.bias)

    def forward(self, x: Float[Tensor, "N H W I"]) -> Float[Tensor, "N H2 W2 O"]:
        if x.shape[1:3] == (1, 1) and not self.padding:
            return self._spread(x.flatten(1))
        y = functional.conv_transpose2d(x.permute(0, 3, 1, 2), self.weight, self.bias, self.stride, self.padding)
        return y.permute(0, 2, 3, 1)

    def _spread(self, pixel: Tensor) -> Tensor:
        """Of one pixel (N, I): a matrix product, in a sixth of the time."""
        inputs, outputs, size, _ = self.weight.shape
        y = (pixel @ self.weight.permute(0, 2, 3, 1).reshape(inputs, -1)).view(-1, size, size, outputs)
        return y if self.bias is None else y + self.bias


class Doubling(Fillable):
    """Doubles an image's sides, repeating every pixel, then slides a 5x5 kernel over it (padding 2).

    Of the 25 pixels that the kernel covers many are the same one repeated: seen from the small image they are 3x3, and which
    weights fall together depends on whether row and column are even or odd. So it is a 3x3 convolution of the small image
    with four kernels at once, for 36 multiplications in place of 100.

        row 2i + a of the large image, weights w_0..w_4, sees rows i-1, i, i+1 of the small one with
        a = 0: w_0 + w_1, w_2 + w_3, w_4;     a = 1: w_0, w_1 + w_2, w_3 + w_4
    """

    together: Tensor

    def __init__(self, inputs: int, outputs: int, style: Style, *, bias: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 5, 5))
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        self.style = style
        line = np.zeros((5, 2, 3), np.float32)  # weight, even or odd, row of the small image
        for a in range(2):
            for k in range(5):
                line[k, a, (a + k) // 2] = 1.0
        square = torch.from_numpy(np.einsum("kax,lby->klabxy", line, line).reshape(25, 36))
        self.register_buffer("together", square, persistent=False)

    def fill(self, key: Key) -> None:
        outputs, inputs = self.weight.shape[:2]
        self.weight.copy_(initial(key, (outputs, inputs, 5, 5), (inputs * 25, outputs * 25), self.style, 1.0))
        _clear(self.bias)

    def forward(self, x: Float[Tensor, "N H W I"]) -> Float[Tensor, "N H2 W2 O"]:
        (count, height, width, inputs), outputs = x.shape, len(self.weight)
        kernels = (self.weight.view(-1, 25) @ self.together).view(outputs, inputs, 4, 3, 3)
        kernels = kernels.permute(2, 0, 1, 3, 4).reshape(4 * outputs, inputs, 3, 3)
        y = functional.conv2d(x.permute(0, 3, 1, 2), kernels, padding=1).permute(0, 2, 3, 1)
        y = y.reshape(count, height, width, 2, 2, outputs).transpose(2, 3)
        y = y.reshape(count, 2 * height, 2 * width, outputs)
        return y if self.bias is None else y + self.bias


def halved(x: Float[Tensor, "N H W C"]) -> Float[Tensor, "N H2 W2 C"]:
    """The maximum of every 2x2 pixels."""
    if x.device.type == "cpu":
        return functional.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return halved_in_order(x)


def halved_in_order(x: Float[Tensor, "N H W C"]) -> Float[Tensor, "N H2 W2 C"]:
    """The same for devices on which torch's pooling may sum its gradients in any order. Here equals share the gradient."""
    count, height, width, channels = x.shape
    rows = x.reshape(count, height // 2, 2, width, channels).amax(2)
    return rows.view(count, height // 2, width // 2, 2, channels).amax(3)


def _clear(bias: Tensor | None) -> None:
    if bias is not None:
        bias.zero_()
