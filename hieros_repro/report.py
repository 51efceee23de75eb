"""python -m hieros_repro.report RUNS_OR_SWEEP...: what runs say, as one HTML file and a PDF.

    python -m hieros_repro.report                                      all runs under outputs/
    python -m hieros_repro.report outputs/sweeps/hieros_depth-1234 --out depth.html
    python -m hieros_repro.report outputs --where "env.task=three and agent=hieros" --table results.tex --figure results.png

Runs that differ in nothing but their seed are one group. Equal runs give equal files, byte for byte.
Exit codes: 0 written, 2 could not be.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hieros_repro import atomic
from hieros_repro.records import UserError

if TYPE_CHECKING:
    from hieros_repro.findings.finding import Finding

TABLES = (".md", ".tex", ".csv")
OUTPUTS = Path("outputs")


def main() -> None:
    parser = argparse.ArgumentParser("hieros-report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run folders, sweeps, or folders of them; default: outputs"
    )
    parser.add_argument("--where", metavar="WORDS", help='which of the runs: "agent=hieros and env.task=three"')
    parser.add_argument("--metric", help="what is reported; default: the sweep's metric, else eval/score")
    parser.add_argument(
        "--margin",
        type=float,
        help="the largest difference that counts as none, for tests of equivalence; default: the runs' sweep.margin",
    )
    parser.add_argument(
        "--expected", type=Path, metavar="FILE", help="a references file; default: that of the runs' experiment"
    )
    parser.add_argument("--out", type=Path, default=Path("report.html"), metavar="FILE.html", help="default: report.html")
    parser.add_argument("--pdf", action=argparse.BooleanOptionalAction, default=True, help="also a PDF beside it; the default")
    parser.add_argument(
        "--table",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="the result table as .md, .csv or, with what fits a text's width, .tex",
    )
    parser.add_argument(
        "--figure",
        type=Path,
        action="append",
        default=[],
        metavar="FILE.png",
        help="the learning curves and final values of all groups as a picture",
    )
    parser.add_argument("--title", help="default: what was run")
    parser.add_argument("--question", help="default: that of the script which made the sweep, or what such runs answer")
    try:
        print(report(parser.parse_args()))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def report(asked: argparse.Namespace) -> str:
    """Writes what was asked for, and returns an account of it with the result table."""
    _check(asked)
    from hieros_repro.findings import archive, page, results, story, webpage, where
    from hieros_repro.findings.finding import find
    from hieros_repro.stats.table import markdown

    paths = asked.runs or [OUTPUTS]
    there = archive.read(paths)
    records = there if asked.where is None else where.chosen(there, asked.where)
    found = find(records, asked.metric or story.sweep_metric(records) or "eval/score", asked.margin)
    if asked.figure and not any(row.curves or row.values for row in found.rows):
        raise UserError(f"--figure {asked.figure[0]}: no run has a value or a curve of {found.metric} to draw")
    content = story.compose(found, records, asked.title, asked.question, asked.expected, len(records) < len(there))
    written = [_write(asked.out, _bytes(webpage.render(content)))]
    if asked.pdf:
        from hieros_repro.findings import pdf

        written.append(_write(asked.out.with_suffix(".pdf"), pdf.render(content)))
    table = results.result_table(found)
    narrow = results.paper_table(found)
    written += [_write(p, _bytes(page.export(narrow if p.suffix == ".tex" else table, p.suffix))) for p in asked.table]
    written += [_drawn(path, found) for path in asked.figure]
    rows = [row[:5] for row in page.texts(table)]
    lines = [markdown((found.metric, *table.header[1:5]), rows[:20])]
    lines += [f"and {len(rows) - 20} groups more\n"] if len(rows) > 20 else []
    return _bytes("".join(lines) + "\n".join(f"written: {path}" for path in written)).decode()


def _check(asked: argparse.Namespace) -> None:
    """Before anything is read: where it is to be written."""
    if asked.out.suffix != ".html":
        raise UserError(f"--out {asked.out}: a report is an .html file")
    if asked.margin is not None and not 0 < asked.margin < float("inf"):
        raise UserError(f"--margin {asked.margin}: it must be a positive number")
    for path in asked.table:
        if path.suffix not in TABLES:
            raise UserError(f"--table {path}: a table is one of {', '.join(TABLES)}")
    for path in asked.figure:
        if path.suffix != ".png":
            raise UserError(f"--figure {path}: a figure is a .png file")


def _bytes(text: str) -> bytes:
    """What runs wrote may hold half of a character, which no file can: a question mark in its place."""
    return text.encode(errors="replace")


def _write(path: Path, content: bytes) -> Path:
    """All of it or nothing."""
    with _writable(path):
        atomic.write(path, content, shared=True)
    return path


def _drawn(path: Path, found: "Finding") -> Path:
    from hieros_repro.findings.pictures import picture

    with _writable(path):
        picture(path, found.metric, found.rows, shared=True)
    return path


@contextmanager
def _writable(path: Path) -> Iterator[None]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error


if __name__ == "__main__":
    main()
