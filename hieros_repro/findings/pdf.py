"""A report as a PDF of A4 pages: real text, tables that go on over pages under their headings, nothing clipped."""

import contextlib
import datetime
import io
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hieros_repro.findings import page
from hieros_repro.findings.page import (
    Block,
    Checklist,
    Commands,
    Drawing,
    Film,
    Folded,
    Listing,
    Page,
    Paragraph,
    Section,
    Table,
)
from hieros_repro.stats import drawings

MARGIN, SIZE, SMALL = 18, 9.5, 7.0  # mm, points
# Of tables: the first size in which all columns have what they ask for, at first with headings on one line.
SIZES = ((8.0, True), (7.2, True), (8.0, False), (7.2, False), (6.4, False))
SOFT, WARNING, BAD, GOOD, LINE = (95, 92, 88), (138, 59, 0), (163, 32, 32), (0, 105, 74), (200, 196, 188)
FACES = {"": "DejaVuSans.ttf", "B": "DejaVuSans-Bold.ttf", "I": "DejaVuSans-Oblique.ttf"}
MARKS = {True: ("✓", GOOD, ""), False: ("✗", BAD, " (NOT met)"), None: ("?", SOFT, " (cannot be told)")}
NARROW = 11.0  # mm that a table's column has at least


def render(content: Page) -> bytes:
    """Equal contents give equal bytes: the only date in it is that of the newest run's end."""
    sheet = _sheet(content)
    _heading(sheet, content)
    for section in content.sections:
        _room(sheet, _needed(sheet, section))
        sheet.ln(4)
        sheet.start_section(_known(section.title))
        _text(sheet, section.title, "B", 13)
        sheet.ln(1)
        for block in section.blocks:
            _block(sheet, block)
    return bytes(sheet.output())


def _needed(sheet: Any, section: Section) -> float:
    """Height of a heading with the beginning of what is under it; a picture must not leave it behind."""
    first = section.blocks[0] if section.blocks else None
    if isinstance(first, Drawing):
        ratio = first.figure.get_figheight() / first.figure.get_figwidth()
        return float(min(sheet.epw * ratio + 30, sheet.h - 2 * MARGIN - 4))
    return 45.0


def _sheet(content: Page) -> Any:
    """An empty document with its fonts: those that matplotlib brings along, which know most letters."""
    import matplotlib
    from fpdf import FPDF

    class Sheet(FPDF):  # type: ignore[misc]
        """Page numbers at the foot."""

        def footer(self) -> None:
            self.set_y(-13)
            self.set_font("sans", "", 7)
            self.set_text_color(*SOFT)
            self.cell(0, 5, f"{self.page_no()} / {{nb}}", align="C")

    for talkative in ("fontTools.subset", "fpdf.output"):  # a letter that the fonts lack is a box, and no warning
        logging.getLogger(talkative).setLevel(logging.ERROR)
    sheet = Sheet(format="A4")
    sheet.set_margin(MARGIN)
    sheet.set_auto_page_break(True, MARGIN + 2)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for face, name in FACES.items():
        sheet.add_font("sans", face, folder / name)
    sheet.add_font("mono", "", folder / "DejaVuSansMono.ttf")
    ended = datetime.datetime.fromisoformat(content.ended or "1970-01-01T00:00:00+00:00")
    sheet.set_creation_date(ended if ended.tzinfo else ended.replace(tzinfo=datetime.UTC))
    sheet.set_title(_known(content.title))
    sheet.set_lang("en")
    sheet.add_page()
    return sheet


def _heading(sheet: Any, content: Page) -> None:
    _text(sheet, content.title, "B", 18)
    sheet.ln(1)
    _text(sheet, content.question, "I", 11)
    sheet.ln(1)
    _text(sheet, content.subtitle, "", 8, SOFT)


# -- Blocks ------------------------------------------------------------------------------------------------------------


