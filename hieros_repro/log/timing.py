"""Where the time goes. Wall clock, so nothing from here may reach training or metrics.jsonl."""

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

WARMING = 2  # updates that do not count: recording and compiling happen then
ENOUGH = 20  # updates after which the end is foretold


class Stopwatch:
    """Attributes the time between laps to names."""

    def __init__(self) -> None:
        self.started = self._mark = time.perf_counter()
        self.seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """The time since the last lap went into `name`."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._mark
        self._mark = now

    def elapsed(self) -> float:
        return time.perf_counter() - self.started


class Forecast:
    """When a run will be done: as fast as since learning began, and with the evaluations that are ahead.

    left = (steps - step) * seconds per step + episodes ahead * seconds per episode
    """

    def __init__(self, watch: Stopwatch, steps: int, ahead: Callable[[int], int], say: Callable[[str], None]):
        self._watch, self._steps, self._say = watch, steps, say
        self._ahead = ahead  # step -> episodes of evaluation from there on
        self._episodes = 0
        self._learns, self._updates = True, 0  # which came before the first that counts
        self._began: tuple[int, int, float] | None = None  # step, update and seconds
        self._told = False

    def start(self, update: int, learns: bool) -> None:
        """Where nothing is ever learned, counting begins at once."""
        self._learns, self._told = learns, not learns
        self._updates = update + (WARMING if learns else 0)

    def evaluated(self, episodes: int) -> None:
        self._episodes += episodes

    def see(self, step: int, update: int) -> None:
        """After every tick. Says once, when enough is known, when the run will be done."""
        if self._began is None and update >= self._updates:
            self._began = (step, update, self._seconds())
        if self._told or update < self._updates + ENOUGH - WARMING:
            return
        seconds = self.left(step, update)
        if seconds is not None:
            self._say(self._telling(step, seconds))
            self._told = True

    def left(self, step: int, update: int) -> float | None:
        """Seconds until the end. None: it cannot be known yet."""
        if self._began is None or step <= self._began[0] or (self._learns and update == self._began[1]):
            return None
        pace = (self._seconds() - self._began[2]) / (step - self._began[0])
        return max(self._steps - step, 0) * pace + self._ahead(step) * self._per_episode()

    def _telling(self, step: int, seconds: float) -> str:
        end = time.localtime(time.time() + seconds)
        at = time.strftime("%H:%M" if seconds < 43_200 else "%Y-%m-%d %H:%M", end)
        besides = "; the evaluations ahead come on top" if self._ahead(step) and not self._episodes else ""
        return f"done in about {duration(seconds)}, at {at}{besides} (memory so far {peak_memory_mb() / 1024:.1f} GB)"

    def _seconds(self) -> float:
        """Without evaluations, which have a pace of their own."""
        return self._watch.elapsed() - self._watch.seconds.get("evaluate", 0.0)

    def _per_episode(self) -> float:
        return self._watch.seconds.get("evaluate", 0.0) / max(self._episodes, 1)


def duration(seconds: float) -> str:
    """A time as people say it."""
    for unit, size, most in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:.{0 if unit != 'h' else 1}f} {unit}"
    return f"{seconds / 86_400:.1f} days"


class Rates:
    """Turns a stopwatch and two counters into rows of timing.jsonl, each over the time since the previous row."""

    def __init__(self, watch: Stopwatch, forecast: Forecast):
        self._watch, self._forecast = watch, forecast
        self._seconds: dict[str, float] = {}
        self._elapsed = 0.0
        self._counts: tuple[int, int] | None = None

    def start(self, step: int, update: int) -> None:
        """The first row's time begins now; what came before was setting up."""
        self._watch.lap("setup")
        self._begin(step, update)

    def _begin(self, step: int, update: int) -> None:
        self._counts, self._elapsed, self._seconds = (step, update), self._watch.elapsed(), dict(self._watch.seconds)

    def row(self, step: int, update: int) -> dict[str, Any]:
        assert self._counts is not None, "start() comes first"
        elapsed = self._watch.elapsed()
        period = max(elapsed - self._elapsed, 1e-9)
        left = self._forecast.left(step, update)
        spent = {name: value - self._seconds.get(name, 0.0) for name, value in self._watch.seconds.items()}
        row = {
            "step": step,
            "elapsed": elapsed,
            "steps_per_second": (step - self._counts[0]) / period,
            "updates_per_second": (update - self._counts[1]) / period,
            **({} if left is None else {"seconds_left": left}),
            **{f"share/{name}": value / period for name, value in spent.items()},
            "memory_mb": peak_memory_mb(),
        }
        self._begin(step, update)
        return row


def peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024
