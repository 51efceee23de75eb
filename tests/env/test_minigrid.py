import gymnasium
import numpy as np
import pytest

pytest.importorskip("minigrid")

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.env.base import Env
from hieros_repro.env.contract import EnvContract, drawn, episode
from hieros_repro.env.minigrid import COLOURS, LETTERS, STATES, TYPES, MiniGrid, letters, symbols
from hieros_repro.records import Space, UserError

LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE = range(6)
BROKEN = "MiniGrid-WFC-"  # generated from pictures that the package does not bring


def made(id: str = "MiniGrid-Empty-5x5-v0", observe: str = "full", size: int = 32, mission: int = 0, length=None) -> MiniGrid:
    return MiniGrid(id=id, observe=observe, size=size, mission=mission, length=length)


class TestObstacles(EnvContract):
    """Balls that move by themselves."""

    accounts = ("success",)

    def make(self) -> Env:
        return made("MiniGrid-Dynamic-Obstacles-Random-5x5-v0", length=12)


class TestDoorKey(EnvContract):
    accounts = ("success",)

    def make(self) -> Env:
        return made("MiniGrid-DoorKey-6x6-v0", "agent", length=25)


class TestBabyAI(EnvContract):
    """Missions that differ, judged by objects that refer to the environment."""

    accounts = ("success",)

    def make(self) -> Env:
        return made("BabyAI-PutNextLocal-v0", "symbolic", mission=60, length=20)


# What is shown


def averaged(picture: np.ndarray, side: int, factor: int) -> np.ndarray:
    rows, columns = picture.shape[0] // factor, picture.shape[1] // factor
    return np.floor(picture.reshape(rows, factor, columns, factor, 3).mean((1, 3)) + 0.5).astype(np.uint8)


