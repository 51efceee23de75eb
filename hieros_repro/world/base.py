"""What agents ask of every world model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from hieros_repro.determinism.keys import Key
from hieros_repro.records import Arrays


class Latent(NamedTuple):
    """A state of the world: what is certain, what was drawn, as one-hot vectors side by side, and what else the next step needs
    that nobody looks at (of width 0 where deter says it all)."""

    deter: Tensor  # (*B, D)
    stoch: Tensor  # (*B, S)
    carried: Tensor  # (*B, M)

    @property
    def feature(self) -> Tensor:
        """(*B, D + S): what policies and heads look at."""
        return torch.cat([self.deter, self.stoch], -1)

    def map(self, function: Callable[[Tensor], Tensor]) -> "Latent":
        return Latent(*(function(part) for part in self))

    def detach(self) -> "Latent":
        return self.map(Tensor.detach)

    def flat(self) -> "Latent":
        """Time and batch as one axis."""
        return self.map(lambda part: part.flatten(0, 1))

    def take(self, rows: Tensor) -> "Latent":
        return self.map(lambda part: part[rows])

    def where(self, chosen: Tensor, other: "Latent") -> "Latent":
        """These states in the rows (B,) that are chosen, the others elsewhere."""
        return Latent(*(torch.where(chosen.unsqueeze(-1), a, b) for a, b in zip(self, other, strict=True)))


class Rows(NamedTuple):
    """T rows of B sequences, time first. Row t: what was seen, the reward and flags that came with it, and the action
    that had led there (nothing that counts where is_first)."""

    obs: Mapping[str, Tensor]  # (T, B, ...)
    action: Tensor  # (T, B, A)
    reward: Tensor
    is_first: Tensor
    is_last: Tensor
    is_terminal: Tensor


class Observed(NamedTuple):
    """What the model made of T rows of B sequences."""

    latent: Latent  # (T, B, .)
    posterior: Tensor  # (T, B, S, C) log-probabilities, having seen the row
    prior: Tensor  # the same, from the past alone


class World(nn.Module, ABC):
    """Learns from sequences what follows from what, and dreams."""

    deter: int  # width of Latent.deter
    stoch: int  # width of Latent.stoch
    carried: int  # width of Latent.carried
    continue_target: float  # what `proceeds` is to say where an episode goes on

    remembers: ClassVar[
        tuple[str, ...]
    ]  # of `stored`, what a replay must keep so that windows can start from there; () if they cannot
    narrow: ClassVar[tuple[str, ...]]  # which of its settings are widths that smaller worlds have less of

    @property
    def feature(self) -> int:
        return self.deter + self.stoch

    @property
    @abstractmethod
    def least_kl(self) -> float:
        """What the KL divided by its weight is at least."""

    @abstractmethod
    def stored(self, latent: Latent) -> dict[str, Tensor]:
        """ "deter" and "stoch" as a replay keeps them."""

    @abstractmethod
    def restored(self, stored: Mapping[str, Tensor]) -> Latent:
        """What is stored as states that can be looked at; and gone on from, if the world remembers any."""

    @abstractmethod
    def noise(self, key: Key, shape: tuple[int, ...]) -> Arrays:
        """The random numbers of that many steps: name -> (*shape, ...)."""

    @abstractmethod
    def initial(self, batch: int) -> Latent:
        """(batch, .) before anything was seen."""

    @abstractmethod
    def observe(
        self,
        obs: Mapping[str, Tensor],
        action: Float[Tensor, "T B A"],
        is_first: Bool[Tensor, "T B"] | None,
        start: Latent,
        noise: Mapping[str, Tensor],
    ) -> Observed:
        """What was seen, row by row, each after the action that led to it. `start` precedes the first row; rows that are first
        forget it and begin anew; None says that none is, which costs less."""

    @abstractmethod
    def dreaming(self) -> Callable[[Latent, Tensor, Mapping[str, Tensor]], Latent]:
        """One step on, unseen: (state, action (B, A), noise) -> state. What does not depend on them is computed here, once for
        all steps of a dream."""

    def imagine(self, latent: Latent, action: Float[Tensor, "B A"], noise: Mapping[str, Tensor]) -> Latent:
        """A single step of a dream."""
        return self.dreaming()(latent, action, noise)

    @abstractmethod
    def complete(self, deter: Float[Tensor, "*B D"], near: Latent) -> Latent:
        """The likeliest state of which only the certain part is known; `near`: states beside it, for worlds whose certain part
        does not say what the rest is."""

    @abstractmethod
    def entropy(self, latent: Latent) -> Float[Tensor, "*B"]:
        """In nats, of the distribution that stoch was drawn from."""

    @abstractmethod
    def losses(self, seen: Observed, rows: Rows) -> dict[str, Tensor]:
        """name -> (T, B); their sum is what it minimises."""

    def account(self, seen: Observed) -> dict[str, Tensor]:
        """What else to log, by name."""
        return {}

    @abstractmethod
    def reward(self, feature: Float[Tensor, "*B F"]) -> Float[Tensor, "*B"]:
        """Expected, of arriving there."""

    @abstractmethod
    def proceeds(self, feature: Float[Tensor, "*B F"]) -> Float[Tensor, "*B"]:
        """The probability that the episode goes on from there."""

    @abstractmethod
    def decoded(self, latent: Latent) -> dict[str, Tensor]:
        """Of everything it observes that is no image, what it believes to see in (B, .) states: (B, size)."""

    @abstractmethod
    def pictures(self, latent: Latent) -> dict[str, Tensor]:
        """Of every image it observes, how it sees (B, .) states: uint8 (B, height, width, channels)."""
