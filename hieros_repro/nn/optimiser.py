"""Optimisers over one flat vector: clipping, decay and the step are few operations, whatever the number of tensors.

A step has three parts: `gradient` (of a loss, as one vector), `pace` (the step's numbers, which the host computes, as data) and
`move` (in place). The first and the last are functions of tensors alone and may be recorded.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hieros_repro.records import Between, Fault, Fraction, Natural, NonNegative, Positive


class Laid:
    """Lays parameters out in one contiguous vector, one after the other; they become views of it."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]):
        self.values = torch.cat([p.detach().reshape(-1) for p in parameters.values()])
        self.layout: list[tuple[str, slice, torch.Size]] = []
        start = 0
        for name, parameter in parameters.items():
            span = slice(start, start + parameter.numel())
            parameter.data = self.values[span].view(parameter.shape)
            self.layout.append((name, span, parameter.shape))
            start = span.stop

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The pieces of a vector laid out like this one, by parameter."""
        return {name: vector[span].view(shape) for name, span, shape in self.layout}


class Flat(Laid):
    """And their gradients in another."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]):
        super().__init__(parameters)
        self.grads = torch.zeros_like(self.values)
        for parameter, grad in zip(parameters.values(), self.named(self.grads).values(), strict=True):
            parameter.grad = grad


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


class Optimiser(ABC):
    """What every optimiser has: parameters in one vector, a moving mean and a moving square as long, and a count of steps.

    `scale` (fp16 only) multiplies the loss and divides the gradient, and skips the step where it overflowed.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], flat: Laid, scale: LossScale | None):
        self.parameters = dict(parameters)
        self.flat, self.scale = flat, scale
        self.mean = torch.zeros_like(flat.values)
        self.square = torch.zeros_like(flat.values)
        self.steps = 0
        self.constants: list[Tensor] = []  # what a step reads besides

    def gradient(self, loss: Tensor) -> Tensor:
        """The loss's gradient as one vector, multiplied by the loss scale; zeros for parameters that had no part in it."""
        scaled = loss if self.scale is None else loss * self.scale.value
        grads = torch.autograd.grad(scaled, list(self.parameters.values()), allow_unused=True, materialize_grads=True)
        return torch.cat([grad.reshape(-1) for grad in grads])

    @abstractmethod
    def pace(self, learning_rate: float) -> Tensor:
        """Counts a step, and gives its numbers as data."""

    @abstractmethod
    def move(self, gradient: Tensor, pace: Tensor) -> Tensor:
        """One step along a gradient, in place. Returns what it measured before clipping, 0 for a step that was skipped."""

    def named(self, vector: Tensor) -> dict[str, Tensor]:
        """The pieces of a flat vector, by parameter."""
        return self.flat.named(vector)

    def held(self) -> list[Tensor]:
        """Every tensor that a step reads or changes."""
        return [*self.parameters.values(), self.flat.values, self.mean, self.square, *self.constants]

    def state(self) -> dict[str, Any]:
        scale = None if self.scale is None else [self.scale.value, self.scale.good]
        return {"mean": self.mean.clone(), "square": self.square.clone(), "steps": self.steps, "scale": scale}

    def load(self, state: Mapping[str, Any]) -> None:
        self.mean.copy_(state["mean"])
        self.square.copy_(state["square"])
        self.steps = state["steps"]
        if self.scale is not None and state["scale"] is not None:
            self.scale.value, self.scale.good = state["scale"]

    # Parts of a step

    def _data(self, numbers: Sequence[float]) -> Tensor:
        return torch.tensor(numbers, dtype=self.flat.values.dtype, device=self.flat.values.device)

    def _unscaled(self, gradient: Tensor) -> Tensor:
        return gradient if self.scale is None else gradient / self.scale.value

    def _skips(self, norm: Tensor) -> bool:
        """Whether the step is skipped because the scaled gradient overflowed; then it has not been one."""
        if self.scale is None:
            return False
        finite = bool(torch.isfinite(norm).all())
        self.scale.update(finite)
        self.steps -= not finite
        return not finite

    def _follow(self, gradient: Tensor, betas: tuple[float, float]) -> None:
        """m <- m + (1 - b1)(g - m);   v <- b2 v + (1 - b2) g^2"""
        self.mean.lerp_(gradient, 1 - betas[0])
        self.square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])


