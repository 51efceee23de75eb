"""Where the time goes. Wall clock, so nothing from here may reach training or metrics.jsonl."""

import resource
import sys
import time
from typing import Any


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


class Rates:
    """Turns a stopwatch and two counters into rows of timing.jsonl, each over the time since the previous row."""

    def __init__(self, watch: Stopwatch):
        self._watch = watch
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
        spent = {name: value - self._seconds.get(name, 0.0) for name, value in self._watch.seconds.items()}
        row = {
            "step": step,
            "elapsed": elapsed,
            "steps_per_second": (step - self._counts[0]) / period,
            "updates_per_second": (update - self._counts[1]) / period,
            **{f"share/{name}": value / period for name, value in spent.items()},
            "memory_mb": peak_memory_mb(),
        }
        self._begin(step, update)
        return row


def peak_memory_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024
