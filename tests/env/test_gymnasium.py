import gymnasium
import numpy as np
import pytest

from hieros_repro.env import gymnasium as module
from hieros_repro.env.base import Env
from hieros_repro.env.contract import EnvContract, episode
from hieros_repro.env.gymnasium import Gymnasium
from hieros_repro.records import CannotRender, Space, UserError
from tests.env import worlds


def made(id: str, length: int | None = None, render: bool = False, **kwargs) -> Gymnasium:
    return Gymnasium(render, id=id, kwargs=kwargs, length=length)


class TestCartPole(EnvContract):
    def make(self) -> Env:
        return made("CartPole-v1")

    def make_with_pictures(self) -> Env:
        return made("CartPole-v1", render=True)


class TestPendulum(EnvContract):
    def make(self) -> Env:
        return made("Pendulum-v1")

    def make_with_pictures(self) -> Env:
        return made("Pendulum-v1", render=True)


class TestAcrobot(EnvContract):
    def make(self) -> Env:
        return made("Acrobot-v1")

    def make_with_pictures(self) -> Env:
        return made("Acrobot-v1", render=True)


class TestFrozenLake(EnvContract):
    length = 200

    def make(self) -> Env:
        return made("FrozenLake-v1")

    def make_with_pictures(self) -> Env:
        return made("FrozenLake-v1", render=True)


class TestPicture(EnvContract):
    draws_pictures = False

    def make(self) -> Env:
        return made("Picture-v0")


class TestChannelsFirst(EnvContract):
    draws_pictures = False

    def make(self) -> Env:
        return made("Channels-v0")


class TestMixed(EnvContract):
    draws_pictures = False

    def make(self) -> Env:
        return made("Mixed-v0")


class TestScripted(EnvContract):
    draws_pictures = False

    def make(self) -> Env:
        return worlds.Scripted({10: (5, True), 11: (7, False)})


class TestScriptedContinuous(EnvContract):
    draws_pictures = False

    def make(self) -> Env:
        return worlds.Scripted({10: (5, True), 11: (7, False)}, "continuous")


@pytest.mark.parametrize(
    ("id", "observation", "action"),
    [
        ("CartPole-v1", {"vector": Space("vector", (4,))}, Space("discrete", (), sizes=(2,))),
        ("Pendulum-v1", {"vector": Space("vector", (3,))}, Space("continuous", (1,), low=(-2.0,), high=(2.0,))),
        ("FrozenLake-v1", {"vector": Space("vector", (16,))}, Space("discrete", (), sizes=(4,))),
        ("Picture-v0", {"image": Space("image", (8, 9, 3))}, Space("discrete", (), sizes=(3,))),
        ("Channels-v0", {"image": Space("image", (32, 32, 3))}, Space("discrete", (), sizes=(3,))),
        (
            "Mixed-v0",
            {
                "image": Space("image", (8, 8, 1)),
                "pose": Space("vector", (2,)),
                "cell": Space("vector", (4,)),
                "switches": Space("vector", (3,)),
                "pair": Space("vector", (5,)),
            },
            Space("multidiscrete", (2,), sizes=(2, 5)),
        ),
    ],
)
def test_spaces_are_those_of_the_environment(id, observation, action):
    spaces = made(id).spaces
    assert spaces.observation == observation
    assert spaces.action == action


def test_a_discrete_observation_is_one_hot():
    env = made("FrozenLake-v1", is_slippery=False)
    assert env.reset(0)["vector"].tolist() == [1.0] + [0.0] * 15
    assert env.step(2)[0]["vector"].tolist() == [0.0, 1.0] + [0.0] * 14


def test_a_discrete_observation_that_does_not_start_at_zero_is_one_hot():
    env = made("Mixed-v0")
    cells = {tuple(env.reset(seed)["cell"]) for seed in range(40)}
    assert cells == {tuple(row) for row in np.eye(4)}


def test_actions_that_do_not_start_at_zero_are_shifted():
    env = made("Picture-v0")
    env.reset(0)
    assert [env.step(action)[1] for action in (0, 1, 2)] == [5.0, 6.0, 7.0]


