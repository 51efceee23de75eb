"""A slow copy of a module, which follows the module that learns."""

import copy
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hieros_repro.nn.optimiser import Laid


class Slow:
    """A frozen copy of a module, laid out in one vector, whose parameters follow the module's. Its buffers stay as they are.

    Made after the optimiser, which gives the module's parameters their place in a vector of its own.
    """

    def __init__(self, module: nn.Module):
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.flat = Laid(dict(self.module.named_parameters()))
        self._fast = list(module.parameters())
        self._span = contiguous(self._fast)

    @torch.no_grad()
    def follow(self, mix: Float[Tensor, ""]) -> None:
        """slow <- slow + mix (fast - slow), exact at both ends: 0 leaves it as it is, 1 makes it equal."""
        fast = torch.cat([p.reshape(-1) for p in self._fast]) if self._span is None else self._span
        self.flat.values.lerp_(fast, mix)

    def held(self) -> list[Tensor]:
        """Every tensor that following or the slow module reads or changes."""
        if self._span is not None and self._span.data_ptr() != self._fast[0].data_ptr():
            raise ValueError("the module's parameters have been laid out anew: make its slow copy after the optimiser")
        span = [] if self._span is None else [self._span]
        return [*self.module.parameters(), *self.module.buffers(), self.flat.values, *self._fast, *span]

    def state(self) -> dict[str, Any]:
        return {name: tensor.clone() for name, tensor in self.module.state_dict().items()}

    def load(self, state: Mapping[str, Any]) -> None:
        self.module.load_state_dict(state)


def contiguous(parameters: Sequence[Tensor]) -> Tensor | None:
    """The one vector of which the parameters are the pieces, in their order and without gaps, if there is one."""
    for one, other in itertools.pairwise(parameters):
        apart = other.storage_offset() - one.storage_offset()
        if one.untyped_storage().data_ptr() != other.untyped_storage().data_ptr() or apart != one.numel():
            return None
    if not all(p.is_contiguous() for p in parameters):
        return None
    return parameters[0].detach().as_strided((sum(p.numel() for p in parameters),), (1,))
