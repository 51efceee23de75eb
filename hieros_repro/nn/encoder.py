"""Observations of every kind as one vector of features."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hieros_repro.nn.conv import ImageEncoder
from hieros_repro.records import Space


class Observing(nn.Module):
    """A network that looks at observations: images each pass a convolutional encoder, the others are taken as they are."""

    def __init__(self, observation: Mapping[str, Space], image_depth: int):
        super().__init__()
        self.images = [name for name, space in observation.items() if space.kind == "image"]
        self.vectors = [name for name in observation if name not in self.images]
        encoders = {name: ImageEncoder(observation[name].shape, image_depth) for name in self.images}
        self.encoders = nn.ModuleDict(encoders)
        self.inputs = sum(encoder.features for encoder in encoders.values())
        self.inputs += sum(math.prod(observation[name].shape) for name in self.vectors)

    def features(self, obs: Mapping[str, Tensor]) -> Tensor:
        """(B, inputs)"""
        parts = [encoder(obs[name]) for name, encoder in self.encoders.items()] if self.images else []
        parts += [obs[name].flatten(1) for name in self.vectors]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)