def test_a_time_limit_of_ones_own_is_a_time_out():
    shown = episode(made("Pendulum-v1", length=5), 0)
    assert len(shown) == 6
    assert shown[-1][2:] == (False, True)


def test_further_arguments_reach_the_environment():
    assert made("FrozenLake-v1", map_name="8x8").spaces.observation["vector"].shape == (64,)


def test_an_argument_that_the_environment_does_not_take_is_refused_by_its_key():
    with pytest.raises(
        UserError, match=r"^env\.kwargs=\{'is_slipery': False\}: FrozenLake-v1 was not made with them: .*is_slipery"
    ):
        made("FrozenLake-v1", is_slipery=False)


def test_a_picture_with_its_channels_first_is_shown_with_its_channels_last():
    env = made("Channels-v0")
    for show in (lambda: env.reset(3), lambda: env.step(2)[0]):
        image, inner = show()["image"], env.env.unwrapped.picture
        assert image.shape == (32, 32, 3) and inner.shape == (3, 32, 32)
        assert all(np.array_equal(image[:, :, channel], inner[channel]) for channel in range(3))


@pytest.mark.parametrize("shape", [(3, 4, 4), (32, 32, 3), (8, 9, 12), (4, 8, 3)])
def test_a_shape_that_may_have_its_channels_last_is_shown_as_it_is(shape):
    spaces, read = module._observation(gymnasium.spaces.Box(0, 255, shape, np.uint8))
    image = np.arange(np.prod(shape), dtype=np.int64).astype(np.uint8).reshape(shape)
    assert spaces == {"image": Space("image", shape)} and np.array_equal(read(image)["image"], image)


def test_an_environment_that_cannot_be_rendered_says_so():
    with pytest.raises(CannotRender, match="Scripted cannot be rendered"):
        worlds.Scripted({}).render()


# Checks


def faults(id: str) -> list[tuple[str, str]]:
    return [tuple(fault) for fault in Gymnasium.check(id=id, kwargs={}, length=None)]


def test_a_registered_id_has_no_fault():
    assert faults("CartPole-v1") == []


def test_an_unknown_id_is_named_with_the_nearest():
    [(key, problem)] = faults("CartPol-v1")
    assert key == "id"
    assert "'CartPol-v1' is not registered with Gymnasium; nearest: CartPole-v1" in problem


def test_an_id_like_no_other_has_no_nearest():
    [(_, problem)] = faults("Xxxxxxxxxxxxxxxxxxxx-v77")
    assert problem.endswith("nearest: none")


def test_a_missing_module_before_the_id_is_named():
    assert faults("surely_not_installed:Foo-v0") == [
        ("id", "'surely_not_installed:Foo-v0': the module 'surely_not_installed' is not installed")
    ]


def test_a_module_before_the_id_is_imported():
    assert faults("tests.env.worlds:Picture-v0") == []


def test_an_environment_whose_package_is_missing_is_named():
    [(key, problem)] = faults("Absent-v0")
    assert key == "id"
    assert "'Absent-v0' needs a package that is not installed" in problem
    assert "surely_not_installed" in problem


@pytest.mark.parametrize(
    ("read", "space", "message"),
    [
        (module._observation, gymnasium.spaces.Text(5), r"observations of Text\(1, 5, .*\) are not supported"),
        (module._observation, gymnasium.spaces.Dict({"say": gymnasium.spaces.Text(5)}), r"observations of Text\("),
        (
            module._action,
            gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)}),
            r"actions of Dict\('a': Discrete\(2\)\) are not supported",
        ),
        (
            module._action,
            gymnasium.spaces.Box(0, 9, (2,), np.int64),
            r"actions of Box\(0, 9, \(2,\), int64\) are not supported",
        ),
        (module._action, gymnasium.spaces.MultiDiscrete([[2, 3]]), r"actions of MultiDiscrete\(\[\[2 3\]\]\) are not"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_space_that_cannot_be_read_is_refused_and_shown(read, space, message):
    with pytest.raises(UserError, match=f"^{message}"):
        read(space)
