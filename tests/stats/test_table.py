import csv
import io

import pytest

from hieros_repro.stats.table import latex, markdown, number, p_value, to_csv


def test_a_number_that_is_not_there_is_a_dash():
    assert [number(None), number(1.005), number(-2.5, 1), number(0.0)] == ["-", "1.00", "-2.5", "0.00"]


def test_a_markdown_table_is_padded():
    assert markdown(("a", "long"), [(1, "x"), ("22", "y|z")]) == (
        "| a  | long |\n|----|------|\n| 1  | x    |\n| 22 | y\\|z |\n"
    )  # fmt: skip


def test_a_cell_of_several_lines_is_one_line():
    assert markdown(("a",), [("two\n  lines\r\n",)]).splitlines()[2] == "| two lines  |"


def test_a_p_value_is_never_nought():
    assert [p_value(p) for p in (0.5, 0.0001, 0.00009, 0.0)] == ["0.5000", "0.0001", "< 0.0001", "< 0.0001"]


def test_a_csv_reads_back():
    text = to_csv(("name", "value"), [('with, comma and "quote"', 1.5), ("none", None)])
    assert list(csv.reader(io.StringIO(text))) == [["name", "value"], ['with, comma and "quote"', "1.5"], ["none", ""]]


def test_a_latex_table_by_hand():
    assert latex(("group", "mean"), [("task=up_n_down", "-1.50"), ("95 % & more", None)]) == (
        "{\\small\\setlength{\\tabcolsep}{3.5pt}%\n\\begin{tabular}{@{}lr@{}}\n\\toprule\ngroup & mean \\\\\n\\midrule\n"
        "task=up\\_n\\_down & $-$1.50 \\\\\n95 \\% \\& more & - \\\\\n\\bottomrule\n\\end{tabular}}\n"
    )  # fmt: skip


def test_a_long_name_takes_several_lines_of_a_latex_table():
    lines = latex(("group", "n"), [("learning_rate=0.001 hidden=[64,64]", 5), ("short", 5)]).splitlines()
    assert lines[1] == r"\begin{tabular}{@{}>{\raggedright\arraybackslash}p{0.22\linewidth}r@{}}"
    name = r"learning\_rate=\penalty500{}0.001 hidden=\penalty500{}{[}64,\penalty500{}64{]}"
    assert lines[5] == rf"{name} & 5 \\"


@pytest.mark.parametrize(
    ("plain", "escaped"),
    [
        ("$#_{}", r"\$\#\_\{\}"),
        ("a\\b~c^d", r"a\textbackslash{}b\textasciitilde{}c\textasciicircum{}d"),
        ("<|>", r"\textless{}\textbar{}\textgreater{}"),
        ("[1] *", "{[}1{]} {*}"),
        ("two\nlines", "two lines"),
        ("--flag 1e-3 x-1", "-{}-flag 1e-3 x-1"),
        ("-1 ± .5, -.5", r"$-$1 $\pm$ .5, $-$.5"),
    ],
)
def test_every_special_character_stands_for_itself(plain, escaped):
    assert latex((plain,), [(plain,)]).splitlines()[3:6:2] == [escaped + r" \\"] * 2


def test_a_row_of_another_length_is_refused():
    with pytest.raises(AssertionError):
        latex(("a", "b"), [("c",)])
