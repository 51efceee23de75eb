"""Schedules: functions of the step, never of the clock."""

from hieros_repro.records import Schedule


def linear(start: float, end: float, horizon: int, warmup: int = 0) -> Schedule:
    """From `start` at step 0 to `end` at the horizon, and `end` ever after; multiplied by step / warmup while warming up.

    value(s) = (start + (end - start) * min(s / horizon, 1)) * min(s / warmup, 1)
    """

    def value(step: int) -> float:
        progress = min(step / horizon, 1.0)
        ramp = min(step / warmup, 1.0) if warmup else 1.0
        return (start + (end - start) * progress) * ramp

    return value
