"""Figures of a report: what is drawn is passed in, nothing is computed here but where it goes.

Equal data give equal bytes. Colours are told apart by everybody (after Okabe and Ito); after eight of them lines change style.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hieros_repro.stats.curve import Band, Curve
from hieros_repro.stats.figure import COLOURS
from hieros_repro.stats.label import shortened, wrapped
from hieros_repro.stats.tasks import Profile

STYLES = ("-", "--", ":", "-.")
LINES = 2 * len(COLOURS)  # groups that can still be told apart in one figure
CROWD = len(COLOURS)  # groups beyond which seeds and bands would hide each other
WIDTH = 8.6  # inches
THIN = 240  # seeds' curves in one figure
POINTS = 150  # of each of them


Numbers = Mapping[str, int]  # group -> its place among all, so that it looks the same in every figure


class Curves(NamedTuple):
    """A group's learning: its seeds' curves, and their middle with its interval."""

    seeds: list[Curve]
    band: Band
    n: int  # curves that the band is over


class Spot(NamedTuple):
    """A value with its interval, if there is one."""

    value: float
    low: float | None
    high: float | None


def style(number: int) -> dict[str, Any]:
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": STYLES[number // len(COLOURS) % len(STYLES)]}


# -- Figures -----------------------------------------------------------------------------------------------------------


def learning(metric: str, groups: Mapping[str, Curves], numbers: Numbers) -> Any:
    """Every seed thin, each group's middle bold in its band; of many groups the middles only."""
    labels = {name: f"{label} (n = {groups[name].n})" for name, label in named(groups, numbers, 28).items()}
    figure, axes = _canvas(3.9 + _legend_height(labels))
    if single(groups):
        _points(axes, groups, numbers, labels)
    else:
        _lines(axes, groups, numbers, labels)
    if (ends := extent(groups)) is not None:
        axes.set_ylim(*ends)
    axes.set(xlabel="environment steps", ylabel=metric)
    _legend(figure, axes, labels)
    return figure


def named(groups: Mapping[str, Any], numbers: Numbers, width: int = 34) -> dict[str, str]:
    """Name -> what stands in the figure for it: short, the same in every figure, on lines of about this width."""
    short = shortened(numbers)
    return {name: wrapped(short[name].replace("$", r"\$"), width) for name in groups}  # a dollar would begin a formula


def single(groups: Mapping[str, Curves]) -> bool:
    """Whether there is one evaluation and no curve."""
    lengths = {len(curve) for curves in groups.values() for curve in curves.seeds}
    return lengths == {1}


def extent(groups: Mapping[str, Curves]) -> tuple[float, float] | None:
    """From the lowest to the highest value of any seed, and a little: intervals of few seeds would squeeze them to a line."""
    values = [value for curves in groups.values() for curve in curves.seeds for _, value in curve]
    if not values:
        return None
    low, high = min(values), max(values)
    spare = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    return low - spare, high + spare


def cut(groups: Mapping[str, Curves]) -> bool:
    """Whether some interval goes on beyond the axis."""
    ends = extent(groups)
    if ends is None or (len(groups) > CROWD and not single(groups)):
        return False
    bands = [curves.band for curves in groups.values()]
    return (
        min(min(band.lows, default=ends[0]) for band in bands) < ends[0]
        or max(max(band.highs, default=ends[1]) for band in bands) > ends[1]
    )


def _points(axes: Any, groups: Mapping[str, Curves], numbers: Numbers, labels: Mapping[str, str]) -> None:
    """A mean with its interval for each group, side by side; its seeds in front of it."""
    for place, (name, curves) in enumerate(groups.items()):
        colour = style(numbers[name])["color"]
        values = [curve[0][1] for curve in curves.seeds]
        axes.plot([place - 0.12] * len(values), values, "o", color=colour, alpha=0.4, markersize=4)
        for middle, low, high in zip(curves.band.middles, curves.band.lows, curves.band.highs, strict=True):
            reach = [[middle - low], [high - middle]]
            axes.errorbar(place, middle, yerr=reach, fmt="s", color=colour, capsize=4, label=labels[name])
    axes.set_xlim(-0.6, len(groups) - 0.4)
    steps = [curves.band.steps[0] if curves.band.steps else curves.seeds[0][0][0] for curves in groups.values()]
    axes.set_xticks(range(len(groups)), [f"{step:,.0f}" for step in steps])


