"""Timing two things as ratios: A, B, A, B, ... in one run, so that a noisy machine disturbs both alike."""

import statistics
from collections.abc import Callable


def alternate(a: Callable[[], float], b: Callable[[], float], pairs: int) -> tuple[list[float], list[float]]:
    """Seconds of both, measured in turn. Every second pair starts with B."""
    times: tuple[list[float], list[float]] = [], []
    for pair in range(pairs):
        for which in (0, 1) if pair % 2 == 0 else (1, 0):
            times[which].append((a, b)[which]())
        print(f"pair {pair + 1}: {times[0][-1]:.2f} s and {times[1][-1]:.2f} s", flush=True)
    return times


def ratios(numerator: list[float], denominator: list[float]) -> str:
    """The median ratio of a pair, and the range over pairs."""
    found = sorted(x / y for x, y in zip(numerator, denominator, strict=True))
    return f"{statistics.median(found):.3f} (pairs: {found[0]:.3f} to {found[-1]:.3f})"
