"""What a report consists of, whatever it is written as: sections of blocks. Renderers add looks and no content."""

import math
import re
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from hieros_repro.stats.table import latex, markdown, p_value, to_csv

NUMERIC = re.compile(r"(?:< ?)?[-+]?[\d,.]+(e[-+]?\d+)?( ?(%|h|min|s|MB|days))?|\[.*\]|-")
CELL = str | int | float | bool | tuple[float, float] | None  # a tuple is an interval


class Chance(float):
    """A test's p-value: read with four places, exported as data with all digits."""


class Paragraph(NamedTuple):
    text: str
    kind: Literal["plain", "heading", "answer", "warning", "note"] = "plain"


class Listing(NamedTuple):
    """Points, one a line; `warning`: what a reader must know before believing the rest."""

    items: list[str]
    kind: Literal["plain", "warning"] = "plain"


class Commands(NamedTuple):
    """What can be typed, or other text in which every character counts."""

    lines: list[str]


class Table(NamedTuple):
    header: Sequence[str]
    rows: Sequence[Sequence[CELL]]
    caption: str = ""


class Drawing(NamedTuple):
    """A figure of matplotlib, which each renderer turns into what it can show."""

    figure: Any
    caption: str


class Film(NamedTuple):
    """Some frames of a film in their order, as PNG."""

    caption: str
    frames: list[bytes]


class Folded(NamedTuple):
    """What few will read: closed at first where something can be closed."""

    title: str
    blocks: "list[Block]"


class Item(NamedTuple):
    """One demand of a checklist. None: it cannot be told."""

    met: bool | None
    demand: str
    fact: str


class Checklist(NamedTuple):
    items: list[Item]


Block = Paragraph | Listing | Commands | Table | Drawing | Film | Folded | Checklist


class Section(NamedTuple):
    title: str
    blocks: list[Block]

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


class Page(NamedTuple):
    """A report. `ended`: when the newest of its runs did, in ISO 8601; the only date in it."""

    title: str
    question: str
    subtitle: str
    sections: list[Section]
    ended: str | None = None


def kind(block: Block) -> str:
    """By which name a renderer finds its way to draw a block."""
    return type(block).__name__.lower()


def long_table(table: Table, what: str, most: int) -> "list[Block]":
    """A table of which only the first rows are open; `what` its rows are."""
    left = len(table.rows) - most
    if left <= 0:
        return [table]
    rest = Folded(f"{left:,} {what} more", [Table(table.header, table.rows[most:])])
    return [table._replace(rows=table.rows[:most]), rest]


def listed(names: Sequence[str], most: int = 4) -> str:
    """The first of them, and dots where there are more."""
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "")


# -- Cells -------------------------------------------------------------------------------------------------------------


def texts(table: Table) -> list[list[str]]:
    """The rows as they are read. Numbers of a column have equally many digits, so that their points are below each other."""
    columns = list(zip(*table.rows, strict=True)) if table.rows else [() for _ in table.header]
    digits = [_digits(column) for column in columns]
    return [[shown(cell, n) for cell, n in zip(row, digits, strict=True)] for row in table.rows]


def numeric(table: Table) -> list[bool]:
    """Which columns hold numbers, and are set to the right."""
    columns = list(zip(*texts(table), strict=True)) if table.rows else [() for _ in table.header]
    return [any(cell != "-" for cell in column) and all(map(NUMERIC.fullmatch, column)) for column in columns]


def _digits(column: Sequence[CELL]) -> int:
    """Decimals that show at least three places of the column's largest number, and two at least."""
    parts = [part for cell in column for part in (cell if isinstance(cell, tuple) else (cell,))]
    sizes = [abs(part) for part in parts if isinstance(part, float) and not isinstance(part, Chance) and math.isfinite(part)]
    largest = max(sizes, default=0.0)
    return 2 if largest >= 10 or largest == 0 else 3 if largest >= 1 else min(3 - math.floor(math.log10(largest)), 8)


def interval(found: Sequence[float] | None) -> CELL:
    """Of statistics, which know no interval of a single seed."""
    return None if found is None else (found[0], found[1])


def shown(cell: CELL, digits: int = 2) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, tuple):
        return f"[{', '.join(shown(part, digits) for part in cell)}]"
    if isinstance(cell, Chance):
        return p_value(cell)
    if isinstance(cell, float):
        return f"{cell:.{digits}f}" if math.isfinite(cell) else str(cell)
    return f"{cell:,}" if isinstance(cell, int) and abs(cell) >= 10_000 else str(cell)


# -- A table by itself -------------------------------------------------------------------------------------------------


def export(table: Table, suffix: str) -> str:
    """The table as .md, .tex or .csv; the last with all digits, and intervals as two columns."""
    if suffix == ".csv":
        return to_csv(*_spread(table))
    return (latex if suffix == ".tex" else markdown)(table.header, texts(table))


def _spread(table: Table) -> tuple[list[str], list[list[Any]]]:
    """Every interval in two columns."""
    pairs = [any(isinstance(row[i], tuple) for row in table.rows) for i in range(len(table.header))]
    header: list[str] = []
    for name, pair in zip(table.header, pairs, strict=True):
        header += [f"{name} low", f"{name} high"] if pair else [name]
    return header, [[part for cell, pair in zip(row, pairs, strict=True) for part in _parts(cell, pair)] for row in table.rows]


def _parts(cell: CELL, pair: bool) -> Sequence[Any]:
    if not pair:
        return (cell,)
    return cell if isinstance(cell, tuple) else (None, None)
