"""Observations as features: each image through convolutions of its own, everything else through one MLP."""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from hieros_repro.nn.block import MLP, Convolution, Norm, Style, halved
from hieros_repro.nn.mlp import ACTIVATIONS
from hieros_repro.ops.transform import symlog
from hieros_repro.records import Space
from hieros_repro.world.image import SMALLEST, doubled, halvings, of_director, widened


class Encoder(nn.Module):
    """Observations (N, ...) by name -> (N, outputs): images first, in their order, then the others in theirs.

    strided: convolutions that halve the image and double the channels, as in Director (padding valid: 64 -> 31 -> 14 -> 6 -> 2)
             and DreamerV3's first version (padding same: ... -> 8 -> 4).
    pooled:  convolutions followed by the maximum of every 2x2, as in DreamerV3's newest version; it always pads.
    """

    def __init__(
        self,
        observation: Mapping[str, Space],
        style: Style,
        *,
        kind: Literal["strided", "pooled"],
        padding: Literal["valid", "same"],
        depth: int,
        layers: int,
        units: int,
        symlog_vectors: bool,
    ):
        super().__init__()
        images = {name: space for name, space in observation.items() if space.kind == "image"}
        self.vectors = [name for name in observation if name not in images]
        self.images, self.outputs = nn.ModuleDict(), 0
        for name, space in images.items():
            image = Pooled(name, space, style, depth) if kind == "pooled" else Strided(name, space, style, padding, depth)
            self.images[name] = image
            self.outputs += image.outputs
        self.symlog = symlog_vectors
        if self.vectors:
            self.mlp = MLP(sum(math.prod(observation[name].shape) for name in self.vectors), layers, units, style)
            self.outputs += self.mlp.outputs

    def forward(self, obs: Mapping[str, Tensor]) -> Tensor:
        parts = [image(obs[name]) for name, image in self.images.items()]
        if self.vectors:
            x = joined([obs[name].flatten(1) for name in self.vectors])
            parts.append(self.mlp(symlog(x) if self.symlog else x))
        return joined(parts)


class Strided(nn.Module):
    """Images (N, H, W, C) -> (N, outputs): convolution 4x4 with stride 2 -> norm over the channels -> activation, repeated."""

    def __init__(self, name: str, space: Space, style: Style, padding: Literal["valid", "same"], depth: int):
        super().__init__()
        if padding == "valid":
            of_director(name, space)
        count, side = halvings(name, space), {"valid": 2, "same": SMALLEST}[padding]
        inputs, channels = space.shape[2], doubled(depth, count)
        margin, self.middle = {"valid": (0, 0.0), "same": (1, 0.5)}[padding]
        self.convolutions = nn.ModuleList(
            Convolution(i, o, 4, style, stride=2, padding=margin, bias=style.bias) for i, o in pairwise([inputs, *channels])
        )
        self.norms = nn.ModuleList(Norm(size, style) for size in channels)
        self.activation = ACTIVATIONS[style.activation]
        self.outputs = channels[-1] * side**2

    def forward(self, image: Tensor) -> Tensor:
        x = image / 255.0 - self.middle
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.activation(norm(convolution(x)))
        return x.flatten(1)


class Pooled(nn.Module):
    """Images (N, H, W, C) -> (N, outputs): convolution 5x5 -> maximum of every 2x2 -> norm -> activation, repeated."""

    def __init__(self, name: str, space: Space, style: Style, depth: int):
        super().__init__()
        channels = widened(depth, halvings(name, space))
        self.convolutions = nn.ModuleList(
            Convolution(i, o, 5, style, stride=1, padding=2, bias=style.bias) for i, o in pairwise([space.shape[2], *channels])
        )
        self.norms = nn.ModuleList(Norm(size, style) for size in channels)
        self.activation = ACTIVATIONS[style.activation]
        self.outputs = channels[-1] * SMALLEST**2

    def forward(self, image: Tensor) -> Tensor:
        x = image / 255.0 - 0.5
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = self.activation(norm(halved(convolution(x))))
        return x.flatten(1)


def joined(parts: list[Tensor]) -> Tensor:
    """Side by side; what is alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
