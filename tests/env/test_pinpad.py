import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from hieros_repro.env.contract import EnvContract
from hieros_repro.env.pinpad import PinPad, PinPadEasy, adapter
from hieros_repro.env.pinpad.__main__ import main
from hieros_repro.env.pinpad.layout import ACTIONS, CELLS, MAPS, WALL, Layout, layout_of
from hieros_repro.env.pinpad.picture import heat_map
from hieros_repro.env.pinpad.rules import progress_of

STAY, DOWN, UP, RIGHT, LEFT = range(ACTIONS)
ROW = "#####\n#1.2#\n#####\n"
WHITE, PAUSED, GREY, BLACK = [255] * 3, [223, 255, 223], [192] * 3, [0] * 3


def started(env: PinPadEasy, *spawns: tuple[int, int]) -> PinPadEasy:
    env.reset(seed=0, options={"spawns": spawns})
    return env


def rewards(env: PinPadEasy, actions: list[int]) -> list[float]:
    return [env.step(action)[1] for action in actions]


# Layouts


@pytest.mark.parametrize(("task", "pads"), [("three", 3), ("four", 4), ("five", 5), ("six", 6), ("seven", 7), ("eight", 8)])
def test_a_full_layout_has_168_cells_to_appear_in_within_a_ring_of_walls(task, pads):
    layout = layout_of(task)
    walls = (layout.tiles == WALL).reshape(14, 16)
    assert len(layout.cells) == 168
    assert walls[0].all() and walls[-1].all() and walls[:, 0].all() and walls[:, -1].all()
    assert layout.pads == pads


@pytest.mark.parametrize(
    ("task", "cells"),
    [
        ("three", [16, 16, 16]),
        ("four", [16] * 4),
        ("five", [12, 12, 12, 12, 12]),
        ("six", [9, 9, 8, 9, 9, 8]),
        ("seven", [8] * 7),
        ("eight", [8] * 8),
        ("three_small", [4, 4, 4]),
    ],
)
def test_pads_have_the_sizes_of_the_original(task, cells):
    assert np.bincount(layout_of(task).tiles + 1)[2:].tolist() == cells


def fewest_steps(layout: Layout) -> np.ndarray:
    """From every cell, with nothing looked at, to the completed sequence: by dynamic programming over (progress, cell)."""
    landing, looked = layout.landing.reshape(CELLS, ACTIONS), layout.looked.reshape(CELLS, ACTIONS)
    before = np.arange(layout.pads)[:, None, None]
    after = np.where(looked == 1, 1, 0) * np.ones_like(before)
    after = np.where((looked == 0) | ((looked == before) & (before > 0)), before, after)
    after = np.where(looked == before + 1, before + 1, after)
    steps = np.full((layout.pads + 1, CELLS), np.inf)
    steps[-1] = 0
    for _ in range(120):
        steps[:-1] = 1 + steps[after, np.broadcast_to(landing, after.shape)].min(axis=2)
    return steps[0, list(layout.cells)]


@pytest.mark.parametrize(
    ("task", "mean", "least", "most"),
    [
        ("three", 24.9, 18, 35),
        ("four", 38.9, 32, 49),
        ("five", 47.1, 40, 57),
        ("six", 58.9, 51, 70),
        ("seven", 77.4, 69, 89),
        ("eight", 86.4, 78, 98),
    ],
)
def test_the_best_player_needs_as_many_steps_as_in_the_original(task, mean, least, most):
    steps = fewest_steps(layout_of(task))
    assert (round(float(steps.mean()), 1), steps.min(), steps.max()) == (mean, least, most)


def test_on_the_small_map_the_best_player_gets_230_in_500_steps():
    assert 10 * 500 / (fewest_steps(layout_of("three_small")).mean() + 9) == pytest.approx(230, abs=1)


@pytest.mark.parametrize(
    ("task", "complaint"),
    [
        ("thre", "no layout is named 'thre'; nearest: three."),
        ("#1#\n#2\n", "row 1 of the map has 2 cells and row 0 has 3"),
        ("1.\n.x\n", r"'x' at \(1, 1\) of the map is no tile"),
        ("1.\n.9\n", r"'9' at \(1, 1\) of the map is no tile"),
        ("1..\n..3\n", "the map has no pad 2"),
        ("###\n#.#\n", "the map has no pad 1"),
        ("." * 17 + "\n" + "1" * 17, "at most 16 x 14 cells, and this one 17 x 2"),
        ("1\n" * 15, "at most 16 x 14 cells, and this one 1 x 15"),
    ],
)
def test_a_wrong_map_is_refused_with_the_reason(task, complaint):
    with pytest.raises(ValueError, match=complaint):
        PinPad(task)


