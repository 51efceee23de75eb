"""Weights of losses: fixed, or steered so that what the loss regulates stays near a target."""

import torch
from torch import Tensor, nn

from hieros_repro.records import NonNegative, Positive


class Weight(nn.Module):
    """One weight per regulated quantity. Fixed, it is `aim`. Adaptive, it keeps the quantity near `aim`, ten per cent up or
    down at a time (Hafner et al. 2022), within [low, high]:

        m > 1.1 aim:  w <- 1.1 w      m < aim / 1.1:  w <- w / 1.1

    `rising`: a larger weight lowers the quantity, as for a KL; otherwise, as for an entropy, it raises it and the rule is
    turned round.
    """

    weight: Tensor

    def __init__(
        self,
        aim: float,
        count: int = 1,
        rising: bool = True,
        *,
        adaptive: bool,
        start: Positive,
        low: NonNegative,
        high: Positive,
    ):
        super().__init__()
        self.aim, self.sign = aim, 1.0 if rising else -1.0
        self.adaptive, self.low, self.high = adaptive, low, high
        self.register_buffer("weight", torch.full((count,), float(start if adaptive else aim)))

    def set(self, weight: float) -> None:
        """A fixed weight's value from now on."""
        if not self.adaptive:
            self.weight.fill_(weight)

    @torch.no_grad()
    def forward(self, measured: Tensor) -> Tensor:
        """The weights (count,) for quantities whose means are `measured` (count,), after moving them by one step."""
        if self.adaptive:
            above, below = (measured > 1.1 * self.aim).float(), (measured < self.aim / 1.1).float()
            self.weight.mul_(1.1 ** (self.sign * (above - below))).clamp_(self.low, self.high)
        return self.weight.clone()
