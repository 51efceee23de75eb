import csv
import io

from hieros_repro.stats.table import markdown, number, to_csv


def test_a_number_that_is_not_there_is_a_dash():
    assert [number(None), number(1.005), number(-2.5, 1), number(0.0)] == ["-", "1.00", "-2.5", "0.00"]


def test_a_markdown_table_is_padded():
    assert markdown(("a", "long"), [(1, "x"), ("22", "y|z")]) == (
        "| a  | long |\n|----|------|\n| 1  | x    |\n| 22 | y\\|z |\n"
    )  # fmt: skip


def test_a_csv_reads_back():
    text = to_csv(("name", "value"), [('with, comma and "quote"', 1.5), ("none", None)])
    assert list(csv.reader(io.StringIO(text))) == [["name", "value"], ['with, comma and "quote"', "1.5"], ["none", ""]]
