"""Optimisers over one flat vector: clipping, decay and the step are one operation each, whatever the number of tensors."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Flat:
    """Lays the parameters out in one contiguous vector, and their gradients in another; the parameters become views."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]):
        self.values = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
        self.grads = torch.zeros_like(self.values)
        self.layout: list[tuple[str, slice, torch.Size]] = []
        start = 0
        for name, parameter in parameters.items():
            span = slice(start, start + parameter.numel())
            parameter.data = self.values[span].view(parameter.shape)
            parameter.grad = self.grads[span].view(parameter.shape)
            self.layout.append((name, span, parameter.shape))
            start = span.stop


class LossScale:
    """Dynamic loss scaling for fp16: halves on overflow (the step is skipped), doubles after `patience` good steps."""

    def __init__(self, start: float = 2.0**15, patience: int = 1000):
        self.value = start
        self.patience = patience
        self.good = 0

    def update(self, finite: bool) -> None:
        self.good = self.good + 1 if finite else 0
        if not finite:
            self.value = max(self.value / 2, 1.0)
        elif self.good == self.patience:
            self.value, self.good = self.value * 2, 0


class Adam:
    """Adam (Kingma & Ba 2015) with clipping by global norm and decoupled weight decay.

        g <- g min(1, c / |g|);   m <- m + (1 - b1)(g - m);   v <- b2 v + (1 - b2) g^2
        p <- p (1 - lr w);        p <- p - lr / (1 - b1^t)  m / (sqrt(v / (1 - b2^t)) + eps)

    `scale` (fp16 only) divides the gradients first, and skips the step where they overflowed.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        max_norm: float | None = None,
        weight_decay: float = 0.0,
        scale: LossScale | None = None,
    ):
        self.flat = Flat(parameters)
        self.betas, self.eps, self.max_norm, self.weight_decay, self.scale = betas, eps, max_norm, weight_decay, scale
        self.mean = torch.zeros_like(self.flat.values)
        self.square = torch.zeros_like(self.flat.values)
        self.steps = 0

    def backward(self, loss: Tensor) -> None:
        """Adds the loss's gradient to what has accumulated since the last step."""
        (loss if self.scale is None else loss * self.scale.value).backward()

    @torch.no_grad()
    def step(self, learning_rate: float) -> Tensor:
        """One step from the accumulated gradients, which are cleared. Returns their norm before clipping."""
        grads = self.flat.grads
        if self.scale is not None:
            grads.div_(self.scale.value)
        norm = torch.linalg.vector_norm(grads)
        finite = self.scale is None or bool(torch.isfinite(norm))
        if finite:
            if self.max_norm is not None:
                grads.mul_((self.max_norm / (norm + 1e-6)).clamp_(max=1.0))
            self._move(grads, learning_rate)
        if self.scale is not None:
            self.scale.update(finite)
        grads.zero_()
        return norm

    def _move(self, grads: Tensor, learning_rate: float) -> None:
        self.steps += 1
        (b1, b2), t = self.betas, self.steps
        self.mean.lerp_(grads, 1 - b1)
        self.square.mul_(b2).addcmul_(grads, grads, value=1 - b2)
        if self.weight_decay:
            self.flat.values.mul_(1 - learning_rate * self.weight_decay)
        root = (1 - b2**t) ** 0.5  # taken out of the denominator, which saves an operation on every parameter
        self.flat.values.addcdiv_(
            self.mean, self.square.sqrt().add_(self.eps * root), value=-learning_rate * root / (1 - b1**t)
        )

    def gradients(self) -> dict[str, Tensor]:
        """A copy of the accumulated gradients, by name."""
        copy = self.flat.grads.clone()
        return {name: copy[span].view(shape) for name, span, shape in self.flat.layout}

    def state(self) -> dict[str, Any]:
        scale = None if self.scale is None else [self.scale.value, self.scale.good]
        return {"mean": self.mean.clone(), "square": self.square.clone(), "steps": self.steps, "scale": scale}

    def load(self, state: Mapping[str, Any]) -> None:
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.steps = state["steps"]
        if self.scale is not None and state["scale"] is not None:
            self.scale.value, self.scale.good = state["scale"]