# Rules


def test_a_map_is_walked_as_drawn():
    env = started(PinPad(ROW), (2, 1))
    walked = []
    for action in (UP, LEFT, LEFT, RIGHT, RIGHT):
        env.step(action)
        walked.append((env.position, env.sequence))
    assert walked == [((2, 1), ""), ((1, 1), "1"), ((1, 1), "1"), ((2, 1), "1"), ((3, 1), "12")]


def test_without_walls_the_edge_of_the_grid_holds_and_the_cell_itself_is_looked_at():
    env = started(PinPad("1...............\n" * 14), (0, 0), (15, 13))
    env.step(UP)
    assert (env.position, env.sequence, env.countdown) == ((0, 0), "1", 10)
    env = started(PinPad("1...............\n" * 14), (15, 13))
    for action in (DOWN, RIGHT):
        env.step(action)
        assert env.position == (15, 13)


def test_who_appears_on_a_pad_looks_at_it_by_staying_but_not_by_running_into_a_wall():
    env = started(PinPad(ROW), (1, 1))
    assert env.sequence == ""
    env.step(LEFT)
    assert env.sequence == ""
    env.step(STAY)
    assert env.sequence == "1"


def test_the_sequence_pays_10_then_pauses_10_steps_then_puts_the_player_elsewhere():
    env = started(PinPad(ROW), (2, 1), (3, 1))
    assert rewards(env, [LEFT, RIGHT, RIGHT]) == [0, 0, 10]
    assert env.countdown == 10
    shown = []
    for action in [LEFT] * 2 + [STAY] * 7:
        image, reward, *_ = env.step(action)
        shown.append((env.countdown, reward, image[6, 10].tolist()))
    assert shown == [(9 - i, 0.0, PAUSED if i else BLACK) for i in range(9)]
    assert env.sequence == "21"
    image, *_ = env.step(STAY)  # in the cell where it was put
    assert (env.countdown, env.position, env.sequence, image[6, 10].tolist()) == (0, (3, 1), "2", WHITE)


def test_only_the_latest_pads_are_remembered_and_none_twice_in_a_row():
    env = started(PinPad("#####\n#1.2#\n#3..#\n#####\n"), (1, 2))
    seen = []
    for action in (STAY, STAY, UP, DOWN, UP):
        env.step(action)
        seen.append(env.sequence)
    assert seen == ["3", "3", "31", "313", "131"]


@pytest.mark.parametrize(
    ("sequence", "progress"), [("", 0), ("1", 1), ("2", 0), ("31", 1), ("312", 2), ("412", 2), ("121", 1), ("3", 0)]
)
def test_progress_is_how_much_of_the_target_the_sequence_ends_with(sequence, progress):
    assert progress_of(sequence, "1234") == progress


@pytest.mark.parametrize(
    ("mode", "first", "second", "lost"),
    [
        ("flat", 1, 1 + 10, -1),
        ("progress_any", 1, 1 + 10, -1),
        ("progressive", 1, 2 + 10, -1),
        ("progressive_steep", 1, 3 + 10, -1),
        ("sequence_bonus", 1.5, 2 + 10, -1),
        ("decaying", 1, 1 + 10, -1),
        ("sparse", 0, 10, 0),
        ("dense_guidance", 0.1 + 1, 0.1 + 1 + 10, 0),
    ],
)
def test_a_reward_mode_pays_for_progress_and_takes_for_what_is_lost(mode, first, second, lost):
    env = started(PinPadEasy("#12#\n####\n", reward_mode=mode), (2, 0))
    assert rewards(env, [LEFT, RIGHT, LEFT]) == [first, second, lost]


def test_a_decaying_mode_pays_less_for_each_visit_that_paid_before():
    env = started(PinPadEasy("1.2\n.3.\n", reward_mode="decaying"), (1, 0))
    paid = rewards(env, [LEFT, RIGHT, DOWN, UP, LEFT, RIGHT, DOWN, UP, LEFT])  # 1, 3 (lost), 1, 3 (lost), 1
    assert paid == pytest.approx([1, 0, -1, 0, 1 / 1.1, 0, -1, 0, 1 / 1.2])


