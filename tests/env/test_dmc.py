import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

pytest.importorskip("dm_control")

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.env import dmc, simulation
from hieros_repro.env.base import Env
from hieros_repro.env.contract import EnvContract, drawn, episode
from hieros_repro.env.dmc import DMC
from hieros_repro.records import Space, UserError
from tests.runs import ROOT

SUITE = simulation.library()[0]
DRAWS = simulation.draws()
pictures = pytest.mark.skipif(not DRAWS, reason="no OpenGL here")

# Of every domain a task; those first whose model, sensors or contacts are most likely to leave something behind.
TASKS = ["reacher_easy", "point_mass_hard", "finger_turn_hard", "manipulator_insert_peg", "swimmer_swimmer6", "quadruped_walk"]
OTHERS = [f"{domain}_{names[-1]}" for domain, names in SUITE.TASKS_BY_DOMAIN.items()] + ["quadruped_escape", "lqr_lqr_2_1"]


def made(task: str = "walker_walk", observe: str = "proprio", **values) -> DMC:
    return DMC(**{"task": task, "observe": observe, "size": 64, "camera": None, "action_repeat": 2, "length": None} | values)


def raw(task: str, seed: int):
    """The suite itself, at the start of its first episode."""
    env = SUITE.load(*dmc.tasks(SUITE)[task], task_kwargs={"random": seed})
    env.reset()
    return env


class TestProprio(EnvContract):
    length = 25
    draws_pictures = DRAWS

    def make(self) -> Env:
        return made(length=12)


class TestSparseContacts(EnvContract):
    """Touch sensors tell of the state before; the target's place and size are written into the model."""

    length = 25
    draws_pictures = DRAWS

    def make(self) -> Env:
        return made("finger_turn_easy", length=12)


@pytest.mark.slow
@pictures
class TestVision(EnvContract):
    length = 8

    def make(self) -> Env:
        return made("cup_catch", "both", length=5)


# Against the suite


@pytest.mark.parametrize("task", ["walker_walk", "finger_spin", "fish_swim"])
def test_an_episode_is_the_suites_own(task):
    env, suite = made(task, length=20), raw(task, 5)
    seen = env.reset(5)
    for tick in range(8):
        action = drawn(env.spaces.action, tick)
        seen, reward, *_ = env.step(action)
        one, two = suite.step(action), suite.step(action)
        assert reward == one.reward + two.reward
        assert list(seen) == list(two.observation)
        assert all(np.array_equal(seen[name], np.float32(np.ravel(value))) for name, value in two.observation.items())


@pytest.mark.slow
@pictures
def test_a_picture_is_the_suites_own():
    env, suite = made("quadruped_run", "vision"), raw("quadruped_run", 5)
    assert np.array_equal(env.reset(5)["image"], suite.physics.render(64, 64, camera_id=2))


def test_every_entry_keeps_its_name_and_is_a_flat_vector():
    spaces = made("manipulator_bring_ball").spaces
    assert spaces.observation == {
        "arm_pos": Space("vector", (16,)),  # 8 joints: sine and cosine
        "arm_vel": Space("vector", (8,)),
        "touch": Space("vector", (5,)),
        "hand_pos": Space("vector", (4,)),
        "object_pos": Space("vector", (4,)),
        "object_vel": Space("vector", (3,)),
        "target_pos": Space("vector", (4,)),
    }
    assert made("walker_walk").spaces.observation["height"] == Space("vector", (1,))


def test_actions_keep_their_bounds():
    assert made("cup_catch").spaces.action == Space("continuous", (2,), low=(-1.0, -1.0), high=(1.0, 1.0))
    assert made("quadruped_walk").spaces.action.high == (1.0, 1.1, 0.8) * 4
    assert made("lqr_lqr_2_1").spaces.action == Space("continuous", (1,), low=(-np.inf,), high=(np.inf,))


@pictures
def test_vision_shows_the_picture_alone_and_both_show_everything():
    assert made(observe="vision", size=84).spaces.observation == {"image": Space("image", (84, 84, 3))}
    assert list(made(observe="both").spaces.observation) == ["image", "orientations", "height", "velocity"]


# Numerics


def test_what_is_seen_has_bits_of_who_draws_it_and_joints_have_not():
    assert DMC.numerics(task="walker_walk", observe="proprio") == {}
    for observe in ("vision", "both"):
        assert DMC.numerics(task="walker_walk", observe=observe) == {"drawn_by": simulation.library()[1]}
    assert not DRAWS or simulation.library()[1] in {f"MUJOCO_GL={way}" for way in ("egl", "osmesa", "glfw")}


# Ends


def test_an_episode_ends_after_1000_ticks_of_the_suite_as_a_time_out():
    assert len(episode(made("pendulum_swingup"), 0, 600)) == 1 + 500
    shown = episode(made("pendulum_swingup", action_repeat=3), 0, 600)
    assert len(shown) == 1 + 334  # the last action is held for one tick only
    assert shown[-1][2:] == (False, True)


def test_a_length_counts_steps_and_may_exceed_the_suites():
    shown = episode(made("point_mass_easy", length=510), 0, 600)
    assert len(shown) == 1 + 510
    assert shown[-1][2:] == (False, True)


def test_an_end_of_which_nothing_is_to_come_is_terminal():
    """lqr alone of the suite terminates: at rest, where the norm of its state is below 1e-6."""
    env = made("lqr_lqr_2_1", length=3)
    env.reset(0)
    env.physics.reset()
    assert env.step(np.zeros(1, np.float32))[2:] == (True, False)
    assert env.ticks == 1  # the action is not held beyond the end


# State


