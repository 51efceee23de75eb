"""What is due when. Everything is in steps; nothing is scheduled by the clock."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated

from hieros_repro.records import Between, Count, Every, Natural


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The group `run`. Cadences are in steps and due at the first tick at or past each multiple; 0 means never."""

    dir: str | None
    steps: Count
    collect: bool
    horizon: Count | None
    checkpoint_every: Every
    keep_last: Count
    keep_every: Every
    keep_best: bool
    eval_every: Every
    eval_episodes: Count
    final_episodes: Natural
    eval_envs: Count
    log_every: Every
    fingerprint_every: Every
    video_every: Every
    final_video: bool
    video_fps: Annotated[int, Between(1, 120)]
    target_score: float | None

    def episodes_ahead(self, step: int) -> int:
        """Of evaluations that are still due after this step, the final one included."""
        scheduled = max(0, (self.steps - 1) // self.eval_every - step // self.eval_every) if self.eval_every else 0
        return scheduled * self.eval_episodes + self.final_episodes


def due(before: int, now: int, every: int) -> bool:
    """Whether a multiple of `every` was reached or passed since `before`."""
    return every > 0 and now // every > before // every


class Pace:
    """How many updates are owed: `ratio` replayed steps per environment step, with nothing lost to rounding.

    Without a ratio an update is owed whenever its replays are ready, as for on-policy agents.
    """

    def __init__(self, ratio: float | None):
        self.ratio = None if ratio is None else Fraction(str(ratio))
        self.owed = Fraction(0)

    def earn(self, steps: int) -> None:
        if self.ratio is not None:
            self.owed += self.ratio * steps

    def spend(self, cost: int) -> bool:
        """Pays for an update that replays `cost` steps, if enough is owed."""
        if self.ratio is None:
            return True
        if self.owed < cost:
            return False
        self.owed -= cost
        return True

    def state(self) -> list[int]:
        return [self.owed.numerator, self.owed.denominator]

    def load(self, state: list[int]) -> None:
        self.owed = Fraction(*state)
