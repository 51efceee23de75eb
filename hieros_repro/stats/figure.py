"""Figures of sweeps."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from hieros_repro import atomic
from hieros_repro.stats.aggregate import summarise
from hieros_repro.stats.curve import Curve, band
from hieros_repro.stats.label import shortened, wrapped

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333", "#8c613c")
CROWD, ROOM = 6, 52  # groups, and letters side by side, above which names stand at an angle


def sweep_figure(
    path: Path,
    metric: str,
    curves: Mapping[str, Mapping[str, Curve]],
    finals: Mapping[str, Mapping[str, float]],
    shared: bool = False,
) -> None:
    """Left: every seed's curve (thin), and means (bold) and 95 % t-bands of those that have a final value. Right: these values.

    `curves` and `finals`: group -> seed -> values, of which only finite ones are drawn.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    names = shortened([*finals, *curves])
    for number, group in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        for curve in filter(None, map(finite, curves[group].values())):
            left.plot(*zip(*curve, strict=True), color=colour, alpha=0.3, linewidth=0.8)
        counted = [curve for seed, curve in curves[group].items() if seed in finals.get(group, ())]
        steps, means, lows, highs = band(together(counted))
        if steps:
            left.plot(steps, means, color=colour, linewidth=2, label=f"{wrapped(names[group], 40)} (n = {len(counted)})")
            left.fill_between(steps, lows, highs, color=colour, alpha=0.15, linewidth=0)
    left.set(xlabel="environment steps", ylabel=metric, title="scheduled evaluations: seeds, mean, 95 % t-interval")
    if left.get_legend_handles_labels()[0]:
        left.legend(loc="best", frameon=False, fontsize="small")
    _strip(right, metric, {names[group]: values for group, values in finals.items()})
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.2)
    with atomic.replaced(path, shared) as partial:
        figure.savefig(partial, dpi=130, format="png", metadata={"Software": None})


def finite(curve: Curve) -> Curve:
    """The points of a curve that have a value: an evaluation may have come to nothing, or to no number."""
    return [point for point in curve if _is_finite(point)]


def together(curves: Sequence[Curve]) -> list[Curve]:
    """The curves at those evaluations at which each of them has a value, so that a mean is over the same seeds everywhere."""
    rows = [points for points in zip(*curves, strict=False) if all(map(_is_finite, points))]
    return [list(curve) for curve in zip(*rows, strict=True)]


def _is_finite(point: tuple[float, float | None]) -> bool:
    return point[1] is not None and math.isfinite(point[1])


def _strip(axes, metric: str, finals: Mapping[str, Mapping[str, float]]) -> None:  # type: ignore[no-untyped-def]
    for number, group in enumerate(finals):
        colour, values = COLOURS[number % len(COLOURS)], list(finals[group].values())
        spread = [number + 0.2 * (index + 0.5) / len(values) - 0.1 for index in range(len(values))]
        axes.plot(spread, values, "o", color=colour, alpha=0.5)
        summary = summarise(values)
        if summary.low is not None and summary.high is not None:
            half = summary.high - summary.mean
            axes.errorbar(number + 0.2, summary.mean, yerr=half, fmt="s", color=colour, capsize=4)
        low, high = (chosen(finals[group], key=finals[group].__getitem__) for chosen in (min, max))
        for seed, side in {low: "top", high: "bottom"}.items() if low != high else [(low, "center")]:
            place = {"xytext": (-8, 0), "textcoords": "offset points", "ha": "right", "va": side}
            axes.annotate(f"seed {seed}", (number - 0.1, finals[group][seed]), fontsize=7, **place)
    axes.set(
        title="final: seeds, mean, 95 % t-interval", ylabel=metric, xlim=(-0.6 - 0.05 * len(finals), max(len(finals), 1) - 0.4)
    )
    lines = [wrapped(name, ROOM // max(len(finals), 1)) for name in finals]
    longest = max((len(line) for name in lines for line in name.split("\n")), default=0)
    if len(finals) <= CROWD and longest * len(finals) <= ROOM:
        axes.set_xticks(range(len(finals)), lines, fontsize="small")
    else:
        slanted = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}
        axes.set_xticks(range(len(finals)), [wrapped(name, 24) for name in finals], fontsize="small", **slanted)