class Adam(Optimiser):
    """Adam (Kingma & Ba 2015) with clipping by global norm and decoupled weight decay.

    g <- g min(1, c / |g|);   m <- m + (1 - b1)(g - m);   v <- b2 v + (1 - b2) g^2
    p <- p (1 - lr w);        p <- p - lr / (1 - b1^t)  m / (sqrt(v / (1 - b2^t)) + eps)
    """

    flat: Flat

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
        super().__init__(parameters, Flat(parameters), scale)
        self.betas, self.eps, self.max_norm, self.weight_decay = betas, eps, max_norm, weight_decay

    def pace(self, learning_rate: float) -> Tensor:
        """Counts a step, and gives its numbers as data: step size, eps, decay."""
        self.steps += 1
        (b1, b2), t = self.betas, self.steps
        root = (1 - b2**t) ** 0.5  # taken out of the denominator, which saves an operation on every parameter
        return self._data((-learning_rate * root / (1 - b1**t), self.eps * root, 1 - learning_rate * self.weight_decay))

    @torch.no_grad()
    def move(self, gradient: Tensor, pace: Tensor) -> Tensor:
        """One step along a gradient. Returns its norm before clipping, 0 for a step that was skipped."""
        gradient = self._unscaled(gradient)
        norm = torch.linalg.vector_norm(gradient)
        if self._skips(norm):
            return torch.zeros_like(norm)
        if self.max_norm is not None:
            gradient = gradient * (self.max_norm / (norm + 1e-6)).clamp(max=1.0)
        size, eps, decay = pace.unbind()
        self._follow(gradient, self.betas)
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


# -- Several groups in one step ----------------------------------------------------------------------------------------


class Group(NamedTuple):
    """Parameters that are clipped together and move at the same rate."""

    parameters: Mapping[str, nn.Parameter]
    rate: float  # multiplies the learning rate


class Grouped(Optimiser):
    """Groups of parameters, one after the other in one vector, that share an optimiser's step.

    First the gradient G of every tensor W is clipped (a = agc, Brock et al. 2021), then the gradient g of every group
    (c = max_grad_norm). Of the clipped gradient the kind of optimiser makes a direction d, and with the group's own rate

        G <- G / max(1, |G| / (a max(0.001, |W|)));      g <- g min(1, c / |g|)
        lr_t = lr rate min(1, t / warmup);               p <- p (1 - lr_t w);   p <- p - lr_t d

    where only matrices, which have two axes or more, decay by w.
    """

    def __init__(
        self,
        groups: Mapping[str, Group],
        scale: LossScale | None = None,
        *,
        betas: Sequence[Fraction],
        eps: Annotated[float, Between(1e-30)],
        max_grad_norm: Positive | None,
        weight_decay: NonNegative,
        agc: Positive | None,
        warmup: Natural,
    ):
        parameters = {f"{name}.{inner}": p for name, group in groups.items() for inner, p in group.parameters.items()}
        _refuse_shared(parameters)
        super().__init__(parameters, Laid(parameters), scale)
        self.betas, self.eps, self.warmup = (betas[0], betas[1]), eps, warmup
        self.max_norm, self.weight_decay, self.agc = max_grad_norm, weight_decay, agc
        self.rates = [group.rate for group in groups.values()]
        inner = [list(group.parameters.values()) for group in groups.values()]
        self.matrices = [[p for p in tensors if p.ndim >= 2] for tensors in inner]
        self.lengths = [sum(p.numel() for p in tensors) for tensors in inner]
        # What is measured and clipped: tensors where agc looks at each, else whole groups.
        self.pieces = self.lengths if agc is None else [p.numel() for p in parameters.values()]
        owners = [g for g, tensors in enumerate(inner) for _ in (tensors if agc is not None else [None])]
        self.owner = torch.tensor(owners, device=self.flat.values.device)
        self.strangers = self.owner != torch.arange(len(inner), device=self.owner.device).unsqueeze(1)
        self.constants = [self.owner, self.strangers]

    @classmethod
    def check(cls, *, betas: Sequence[float], **others: Any) -> Iterator[Fault]:
        if len(betas) != 2:
            yield Fault("betas", f"{list(betas)}: two numbers are needed, of the moving mean and of the moving square")

    @abstractmethod
    def _numbers(self) -> tuple[float, ...]:
        """What a step makes of the configuration: by how much to multiply the direction, then what `_direction` needs."""

    @abstractmethod
    def _direction(self, gradient: Tensor, *numbers: Tensor) -> Tensor:
        """Changes the moving averages, and gives the direction to move against, up to the factor that `_numbers` leads with."""

    def pace(self, learning_rate: float) -> Float[Tensor, "K"]:
        """Counts a step, and gives its numbers as data: step sizes and decays by group, and those of the kind of optimiser."""
        self.steps += 1
        ramp = min(self.steps / self.warmup, 1.0) if self.warmup else 1.0
        rates = [learning_rate * rate * ramp for rate in self.rates]
        factor, *rest = self._numbers()
        return self._data([*(-rate * factor for rate in rates), *(1 - rate * self.weight_decay for rate in rates), *rest])

    @torch.no_grad()
    def move(self, gradient: Float[Tensor, "N"], pace: Float[Tensor, "K"]) -> Float[Tensor, "G"]:
        """One step along a gradient. Returns the norm of every group before clipping, 0 for a step that was skipped."""
        gradient, count = self._unscaled(gradient), len(self.rates)
        sizes = torch.stack(torch._foreach_norm(gradient.split(self.pieces)))
        norms = self._by_group(sizes)
        if self._skips(norms):
            return torch.zeros_like(norms)
        numbers = pace.unbind()
        direction = self._direction(self._clipped(gradient, sizes), *numbers[2 * count :])
        if self.weight_decay:
            for matrices, decay in zip(self.matrices, numbers[count : 2 * count], strict=True):
                for matrix in matrices:
                    matrix.mul_(decay)
        parts = zip(self.flat.values.split(self.lengths), direction.split(self.lengths), numbers[:count], strict=True)
        for values, way, size in parts:
            values.addcmul_(way, size)
        return norms

    def _by_group(self, sizes: Float[Tensor, "S"]) -> Float[Tensor, "G"]:
        """The norms of groups from those of their pieces."""
        if self.agc is None:
            return sizes
        return torch.linalg.vector_norm(sizes.expand(self.strangers.shape).masked_fill(self.strangers, 0.0), dim=-1)

    def _clipped(self, gradient: Float[Tensor, "N"], sizes: Float[Tensor, "S"]) -> Float[Tensor, "N"]:
        """The gradient with every piece shortened as it must be."""
        factors = []
        if self.agc is not None:
            weights = torch.stack(torch._foreach_norm(list(self.parameters.values())))
            factors.append((sizes / (self.agc * weights.clamp(min=1e-3))).clamp(min=1.0).reciprocal())
            sizes = sizes * factors[0]
        if self.max_norm is not None:
            whole = (self.max_norm / (self._by_group(sizes) + 1e-6)).clamp(max=1.0)
            factors.append(whole.index_select(0, self.owner))
        if not factors:
            return gradient
        factor = factors[0] if len(factors) == 1 else factors[0] * factors[1]
        clipped = gradient.clone()
        torch._foreach_mul_(clipped.split(self.pieces), factor.unbind())
        return clipped


