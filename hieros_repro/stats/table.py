"""Tables as Markdown, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Sequence
from typing import Any


def number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def p_value(p: float) -> str:
    """Of a test: four places, and below the last of them only that it is."""
    return "< 0.0001" if p < 0.0001 else f"{p:.4f}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table padded to read well as plain text too."""
    cells = [[re.sub(r"\s*[\r\n]+\s*", " ", str(cell)).replace("|", "\\|") for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines) + "\n"


# Besides the reserved characters: < > | print others in LaTeX's old fonts, and a star or bracket that opens a row would be
# taken for an option of the line break before it.
LATEX = str.maketrans({
    **{character: f"\\{character}" for character in "&%$#_{}"},
    **{character: f"{{{character}}}" for character in "*[]"},
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "`": r"\textasciigrave{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "\n": " ", "\r": " ", "\t": " ",
})  # fmt: skip


NAME = 18  # letters of a first column that takes one line


def latex(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table for the package booktabs, its first column flush left; every special character of a cell stands for itself. Long
    names in the first column take several lines, which end after spaces, commas and equal signs, and need the package array."""
    assert all(len(row) == len(header) for row in rows)
    long = any(len(str(row[0])) > NAME for row in rows)
    cells = [[_breakable(_tex(row[0])) if long else _tex(row[0]), *map(_tex, row[1:])] for row in (header, *rows)]
    lines = [" & ".join(row) + r" \\" for row in cells]
    first = r">{\raggedright\arraybackslash}p{0.22\linewidth}" if long else "l"
    top = [r"{\small\setlength{\tabcolsep}{3.5pt}%", rf"\begin{{tabular}}{{@{{}}{first}{'r' * (len(header) - 1)}@{{}}}}"]
    return "\n".join([*top, r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule", r"\end{tabular}}"]) + "\n"


def _breakable(text: str) -> str:
    return re.sub(r"([=,])(?=\S)", r"\1\\penalty500{}", text)


def _tex(cell: Any) -> str:
    """What is not there is a dash; a minus is longer than a hyphen, and two hyphens are not to become a dash."""
    text = ("-" if cell is None else str(cell)).translate(LATEX)
    return re.sub(r"-(?=-)", "-{}", re.sub(r"(?<!\S)-(?=\.?\d)", "$-$", text))


def to_csv(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return buffer.getvalue()
