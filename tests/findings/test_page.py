import csv
import io

from hieros_repro.findings.page import Chance, Folded, Table, export, listed, long_table, numeric, shown, texts

TABLE = Table(
    ("group", "n", "mean", "interval"),
    [("a|b", 5, 123.456, (100.0, 150.25)), ("c & d", 12_345, None, None), ("e", 1, float("nan"), (-1.0, 2.5))],
)


def test_cells_of_a_column_have_as_many_digits_as_its_largest_needs():
    assert [row[2] for row in texts(TABLE)] == ["123.46", "-", "nan"]
    assert [row[3] for row in texts(TABLE)] == ["[100.00, 150.25]", "-", "[-1.00, 2.50]"]
    assert [row[1] for row in texts(TABLE)] == ["5", "12,345", "1"]
    small = Table(("x",), [(0.0123456,), (0.5,)])
    assert texts(small) == [["0.0123"], ["0.5000"]]
    assert texts(Table(("x",), [(1.23456,)])) == [["1.235"]]


def test_numbers_are_known_from_words():
    table = Table(
        ("n", "word", "interval", "p", "nothing", "time", "hash"), [(1, "a1", (1.0, 2.0), "<0.0001", None, "12 min", "1a2b")]
    )
    assert numeric(table) == [True, False, True, True, False, True, False]


def test_plain_values_as_they_are_read():
    assert [shown(cell) for cell in (None, True, 3, 3.14159, "x", float("inf"))] == ["-", "yes", "3", "3.14", "x", "inf"]


def test_a_csv_has_all_digits_and_intervals_in_two_columns():
    rows = list(csv.reader(io.StringIO(export(TABLE, ".csv"))))
    assert rows[0] == ["group", "n", "mean", "interval low", "interval high"]
    assert rows[1] == ["a|b", "5", "123.456", "100.0", "150.25"]
    assert rows[2] == ["c & d", "12345", "", "", ""]


def test_markdown_and_latex_escape_what_would_break_them():
    assert r"| a\|b" in export(TABLE, ".md")
    assert r"c \& d" in export(TABLE, ".tex") and r"\toprule" in export(TABLE, ".tex")


def test_a_long_table_is_folded_and_loses_nothing():
    table = Table(("n",), [(n,) for n in range(7)], "numbers")
    assert long_table(table, "rows", 7) == [table]
    first, rest = long_table(table, "rows", 5)
    assert isinstance(first, Table) and isinstance(rest, Folded)
    assert [*first.rows, *rest.blocks[0].rows] == table.rows and rest.title == "2 rows more"


def test_a_long_list_ends_in_dots():
    assert listed("abcd") == "a, b, c, d" and listed("abcde") == "a, b, c, d ..."


def test_a_small_p_value_is_not_shown_as_nought_and_exported_with_its_digits():
    table = Table(("p",), [(Chance(3e-9),), (Chance(0.25),)])
    assert texts(table) == [["< 0.0001"], ["0.2500"]] and numeric(table) == [True]
    assert "3e-09" in export(table, ".csv") and "< 0.0001" in export(table, ".md")