def _block(sheet: Any, block: Block) -> None:
    draw = {
        Paragraph: _paragraph,
        Listing: _listing,
        Commands: _commands,
        Table: _table,
        Drawing: _drawing,
        Film: _film,
        Folded: _folded,
        Checklist: _checklist,
    }[type(block)]
    draw(sheet, block)  # type: ignore[operator]
    sheet.ln(1.6)


def _paragraph(sheet: Any, block: Paragraph) -> None:
    if block.kind == "heading":  # stays with what it is over
        _room(sheet, 16)
    colour = {"warning": WARNING, "note": SOFT}.get(block.kind, (0, 0, 0))
    _text(sheet, block.text, "B" if block.kind == "heading" else "", {"answer": 11, "note": 8.2}.get(block.kind, SIZE), colour)


def _listing(sheet: Any, block: Listing) -> None:
    for item in block.items:
        with _marked(sheet, "!" if block.kind == "warning" else "•", WARNING if block.kind == "warning" else (0, 0, 0)):
            _text(sheet, item, "", SIZE, WARNING if block.kind == "warning" else (0, 0, 0))


def _commands(sheet: Any, block: Commands) -> None:
    sheet.set_fill_color(244, 241, 234)
    sheet.set_text_color(0, 0, 0)
    sheet.set_font("mono", "", SMALL)
    for line in block.lines:
        sheet.multi_cell(0, 3.5, _known(line) or " ", align="L", fill=True, new_x="LMARGIN", new_y="NEXT", wrapmode="CHAR")
    sheet.set_fill_color(255, 255, 255)


def _folded(sheet: Any, block: Folded) -> None:
    _text(sheet, block.title, "I", SIZE, SOFT)
    for inner in block.blocks:
        _block(sheet, inner)


def _checklist(sheet: Any, block: Checklist) -> None:
    for item in block.items:
        mark, colour, word = MARKS[item.met]
        with _marked(sheet, mark, colour):
            sheet.set_font("sans", "B", 8.8)
            sheet.set_text_color(*(BAD if item.met is False else (0, 0, 0)))
            sheet.write(4.4, _known(f"{item.demand}{word}: "))
            sheet.set_font("sans", "", 8.8)
            sheet.set_text_color(0, 0, 0)
            sheet.write(4.4, _known(item.fact))
            sheet.ln(5)


def _drawing(sheet: Any, block: Drawing) -> None:
    _image(sheet, drawings.png(block.figure), sheet.epw, block.figure.get_figheight() / block.figure.get_figwidth())
    _text(sheet, block.caption, "", 8.2, SOFT)


def _film(sheet: Any, block: Film) -> None:
    """The frames side by side, each in its share of the width."""
    from PIL import Image

    share = min(sheet.epw / max(len(block.frames), 1), 50)
    sizes = [Image.open(io.BytesIO(frame)).size for frame in block.frames]
    heights = [(share - 1) * height / width for width, height in sizes]
    _room(sheet, max(heights, default=0) + 10)
    for number, (frame, height) in enumerate(zip(block.frames, heights, strict=True)):
        sheet.image(io.BytesIO(frame), sheet.l_margin + number * share, sheet.get_y(), share - 1, height)
    sheet.set_y(sheet.get_y() + max(heights, default=0) + 1)
    _text(sheet, block.caption, "", 8.2, SOFT)


