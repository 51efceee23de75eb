"""What a level with a world of its own is given from below: the last states of the world under it, once every k of its steps.

    a row:  observation   the k newest states below, oldest first; zeros before an episode's beginning
            reward        what came since the row before
            flags         is_first, is_last, is_terminal of the moment, at which a row is made even if no k steps are over

So an episode's first and last moments, and its last reward, are rows of every level, and no row is about two episodes.
"""

from typing import Any, Literal

import torch
from torch import Tensor

from hieros_repro.records import Space
from hieros_repro.world.base import World


class Upward:
    """The original code's ways are kept as second choices, to see what each of them does."""

    def __init__(
        self,
        *,
        window: Literal["all", "newest"],
        states: Literal["fresh", "stale"],
        flags: Literal["every", "seen"],
        episodes: Literal["apart", "mixed"],
        last_reward: Literal["kept", "lost"],
    ):
        self.all, self.fresh, self.every = window == "all", states == "fresh", flags == "every"
        self.apart, self.kept = episodes == "apart", last_reward == "kept"

    def count(self, clock: int) -> int:
        """How many states a row shows."""
        return clock if self.all else 1

    def space(self, below: World, clock: int) -> dict[str, Space]:
        """What the world above observes."""
        count = self.count(clock)
        return {"deter": Space("vector", (count * below.deter,)), "stoch": Space("vector", (count * below.stoch,))}

    def due(self, age: Tensor, first: Tensor, last: Tensor, period: int) -> Tensor:
        """Where a level acts that has a period of so many ticks. `age`: ticks since its clock began."""
        moment = age % period == 0
        return moment | first | last if self.every else moment

    def empty(self, below: World, clock: int, num_envs: int) -> dict[str, Tensor]:
        """A window before anything was seen."""
        kept = below.stored(below.initial(1))
        return {
            name: value.new_zeros((num_envs, self.count(clock), *value.shape[1:])).fill_(NOTHING if value.dtype == BYTES else 0)
            for name, value in kept.items()
        }

    def seen(self, window: dict[str, Tensor], state: dict[str, Tensor], now: Tensor, first: Tensor) -> dict[str, Tensor]:
        """The window after a step of the level below, which was made where `now` is."""
        found = {}
        if self.apart and not self.fresh:
            now = now & ~first  # the state before is another episode's
        for name, value in window.items():
            if self.apart:
                value = torch.where(_wide(first, value), NOTHING if value.dtype == BYTES else 0, value)
            moved = torch.cat([value[:, 1:], state[name].unsqueeze(1).to(value.dtype)], 1)
            found[name] = torch.where(_wide(now, value), moved, value)
        return found

    def paid(self, sum_before: Tensor, reward: Tensor, first: Tensor, last: Tensor) -> Tensor:
        """The rewards since the last row."""
        total = (torch.where(first, 0.0, sum_before) if self.every else sum_before) + reward
        return total if self.kept else total * (~last.any())


NOTHING = 255  # in a byte that names a class: none of them
BYTES = torch.uint8


def shown(below: World, stored: dict[str, Any]) -> dict[str, Tensor]:
    """Windows as a replay keeps them (*B, k, ...) as the world above observes them."""
    states = below.restored(stored)
    return {"deter": states.deter.flatten(-2), "stoch": states.stoch.flatten(-2)}


def _wide(mask: Tensor, like: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (like.dim() - 1))
