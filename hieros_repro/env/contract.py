"""What every environment promises, as tests to inherit: those here do, and a user's own can.

class TestMine(EnvContract):
    def make(self) -> Env:
        return Mine(length=8)
"""

import random
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.env.base import Env
from hieros_repro.env.vector import Vector
from hieros_repro.records import CannotRender, Episode, Space, Step

Shown = tuple[str, float, bool, bool]


def drawn(space: Space, tick: int, seed: int = 0) -> np.ndarray | int:
    """An action that depends on the tick and the seed alone."""
    action = space.draw(Key(seed)("act", tick).uniform((1, *space.shape)))[0]
    return int(action) if space.kind == "discrete" else action


def episode(env: Env, seed: int, ticks: int = 60) -> list[Shown]:
    """What an environment shows, up to its end, given actions that depend on the tick alone."""
    shown = [(digest_tree(env.reset(seed)), 0.0, False, False)]
    for tick in range(ticks):
        obs, reward, terminated, truncated = env.step(drawn(env.spaces.action, tick))
        shown.append((digest_tree(obs), reward, terminated, truncated))
        if terminated or truncated:
            break
    return shown


def vector_of(make: Callable[[], Env], num_envs: int, processes: int = 0) -> Vector:
    """Environment i's n-th episode has seed 10 i + n."""
    return Vector(make, lambda i, n: 10 * i + n, num_envs=num_envs, processes=processes, worker_timeout=60.0)


def rows(envs: Vector, ticks: range) -> list[str]:
    """The digests of the rows that a vector shows, environment i's actions drawn with seed i."""
    actions = (np.stack([drawn(envs.spaces.action, tick, i) for i in range(envs.num_envs)]) for tick in ticks)
    return [digest_tree(envs.step(action)._asdict()) for action in actions]


def alone(env: Env, i: int, ticks: int) -> list[tuple[dict[str, np.ndarray], float, bool, bool, bool]]:
    """What environment i of vector_of(...) must show, by the rules of records.Step written out for one environment."""
    found, number, over = [(env.reset(10 * i), 0.0, True, False, False)], 0, False
    for tick in range(ticks):
        if over:
            number, over = number + 1, False
            found.append((env.reset(10 * i + number), 0.0, True, False, False))
            continue
        obs, reward, terminated, truncated = env.step(drawn(env.spaces.action, tick, i))
        over = terminated or truncated
        found.append((obs, reward, False, over, terminated))
        found[-1] = ({name: np.array(value) for name, value in obs.items()}, *found[-1][1:])
    return found