def _lines(axes: Any, groups: Mapping[str, Curves], numbers: Numbers, labels: Mapping[str, str]) -> None:
    seeds = max(3, THIN // max(len(groups), 1))
    for name, curves in groups.items():
        look = style(numbers[name])
        for curve in thinned(curves.seeds, seeds) if len(groups) <= CROWD else ():
            steps, values = zip(*thinned(curve, POINTS), strict=True)
            axes.plot(steps, values, color=look["color"], alpha=0.3, linewidth=0.6)
        band = curves.band
        if band.steps:
            marker = "o" if len(band.steps) == 1 else None
            axes.plot(
                band.steps,
                band.middles,
                linewidth=2,
                label=labels[name],
                marker=marker,
                **look,
            )
            if len(groups) <= CROWD:
                axes.fill_between(band.steps, band.lows, band.highs, color=look["color"], alpha=0.13, linewidth=0)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")


def profiles(metric: str, groups: Mapping[str, Profile], numbers: Numbers) -> Any:
    """Of each group the share of runs above a score, in its band unless there are many."""
    labels = named(groups, numbers)
    figure, axes = _canvas(3.2 + _legend_height(labels))
    for name, found in groups.items():
        look = style(numbers[name])
        axes.plot(found.thresholds, found.shares, linewidth=1.8, label=labels[name], drawstyle="steps-post", **look)
        if found.lows is not None and found.highs is not None and len(groups) <= CROWD:
            axes.fill_between(
                found.thresholds, found.lows, found.highs, color=look["color"], alpha=0.1, linewidth=0, step="post"
            )
    axes.set(xlabel=f"{metric} above which ...", ylabel="... this share of runs is", ylim=(-0.03, 1.03))
    _legend(figure, axes, labels)
    return figure


def strip(metric: str, finals: Mapping[str, Mapping[str, float]], middles: Mapping[str, Spot], numbers: Numbers) -> Any:
    """One line per group: every seed a dot, the mean a square in its interval."""
    labels = named(finals, numbers)
    figure, axes = _canvas(0.9 + sum(0.41 + 0.17 * label.count("\n") for label in labels.values()))
    for number, (name, values) in enumerate(finals.items()):
        colour, count = style(numbers[name])["color"], len(values)
        places = [number + 0.24 * ((3 * i) % 5 - 2) / 4 for i in range(count)]  # apart, so that equal ones are seen
        axes.plot(list(values.values()), places, "o", color=colour, alpha=max(0.15, min(0.6, 8 / count)), markersize=4.5)
        middle = middles[name]
        axes.errorbar(middle.value, number + 0.33, xerr=_spread(middle), fmt="s", color=colour, capsize=3, markersize=5)
    axes.set(xlabel=metric, ylim=(len(finals) - 0.4, -0.6))
    axes.set_yticks(range(len(finals)), list(labels.values()))
    axes.grid(axis="x", alpha=0.2)
    return figure


def forest(label: str, spots: Mapping[str, Spot], line: float, ends: tuple[float, float] | None = None) -> Any:
    """One line per comparison: a value and its interval beside the line that means no difference."""
    labels = [wrapped(name.replace("$", r"\$"), 46) for name in spots]
    figure, axes = _canvas(0.9 + sum(0.3 + 0.17 * label.count("\n") for label in labels))
    axes.axvline(line, color="#777777", linewidth=1, linestyle="--")
    for number, spot in enumerate(spots.values()):
        axes.errorbar(spot.value, number, xerr=_spread(spot), fmt="o", color=COLOURS[0], capsize=3, markersize=5)
    axes.set(xlabel=label, ylim=(len(spots) - 0.4, -0.6))
    if ends is not None:
        axes.set_xlim(*ends)
    axes.set_yticks(range(len(spots)), labels)
    axes.grid(axis="x", alpha=0.2)
    return figure


def _spread(spot: Spot) -> list[list[float]] | None:
    """How far the interval reaches to either side, as error bars take it."""
    return None if spot.low is None or spot.high is None else [[spot.value - spot.low], [spot.high - spot.value]]


def thinned(values: Sequence[Any], most: int) -> list[Any]:
    """At most so many of them at equal distances, the first and the last always."""
    if len(values) <= most:
        return list(values)
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]


# -- Where things go ---------------------------------------------------------------------------------------------------


def _canvas(height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.2)
    return figure, axes


def _columns(labels: Mapping[str, str]) -> int:
    longest = max((len(line) for label in labels.values() for line in label.split("\n")), default=0)
    return 4 if longest <= 20 else 3 if longest <= 28 else 2


def _legend_height(labels: Mapping[str, str]) -> float:
    """Inches that a legend below the axes takes."""
    if len(labels) < 2:
        return 0.0
    lines = sum(label.count("\n") + 1 for label in labels.values())
    return 0.2 * -(-lines // _columns(labels)) + 0.1


def _legend(figure: Any, axes: Any, labels: Mapping[str, str]) -> None:
    handles, texts = axes.get_legend_handles_labels()
    if len(labels) > 1 and handles:
        columns = _columns(labels)
        figure.legend(handles, texts, loc="outside lower center", ncols=columns, frameon=False, fontsize=8.5, handlelength=2.6)


# -- Files -------------------------------------------------------------------------------------------------------------


def svg(figure: Any, name: str) -> str:
    """The figure as an element that can stand in a page among others: its names begin with `name`."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)


def png(figure: Any, dots: int = 200) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dots, metadata={"Software": None})
    return buffer.getvalue()
