"""Features as observations: what a world model believes it sees."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from hieros_repro.nn.block import MLP, Affine, BlockAffine, Dense, Doubling, Norm, Style, Transposed
from hieros_repro.nn.mlp import ACTIVATIONS
from hieros_repro.ops.transform import symexp, symlog
from hieros_repro.records import Space, UserError
from hieros_repro.world.image import SMALLEST, doubled, halvings, of_director, widened


class Decoder(nn.Module):
    """Features deter (N, D) and stoch (N, S) -> observations by name, images first.

    An image's loss is image_scale sum (prediction - x / 255)^2; with image_scale = 1 at 64x64, (64 / side)^2 gives smaller
    images the same weight. Anything else is predicted as symlog x (or x), and its loss is sum (prediction - symlog x)^2.
    """

    def __init__(
        self,
        observation: Mapping[str, Space],
        deter: int,
        stoch: int,
        style: Style,
        *,
        kind: Literal["strided", "pooled"],
        padding: Literal["valid", "same"],
        depth: int,
        layers: int,
        units: int,
        sigmoid: bool,
        image_scale: float,
        groups: int,
        symlog_vectors: bool,
    ):
        super().__init__()
        images = {name: space for name, space in observation.items() if space.kind == "image"}
        self.images = nn.ModuleDict()
        for name, space in images.items():
            if kind == "pooled":
                self.images[name] = Growing(name, space, deter, stoch, style, depth=depth, units=units, groups=groups)
            elif padding == "same":
                self.images[name] = Spreading(name, space, deter + stoch, style, depth)
            else:
                self.images[name] = DirectorImages(name, space, deter + stoch, style, depth)
        self.sizes = {name: math.prod(space.shape) for name, space in observation.items() if name not in images}
        self.sigmoid, self.image_scale, self.symlog = sigmoid, image_scale, symlog_vectors
        if self.sizes:
            self.mlp = MLP(deter + stoch, layers, units, style)
            self.head = Affine(self.mlp.outputs, sum(self.sizes.values()), style)

    def forward(self, deter: Tensor, stoch: Tensor) -> dict[str, Tensor]:
        """Images as (N, H, W, C) in [0, 1], give or take, the others as (N, size); all of them float32."""
        found = {}
        for name, image in self.images.items():
            y = image(deter, stoch).float()
            found[name] = torch.sigmoid(y) if self.sigmoid else y + 0.5
        if self.sizes:
            y = self.head(self.mlp(torch.cat([deter, stoch], -1))).float()
            found |= zip(self.sizes, y.split(list(self.sizes.values()), -1), strict=True)
        return found

    def loss(self, predictions: Mapping[str, Tensor], obs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """(N,) by name."""
        found = {}
        for name, prediction in predictions.items():
            if name in self.images:
                error = (prediction - obs[name] / 255.0).flatten(1)
                found[name] = error.square().sum(-1) * self.image_scale
            else:
                x = obs[name].flatten(1)
                found[name] = (prediction - (symlog(x) if self.symlog else x)).square().sum(-1)
        return found

    def vectors(self, predictions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whatever else is predicted (N, size) as it is observed, by name."""
        return {name: symexp(predictions[name]) if self.symlog else predictions[name] for name in self.sizes}

    def pictures(self, predictions: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The predicted images (N, H, W, C) as bytes, by name."""
        return {name: self.picture(predictions[name]) for name in self.images}

    @staticmethod
    def picture(prediction: Tensor) -> Tensor:
        return (prediction.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8)


class DirectorImages(nn.Module):
    """Director's: the feature as one pixel, spread by kernels of 5, 5, 6 and 6: 1 -> 5 -> 13 -> 30 -> 64."""

    def __init__(self, name: str, space: Space, feature: int, style: Style, depth: int):
        super().__init__()
        of_director(name, space)
        channels = [depth * 4, depth * 2, depth]
        self.layers = nn.ModuleList(
            Transposed(i, o, size, style, stride=2, padding=0, bias=style.bias)
            for (i, o), size in zip(pairwise([feature, *channels]), [5, 5, 6], strict=True)
        )
        self.norms = nn.ModuleList(Norm(size, style) for size in channels)
        self.last = Transposed(depth, space.shape[2], 6, style, stride=2, padding=0, bias=True)
        self.activation = ACTIVATIONS[style.activation]

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        x = torch.cat([deter, stoch], -1)[:, None, None]
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.activation(norm(layer(x)))
        return self.last(x)


class Spreading(nn.Module):
    """The mirror image of strided convolutions with padding: an affine map to 4x4 pixels, then transposed convolutions 4x4
    with stride 2 that double the image and halve the channels, with norm and activation between them."""

    def __init__(self, name: str, space: Space, feature: int, style: Style, depth: int):
        super().__init__()
        channels = doubled(depth, halvings(name, space))[::-1]
        self.map = (SMALLEST, SMALLEST, channels[0])
        self.first = Affine(feature, math.prod(self.map), style)
        self.layers = nn.ModuleList(
            Transposed(i, o, 4, style, stride=2, padding=1, bias=style.bias) for i, o in pairwise(channels)
        )
        self.norms = nn.ModuleList(Norm(size, style) for size in channels[1:])
        self.last = Transposed(depth, space.shape[2], 4, style, stride=2, padding=1, bias=True)
        self.activation = ACTIVATIONS[style.activation]

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        x = self.first(torch.cat([deter, stoch], -1)).unflatten(-1, self.map)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = self.activation(norm(layer(x)))
        return self.last(x)


class Growing(nn.Module):
    """The mirror image of pooled convolutions: 4x4 pixels from both halves of the feature, deter's by independent blocks that
    fill some channels each -> norm -> activation, then doublings with a 5x5 convolution each."""

    def __init__(self, name: str, space: Space, deter: int, stoch: int, style: Style, *, depth: int, units: int, groups: int):
        super().__init__()
        channels = widened(depth, halvings(name, space))[::-1]
        if channels[0] % groups:
            raise UserError(f"{channels[0]} channels (4 times the depth {depth}) cannot be filled by {groups} blocks alike")
        self.map = (SMALLEST, SMALLEST, channels[0])
        self.groups = groups
        self.of_deter = BlockAffine(deter, math.prod(self.map), groups, style)
        self.of_stoch = nn.Sequential(Dense(stoch, 2 * units, style), Affine(2 * units, math.prod(self.map), style))
        self.norms = nn.ModuleList(Norm(size, style) for size in channels)
        self.layers = nn.ModuleList(Doubling(i, o, style, bias=style.bias) for i, o in pairwise(channels))
        self.last = Doubling(channels[-1], space.shape[2], style, bias=True)
        self.activation = ACTIVATIONS[style.activation]

    def forward(self, deter: Tensor, stoch: Tensor) -> Tensor:
        pixels, each = SMALLEST**2, self.map[2] // self.groups
        blocks = self.of_deter.grouped(deter).view(self.groups, len(deter), pixels, each).permute(1, 2, 0, 3)
        x = (self.of_stoch(stoch).view(blocks.shape) + blocks).reshape(len(deter), *self.map)
        for norm, layer in zip(self.norms, [*self.layers, self.last], strict=True):
            x = layer(self.activation(norm(x)))
        return x