class EnvContract:
    """Inherit, and say how the environment is made: with a short episode if it can be, so that some end in the tests."""

    length = 60  # ticks until an episode may be given up
    depends_on_seed = True
    draws_pictures = True
    accounts: ClassVar[tuple[str, ...]] = ()  # what account() tells

    def make(self) -> Env:
        raise AssertionError("say how the environment is made")

    def make_with_pictures(self) -> Env:
        """Where that is made otherwise."""
        return self.make()

    # -- One -----------------------------------------------------------------------------------------------------------

    def test_the_same_seed_gives_the_same_episode(self) -> None:
        assert episode(self.make(), 3, self.length) == episode(self.make(), 3, self.length)

    def test_nothing_survives_an_episode(self) -> None:
        env = self.make()
        episode(env, 8, self.length)
        assert episode(env, 3, self.length) == episode(self.make(), 3, self.length)

    def test_an_episode_given_up_leaves_nothing(self) -> None:
        env = self.make()
        episode(env, 8, ticks=2)
        assert episode(env, 3, self.length) == episode(self.make(), 3, self.length)

    def test_two_stepped_in_turn_do_not_disturb_each_other(self) -> None:
        one, other = self.make(), self.make()
        expected = episode(self.make(), 3, 12)
        shown = [(digest_tree(one.reset(3)), 0.0, False, False)]
        other.reset(4)
        for tick in range(len(expected) - 1):
            obs, reward, terminated, truncated = one.step(drawn(one.spaces.action, tick))
            shown.append((digest_tree(obs), reward, terminated, truncated))
            if other.step(drawn(other.spaces.action, tick, 1))[2:] != (False, False):
                other.reset(5)
        assert shown == expected

    def test_another_seed_gives_another_episode(self) -> None:
        episodes = [episode(self.make(), seed, self.length) for seed in range(4)]
        assert any(other != episodes[0] for other in episodes[1:]) == self.depends_on_seed

    def test_it_draws_nothing_from_the_global_generators(self) -> None:
        def states() -> tuple:
            return random.getstate(), str(np.random.get_state())

        env = self.make()
        episode(env, 3, 5)  # what is imported or compiled late may draw once
        before = states()
        episode(env, 4, self.length)
        assert states() == before

    def test_what_is_shown_is_what_the_spaces_say(self) -> None:
        env = self.make()
        seen = [env.reset(1), *(env.step(drawn(env.spaces.action, tick))[0] for tick in range(3))]
        for obs in seen:
            assert list(obs) == list(env.spaces.observation)
            types = {name: (np.asarray(value).dtype, env.spaces.observation[name].dtype) for name, value in obs.items()}
            assert [name for name, (shown, said) in types.items() if not np.can_cast(shown, said, "same_kind")] == []
            assert {name: value.shape for name, value in obs.items()} == {
                name: space.shape for name, space in env.spaces.observation.items()
            }

    def test_rewards_are_numbers_and_flags_are_booleans(self) -> None:
        env = self.make()
        env.reset(1)
        _, reward, terminated, truncated = env.step(drawn(env.spaces.action, 0))
        assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)

    def test_spaces_survive_plain_data(self) -> None:
        spaces = self.make().spaces
        assert type(spaces).from_plain(spaces.plain()) == spaces

    def test_a_picture_is_a_picture(self) -> None:
        env = self.make_with_pictures()
        env.reset(1)
        try:
            picture = env.render()
        except CannotRender:
            assert not self.draws_pictures
            return
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and np.ptp(picture) > 0

    def test_an_account_is_numbers_by_name(self) -> None:
        env = self.make()
        episode(env, 3, self.length)
        account = env.account()
        assert set(account) == set(self.accounts)
        assert set(account) <= set(env.meanings), "every number of an account has its meaning in one line"
        assert all(type(value) in (int, float) for value in account.values())

    # -- A vector ------------------------------------------------------------------------------------------------------

    def test_a_vector_shows_what_its_environments_show_alone(self) -> None:
        ticks, envs = self.length + 10, vector_of(self.make, 3)
        seen: list[Step] = [envs.reset()]
        seen += [
            envs.step(np.stack([drawn(envs.spaces.action, tick, i) for i in range(3)])) for tick in range(ticks)
        ]  # fmt: skip
        finished = envs.take_finished()
        for i in range(3):
            lengths, scores, length, score = [], [], 0, 0.0
            for row, (obs, reward, is_first, is_last, is_terminal) in zip(seen, alone(self.make(), i, ticks), strict=True):
                for name, value in obs.items():
                    assert row.obs[name].dtype == envs.spaces.observation[name].dtype
                    assert np.array_equal(row.obs[name][i], np.asarray(value, row.obs[name].dtype))
                assert row.reward[i] == np.float32(reward)
                assert (row.is_first[i], row.is_last[i], row.is_terminal[i]) == (is_first, is_last, is_terminal)
                length, score = (0, 0.0) if is_first else (length + 1, score + reward)
                if is_last:
                    lengths.append(length)
                    scores.append(score)
            assert [(e.length, e.score) for e in finished if e.env == i] == list(zip(lengths, scores, strict=True))

    def test_a_vector_of_it_is_restored_in_the_middle_of_an_episode(self) -> None:
        first, second = vector_of(self.make, 2), vector_of(self.make, 2)
        first.reset()
        rows(first, range(9))
        second.load(first.state())
        first.take_finished()
        assert rows(first, range(9, 30)) == rows(second, range(9, 30))
        assert first.take_finished() == second.take_finished()

    def test_an_old_vector_is_restored_into_one_that_has_done_something_else(self) -> None:
        """Two episodes old, so that what survives an episode would be seen."""
        first, second = vector_of(self.make, 2), vector_of(self.make, 2)
        for envs, ticks in ((first, self.length), (second, 7)):
            for start in (0, 1000):
                envs.reset()
                rows(envs, range(start, start + ticks))
        rows(first, range(2000, 2005))
        state = first.state()
        again: list[tuple[list[str], list[Episode]]] = []
        for envs in (first, second):
            envs.load(state)
            again.append((rows(envs, range(3000, 3025)), envs.take_finished()))
        assert again[0] == again[1]
