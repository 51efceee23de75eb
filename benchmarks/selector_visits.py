"""How often does each selector show a window, by when it was stored, over a whole run?

    python benchmarks/selector_visits.py --out outputs/visits.png

Plays two runs per selector: in one the replay only grows, in the other it keeps the newest quarter. After every window that is
stored a batch is chosen. Draws the visits of each tenth of the windows in the order of their storing, relative to the mean, and
prints them; then what choosing a batch of 16 costs among 10,000 to a million windows, and what it costs
time_balanced_naive where hundreds of windows are chosen for each new one.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hieros_repro.determinism.keys import Key
from hieros_repro.replay.selector import EfficientTimeBalanced, Selector, TimeBalanced, TimeBalancedNaive, Uniform

WINDOWS, BATCH, TENTHS = 4000, 16, 10
SIZES = (10_000, 100_000, 1_000_000)  # windows stored when choices are timed
SHOWN = 1000  # times each of them was shown before, where weights become small
ROOM = 10 * WINDOWS  # what the growing replay could hold: it matters to the original's scale only
LINES = {"the replay grows": ("#1b6ca8", "o-"), "only the newest quarter is kept": ("#d1495b", "s-")}
SELECTORS: dict[str, Callable[[int], Selector]] = {
    "uniform": Uniform,
    "time_balanced\nbias 1.5": lambda capacity: TimeBalanced(capacity, bias=1.5),
    "time_balanced_naive\nbias 20": lambda capacity: TimeBalancedNaive(capacity, bias=20.0),
    "efficient_time_balanced\ntemperature 0.3": lambda capacity: efficient(capacity, 0.3, "size"),
    "efficient_time_balanced\ntemperature 1": lambda capacity: efficient(capacity, 1.0, "size"),
    "efficient_time_balanced\ntemperature 0.3, scale capacity": lambda capacity: efficient(capacity, 0.3, "capacity"),
}


def efficient(capacity: int, temperature: float, scale: str) -> EfficientTimeBalanced:
    return EfficientTimeBalanced(capacity, temperature=temperature, scale=scale)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("outputs/visits.png"))
    out = parser.parse_args(arguments).out
    found = {name: played(build) for name, build in SELECTORS.items()}
    show(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    draw(found, out)
    print(f"\n{out}\n")
    show_costs()
    show_passes()


def played(build: Callable[[int], Selector]) -> dict[str, np.ndarray]:
    growing, quarter = build(ROOM), build(WINDOWS // 4)
    return dict(zip(LINES, (visits(growing, WINDOWS), visits(quarter, WINDOWS // 4)), strict=True))


def visits(selector: Selector, stored: int) -> np.ndarray:
    """Of each tenth of the windows, relative to the mean, when the newest `stored` are kept."""
    counts = np.zeros(WINDOWS)
    for end in range(1, WINDOWS + 1):
        np.add.at(counts, selector.choose(Key(0)("replay", end), BATCH, max(0, end - stored), end), 1)
    tenths = counts.reshape(TENTHS, -1).mean(1)
    return tenths / tenths.mean()


def show(found: dict[str, dict[str, np.ndarray]]) -> None:
    print("visits relative to the mean, by tenth of the windows in the order of their storing")
    for name, runs in found.items():
        print(f"\n{name.replace(chr(10), ', ')}")
        for line, values in runs.items():
            print(f"  {line:<32}" + " ".join(f"{value:5.2f}" for value in values))


def draw(found: dict[str, dict[str, np.ndarray]], out: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3, sharex=True, sharey=True)
    for axes, (name, runs) in zip(panels.flat, found.items(), strict=True):
        for line, values in runs.items():
            colour, mark = LINES[line]
            axes.plot(np.arange(TENTHS) + 1, values, mark, color=colour, label=line, markersize=4)
        axes.axhline(1, color="#4d4d4d", linewidth=0.8, linestyle=":")
        axes.set_title(name, fontsize="medium")
        axes.set_xticks(range(1, TENTHS + 1))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.2)
    panels[0, 0].legend(loc="upper right", frameon=False, fontsize="small")
    panels[0, 0].set_ylim(bottom=0)
    figure.suptitle(f"How often is a window seen over a run that stores {WINDOWS:,}, by when it was stored?")
    figure.supylabel("visits, relative to the mean", fontsize="medium")
    figure.supxlabel("tenth of the windows, in the order of their storing (1: the first, 10: the last)", fontsize="medium")
    figure.savefig(out, dpi=130, metadata={"Software": None})


def show_costs() -> None:
    print(f"microseconds for a batch of {BATCH}, one window leaving and one coming before each: median of 300")
    print(f"{'':<55}" + "".join(f"{size:>11,}" for size in SIZES))
    for name, build in SELECTORS.items():
        print(f"{name.replace(chr(10), ', '):<55}" + "".join(f"{cost(build(size), size) * 1e6:>11.0f}" for size in SIZES))


def cost(selector: Selector, size: int) -> float:
    return float(np.median(durations(selector, size)))


def durations(selector: Selector, size: int, every: int = 1) -> np.ndarray:
    """Seconds of each of 300 choices, before every `every`-th of which a window leaves and one comes. One more is not told."""
    taken = []
    for update in range(301):
        key, first = Key(0)("replay", update), update // every
        started = time.perf_counter()
        selector.choose(key, BATCH, first, size + first)
        taken.append(time.perf_counter() - started)
    return np.array(taken[1:])


def show_passes() -> None:
    """A pass over all counts is due when all weights are too small, and when after that a new window comes."""
    print(f"\nmilliseconds for a batch of {BATCH} of time_balanced_naive, bias 20, all windows shown {SHOWN:,} times before:")
    print("mean, longest, and the share of the 300 that took ten times the median")
    print(f"{'windows stored':>14}{'chosen for each new one':>26}{'mean':>8}{'longest':>10}{'share':>8}")
    for size in SIZES:
        for every in (1, 8, 32, 128):
            taken = durations(worn(size), size, every) * 1e3
            share = (taken > 10 * np.median(taken)).mean()
            print(f"{size:>14,}{BATCH * every:>26,}{taken.mean():>8.2f}{taken.max():>10.2f}{share:>8.0%}")


def worn(size: int) -> TimeBalancedNaive:
    selector = TimeBalancedNaive(size, bias=20.0)
    selector.load({"first": 0, "end": size, "offset": 0, "counts": np.full(size, SHOWN, np.uint32)})
    return selector


if __name__ == "__main__":
    main()
