import numpy as np
import pytest

from hieros_repro.env.base import Env, Outcome
from hieros_repro.env.contract import EnvContract
from hieros_repro.env.vector import Vector
from hieros_repro.env.wrapper import OneHot, Repeat, Rescale, Resize, TimeLimit, wrapped
from hieros_repro.records import Space, Spaces, UserError
from tests.env.worlds import Remembered, Scripted

# The k-th action since the reset brings reward k; what is shown is (seed, ticks, sum of the last action).


class Still(Env):
    """Shows one image and a vector beside it; keeps the action it is given. Over at once, as it is told."""

    def __init__(self, image: np.ndarray, action: Space | None = None, over: tuple[bool, bool] = (False, False)):
        self.image, self.over = image, over
        observation = {"image": Space("image", image.shape), "place": Space("vector", (1,))}
        self.spaces = Spaces(observation, action or Space("discrete", (), sizes=(3,)))

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        return {"image": self.image, "place": np.array([seed], np.float32)}

    def step(self, action: np.ndarray | int) -> Outcome:
        self.given = action
        return {"image": self.image, "place": np.zeros(1, np.float32)}, 0.0, *self.over


def steps(env: Env, *actions) -> list[tuple[list[float], float, bool, bool]]:
    found = []
    for action in actions:
        obs, *rest = env.step(action)
        found.append((obs["vector"].tolist(), *rest))
    return found


# -- Repeat ------------------------------------------------------------------------------------------------------------


def test_an_action_is_repeated_and_its_rewards_add_up():
    env = Repeat(Scripted({}), 3)
    assert env.reset(7)["vector"].tolist() == [7, 0, -1]
    assert steps(env, 5, 2) == [([7, 3, 5], 1 + 2 + 3, False, False), ([7, 6, 2], 4 + 5 + 6, False, False)]


@pytest.mark.parametrize("terminal", [True, False])
def test_repeating_stops_where_the_episode_ends(terminal):
    env = Repeat(Scripted({7: (5, terminal)}), 3)
    env.reset(7)
    assert steps(env, 0, 0)[-1] == ([7, 5, 0], 4 + 5, terminal, not terminal)


def test_an_end_on_the_first_of_the_repeated_steps_is_seen():
    env = Repeat(Scripted({7: (4, True)}), 3)
    env.reset(7)
    assert steps(env, 0, 0)[-1] == ([7, 4, 0], 4, True, False)


# -- Pictures ----------------------------------------------------------------------------------------------------------


class Counted(Remembered):
    """A picture of how many ticks all environments have had."""

    def pictures(self, snapshots):
        return {"ticks": np.full((2, 2, 3), sum(snapshot["ticks"] for snapshot in snapshots), np.uint8)}


def test_wrappers_pass_pictures_on_and_a_time_limit_takes_its_own_part_off_the_snapshots():
    assert Scripted({}).pictures([]) == {}
    envs = [Repeat(TimeLimit(Counted({}), 5), 2) for _ in range(2)]
    for i, env in enumerate(envs):
        env.reset(7)
        steps(env, *range(i + 1))
    shown = envs[0].pictures([env.snapshot() for env in envs])
    assert list(shown) == ["ticks"] and (shown["ticks"] == 2 + 4).all()


# -- TimeLimit ---------------------------------------------------------------------------------------------------------


def test_a_time_limit_is_a_time_out():
    env = TimeLimit(Scripted({}), 2)
    env.reset(7)
    assert [step[2:] for step in steps(env, 0, 0)] == [(False, False), (False, True)]


def test_a_termination_in_the_last_step_that_is_left_is_no_time_out():
    env = TimeLimit(Scripted({7: (2, True)}), 2)
    env.reset(7)
    assert [step[2:] for step in steps(env, 0, 0)] == [(False, False), (True, False)]


def test_an_earlier_time_out_of_the_environment_stands():
    env = TimeLimit(Scripted({7: (2, False)}), 3)
    env.reset(7)
    assert [step[2:] for step in steps(env, 0, 0)] == [(False, False), (False, True)]


def test_every_episode_has_the_whole_time():
    env = TimeLimit(Scripted({}), 2)
    for _ in range(3):
        env.reset(7)
        assert [step[3] for step in steps(env, 0, 0)] == [False, True]


def test_the_time_that_is_left_comes_back_with_a_snapshot():
    env, other = TimeLimit(Remembered({}), 3), TimeLimit(Remembered({}), 3)
    env.reset(7)
    steps(env, 0, 0)
    other.reset(8)
    assert other.restore(7, env.snapshot())["vector"].tolist() == [7, 2, 0]
    assert steps(other, 0) == [([7, 3, 0], 3.0, False, True)]


