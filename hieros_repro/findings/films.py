"""What agents look like: frames of the films of a group's best, median and worst seed; and how its levels are doing."""

import io
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hieros_repro.findings.finding import Row, higher_is_better
from hieros_repro.findings.page import Block, Film, Paragraph, Section, Table
from hieros_repro.log import jsonl
from hieros_repro.log.levels import table
from hieros_repro.stats.aggregate import summarise

FRAMES, HEIGHT, WIDTH = (3, 7), 128, 900  # how many at least and at most; pixels of one, and of all together
GROUPS = 6  # that have films
FILM = re.compile(r".*-step_(\d+)\.(mp4|gif)")


def films(rows: Sequence[Row], metric: str) -> Section:
    blocks: list[Block] = []
    for row in rows[:GROUPS]:
        for what, seed in chosen(row.values, higher_is_better(metric)).items():
            path = newest(Path(row.chosen[seed].folder) / "videos")
            if path is not None:
                name = f"{row.name}, {what} seed ({seed}, {row.values[seed]:.4g}): {path.name}"
                blocks.append(_film(path, name))
    if not blocks:
        blocks.append(Paragraph("No run has recorded a film; run.video_every and run.final_video say when one is."))
    elif len(rows) > GROUPS:
        blocks.append(Paragraph(f"Films of the first {GROUPS} of {len(rows)} groups only.", "note"))
    return Section("Films", blocks)


def chosen(values: Mapping[int, float], higher_is_better: bool = True) -> dict[str, int]:
    """best, median and worst -> seed; each seed once."""
    sign = 1 if higher_is_better else -1
    ordered = sorted(values, key=lambda seed: sign * values[seed])
    if not ordered:
        return {}
    if len(ordered) == 1:
        return {"only": ordered[0]}
    places = {"best": len(ordered) - 1, "median": (len(ordered) - 1) // 2, "worst": 0}
    found: dict[str, int] = {}
    for what, place in places.items():
        if ordered[place] not in found.values():
            found[what] = ordered[place]
    if len(ordered) == 2:
        return {"best": ordered[1], "worst": ordered[0]}
    return found


def newest(folder: Path) -> Path | None:
    """The film of the latest step; of several at one step the first by name."""
    found = [(int(match[1]), path) for path in sorted(folder.glob("*")) if (match := FILM.fullmatch(path.name))]
    return max(found, key=lambda one: one[0])[1] if found else None


def _film(path: Path, name: str) -> Block:
    try:
        frames = frames_of(path)
    except (OSError, ValueError, ImportError) as error:
        return Paragraph(f"{name} cannot be shown ({' '.join(str(error).split())[:200]}).", "note")
    return Film(name, frames)


def frames_of(path: Path) -> list[bytes]:
    """Some frames at equal distances from the first to the last, as PNG."""
    from PIL import Image

    found = []
    for image in _gif(path) if path.suffix == ".gif" else _mp4(path):
        way = Image.Resampling.NEAREST if image.height < HEIGHT else Image.Resampling.BOX
        buffer = io.BytesIO()
        image.resize((max(1, round(image.width * HEIGHT / image.height)), HEIGHT), way).save(buffer, "PNG")
        found.append(buffer.getvalue())
    return found


def places(count: int, ratio: float) -> list[int]:
    """Which of so many frames are shown: fewer of those that are wide. `ratio`: a frame's width over its height."""
    shown = min(count, max(FRAMES[0], min(FRAMES[1], int(WIDTH / (HEIGHT * ratio)))))
    return sorted({round(i * (count - 1) / max(shown - 1, 1)) for i in range(shown)})


def _gif(path: Path) -> list[Any]:
    from PIL import Image

    with Image.open(path) as film:
        count = getattr(film, "n_frames", 1)
        images = []
        for place in places(count, film.width / film.height):
            film.seek(place)
            images.append(film.convert("RGB"))
        return images


def _mp4(path: Path) -> list[Any]:
    try:
        import imageio.v2 as imageio
    except ImportError as error:
        raise ImportError("imageio is not installed: the extra [video] brings it") from error
    from PIL import Image

    reader: Any
    with imageio.get_reader(path) as reader:
        width, height = reader.get_meta_data()["size"]
        wanted = set(places(sum(1 for _ in reader), width / height))
        return [Image.fromarray(frame) for place, frame in enumerate(reader) if place in wanted]


# -- Levels ------------------------------------------------------------------------------------------------------------


def levels(rows: Sequence[Row]) -> Section | None:
    """A table per group of means over its seeds' last rows; None where no agent has levels."""
    blocks: list[Block] = []
    for row in rows[:GROUPS]:
        folders = [Path(run.folder) for seed, run in row.chosen.items() if seed in row.values]
        text = table(_means([last for folder in folders[:GROUPS] if (last := _last(folder / "metrics.jsonl"))]))
        if text:
            header, *cells = (line.removeprefix("Subactor-").split() for line in text.splitlines())
            blocks.append(
                Table(
                    [name.replace("_", " ") for name in header],
                    cells,
                    f"{row.name}: last values, mean over {min(len(folders), GROUPS)} seed(s).",
                )
            )
    return Section("Levels", blocks) if blocks else None


def _last(path: Path) -> dict[str, float]:
    """The last value of every metric of a level, as far as the file can be read."""
    found: dict[str, float] = {}
    try:
        for values in jsonl.read(path):
            levels = {name: value for name, value in values.items() if name.startswith("Subactor-")}
            found |= {name: float(value) for name, value in levels.items() if isinstance(value, int | float)}
    except (ValueError, AttributeError):  # a line that is no JSON object
        return found
    return found


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(itertools.chain.from_iterable(rows))
    return {name: _mean([row[name] for row in rows if name in row]) for name in names}


def _mean(values: Sequence[float]) -> float:
    """NaN where one of them is not finite: a level that diverged is to be seen."""
    return summarise(values).mean if all(map(math.isfinite, values)) else math.nan
