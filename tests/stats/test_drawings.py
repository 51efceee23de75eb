import re

import pytest

from hieros_repro.stats.curve import Band, band
from hieros_repro.stats.drawings import (
    LINES,
    Curves,
    Spot,
    cut,
    forest,
    learning,
    png,
    profiles,
    single,
    strip,
    style,
    svg,
    thinned,
)  # fmt: skip
from hieros_repro.stats.tasks import Profile

CURVES = [[(0, 1.0), (10, 2.0)], [(0, 3.0), (10, 4.0)]]


def figures():
    yield learning(
        "eval/score",
        {"a": Curves(CURVES, band(CURVES), 2), "b $x$": Curves([CURVES[0]], band([CURVES[0]]), 1)},
        {"a": 0, "b $x$": 1},
    )
    yield learning("eval/score", {"empty": Curves([], Band([], [], [], []), 0)}, {"empty": 0})
    shares = {"a": Profile([0.0, 1.0], [1.0, 0.5], [0.9, 0.4], [1.0, 0.6]), "b": Profile([0.0], [1.0], None, None)}
    yield profiles("eval/score", shares, {"a": 1, "b": 0})
    yield strip("eval/score", {"a": {"1": 1.0, "2": 3.0}}, {"a": Spot(2.0, 1.0, 3.0)}, {"a": 3})
    yield forest("P", {"a over b": Spot(0.5, 0.1, 0.9), "a over c": Spot(1.0, None, None)}, 0.5, (0, 1))


@pytest.mark.parametrize("number", range(5))
def test_equal_data_give_equal_bytes(number):
    first, second = (list(figures())[number] for _ in range(2))
    assert svg(first, "f1") == svg(second, "f1") and png(first, 50) == png(second, 50)


def test_an_svg_is_an_element_whose_names_are_its_own():
    text = svg(next(figures()), "f7")
    assert text.startswith("<svg") and "<metadata" not in text and "20" + "26-" not in text
    assert set(re.findall(r'\bid="(f7-)?', text)) == {"f7-"} and not re.search(r'(href="#|url\(#)(?!f7-)', text)
    assert svg(next(figures()), "f7") != svg(next(figures()), "f8")


def test_what_is_drawn_is_what_was_passed_in():
    axes = next(figures()).axes[0]
    bold = [line for line in axes.lines if line.get_linewidth() == 2]
    assert [line.get_ydata().tolist() if hasattr(line.get_ydata(), "tolist") else list(line.get_ydata()) for line in bold] == [
        [2.0, 3.0],
        [1.0, 2.0],
    ]
    assert [line.get_label() for line in bold] == ["a (n = 2)", r"b \$x\$ (n = 1)"]
    squares = list(figures())[3].axes[0].containers[0]
    assert squares.lines[0].get_xdata().tolist() == [2.0]


def test_a_group_looks_the_same_in_every_figure():
    drawn = list(figures())
    assert (
        drawn[2].axes[0].lines[0].get_color() == style(1)["color"]
        and drawn[2].axes[0].lines[1].get_color() == style(0)["color"]
    )
    assert drawn[3].axes[0].lines[0].get_color() == style(3)["color"]


def test_of_many_groups_only_the_middles_are_drawn():
    many = {str(n): Curves(CURVES, band(CURVES), 2) for n in range(9)}
    axes = learning("x", many, {name: n for n, name in enumerate(many)}).axes[0]
    assert len(axes.lines) == 9 and not axes.collections
    few = {name: many[name] for name in "01"}
    assert len(learning("x", few, {"0": 0, "1": 1}).axes[0].lines) == 2 + 4


def test_the_first_groups_are_told_apart_by_colour_and_the_next_by_line():
    looks = [tuple(style(n).values()) for n in range(LINES)]
    assert (
        len(set(looks)) == LINES and {line for _, line in looks[:8]} == {"-"} and len({colour for colour, _ in looks[:8]}) == 8
    )


def test_thinning_keeps_the_ends():
    assert thinned([1, 2, 3], 3) == [1, 2, 3]
    assert thinned(list(range(101)), 5) == [0, 25, 50, 75, 100]


def test_intervals_of_few_seeds_do_not_squeeze_what_they_are_of():
    few = [[(0, 1.0), (10, 2.0)], [(0, 3.0), (10, 4.0)]]
    groups = {"a": Curves(few, band(few), 2)}
    assert min(groups["a"].band.lows) < -10 and cut(groups)
    low, high = learning("x", groups, {"a": 0}).axes[0].get_ylim()
    assert (low, high) == pytest.approx((1 - 0.18, 4 + 0.18))


def test_a_single_evaluation_is_drawn_as_points_with_error_bars():
    points = [[(1000, 1.0)], [(1000, 3.0)]]
    groups = {"a": Curves(points, band(points), 2), "b": Curves(points, band(points), 2)}
    axes = learning("x", groups, {"a": 0, "b": 1}).axes[0]
    assert single(groups) and not single({"a": Curves(CURVES, band(CURVES), 2)})
    assert [container.lines[0].get_ydata().tolist() for container in axes.containers] == [[2.0], [2.0]]
    assert axes.get_ylim() == pytest.approx((1 - 0.12, 3 + 0.12))
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1,000", "1,000"]