def _table(sheet: Any, block: Table) -> None:
    """Columns as wide as their text, or their share of the page where that is too much; the font shrinks before they do."""
    from fpdf.fonts import FontFace

    rows, right = page.texts(block), page.numeric(block)
    cells = [[_known(str(cell)) for cell in row] for row in (block.header, *rows)]
    sheet.set_text_color(0, 0, 0)
    sheet.set_draw_color(*LINE)
    for size, whole in SIZES:
        sheet.set_font("sans", "", size)
        widths = _widths(sheet, cells, right, whole)
        if sum(widths) < sheet.epw - 1e-6:
            break
    _room(sheet, 16)
    with sheet.table(
        width=min(sum(widths), sheet.epw),
        col_widths=widths,
        align="LEFT",
        text_align=["RIGHT" if one else "LEFT" for one in right],
        borders_layout="HORIZONTAL_LINES",
        line_height=size * 0.48,
        headings_style=FontFace(emphasis="BOLD"),
        padding=(0.6, 1.4),
        v_align="TOP",
    ) as table:
        for row in cells:
            drawn = table.row()
            for cell in row:
                drawn.cell(cell)
    if block.caption:
        _text(sheet, block.caption, "", 8.2, SOFT)


def _widths(sheet: Any, cells: Sequence[Sequence[str]], right: Sequence[bool], whole: bool = True) -> list[float]:
    """What each column asks for, with `whole` headings or words of them; if that is more than there is, the widest columns of
    text give way first, then all."""
    asked = []
    for column in zip(*cells, strict=True):
        heading = [column[0]] if whole else column[0].split()
        bold, rest = (
            max(map(sheet.get_string_width, heading), default=0.0) * 1.14,
            max(map(sheet.get_string_width, column[1:]), default=0.0),
        )
        asked.append(max(bold, rest * 1.03) + 4.2)
    for kept in (right, [False] * len(asked)):
        asked = _capped(asked, kept, sheet.epw)
    return asked


def _capped(asked: Sequence[float], kept: Sequence[bool], room: float) -> list[float]:
    """The widths with those that are not kept cut down to the one width with which all fit, as far as that goes."""
    fixed = sum(width for width, keep in zip(asked, kept, strict=True) if keep)
    loose = sorted(width for width, keep in zip(asked, kept, strict=True) if not keep)
    left = room - fixed
    if sum(asked) <= room + 1e-6 or not loose:
        return list(asked)
    number = 0  # of narrow ones, that take what they ask for; the rest share what is left
    while number < len(loose) - 1 and loose[number] * (len(loose) - number) <= left:
        left -= loose[number]
        number += 1
    cap = max(left / (len(loose) - number), NARROW)
    return [width if keep else min(width, cap) for width, keep in zip(asked, kept, strict=True)]


# -- Where things go ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _marked(sheet: Any, mark: str, colour: tuple[int, int, int]) -> Iterator[None]:
    """What is written inside stands to the right of a mark."""
    _room(sheet, 8)
    sheet.set_font("sans", "B", SIZE)
    sheet.set_text_color(*colour)
    sheet.cell(5, 4.6, mark)
    sheet.set_left_margin(MARGIN + 5)
    yield
    sheet.set_left_margin(MARGIN)
    sheet.set_x(MARGIN)


def _text(sheet: Any, text: str, face: str, size: float, colour: tuple[int, int, int] = (0, 0, 0)) -> None:
    sheet.set_font("sans", face, size)
    sheet.set_text_color(*colour)
    sheet.multi_cell(0, size * 0.5, _known(text), align="L", new_x="LMARGIN", new_y="NEXT")


def _image(sheet: Any, content: bytes, width: float, ratio: float) -> None:
    """A picture as wide as asked, or less wide if it would be higher than a page."""
    most = sheet.h - 2 * MARGIN - 30
    width = min(width, most / ratio)
    _room(sheet, width * ratio + 8)
    sheet.image(io.BytesIO(content), sheet.l_margin, sheet.get_y(), width, width * ratio)
    sheet.set_y(sheet.get_y() + width * ratio + 1)


def _room(sheet: Any, height: float) -> None:
    """A new page if so much does not fit on this one."""
    if sheet.will_page_break(height):
        sheet.add_page()


def _known(text: str) -> str:
    """Without what has no shape: control characters, and what lies beyond the fonts' plane."""
    return "".join(c if c in "\n" or " " <= c <= "\uffff" else "?" for c in text.replace("\t", "    "))
