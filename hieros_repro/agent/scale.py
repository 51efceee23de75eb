"""Running scales of returns and advantages, so that one entropy weight and one learning rate suit rewards of any size."""

from typing import Annotated

import torch
from torch import Tensor, nn

from hieros_repro.records import Between, Fraction, Positive

Decay = Annotated[float, Between(0, 0.999999)]


class Unscaled(nn.Module):
    """As they are."""

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Takes values into account; then (offset, scale): what to subtract and divide by."""
        return values.new_zeros(()), values.new_ones(())


class Deviation(nn.Module):
    """Exponential moving mean and standard deviation, corrected for their start at nothing: the n-th batch, of mean x and
    variance s^2, has the weight a = (1 - b) / (1 - b^n).

        v <- (1 - a) v + a s^2 + a (1 - a) (x - m)^2,   m <- m + a (x - m);   std = max(sqrt(v), floor)

    That is the moving mean of squares less the square of the moving mean, without their cancellation.
    """

    mean: Tensor
    variance: Tensor
    rest: Tensor

    def __init__(self, *, decay: Decay, floor: Positive):
        super().__init__()
        self.decay, self.floor = decay, floor
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("variance", torch.tensor(0.0))
        self.register_buffer("rest", torch.tensor(1.0, dtype=torch.float64))  # b^n, close to 1

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        self.rest.mul_(self.decay)
        weight = ((1 - self.decay) / (1 - self.rest)).float()
        mean = values.mean()
        apart = mean - self.mean
        within = (values - mean).square().mean()
        self.variance.lerp_(within + (1 - weight) * apart.square(), weight)
        self.mean.add_(weight * apart)
        return self.mean.clone(), self.variance.sqrt().clamp(min=self.floor)


class Percentiles(nn.Module):
    """Exponential moving range between two percentiles, never below `floor`. What is small stays small."""

    low: Tensor
    high: Tensor

    def __init__(self, *, decay: Decay, lower: Fraction, upper: Fraction, floor: Positive):
        super().__init__()
        self.decay, self.shares, self.floor = decay, (lower, upper), floor
        self.register_buffer("low", torch.tensor(0.0))
        self.register_buffer("high", torch.tensor(0.0))

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        ordered = values.flatten().sort().values
        for held, share in zip((self.low, self.high), self.shares, strict=True):
            place = share * (len(ordered) - 1)
            below = int(place)
            above = min(below + 1, len(ordered) - 1)
            held.lerp_(ordered[below] + (place - below) * (ordered[above] - ordered[below]), 1 - self.decay)
        return self.low.clone(), (self.high - self.low).clamp(min=self.floor)
