import numpy as np
import pytest

from hieros_repro.env.base import Env
from hieros_repro.env.contract import EnvContract
from hieros_repro.env.dummy import Dummy
from hieros_repro.records import Space


def made(task: str = "discrete", length: int = 8, terminal: bool = True, size: int = 16) -> Dummy:
    return Dummy(task=task, size=size, length=length, terminal=terminal)


class TestDiscrete(EnvContract):
    def make(self) -> Env:
        return made()


class TestContinuous(EnvContract):
    def make(self) -> Env:
        return made("continuous", terminal=False)


class TestMultidiscrete(EnvContract):
    def make(self) -> Env:
        return made("multidiscrete", length=100)


def test_an_episode_pays_one_a_step_and_ends_at_its_length():
    env = made(length=3)
    env.reset(0)
    assert [env.step(0)[1:] for _ in range(3)] == [(1.0, False, False), (1.0, False, False), (1.0, True, False)]


def test_its_end_may_be_a_time_out():
    env = made(length=1, terminal=False)
    env.reset(0)
    assert env.step(0)[1:] == (1.0, False, True)


@pytest.mark.parametrize(
    ("task", "action", "shown"),
    [("discrete", 4, [4]), ("multidiscrete", np.array([3, 2]), [3, 2]), ("continuous", np.full(6, 0.5), [0.5] * 6)],
)
def test_the_vector_shows_step_seed_and_last_action(task, action, shown):
    env = made(task)
    assert env.reset(70000)["vector"].tolist() == [0, 70000 - 65536, *[0] * len(shown)]
    env.step(action)
    assert env.step(action)[0]["vector"].tolist() == [2, 4464, *shown]
    assert env.reset(5)["vector"].tolist() == [0, 5, *[0] * len(shown)]


def test_the_image_shows_the_step_as_a_line():
    env = made(size=4, length=100)
    images = [env.reset(0)["image"], *(env.step(0)[0]["image"] for _ in range(5))]
    assert [np.flatnonzero(image.any((1, 2))).tolist() for image in images] == [[0], [1], [2], [3], [0], [1]]
    assert all(image.sum() == 4 * 3 * 255 for image in images)


def test_actions_are_those_of_the_task():
    assert made("discrete").spaces.action == Space("discrete", (), sizes=(5,))
    assert made("multidiscrete").spaces.action == Space("multidiscrete", (2,), sizes=(5, 3))
    assert made("continuous").spaces.action == Space("continuous", (6,), low=(-1.0,) * 6, high=(1.0,) * 6)
