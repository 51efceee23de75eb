"""Learning curves: what a group of them says, and one number about one of them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from hieros_repro.determinism.keys import Key
from hieros_repro.stats.aggregate import bootstrap, interquartile, summarise

Curve = Sequence[tuple[float, float]]  # (step, value)


class Band(NamedTuple):
    """A group's middle and its interval at each step. A single curve is its own band."""

    steps: list[float]
    middles: list[float]
    lows: list[float]
    highs: list[float]


# -- Many curves -------------------------------------------------------------------------------------------------------


def band(curves: Sequence[Curve]) -> Band:
    """Mean and 95 % t-interval of the curves' first points, of their second ones, and so on as far as all go; at the mean of
    their steps, since an evaluation takes place at the first tick at or past its step. A single curve is its own band."""
    points = list(zip(*curves, strict=False))
    steps = [sum(step for step, _ in point) / len(point) for point in points]
    return _mean_band(steps, [[value for _, value in point] for point in points])


def common_grid(curves: Sequence[Curve], points: int | None = None) -> list[float]:
    """Steps that all curves cover: those at which any of them has a value, or so many at equal distances; none if the curves
    have no stretch in common."""
    every = [_points(curve)[0] for curve in curves]
    if not every:
        return []
    low, high = max(steps[0] for steps in every), min(steps[-1] for steps in every)
    if low > high:
        return []
    if points is not None:
        return np.linspace(low, high, points).tolist() if low < high else [float(low)]
    steps = np.unique(np.concatenate(every))
    return steps[(steps >= low) & (steps <= high)].tolist()


def on_grid(curve: Curve, grid: Sequence[float]) -> list[float]:
    """The curve's values at these steps, on straight lines between its points; nothing is guessed outside them."""
    steps, values = _points(curve)
    outside = [step for step in grid if not steps[0] <= step <= steps[-1]]
    if outside:
        raise ValueError(f"a curve from step {steps[0]:g} to {steps[-1]:g} has no value at {outside[0]:g}")
    return np.interp(grid, steps, values).tolist()


def mean_band(curves: Sequence[Curve], grid: Sequence[float] | None = None, confidence: float = 0.95) -> Band:
    """Mean and t-interval on a grid, for curves whose points are not at the same steps (`common_grid` if none is given)."""
    steps, columns = _columns(curves, grid)
    return _mean_band(steps, columns, confidence)


def iqm_band(
    curves: Sequence[Curve], key: Key, grid: Sequence[float] | None = None, draws: int = 2000, confidence: float = 0.95
) -> Band:
    """Interquartile mean and its bootstrap interval on a grid. Whole curves are resampled, the same ones at every step."""
    steps, columns = _columns(curves, grid)
    middles = [float(interquartile(np.asarray(column))) for column in columns]
    found = [bootstrap([column], lambda strata: interquartile(strata[0]), key, draws, confidence) for column in columns]
    intervals = [interval or (middle, middle) for interval, middle in zip(found, middles, strict=True)]
    return Band(steps, middles, [low for low, _ in intervals], [high for _, high in intervals])


def _columns(curves: Sequence[Curve], grid: Sequence[float] | None) -> tuple[list[float], list[list[float]]]:
    """The grid, and at each of its steps the values of all curves."""
    steps = common_grid(curves) if grid is None else [float(step) for step in grid]
    return steps, [list(column) for column in zip(*(on_grid(curve, steps) for curve in curves), strict=True)]


def _mean_band(steps: list[float], columns: Sequence[Sequence[float]], confidence: float = 0.95) -> Band:
    found = [summarise(column, confidence) for column in columns]
    lows = [s.mean if s.low is None else s.low for s in found]
    highs = [s.mean if s.high is None else s.high for s in found]
    return Band(steps, [s.mean for s in found], lows, highs)


# -- One curve ---------------------------------------------------------------------------------------------------------


def area(curve: Curve, span: tuple[float, float] | None = None) -> float:
    """The curve's mean over its steps: sum_i (v_i + v_{i+1}) / 2 (s_{i+1} - s_i), divided by the steps covered.

    `span`: from and to which step, for curves that do not cover the same. A single point is its own mean.
    """
    steps, values = _points(curve)
    if span is not None:
        inside = (steps > span[0]) & (steps < span[1])
        grid = [span[0], *steps[inside].tolist(), *([span[1]] if span[1] > span[0] else [])]
        steps, values = np.asarray(grid, np.float64), np.asarray(on_grid(curve, grid))
    if len(steps) == 1:
        return float(values[0])
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


def steps_to(curve: Curve, threshold: float, higher_is_better: bool = True) -> float | None:
    """The first step with a value of at least the threshold (at most, if lower is better); None if it is not reached."""
    steps, values = _points(curve)
    reached: Callable[[np.ndarray, float], np.ndarray] = np.greater_equal if higher_is_better else np.less_equal
    found = steps[reached(values, threshold)]
    return float(found[0]) if len(found) else None


def last_mean(curve: Curve, share: float = 0.1) -> float:
    """The mean of the points in the last share of the steps covered: s_i >= s_n - share (s_n - s_1)."""
    if not 0 <= share <= 1:
        raise ValueError(f"a share of a curve is between 0 and 1, not {share}")
    steps, values = _points(curve)
    return float(values[steps >= steps[-1] - share * (steps[-1] - steps[0])].mean())


def _points(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values; refuses a curve that is empty, goes back or is not finite."""
    if not curve:
        raise ValueError("a curve has one point at least")
    steps, values = np.asarray(curve, np.float64).T
    bad = ~(np.isfinite(steps) & np.isfinite(values))
    if bad.any():
        raise ValueError(f"{bad.sum()} of {len(steps)} points of a curve are not finite, the first at step {steps[bad][0]:g}")
    back = np.flatnonzero(np.diff(steps) <= 0)
    if back.size:
        raise ValueError(f"a curve's steps must grow: {steps[back[0]]:g} is followed by {steps[back[0] + 1]:g}")
    return steps, values
