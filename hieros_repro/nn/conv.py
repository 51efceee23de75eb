"""Convolutional encoders."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.init import Fillable, orthogonal


class Conv(Fillable):
    """4x4 convolution with stride 2: halves height and width."""

    def __init__(self, inputs: int, outputs: int, gain: float):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 4, 4))
        self.bias = nn.Parameter(torch.empty(outputs))
        self.gain = gain

    def fill(self, key: Key) -> None:
        flat = orthogonal(key, self.weight.flatten(1).shape, self.gain)
        self.weight.copy_(flat.view_as(self.weight))
        self.bias.zero_()

    def forward(self, x: Float[Tensor, "B I H W"]) -> Float[Tensor, "B O H2 W2"]:
        return functional.conv2d(x, self.weight, self.bias, stride=2, padding=1)


class ImageEncoder(nn.Module):
    """Images (B, H, W, C) uint8 -> features. Halves the image until its shorter side is 4 to 7, doubling the channels."""

    def __init__(self, shape: Sequence[int], depth: int):
        super().__init__()
        height, width, channels = shape
        if min(height, width) < 8:
            raise ValueError(f"an image of {height}x{width} is too small to encode: 8x8 is the least")
        self.convs = nn.ModuleList()
        while min(height, width) >= 8:
            self.convs.append(Conv(channels, depth, gain=2**0.5))
            height, width, channels, depth = height // 2, width // 2, depth, depth * 2
        self.features = channels * height * width

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() / 255.0 - 0.5
        x = x.contiguous(memory_format=torch.channels_last)
        for conv in self.convs:
            x = functional.relu(conv(x))
        return x.flatten(1)