@pytest.mark.parametrize(
    ("id", "observe", "size", "side"),
    [
        ("MiniGrid-Empty-8x8-v0", "full", 64, 8),
        ("MiniGrid-DoorKey-5x5-v0", "full", 64, 12),
        ("MiniGrid-KeyCorridorS3R3-v0", "full", 37, 5),
        ("MiniGrid-ObstructedMaze-2Dlh-v0", "full", 64, 4),
        ("MiniGrid-DoorKey-5x5-v0", "agent", 64, 9),
        ("MiniGrid-LavaCrossingS9N2-v0", "agent", 15, 2),
    ],
)
def test_a_picture_is_the_packages_own_made_smaller_in_a_black_frame(id, observe, size, side):
    env = made(id, observe, size)
    factor = -(-8 // side)
    seen = [env.reset(5)]
    for tick in range(30):
        obs, _, terminated, truncated = env.step(drawn(env.spaces.action, tick))
        if terminated or truncated:
            break
        own = averaged(env.env.get_frame(False, factor * side, observe == "agent"), side, factor)
        top, left = ((size - n) // 2 for n in own.shape[:2])
        framed = np.zeros((size, size, 3), np.uint8)
        framed[top : top + own.shape[0], left : left + own.shape[1]] = own
        assert np.array_equal(obs["image"], framed)
        seen.append(obs)
    assert len({digest_tree(obs) for obs in seen}) > 3


def test_all_that_can_be_in_a_cell_looks_different_from_two_pixels_on():
    from minigrid.core import world_object as things

    content = [None, things.Wall(), things.Lava(), things.Goal()]
    content += [kind(c) for kind in (things.Key, things.Ball, things.Box, things.Floor) for c in things.COLORS]
    content += [things.Door(c, *state) for c in things.COLORS for state in ((True, False), (False, False), (False, True))]
    for size in (10, 15, 20):
        tiles = made(size=size).tiles
        looks = {tiles._drawn(thing, facing, False).tobytes() for thing in content for facing in (None, 0, 1, 2, 3)}
        # An agent stands on nothing, on a floor, in an open door; elsewhere it is drawn over what it never stands on.
        assert len(looks) == 5 * len(content), size


def test_symbols_are_the_packages_own_as_one_hot_vectors():
    env = made("MiniGrid-DoorKey-5x5-v0", "symbolic")
    raw = gymnasium.make("MiniGrid-DoorKey-5x5-v0", disable_env_checker=True)
    for mine, theirs in [(env.reset(3), raw.reset(seed=3)[0])] + [(env.step(a)[0], raw.step(a)[0]) for a in (1, 2, 3, 0)]:
        cells = mine["symbols"].reshape(7, 7, 20)
        parts = np.split(cells, (TYPES, TYPES + COLOURS), axis=-1)
        assert np.array_equal(np.stack([part.argmax(-1) for part in parts], -1), theirs["image"])
        assert np.array_equal(cells.sum(-1), np.full((7, 7), 3))
        assert mine["direction"].tolist() == np.eye(4)[theirs["direction"]].tolist()


def test_a_cells_symbols_are_type_colour_state():
    shown = symbols(np.array([[[4, 1, 2]]]))
    assert np.flatnonzero(shown).tolist() == [4, TYPES + 1, TYPES + COLOURS + 2]
    assert shown.shape == (TYPES + COLOURS + STATES,) == (20,)


def test_a_mission_is_shown_letter_by_letter():
    shown = letters("go, to", 8).reshape(8, len(LETTERS))
    assert [LETTERS[i] for i in shown.argmax(1)] == list("go, to  ")
    assert shown.sum() == 8


def test_a_mission_that_is_too_long_is_refused_by_the_key():
    with pytest.raises(UserError, match=r"env.mission=3 is too short: the mission 'go to' has 5 letters"):
        letters("go to", 3)


def test_the_mission_shown_is_the_episodes():
    env = made("MiniGrid-GoToDoor-5x5-v0", mission=30)
    missions = set()
    for seed in range(8):
        shown = env.reset(seed)["mission"].reshape(30, len(LETTERS)).argmax(1)
        missions.add("".join(LETTERS[i] for i in shown).rstrip())
        assert env.env.mission in missions
    assert len(missions) > 1


@pytest.mark.parametrize(
    ("observe", "mission", "spaces"),
    [
        ("full", 0, {"image": Space("image", (32, 32, 3))}),
        ("agent", 0, {"image": Space("image", (32, 32, 3)), "direction": Space("vector", (4,))}),
        ("symbolic", 0, {"symbols": Space("vector", (980,)), "direction": Space("vector", (4,))}),
        ("full", 10, {"image": Space("image", (32, 32, 3)), "mission": Space("vector", (280,))}),
    ],
)
def test_spaces_are_those_of_what_is_observed(observe, mission, spaces):
    env = made(observe=observe, mission=mission)
    assert env.spaces.observation == spaces
    assert env.spaces.action == Space("discrete", (), sizes=(7,))


# How episodes end


def test_the_goal_is_a_termination_and_pays_by_the_time_it_took():
    env = made()  # from the upper left to the lower right corner of 3 x 3 cells, within 100 steps
    env.reset(0)
    path = [FORWARD, FORWARD, RIGHT, FORWARD, FORWARD]
    outcomes = [env.step(action)[1:] for action in path]
    assert outcomes[:-1] == [(0.0, False, False)] * 4
    assert outcomes[-1] == (pytest.approx(1 - 0.9 * 5 / 100), True, False)
    assert env.account() == {"success": 1}


def test_the_goal_at_the_last_moment_is_no_time_out():
    env = made(length=5)
    env.reset(0)
    outcomes = [env.step(action)[1:] for action in (FORWARD, FORWARD, RIGHT, FORWARD, FORWARD)]
    assert outcomes[-1] == (pytest.approx(0.1), True, False)


def test_the_limit_is_a_time_out():
    env = made(length=3)
    env.reset(0)
    assert [env.step(LEFT)[1:] for _ in range(3)] == [(0.0, False, False), (0.0, False, False), (0.0, False, True)]
    assert env.account() == {"success": 0}


def test_the_limit_of_the_task_is_the_default():
    shown = episode(made("MiniGrid-Empty-5x5-v0"), 0, 4)
    assert len(shown) == 5
    env = made("MiniGrid-DoorKey-5x5-v0")
    env.reset(0)
    assert [env.step(LEFT)[3] for _ in range(250)] == [False] * 249 + [True]


def test_lava_is_a_termination_without_success():
    env = made("MiniGrid-LavaGapS5-v0")
    for seed in range(20):
        env.reset(seed)
        for action in (FORWARD, RIGHT, FORWARD, LEFT, FORWARD):
            _, reward, terminated, truncated = env.step(action)
            if terminated:
                assert (reward, truncated, env.account()) == (0.0, False, {"success": 0})
                return
    raise AssertionError("no lava was met")


def test_what_babyai_prints_is_not_heard(capsys):
    env = made("BabyAI-GoToObjDoor-v0")
    for seed in range(10):  # the package prints at most of them
        env.reset(seed)
    assert capsys.readouterr().out == ""


# Every task


def known() -> list[str]:
    import minigrid  # noqa: F401

    return [n for n, spec in gymnasium.registry.items() if str(spec.entry_point).startswith("minigrid.") and BROKEN not in n]


@pytest.mark.slow
@pytest.mark.parametrize("id", known())
def test_every_task_comes_back_exactly_and_keeps_nothing_of_an_episode(id):
    def rest(env: Env) -> list:
        shown = []
        for tick in range(15, 40):
            obs, *outcome = env.step(drawn(env.spaces.action, tick))
            shown.append((digest_tree(obs), *outcome))
            if outcome[1] or outcome[2]:
                shown.append(digest_tree(env.reset(9)))
        return shown

    first, second = made(id, size=64, mission=200), made(id, size=64, mission=200)
    episode(first, 1, 40)
    assert episode(first, 2, 40) == episode(second, 2, 40)
    first.reset(3)
    for tick in range(15):
        if any(first.step(drawn(first.spaces.action, tick))[2:]):
            first.reset(4)
    snapshot = first.snapshot()
    expected = rest(first)
    for env in (second, made(id, size=64, mission=200)):
        env.restore(3, snapshot)
        assert rest(env) == expected


# Checks


def faults(id: str = "MiniGrid-Empty-8x8-v0", observe: str = "full", size: int = 64) -> list[tuple[str, str]]:
    return [tuple(fault) for fault in MiniGrid.check(id=id, observe=observe, size=size, mission=0, length=None)]


def test_a_known_task_has_no_fault():
    assert faults() == faults("BabyAI-GoToRedBall-v0", "agent") == faults(observe="symbolic", size=1) == []


def test_an_unknown_task_is_named_with_the_nearest():
    [(key, problem)] = faults("MiniGrid-DoorKy-5x5-v0")
    assert key == "id"
    assert problem.startswith("'MiniGrid-DoorKy-5x5-v0' is no task of MiniGrid; nearest: MiniGrid-DoorKey-5x5-v0")


def test_an_environment_of_another_package_is_no_task():
    [(_, problem)] = faults("CartPole-v1")
    assert problem.startswith("'CartPole-v1' is no task of MiniGrid")


def test_a_task_whose_package_is_incomplete_is_named():
    [(key, problem)] = faults("MiniGrid-WFC-MazeSimple-v0")
    assert key == "id"
    assert "'MiniGrid-WFC-MazeSimple-v0' cannot be made" in problem


@pytest.mark.parametrize(("observe", "size", "cells"), [("full", 7, 8), ("agent", 6, 7)])
def test_a_cell_below_a_pixel_is_a_fault(observe, size, cells):
    problem = f"{size} is too small: a picture of {cells} cells across needs {cells} pixels or more"
    assert faults(observe=observe, size=size) == [("size", problem)]


def test_a_missing_package_is_one_fault_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert faults("nonsense") == [("_target_", "MiniGrid needs the extra [minigrid]: pip install 'hieros-repro[minigrid]'")]
