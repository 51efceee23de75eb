"""Many tasks at once. Scores are on a common scale (see normalise.py): task -> one value per run.

Intervals come from the stratified bootstrap: runs are resampled within their task, and the tasks are those they are. Each task
weighs the same however many runs it has, except in the interquartile mean, which takes all runs together.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from hieros_repro.determinism.keys import Key
from hieros_repro.stats.aggregate import (
    Estimate,
    Interval,
    Statistic,
    checked,
    estimate,
    interquartile,
    percentiles,
    resampled,
    shortfall,
)
from hieros_repro.stats.contrast import superiority

Scores = Mapping[str, Sequence[float]]


class Overall(NamedTuple):
    iqm: Estimate
    mean: Estimate
    median: Estimate
    gap: Estimate
    single: tuple[str, ...]  # tasks of one run, whose uncertainty is not in the intervals


class Profile(NamedTuple):
    """The share of runs above each threshold; the band is None if every task has one run."""

    thresholds: list[float]
    shares: list[float]
    lows: list[float] | None
    highs: list[float] | None


class Rank(NamedTuple):
    """A group's mean rank over tasks, and its rank in each: 1 is the best, and ties share their mean."""

    mean: float
    interval: Interval | None
    tasks: dict[str, float]


def overall(scores: Scores, key: Key, target: float = 1.0, draws: int = 2000, confidence: float = 0.95) -> Overall:
    """With x_ti run i of task t and mean_t the mean over a task's runs:

    iqm     the interquartile mean of all x_ti, after the floor(N / 4) lowest and highest of N are cut off
    mean    mean over t of mean_t
    median  median over t of mean_t
    gap     mean over t of the mean over i of max(target - x_ti, 0)
    """
    statistics: dict[str, Statistic] = {
        "iqm": lambda strata: interquartile(np.concatenate(strata, axis=-1)),
        "mean": lambda strata: np.mean(_task_means(strata), axis=0),
        "median": lambda strata: np.median(_task_means(strata), axis=0),
        "gap": lambda strata: np.mean([shortfall(values, target) for values in strata], axis=0),
    }
    strata = _strata(scores)
    found = {name: estimate(strata, taken, key(name), draws, confidence) for name, taken in statistics.items()}
    return Overall(**found, single=tuple(task for task, values in scores.items() if len(values) == 1))


def performance_profile(
    scores: Scores, thresholds: Sequence[float], key: Key, draws: int = 2000, confidence: float = 0.95
) -> Profile:
    """share(tau) = mean over tasks of #{i: x_ti > tau} / n_t, with its interval at each tau."""
    taus, strata = checked(thresholds), _strata(scores)
    shares = _above(strata, taus).tolist()
    if all(len(values) == 1 for values in strata):
        return Profile(taus.tolist(), shares, None, None)
    lows, highs = percentiles(_above(resampled(strata, key, draws), taus), confidence)
    return Profile(taus.tolist(), shares, lows.tolist(), highs.tolist())


def average_improvement(a: Scores, b: Scores, key: Key, draws: int = 2000, confidence: float = 0.95) -> Estimate:
    """The mean over tasks of P(A > B) + P(A = B) / 2 for a run of each."""
    _same_tasks({"the first group": a, "the second group": b})

    def statistic(strata: list[np.ndarray]) -> np.ndarray:
        pairs = zip(strata[: len(a)], strata[len(a) :], strict=True)
        return np.mean([superiority(first, second) for first, second in pairs], axis=0)

    return estimate([*_strata(a), *_strata({task: b[task] for task in a})], statistic, key, draws, confidence)


def ranks(groups: Mapping[str, Scores], key: Key, draws: int = 2000, confidence: float = 0.95) -> dict[str, Rank]:
    """Ranks of the groups' mean scores in each task, 1 for the highest, and their mean over tasks."""
    _same_tasks(groups)
    tasks = list(next(iter(groups.values())))
    strata = [values for scores in groups.values() for values in _strata({task: scores[task] for task in tasks})]
    places = _ranks(strata, len(tasks))
    intervals: list[Interval | None] = [None] * len(groups)
    if any(len(values) > 1 for values in strata):
        drawn = _ranks(resampled(strata, key, draws), len(tasks)).mean(1)  # [group, draw]
        intervals = [Interval(float(low), float(high)) for low, high in percentiles(drawn.T, confidence).T]
    return {
        name: Rank(float(places[g].mean()), intervals[g], dict(zip(tasks, places[g].tolist(), strict=True)))
        for g, name in enumerate(groups)
    }


def _strata(scores: Scores) -> list[np.ndarray]:
    if not scores:
        raise ValueError("there are no tasks")
    return [_task(name, values) for name, values in scores.items()]


def _task(name: str, values: Sequence[float]) -> np.ndarray:
    try:
        return checked(values)
    except ValueError as error:
        raise ValueError(f"task {name}: {error}") from error


def _same_tasks(groups: Mapping[str, Scores]) -> None:
    if not groups:
        raise ValueError("there are no groups")
    every = set().union(*groups.values())
    for name, scores in groups.items():
        lacking = sorted(every - set(scores))
        if lacking:
            raise ValueError(f"{name} has no scores of {', '.join(lacking)}: groups are compared over the same tasks")


def _task_means(strata: list[np.ndarray]) -> np.ndarray:
    """[task, ...]. Sorted first: equal runs in another order must have equal means, bit by bit, to tie."""
    return np.stack([np.sort(values, axis=-1).mean(-1) for values in strata])


def _above(strata: list[np.ndarray], thresholds: np.ndarray) -> np.ndarray:
    """[..., threshold]"""
    return np.mean([(values[..., None] > thresholds).mean(-2) for values in strata], axis=0)


def _ranks(strata: list[np.ndarray], tasks: int) -> np.ndarray:
    """[group, task, ...] from strata that are ordered by group, then task."""
    means = _task_means(strata)
    return stats.rankdata(-means.reshape(-1, tasks, *means.shape[1:]), axis=0)
