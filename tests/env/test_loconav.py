import sys

import numpy as np
import pytest

pytest.importorskip("dm_control")

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.env import loconav, simulation
from hieros_repro.env.base import Env
from hieros_repro.env.contract import EnvContract, drawn, episode
from hieros_repro.env.loconav import MAZES, LocoNav
from hieros_repro.records import Space

simulation.library()
pictures = pytest.mark.skipif(not simulation.draws(), reason="no OpenGL here")


def made(body: str = "ant", maze: str = "s", observe: str = "proprio", **values) -> LocoNav:
    return LocoNav(**{"body": body, "maze": maze, "observe": observe, "size": 64, "action_repeat": 2, "length": None} | values)


class TestAnt(EnvContract):
    length = 25
    draws_pictures = simulation.draws()

    def make(self) -> Env:
        return made(length=12)


@pytest.mark.slow
@pictures
class TestQuadruped(EnvContract):
    length = 8

    def make(self) -> Env:
        return made("quadruped", "m", "both", length=5)


def way(maze) -> int:
    """Steps from P to G, by breadth first."""
    cells = {(x, y): cell for y, row in enumerate(maze) for x, cell in enumerate(row)}
    [start] = [place for place, cell in cells.items() if cell == "P"]
    distance, waiting = {start: 0}, [start]
    for x, y in waiting:
        for near in ((x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)):
            if near not in distance and cells[near] != "*":
                distance[near] = distance[x, y] + 1
                waiting.append(near)
    [goal] = [place for place, cell in cells.items() if cell == "G"]
    assert all(place in distance for place, cell in cells.items() if cell != "*"), "every cell can be reached"
    return distance[goal]


def test_every_maze_is_a_closed_rectangle_with_a_way_to_its_goal():
    for maze in MAZES.values():
        assert len({len(row) for row in maze}) == 1
        assert set(maze[0]) == set(maze[-1]) == {row[0] for row in maze} == {row[-1] for row in maze} == {"*"}
    assert {name: way(maze) for name, maze in MAZES.items()} == {"empty": 10, "s": 10, "m": 18, "l": 28, "xl": 42, "xxl": 60}


def test_places_are_metres_from_the_middle():
    assert loconav.places(("*****", "*P G*", "*****"), "P") == [(-2.0, 0.0)]
    assert loconav.places(("*****", "*P  *", "*  G*", "*****"), "G") == [(2.0, -1.0)]


@pytest.mark.parametrize("body", ["ant", "quadruped"])
def test_a_body_starts_at_its_place_clear_of_everything_facing_any_way(body):
    env = made(body, "m")
    faces = []
    for seed in range(20):
        env.reset(seed)
        assert env.physics.data.ncon == 0
        assert env.physics.data.qpos[:2].tolist() == [-6.0, 4.0]
        faces.append(env.physics.named.data.xmat["torso", "xx"])
    assert min(faces) < -0.5 and max(faces) > 0.5


def test_walls_hold():
    """Whatever it does, its centre stays in the corridor that it starts in."""
    env = made("quadruped")
    env.reset(0)
    for tick in range(150):
        env.step(drawn(env.spaces.action, tick))
    x, y, z = env.physics.named.data.xpos["torso"]
    assert -5 < x < 5 and 1 < y < 3 and 0 < z < 1


def test_every_tick_at_the_goal_brings_one_and_nothing_else_brings_anything():
    env = made()
    env.reset(0)
    still = np.zeros(8, np.float32)
    assert env.step(still)[1] == 0.0
    rewards = []
    for offset in (0.0, 1.1, 1.3):
        env.reset(0)
        env.physics.named.data.qpos["root"][:2] = -4.0 + offset, -2.0
        env.physics.forward()
        rewards.append(env.step(still)[1])
    assert rewards == [2.0, 2.0, 0.0]


def test_only_the_time_out_ends_an_episode():
    shown = episode(made(length=30), 0, 40)
    assert len(shown) == 31
    assert shown[-1][2:] == (False, True)
    assert made().limit == 3000


def test_spaces_are_those_of_the_body():
    ant = made(observe="both").spaces
    sizes = {name: space.shape for name, space in ant.observation.items()}
    assert sizes == {
        "image": (64, 64, 3), "joints_pos": (8,), "joints_vel": (8,), "sensors": (26,), "height": (1,), "zaxis": (3,),
    }  # fmt: skip
    assert ant.action == Space("continuous", (8,), low=(-1.0,) * 8, high=(1.0,) * 8)
    assert made("quadruped").spaces.observation["actuators"] == Space("vector", (12,))


@pytest.mark.parametrize("body", ["ant", "quadruped"])
def test_a_state_comes_back_exactly(body):
    one, other = made(body), made(body)
    episode(one, 8, 20)
    one.reset(5)
    for tick in range(40):
        seen = one.step(drawn(one.spaces.action, tick))[0]
    episode(other, 77, 5)
    assert digest_tree(other.restore(5, one.snapshot())) == digest_tree(seen)
    for tick in range(40, 60):
        action = drawn(one.spaces.action, tick)
        (left, *rest), (right, *others) = one.step(action), other.step(action)
        assert (digest_tree(left), rest) == (digest_tree(right), others)


@pictures
def test_it_sees_the_colours_of_the_walls():
    """Facing the green one, and turned round."""
    env = made(maze="m", observe="vision")
    seen = {seed: env.reset(seed)["image"].astype(int).mean((0, 1)) for seed in range(6)}
    assert len({int(np.argmax(colour)) for colour in seen.values()}) > 1


def test_a_missing_package_is_one_fault_with_the_command(monkeypatch):
    values = {"maze": "s", "observe": "proprio", "size": 64, "action_repeat": 2, "length": None}
    assert list(LocoNav.check(body="ant", **values)) == []
    monkeypatch.setitem(sys.modules, "dm_control", None)
    [fault] = LocoNav.check(body="ant", **values)
    assert str(fault) == "body: 'ant' needs the extra [dmc]: pip install 'hieros-repro[dmc]'"