def test_what_is_restored_by_its_actions_has_no_snapshot_under_a_time_limit_either():
    env = TimeLimit(Scripted({}), 3)
    env.reset(7)
    assert env.snapshot() is None and not env.restorable()
    assert TimeLimit(Remembered({}), 3).restorable()


# -- Resize ------------------------------------------------------------------------------------------------------------


def test_a_smaller_image_holds_the_means_of_areas():
    """The four means are 10, 25, 100 and 255 in the first channel, and their complements in the second."""
    first = np.array([[0, 20, 10, 40], [10, 10, 20, 30], [100, 100, 255, 255], [0, 200, 255, 255]])
    env = Resize(Still(np.stack([first, 255 - first], axis=-1).astype(np.uint8)), (2, 2))
    for obs in (env.reset(3), env.step(0)[0]):
        assert obs["image"][:, :, 0].tolist() == [[10, 25], [100, 255]]
        assert obs["image"][:, :, 1].tolist() == [[245, 230], [155, 0]]
        assert obs["image"].dtype == np.uint8
    assert env.reset(3)["place"].tolist() == [3.0]


def area_mean(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """By definition: every pixel is cut into as many equal parts as the new size has, and those are averaged."""
    height, width, channels = image.shape
    fine = image.astype(np.float64).repeat(size[0], axis=0).repeat(size[1], axis=1)
    return fine.reshape(size[0], height, size[1], width, channels).mean((1, 3))


@pytest.mark.parametrize("shape", [(10, 7, 3), (9, 9, 1), (21, 16, 4)])
@pytest.mark.parametrize("size", [(4, 3), (5, 7), (8, 2)])
def test_any_smaller_size_is_an_area_mean(shape, size):
    image = (np.arange(np.prod(shape)) * 97 % 256).astype(np.uint8).reshape(shape)
    found = Resize(Still(image), size).reset(0)["image"]
    assert found.shape == (*size, shape[2])
    assert np.abs(found - area_mean(image, size)).max() <= 0.5 + 1e-9


def test_a_larger_image_repeats_pixels():
    image = np.array([[[1], [2]], [[3], [4]]], np.uint8)
    assert Resize(Still(image), (4, 4)).reset(0)["image"][:, :, 0].tolist() == [[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2


def test_only_images_have_another_space():
    env = Resize(Still(np.zeros((8, 9, 3), np.uint8)), (4, 5))
    assert env.spaces.observation == {"image": Space("image", (4, 5, 3)), "place": Space("vector", (1,))}


def test_what_is_restored_is_resized_too():
    class Kept(Still):
        def snapshot(self):
            return {}

        def restore(self, seed, snapshot):
            return self.reset(seed)

    assert Resize(Kept(np.full((4, 4, 1), 9, np.uint8)), (2, 2)).restore(1, {})["image"].tolist() == [[[9], [9]]] * 2


# -- Rescale -----------------------------------------------------------------------------------------------------------

BOUNDS = Space("continuous", (4,), low=(-2.0, 0.0, -np.inf, 0.0), high=(2.0, 10.0, np.inf, np.inf))


@pytest.mark.parametrize(
    ("action", "given"),
    [
        ([0, 0, 0, 0], [0, 5, 0, 0]),
        ([1, 1, 1, 1], [2, 10, 1, 1]),
        ([-1, -1, -1, -1], [-2, 0, -1, -1]),
        ([0.5, 0.5, 0.5, 0.5], [1, 7.5, 0.5, 0.5]),
        ([3, -3, 30, -30], [2, 0, 30, -30]),
    ],
)
def test_actions_are_stretched_and_clipped_where_the_bounds_are_finite(action, given):
    inner = Still(np.zeros((2, 2, 1), np.uint8), BOUNDS)
    Rescale(inner).step(np.array(action, np.float32))
    assert inner.given.tolist() == given and inner.given.dtype == np.float32


def test_the_space_of_stretched_actions_says_what_is_taken():
    env = Rescale(Still(np.zeros((2, 2, 1), np.uint8), BOUNDS))
    assert env.spaces.action == Space("continuous", (4,), low=(-1.0, -1.0, -np.inf, -np.inf), high=(1.0, 1.0, np.inf, np.inf))


# -- OneHot ------------------------------------------------------------------------------------------------------------


def test_a_one_hot_action_is_the_index_of_its_one():
    env = OneHot(Scripted({}))
    assert env.spaces.action == Space("onehot", (9,), sizes=(9,))
    env.reset(0)
    assert [step[0][2] for step in steps(env, *np.eye(9, dtype=np.float32))] == list(range(9))


@pytest.mark.parametrize("action", [[0, 0, 0], [1, 1, 0], [0, 0.999, 0], [1, 1e-30, 0], [2, 0, 0], [1, -1, 0], [1, np.nan, 0]])
def test_an_action_that_is_not_exactly_one_hot_is_refused(action):
    env = OneHot(Still(np.zeros((2, 2, 1), np.uint8)))
    with pytest.raises(ValueError, match=r"the action \[.*\] is not one-hot"):
        env.step(np.array(action, np.float32))


# -- Together ----------------------------------------------------------------------------------------------------------


def kinds(env: Env) -> list[type]:
    found = []
    while hasattr(env, "env"):
        found.append(type(env))
        env = env.env
    return found


def test_nothing_that_is_not_asked_for_wraps():
    inner = Scripted({})
    assert wrapped(inner) is inner
    assert wrapped(inner, action_repeat=1, length=None, resize=None, rescale_actions=False, one_hot=False) is inner


def test_the_wrappers_lie_in_a_fixed_order():
    most = {"action_repeat": 2, "length": 5, "resize": [2, 2]}
    image = np.zeros((4, 4, 1), np.uint8)
    assert kinds(wrapped(Still(image), **most, one_hot=True)) == [OneHot, Resize, TimeLimit, Repeat]
    assert kinds(wrapped(Still(image, BOUNDS), **most, rescale_actions=True)) == [Rescale, Resize, TimeLimit, Repeat]


SEVERAL = Space("multidiscrete", (2,), sizes=(2, 2))


@pytest.mark.parametrize(
    ("inner", "asked", "message"),
    [
        (Still(np.zeros((4, 4, 1), np.uint8)), {"rescale_actions": True}, r"env\.rescale_actions: the actions are discrete"),
        (Still(np.zeros((4, 4, 1), np.uint8), SEVERAL), {"rescale_actions": True}, r"env\.rescale_actions: .* multidiscrete"),
        (Still(np.zeros((4, 4, 1), np.uint8), SEVERAL), {"one_hot": True}, r"env\.one_hot: the actions are multidiscrete"),
        (Still(np.zeros((4, 4, 1), np.uint8), BOUNDS), {"one_hot": True}, r"env\.one_hot: the actions are continuous"),
        (Scripted({}), {"resize": [2, 2]}, r"env\.resize: there is no image to resize"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrapper_that_does_not_apply_is_refused_by_its_key(inner, asked, message):
    with pytest.raises(UserError, match=f"^{message}"):
        wrapped(inner, **asked)


def test_a_time_limit_counts_steps_and_not_repetitions():
    env = wrapped(Scripted({}), action_repeat=3, length=2)
    env.reset(7)
    assert steps(env, 0, 0) == [([7, 3, 0], 6.0, False, False), ([7, 6, 0], 15.0, False, True)]


def test_a_wrapped_environment_gives_account_and_comes_back_like_the_one_inside():
    def vector() -> Vector:
        make = lambda: wrapped(Remembered({}), action_repeat=2, length=3)  # noqa: E731
        return Vector(make, lambda i, n: 10 * i + n, num_envs=2, processes=0, worker_timeout=1.0)

    one, other = vector(), vector()
    one.reset()
    one.step(np.array([0, 0]))
    one.step(np.array([0, 0]))
    other.load(one.state())
    assert one.batch.remembers and one.state()["actions"][0].size == 0
    for envs in (one, other):
        row = envs.step(np.array([0, 0]))
        assert row.obs["vector"].tolist() == [[0, 6, 0], [10, 6, 0]] and row.is_last.all() and not row.is_terminal.any()
        assert [(e.length, e.score, e.account) for e in envs.take_finished()] == [
            (3, 21.0, {"tens": 0, "seed": 0}),
            (3, 21.0, {"tens": 0, "seed": 10}),
        ]


class TestRepeated(EnvContract):
    draws_pictures = False

    def make(self) -> Env:
        return wrapped(Scripted({10: (5, True), 11: (7, False)}), action_repeat=2, length=11)


class TestRepeatedAndRemembered(EnvContract):
    draws_pictures = False
    accounts = ("tens", "seed")

    def make(self) -> Env:
        return wrapped(Remembered({10: (5, True), 11: (7, False)}), action_repeat=2, length=11)


class TestRescaled(EnvContract):
    draws_pictures = False

    def make(self) -> Env:
        return wrapped(Scripted({10: (5, True)}, "continuous"), rescale_actions=True, length=20)


class TestOneHot(EnvContract):
    draws_pictures = False

    def make(self) -> Env:
        return wrapped(Scripted({10: (5, True)}), one_hot=True, length=20)
