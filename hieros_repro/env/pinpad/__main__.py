"""A picture of every layout: python -m hieros_repro.env.pinpad [--out outputs/pinpad.png]

Three rows: the map with the pads' numbers, a player on the last pad, and the pause after the sequence. `--visits` adds where 64
random players were in 500 steps; `--task` shows one layout only, or a map of your own, read from a file.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hieros_repro.determinism.keys import Key
from hieros_repro.env.base import Slots
from hieros_repro.env.pinpad.adapter import PinPad
from hieros_repro.env.pinpad.layout import ACTIONS, FREE, MAPS, WIDTH, Layout, layout_of
from hieros_repro.env.pinpad.native import PICTURE
from hieros_repro.env.pinpad.picture import GRID, heat_map, picture

PLAYERS, STEPS = 64, 500


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hieros_repro.env.pinpad", description="A picture of every layout.")
    parser.add_argument("--out", type=Path, default=Path("outputs/pinpad.png"), help="the PNG to write")
    parser.add_argument("--task", help="a layout's name, or a file that holds a map; default: all layouts")
    parser.add_argument("--visits", action="store_true", help="add where random players have been")
    chosen = parser.parse_args(arguments)
    try:
        tasks = dict([_named(chosen.task)] if chosen.task else zip(MAPS, MAPS, strict=True))
        shown = {name: panels(task, chosen.visits) for name, task in tasks.items()}
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    save(shown, {name: layout_of(task) for name, task in tasks.items()}, chosen.out)
    print(f"wrote {chosen.out}")
    return 0


def _named(task: str) -> tuple[str, str]:
    """A title, and what PinPad takes as its task."""
    path = Path(task)
    return (path.stem, path.read_text(encoding="utf8").rstrip("\n") + "\n") if path.is_file() else (task, task)


def panels(task: str, visits: bool = False) -> dict[str, np.ndarray]:
    """Pictures by what they show."""
    layout, order = layout_of(task), "12345678"[: layout_of(task).pads]
    last = int(np.flatnonzero(layout.tiles == layout.pads)[0])
    found = {
        "": picture(layout, _middle(layout), False, "", PICTURE),
        f"on pad {layout.pads}": picture(layout, last, False, order[1:], PICTURE),
        f"paused after {order}": picture(layout, _middle(layout), True, order, PICTURE),
    }
    return found | {"visits": heat_map(layout, random_visits(task), PICTURE)} if visits else found


def _middle(layout: Layout) -> int:
    """The free cell nearest to the middle."""
    ys, xs = np.divmod(np.array(layout.cells), WIDTH)
    far = (ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2 + 1000 * (layout.tiles[list(layout.cells)] != FREE)
    return layout.cells[int(np.argmin(far))]


def random_visits(task: str) -> np.ndarray:
    """How often each cell was visited by random players together."""
    env = PinPad(task=task, length=STEPS, size=GRID)
    players = env.batch(lambda: env, PLAYERS)
    obs = {"image": np.empty((PLAYERS, GRID, GRID, 3), np.uint8)}
    for step in range(STEPS):
        actions = Key(0)("world", "random player", step).integers(ACTIONS, (PLAYERS,))
        starting = {} if step else {i: i for i in range(PLAYERS)}
        players.step(actions, starting, Slots(obs, np.zeros(PLAYERS), *np.zeros((2, PLAYERS), bool)))
    return np.sum([state["visits"] for state in players.snapshot()], axis=0)


def save(shown: dict[str, dict[str, np.ndarray]], layouts: dict[str, Layout], out: Path) -> None:
    """One column a layout, each picture with its name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = max(map(len, shown.values()))
    figure = Figure(figsize=(2.6 * len(shown), 2.85 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for column, name in enumerate(shown):
        for row, (what, image) in enumerate(shown[name].items()):
            axes = figure.add_subplot(rows, len(shown), row * len(shown) + column + 1)
            axes.imshow(image, interpolation="nearest")
            axes.set_title(what or name, fontsize=10 if what else 13)
            axes.axis("off")
            for x, y, number in _numbers(layouts[name]) if row == 0 else ():
                axes.text(x, y, number, ha="center", va="center")
    figure.savefig(out, dpi=80)


def _numbers(layout: Layout) -> list[tuple[float, float, str]]:
    """Where in a picture each pad's number belongs."""
    scale, found = PICTURE // GRID, []
    for pad in range(1, layout.pads + 1):
        ys, xs = np.divmod(np.flatnonzero(layout.tiles == pad), WIDTH)
        found.append(((xs.mean() + 0.5) * scale, (ys.mean() + 0.5) * scale, str(pad)))
    return found


if __name__ == "__main__":
    sys.exit(main())
