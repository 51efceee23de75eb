"""One content, two files."""

import re

import pytest
from fpdf import FPDF
from hypothesis import given
from hypothesis import strategies as st

from hieros_repro.findings import page, pdf, webpage
from hieros_repro.findings.page import (
    Checklist,
    Commands,
    Drawing,
    Film,
    Folded,
    Item,
    Listing,
    Page,
    Paragraph,
    Section,
    Table,
)
from hieros_repro.findings.pdf import _capped, _widths
from hieros_repro.stats import drawings
from hieros_repro.stats.drawings import Spot

EVIL = "<script>alert('$x$')</script> & \"quotes\" \x07 é ✓ 漢 \U0001f600"


def content(picture=b"", rows=3):
    figure = drawings.strip(
        "eval/score", {"a $group$": {"1": 1.0, "2": 2.0}}, {"a $group$": Spot(1.5, 1.0, 2.0)}, {"a $group$": 0}
    )
    blocks = [
        Paragraph(EVIL),
        Paragraph("under this", "heading"),
        Listing([EVIL, "second"], "warning"),
        Commands(["first --line", EVIL]),
        Table(("name " + EVIL, "value"), [(f"row {n} {EVIL}", float(n)) for n in range(rows)], "a caption"),
        Drawing(figure, "what is drawn"),
        Folded("closed", [Paragraph("inside of it")]),
        Checklist([Item(True, "one", "so"), Item(False, "two", EVIL), Item(None, "three", "who knows")]),
    ]
    if picture:
        blocks.append(Film("a film", [picture, picture]))
    return Page(
        "Title " + EVIL, "Why?", "beneath", [Section("First part", blocks), Section("Second", [])], "2026-01-02T03:04:05+00:00"
    )


@pytest.fixture
def frame():
    figure = drawings.strip("x", {"a": {"1": 1.0}}, {"a": Spot(1.0, None, None)}, {"a": 0})
    return drawings.png(figure, 40)


def test_html_is_one_file_that_asks_for_nothing_and_runs_nothing(frame):
    text = webpage.render(content(frame))
    assert "<script" not in text and "&lt;script&gt;" in text
    assert not re.search(r"""(src|href)=["'](?!#|data:image/png;base64,)""", text)
    assert "@import" not in text and not re.search(r"url\((?!#)", text)
    assert text.count("<img ") == 2 and text.count("<svg ") == 1 and "<details>" in text
    assert 'class="unmet"' in text and "(NOT met)" in text and "(cannot be told)" in text
    assert 'id="first-part"' in text and 'href="#first-part"' in text


def test_names_in_drawings_do_not_meet():
    both = Page("t", "q", "s", [Section("a", [content().sections[0].blocks[5], content().sections[0].blocks[5]])])
    names = re.findall(r'\bid="([^"]+)"', webpage.render(both))
    assert len(names) == len(set(names)) > 10


def test_equal_contents_give_equal_bytes(frame):
    assert webpage.render(content(frame)) == webpage.render(content(frame))
    assert pdf.render(content(frame)) == pdf.render(content(frame))


def test_the_only_date_of_a_pdf_is_that_of_the_newest_run():
    found = pdf.render(content())
    assert found.startswith(b"%PDF") and b"D:20260102030405" in found
    assert set(re.findall(rb"D:(\d{8})", found)) == {b"20260102"}


def pages(document):
    return len(re.findall(rb"/Type /Page\b", document))


def test_a_long_table_goes_on_over_pages():
    few, many = (pages(pdf.render(content(rows=rows))) for rows in (3, 300))
    assert few <= 3 and many >= few + 3


def test_a_page_too_high_a_picture_is_made_smaller():
    names = {f"group {n}": n for n in range(120)}
    tall = drawings.strip("x", {name: {"1": 1.0} for name in names}, {name: Spot(1.0, None, None) for name in names}, names)
    assert pages(pdf.render(Page("t", "q", "s", [Section("a", [Drawing(tall, "c")])]))) == 2


@pytest.mark.parametrize("columns", [1, 3, 9, 14])
def test_columns_fit_on_the_page_and_none_vanishes(columns):
    sheet = FPDF(format="A4")
    sheet.add_page()
    sheet.set_font("helvetica", size=7)
    cells = [["a long heading of words"] * columns, ["text that goes on and on " * 5] * columns]
    widths = _widths(sheet, cells, [False] * columns)
    assert sum(widths) <= sheet.epw + 1e-6 and min(widths) >= 10


def test_text_gives_way_before_numbers_do():
    sheet = FPDF(format="A4")
    sheet.add_page()
    sheet.set_font("helvetica", size=7)
    widths = _widths(sheet, [["words", "n"], ["many words " * 40, "[123.45, 678.90]"]], [False, True])
    assert widths[1] > sheet.get_string_width("[123.45, 678.90]") and sum(widths) <= sheet.epw + 1e-6


def test_the_widest_column_gives_way_first():
    assert _capped([20.0, 30.0, 100.0], [False] * 3, 90.0) == [20.0, 30.0, 40.0]
    assert _capped([20.0, 60.0, 100.0], [False] * 3, 90.0) == [20.0, 35.0, 35.0]
    assert _capped([20.0, 60.0, 100.0], [False, True, False], 100.0) == [20.0, 60.0, 20.0]
    assert _capped([20.0, 60.0], [False] * 2, 90.0) == [20.0, 60.0]


@given(st.lists(st.tuples(st.floats(11, 400), st.booleans()), min_size=1, max_size=12))
def test_columns_that_are_cut_down_fit(columns):
    asked, kept = [width for width, _ in columns], [keep for _, keep in columns]
    once = _capped(asked, kept, 174.0)
    found = _capped(once, [False] * len(once), 174.0)
    assert sum(found) <= 174.0 + 1e-5 and all(a <= b for a, b in zip(found, asked, strict=True)) and min(found) >= 11
    assert sum(asked) > 174.0 or found == asked


def test_every_kind_of_block_has_its_way_in_both():
    kinds = {page.kind(block) for block in content(b"x").sections[0].blocks}
    assert kinds == {kind.__name__.lower() for kind in page.Block.__args__}
