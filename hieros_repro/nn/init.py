"""Filling parameters. Modules are built empty; every layer fills its own from init/<module path>.

A layer's first values depend on the seed and its path alone: adding a module shifts no other.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hieros_repro.determinism.keys import Key


class Fillable(nn.Module, ABC):
    """A layer that knows how to fill its own parameters from a key."""

    @abstractmethod
    def fill(self, key: Key) -> None: ...


@torch.no_grad()
def fill(module: nn.Module, key: Key) -> None:
    """Fills every layer of `module` from `key`/<module path>. A parameter nobody fills is an error."""
    filled: set[int] = set()
    for path, child in module.named_modules():
        if isinstance(child, Fillable):
            child.fill(key(*path.split(".")) if path else key)
            filled |= {id(parameter) for parameter in child.parameters(recurse=False)}
    missed = [name for name, parameter in module.named_parameters() if id(parameter) not in filled]
    if missed:
        raise ValueError(f"no layer fills {', '.join(missed)}: build them from layers that are Fillable")


def orthogonal(key: Key, shape: Sequence[int], gain: float) -> Tensor:
    """A matrix of this shape with orthonormal rows or columns (whichever are fewer), times gain. Saxe et al. 2014."""
    rows, columns = shape
    tall = torch.from_numpy(key.normal((max(rows, columns), min(rows, columns)))).double()
    q, r = torch.linalg.qr(tall)
    q = q * r.diagonal().sign()
    return (gain * (q if rows >= columns else q.T)).float()