def continued(task: str, observe: str, seed: int, snapshot) -> list:
    """The observation that a restored state shows, and the steps after it; the environment was somewhere else before."""
    env = made(task, observe)
    episode(env, 77, 3)
    shown = [digest_tree(env.restore(seed, snapshot))]
    return shown + [(digest_tree(obs), *rest) for obs, *rest in (env.step(drawn(env.spaces.action, k)) for k in range(30, 45))]


@pytest.fixture(scope="module")
def elsewhere():
    """A fresh process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield lambda *arguments: pool.submit(continued, *arguments).result(timeout=300)


def comes_back(elsewhere, task: str, observe: str = "proprio", ticks: int = 12) -> None:
    """Two episodes old, in the middle of the third."""
    env = made(task, observe)
    for seed in (8, 9):
        episode(env, seed, ticks)
    seen = env.reset(5)
    for tick in range(ticks):
        seen = env.step(drawn(env.spaces.action, tick))[0]
    shown, snapshot = [digest_tree(seen)], env.snapshot()
    shown += [(digest_tree(obs), *rest) for obs, *rest in (env.step(drawn(env.spaces.action, k)) for k in range(30, 45))]
    assert elsewhere(task, observe, 5, snapshot) == shown


@pytest.mark.parametrize("task", TASKS)
def test_a_state_comes_back_exactly_in_a_fresh_process(elsewhere, task):
    comes_back(elsewhere, task)


@pytest.mark.slow
@pytest.mark.parametrize("task", OTHERS)
def test_every_domain_comes_back_exactly_in_a_fresh_process(elsewhere, task):
    comes_back(elsewhere, task)


@pytest.mark.slow
@pictures
@pytest.mark.parametrize("task", ["walker_walk", "quadruped_escape", "reacher_hard"])
def test_pictures_come_back_exactly_in_a_fresh_process(elsewhere, task):
    comes_back(elsewhere, task, "both", ticks=4)


def keeps_nothing(task: str) -> None:
    """Nor does any task draw after its reset: what it draws from is no state."""
    env = made(task)
    env.reset(8)
    before = str(env.task.random.get_state())
    episode(env, 8, 12)
    assert str(env.task.random.get_state()) == before
    episode(env, 9, 12)
    assert episode(env, 3, 12) == episode(made(task), 3, 12)


@pytest.mark.parametrize("task", TASKS)
def test_no_model_keeps_anything_of_an_episode(task):
    keeps_nothing(task)


@pytest.mark.slow
@pytest.mark.parametrize("task", OTHERS)
def test_no_model_of_any_domain_keeps_anything_of_an_episode(task):
    keeps_nothing(task)


def test_a_snapshot_is_plain_data_and_no_view():
    def leaves(tree):
        return [leaf for value in tree.values() for leaf in leaves(value)] if isinstance(tree, dict) else [tree]

    env = made("finger_spin")
    env.reset(1)
    snapshot = env.snapshot()
    before = digest_tree(snapshot)
    assert {type(leaf) for leaf in leaves(snapshot)} <= {np.ndarray, int, float, str}
    env.step(np.ones(2, np.float32))
    assert digest_tree(snapshot) == before


# Without a library


def apart(code: str, **environment: str) -> str:
    """What a fresh interpreter prints; nothing may come from its exit."""
    plain = {name: value for name, value in os.environ.items() if name not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=plain | environment, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr
    return found.stdout + found.stderr


MAKE = """
from hieros_repro.records import CannotRender, UserError
from tests.env.test_dmc import made
env = made({task!r}, {observe!r})
env.reset(1)
env.step(env.spaces.action.high)
"""


@pytest.mark.parametrize(
    "environment", [{"MUJOCO_GL": "off"}, {"MUJOCO_GL": "egl", "__EGL_VENDOR_LIBRARY_FILENAMES": "/dev/null"}]
)
def test_vectors_need_no_opengl(environment):
    """This task looks for a picture at every reset. Where one is asked for, one sentence says what to do."""
    code = """
try:
    env.render()
except CannotRender as error:
    print(error)
try:
    made(observe="vision")
except UserError as error:
    print(error)
"""
    pictures, vision = apart(MAKE.format(task="quadruped_escape", observe="proprio") + code, **environment).splitlines()
    assert pictures.startswith("a picture needs OpenGL")
    assert vision.startswith("env.observe=vision needs OpenGL")
    assert "apt-get install libegl1 libgl1 libgl1-mesa-dri" in vision
    assert "env.observe=proprio" in vision


@pytest.mark.slow
@pictures
def test_nothing_is_printed_at_the_end_whether_closed_or_not():
    code = MAKE.format(task="cup_catch", observe="vision")
    assert apart(code) == ""
    assert apart(code + "env.close()") == ""


def test_a_camera_that_is_not_there_is_refused():
    with pytest.raises(UserError, match=r"env\.camera=7 is not there: walker_walk has the cameras 0 to 1"):
        made(camera=7)


# Checks


def faults(task: str) -> list[tuple[str, str]]:
    values = {"observe": "proprio", "size": 64, "camera": None, "action_repeat": 2, "length": None}
    return [tuple(fault) for fault in DMC.check(task=task, **values)]


def test_a_task_of_the_suite_has_no_fault():
    assert faults("walker_walk") == faults("cup_catch") == faults("ball_in_cup_catch") == faults("humanoid_CMU_run") == []


def test_an_unknown_task_is_named_with_the_nearest():
    [(key, problem)] = faults("walker_wlak")
    assert key == "task"
    assert problem.startswith("'walker_wlak' is no task of the DeepMind Control suite; nearest: walker_walk")


def test_a_missing_package_is_one_fault_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "dm_control", None)
    assert faults("walker_walk") == [("task", "'walker_walk' needs the extra [dmc]: pip install 'hieros-repro[dmc]'")]