class GroupedAdam(Grouped):
    """Adam (Kingma & Ba 2015) of several groups.

    m <- m + (1 - b1)(g - m);   v <- b2 v + (1 - b2) g^2;   d = m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)
    """

    def _numbers(self) -> tuple[float, ...]:
        (b1, b2), t = self.betas, self.steps
        root = (1 - b2**t) ** 0.5  # taken out of the denominator
        return root / (1 - b1**t), self.eps * root

    def _direction(self, gradient: Tensor, *numbers: Tensor) -> Tensor:
        (eps,) = numbers
        self._follow(gradient, self.betas)
        denominator = self.square.sqrt().add_(eps)
        return torch.div(self.mean, denominator, out=denominator)


class LaProp(Grouped):
    """LaProp (Ziyin et al. 2020): the mean is taken of gradients that are already normalised.

    v <- b2 v + (1 - b2) g^2;   u = g / (sqrt(v / (1 - b2^t)) + eps);   m <- m + (1 - b1)(u - m);   d = m / (1 - b1^t)
    """

    def _numbers(self) -> tuple[float, ...]:
        (b1, b2), t = self.betas, self.steps
        root = (1 - b2**t) ** 0.5
        return 1 / (1 - b1**t), root, self.eps * root

    def _direction(self, gradient: Tensor, *numbers: Tensor) -> Tensor:
        root, eps = numbers
        self.square.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        self.mean.lerp_((gradient * root).div_(self.square.sqrt().add_(eps)), 1 - self.betas[0])
        return self.mean


def _refuse_shared(parameters: Mapping[str, nn.Parameter]) -> None:
    """A parameter lies in one place: in two, one of them would no longer be its own."""
    first: dict[int, str] = {}
    for name, parameter in parameters.items():
        if first.setdefault(id(parameter), name) != name:
            raise ValueError(f"{name} and {first[id(parameter)]} are one parameter: a parameter belongs to one group, once")