def test_dense_guidance_pays_for_coming_nearer_and_takes_for_going_away_and_for_wrong_pads():
    env = started(PinPadEasy("1....2\n......\n", reward_mode="dense_guidance"), (3, 0))
    assert rewards(env, [LEFT, RIGHT, STAY, RIGHT, RIGHT]) == pytest.approx([0.1, -0.05, 0, -0.05, -0.05 - 0.1])


# Time, spawns and visits


def test_time_runs_out_and_nothing_else_ends_an_episode():
    env = started(PinPad(ROW, length=4), (2, 1))
    assert [env.step(action)[2:4] for action in (LEFT, RIGHT, RIGHT, STAY)] == [(False, False)] * 3 + [(False, True)]


def test_queued_spawns_are_used_in_order_by_resets_and_respawns_and_then_cells_are_drawn():
    env = PinPad(ROW)
    env.reset(seed=4, options={"spawns": [(2, 1), (3, 1), (1, 1)]})
    assert env.position == (2, 1)
    rewards(env, [LEFT, RIGHT, RIGHT] + [STAY] * 10)
    assert env.position == (3, 1)
    env.reset(seed=4)
    assert env.position == (1, 1)
    assert {env.reset(seed=seed)[1]["position"] for seed in range(40)} == {(1, 1), (2, 1), (3, 1)}


def test_a_new_queue_takes_the_place_of_the_old_one():
    env = PinPad()
    env.reset(seed=0, options={"spawns": [(1, 1), (2, 2)]})
    env.reset(seed=0, options={"spawns": [(3, 3)]})
    assert env.position == (3, 3)


