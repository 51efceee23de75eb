"""Observations, and modules to look at them, for the tests of encoders and decoders."""

import math

import torch
from torch import Tensor, nn

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.block import Style
from hieros_repro.nn.init import fill
from hieros_repro.records import Space

DIRECTOR = Style("layer", "elu", "glorot")
DREAMER = Style("rms", "silu", "fan_in")
SIZES = {"depth": 4, "layers": 2, "units": 6}
CODECS = [
    ("strided", "valid", 64),
    ("strided", "same", 64),
    ("strided", "same", 16),
    ("pooled", "same", 64),
    ("pooled", "same", 16),
]


def view(side: int, channels: int = 3) -> Space:
    return Space("image", (side, side, channels))


def normal(*shape: int, name: str = "x") -> Tensor:
    return torch.from_numpy(Key(0)("data", name).normal(shape))


def observed(observation: dict[str, Space], count: int) -> dict[str, Tensor]:
    def one(name: str, space: Space) -> Tensor:
        if space.kind == "image":
            return torch.from_numpy(Key(0)("data", name).integers(256, (count, *space.shape))).to(torch.uint8)
        return 3 * normal(count, *space.shape, name=name)

    return {name: one(name, space) for name, space in observation.items()}


def filled(module: nn.Module) -> nn.Module:
    fill(module, Key(4)("init"))
    return module


def count(module: nn.Module) -> int:
    return sum(math.prod(parameter.shape) for parameter in module.parameters())
