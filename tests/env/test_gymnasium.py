import gymnasium
import numpy as np
import pytest

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.env import gymnasium as module
from hieros_repro.env.base import Env
from hieros_repro.env.gymnasium import Gymnasium
from hieros_repro.env.vector import Vector
from hieros_repro.records import CannotRender, Space
from tests.env import worlds


def made(id: str, length: int | None = None, **kwargs) -> Gymnasium:
    return Gymnasium(id=id, kwargs=kwargs, length=length)


def drawn(space: Space, tick: int, seed: int = 0) -> np.ndarray | int:
    key = Key(seed)("act", tick)
    if space.kind == "continuous":
        low, high = (np.array(bound, np.float32).reshape(space.shape) for bound in (space.low, space.high))
        return (low + key.uniform(space.shape) * (high - low)).astype(np.float32)
    action = np.floor(key.uniform(space.shape) * np.array(space.sizes).reshape(space.shape)).astype(np.int64)
    return int(action) if space.kind == "discrete" else action


def episode(env: Env, seed: int, ticks: int = 60) -> list[tuple[str, float, bool, bool]]:
    """What an environment shows, up to its end, given actions that depend on the tick alone."""
    shown = [(digest_tree(env.reset(seed)), 0.0, False, False)]
    for tick in range(ticks):
        obs, reward, terminated, truncated = env.step(drawn(env.spaces.action, tick))
        shown.append((digest_tree(obs), reward, terminated, truncated))
        if terminated or truncated:
            break
    return shown


class EnvContract:
    """What every environment promises; to be inherited."""

    length = 60  # ticks until an episode may be given up
    depends_on_seed = True

    def make(self) -> Env:
        raise AssertionError("say how the environment is made")

    def test_the_same_seed_gives_the_same_episode(self):
        assert episode(self.make(), 3, self.length) == episode(self.make(), 3, self.length)

    def test_nothing_survives_an_episode(self):
        env = self.make()
        episode(env, 8, self.length)
        assert episode(env, 3, self.length) == episode(self.make(), 3, self.length)

    def test_an_episode_given_up_leaves_nothing(self):
        env = self.make()
        episode(env, 8, ticks=2)
        assert episode(env, 3, self.length) == episode(self.make(), 3, self.length)

    def test_another_seed_gives_another_episode(self):
        episodes = [episode(self.make(), seed, self.length) for seed in range(4)]
        assert any(other != episodes[0] for other in episodes[1:]) == self.depends_on_seed

    def test_what_is_shown_is_what_the_spaces_say(self):
        env = self.make()
        rows = [env.reset(1), *(env.step(drawn(env.spaces.action, tick))[0] for tick in range(3))]
        for obs in rows:
            assert list(obs) == list(env.spaces.observation)
            assert {name: value.shape for name, value in obs.items()} == {
                name: space.shape for name, space in env.spaces.observation.items()
            }

    def test_in_a_vector_observations_have_the_types_their_spaces_say(self):
        env = self.make()
        vector = Vector(self.make, lambda i, n: 7, num_envs=1)
        row, alone = vector.reset(), env.reset(7)
        assert {n: v.dtype for n, v in row.obs.items()} == {n: s.dtype for n, s in env.spaces.observation.items()}
        assert all(np.allclose(row.obs[name][0], value) for name, value in alone.items())
        vector.close()

    def test_rewards_are_numbers_and_flags_are_booleans(self):
        env = self.make()
        env.reset(1)
        _, reward, terminated, truncated = env.step(drawn(env.spaces.action, 0))
        assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)

    def test_spaces_survive_plain_data(self):
        spaces = self.make().spaces
        assert type(spaces).from_plain(spaces.plain()) == spaces

    def test_a_vector_of_it_is_restored_in_the_middle_of_an_episode(self):
        def vector() -> Vector:
            return Vector(self.make, lambda i, n: 10 * i + n, num_envs=2)

        def rows(envs: Vector, ticks: range) -> list[str]:
            actions = (np.stack([drawn(envs.spaces.action, tick, i) for i in range(2)]) for tick in ticks)
            return [digest_tree(envs.step(action)._asdict()) for action in actions]

        first, second = vector(), vector()
        first.reset()
        rows(first, range(9))
        second.load(first.state())
        first.take_finished()
        assert rows(first, range(9, 30)) == rows(second, range(9, 30))
        assert first.take_finished() == second.take_finished()


class TestCartPole(EnvContract):
    def make(self) -> Env:
        return made("CartPole-v1")


class TestPendulum(EnvContract):
    def make(self) -> Env:
        return made("Pendulum-v1")


class TestAcrobot(EnvContract):
    def make(self) -> Env:
        return made("Acrobot-v1")


class TestFrozenLake(EnvContract):
    length = 200

    def make(self) -> Env:
        return made("FrozenLake-v1")


class TestPicture(EnvContract):
    def make(self) -> Env:
        return made("Picture-v0")


class TestMixed(EnvContract):
    def make(self) -> Env:
        return made("Mixed-v0")


class TestScripted(EnvContract):
    def make(self) -> Env:
        return worlds.Scripted({10: (5, True), 11: (7, False)})


class TestScriptedContinuous(EnvContract):
    def make(self) -> Env:
        return worlds.Scripted({10: (5, True), 11: (7, False)}, "continuous")


@pytest.mark.parametrize(
    ("id", "observation", "action"),
    [
        ("CartPole-v1", {"vector": Space("vector", (4,))}, Space("discrete", (), sizes=(2,))),
        ("Pendulum-v1", {"vector": Space("vector", (3,))}, Space("continuous", (1,), low=(-2.0,), high=(2.0,))),
        ("FrozenLake-v1", {"vector": Space("vector", (16,))}, Space("discrete", (), sizes=(4,))),
        ("Picture-v0", {"image": Space("image", (8, 9, 3))}, Space("discrete", (), sizes=(3,))),
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
    [(_, problem)] = faults("Zzzzqqqqxxxx-v9")
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


@pytest.mark.parametrize(("space", "name"), [("observation", "Text"), ("action", "Dict")])
def test_a_space_that_cannot_be_read_is_refused_by_its_type(space, name):
    odd = {"Text": gymnasium.spaces.Text(5), "Dict": gymnasium.spaces.Dict({"a": gymnasium.spaces.Discrete(2)})}[name]
    read = {"observation": module._observation, "action": module._action}[space]
    with pytest.raises(ValueError, match=f"type {name} are not supported"):
        read(odd)
