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
        self.parameters = dict(parameters)
        self.flat = Flat(parameters)
        self.betas, self.eps, self.max_norm, self.weight_decay, self.scale = betas, eps, max_norm, weight_decay, scale
        self.mean = torch.zeros_like(self.flat.values)
        self.square = torch.zeros_like(self.flat.values)
        self.steps = 0

    # As pure functions, but for moving in place: what may be recorded.

    def gradient(self, loss: Tensor) -> Tensor:
        """The loss's gradient as one vector, multiplied by the loss scale."""
        scaled = loss if self.scale is None else loss * self.scale.value
        grads = torch.autograd.grad(scaled, list(self.parameters.values()), allow_unused=True, materialize_grads=True)
        return torch.cat([grad.reshape(-1) for grad in grads])

    def pace(self, learning_rate: float) -> Tensor:
        """Counts a step, and gives its numbers as data: step size, eps, decay."""
        self.steps += 1
        (b1, b2), t = self.betas, self.steps
        root = (1 - b2**t) ** 0.5  # taken out of the denominator, which saves an operation on every parameter
        numbers = (-learning_rate * root / (1 - b1**t), self.eps * root, 1 - learning_rate * self.weight_decay)
        return torch.tensor(numbers, dtype=self.flat.values.dtype, device=self.flat.values.device)

    @torch.no_grad()
    def move(self, gradient: Tensor, pace: Tensor) -> Tensor:
        """One step along a gradient. Returns its norm before clipping, 0 for a step that was skipped."""
        if self.scale is not None:
            gradient = gradient / self.scale.value
        norm = torch.linalg.vector_norm(gradient)
        if self.scale is not None:
            finite = bool(torch.isfinite(norm))
            self.scale.update(finite)
            if not finite:
                self.steps -= 1
                return torch.zeros_like(norm)
        if self.max_norm is not None:
            gradient = gradient * (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
        size, eps, decay = pace.unbind()
        self.mean.lerp_(gradient, 1 - self.betas[0])
        self.square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        if self.weight_decay:
            self.flat.values.mul_(decay)
        self.flat.values.addcdiv_(self.mean * size, self.square.sqrt().add_(eps))
        return norm

    # The same with gradients that accumulate in the parameters.

    def backward(self, loss: Tensor) -> None:
        """Adds the loss's gradient to what has accumulated since the last step."""
        (loss if self.scale is None else loss * self.scale.value).backward()

    def step(self, learning_rate: float) -> Tensor:
        """One step from the accumulated gradients, which are cleared. Returns their norm before clipping."""
        norm = self.move(self.flat.grads, self.pace(learning_rate))
        self.flat.grads.zero_()
        return norm

    def gradients(self) -> dict[str, Tensor]:
        """A copy of the accumulated gradients, by name."""
        return self.named(self.flat.grads.clone())

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The pieces of a flat vector, by parameter."""
        return {name: vector[span].view(shape) for name, span, shape in self.flat.layout}

    def held(self) -> list[Tensor]:
        """Every tensor that a step reads or changes."""
        return [*self.parameters.values(), self.flat.values, self.mean, self.square]

    def state(self) -> dict[str, Any]:
        scale = None if self.scale is None else [self.scale.value, self.scale.good]
        return {"mean": self.mean.clone(), "square": self.square.clone(), "steps": self.steps, "scale": scale}

    def load(self, state: Mapping[str, Any]) -> None:
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.steps = state["steps"]
        if self.scale is not None and state["scale"] is not None:
            self.scale.value, self.scale.good = state["scale"]