def test_a_snapshot_holds_the_queue_and_is_not_changed_by_what_comes_after():
    env = started(PinPad(), (1, 1), (2, 2), (3, 3))
    snapshot = env.snapshot()
    env.reset(seed=0)
    other = PinPad()
    other.restore(0, snapshot)
    assert [other.position, *(other.reset(seed=0)[1]["position"] for _ in range(2))] == [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("cell", [(0, 0), (16, 1), (1, -1), (1, 14)])
def test_nobody_appears_in_a_wall_or_outside(cell):
    with pytest.raises(ValueError, match="is no free cell of this map"):
        started(PinPad(), cell)


def test_where_players_appear_is_a_function_of_the_episodes_seed():
    def places(env: PinPad) -> list:
        return [env.reset(seed=12)[1]["position"], *(env.memory.spawn() for _ in range(5))]

    old = PinPad()
    for seed in range(3):
        old.reset(seed=seed)
        old.memory.spawn()
    assert places(old) == places(PinPad())
    assert len({PinPad("three").reset(seed=seed)[1]["position"] for seed in range(30)}) > 20


def test_players_appear_in_every_cell_equally_often():
    env = PinPad()
    for seed in range(1680):
        env.memory.begin(seed)
        env.visits[divmod(env.memory.spawn(), 16)] += 1
    counts = env.visits.reshape(-1)[list(env.layout.cells)]
    assert counts.sum() == 1680
    assert ((counts - 10) ** 2 / 10).sum() < 167 + 4 * np.sqrt(2 * 167)  # chi-squared, 167 degrees of freedom


def test_seeds_of_episodes_without_one_follow_from_the_last_that_was_given():
    def positions() -> list[tuple[int, int]]:
        env = PinPad()
        return [env.reset(seed=seed)[1]["position"] for seed in (5, None, None, None)]

    assert positions() == positions()
    assert len(set(positions())) > 1


def test_visits_count_every_observation_of_the_environments_life():
    env = started(PinPad(ROW, length=3), (2, 1), (3, 1))
    rewards(env, [LEFT, STAY, LEFT])
    env.reset(seed=1)
    assert env.visits.shape == (14, 16)
    assert env.visits[1, 1:4].tolist() == [3, 1, 1] and env.visits.sum() == 5
    assert env.account()["coverage"] == 1.0


# What is seen


def test_the_picture_shows_player_pad_and_sequence():
    env = started(PinPad(), (5, 4))
    image = env.step(LEFT)[0]
    grid = image[::4, ::4]
    assert np.array_equal(grid.repeat(4, 0).repeat(4, 1), image)
    assert grid[4, 4].tolist() == BLACK
    assert grid[1, 1].tolist() == [255, 0, 0]  # the pad under the player
    assert grid[9, 6].tolist() == [229, 255, 229] and grid[1, 11].tolist() == [229, 229, 255]
    assert grid[5, 5].tolist() == WHITE and grid[0, 0].tolist() == GREY
    assert grid[14, 1].tolist() == [255, 0, 0] and grid[14, 3].tolist() == GREY and (grid[15] == 192).all()


def test_pictures_of_all_sizes_show_the_same():
    shown = []
    for size in (16, 48, 64, 80):
        env = started(PinPad("eight", size=size, render_mode="rgb_array"), (1, 5))
        rewards(env, [STAY, UP, UP])
        assert env.render().shape == (size, size, 3)
        shown.append(env.render()[:: size // 16, :: size // 16])
    assert all(np.array_equal(image, shown[0]) for image in shown)


def test_a_heat_map_runs_from_blue_to_red_and_leaves_walls_grey():
    visits = np.zeros((14, 16), int)
    visits[1, 1:4] = [1, 0, 1000]
    shown = heat_map(layout_of(ROW), visits, 16)
    assert shown[1, 1:4].tolist() == [[0, 1, 255], WHITE, [255, 0, 0]] and shown[0, 0].tolist() == GREY


def test_one_command_draws_every_layout(tmp_path, capsys):
    from PIL import Image

    out = tmp_path / "new" / "layouts.png"
    assert main(["--out", str(out)]) == 0
    with Image.open(out) as image:
        assert image.width > 7 * 100 and len(image.getcolors(10**6)) > 20
    (tmp_path / "mine.txt").write_text(ROW)
    assert main(["--out", str(out), "--task", str(tmp_path / "mine.txt"), "--visits"]) == 0
    assert main(["--task", "nine"]) == 2
    assert "no layout is named 'nine'" in capsys.readouterr().err


# Gymnasium


@pytest.mark.parametrize("id", [f"hieros/{kind}-{task}-v0" for kind in ("PinPad", "PinPadEasy") for task in MAPS])
def test_gymnasium_finds_nothing_to_complain_about(id):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(id, render_mode="rgb_array").unwrapped)


def test_wrong_arguments_and_calls_are_refused():
    with pytest.raises(ValueError, match="no multiple of 16"):
        PinPad(size=20)
    with pytest.raises(ValueError, match="none of flat, progressive"):
        PinPadEasy(reward_mode="flatt")
    with pytest.raises(ValueError, match="at least one step"):
        PinPad(length=0)
    with pytest.raises(ValueError, match="renders 'rgb_array' or nothing"):
        PinPad(render_mode="human")
    with pytest.raises(ResetNeeded):
        PinPad().step(0)
    for action in (-1, 5):
        with pytest.raises(ValueError, match="is no action"):
            started(PinPad(), (1, 1)).step(action)


# In a configuration


class TestPinPad(EnvContract):
    accounts = ("completions", "coverage")

    def make(self) -> adapter.PinPad:
        return adapter.PinPad(task="three_small", length=24, size=16)


class TestPinPadEasy(EnvContract):
    accounts = ("completions", "coverage")

    def make(self) -> adapter.PinPadEasy:
        return adapter.PinPadEasy(task="#####\n#13.#\n#.2.#\n#####\n", length=50, size=64, reward_mode="decaying")


class TestPinPadGuided(EnvContract):
    """In the native form."""

    accounts = ("completions", "coverage")

    @pytest.fixture(autouse=True)
    def native_however_few(self, monkeypatch):
        monkeypatch.setattr(adapter, "FEW", 0)

    def make(self) -> adapter.PinPadEasy:
        return adapter.PinPadEasy(task="#####\n#13.#\n#.2.#\n#####\n", length=50, size=32, reward_mode="dense_guidance")


def test_a_configuration_is_checked_before_anything_is_built():
    found = adapter.PinPadEasy.check(task="thre", length=5, size=40, reward_mode="flat")
    assert [fault.key for fault in found] == ["task", "size"]
    assert list(adapter.PinPad.check(task=ROW, length=5, size=32)) == []
