import copy

import numpy as np
import pytest

from hieros_repro.determinism.keys import Key
from hieros_repro.env.normalise import Moments, Normaliser
from hieros_repro.records import Space, Spaces, Step

SPACES = Spaces({"vector": Space("vector", (3,)), "image": Space("image", (2, 2, 1))}, Space("discrete", (), sizes=(2,)))
IMAGE = np.full((4, 2, 2, 1), 200, np.uint8)


def normaliser(
    observation: bool = False,
    reward: bool = False,
    discount: float = 0.5,
    clip: float = 10.0,
    envs: int = 4,
    clip_reward: float | None = None,
) -> Normaliser:
    return Normaliser(
        SPACES,
        envs,
        normalise_observation=observation,
        normalise_reward=reward,
        normalise_discount=discount,
        normalise_clip=clip,
        clip_reward=clip_reward,
    )


def step(tick: int) -> Step:
    vector = 3 + 2 * Key(0)("data", "vector", tick).normal((4, 3))
    reward = Key(0)("data", "reward", tick).normal((4,))
    nothing = np.zeros(4, bool)
    return Step({"vector": vector, "image": IMAGE}, reward, nothing, nothing, nothing)


@pytest.mark.parametrize("sizes", [(5,), (1, 1, 1), (3, 1, 40, 2)])
def test_merged_moments_are_those_of_all_data(sizes):
    data = 1e3 + Key(1)("data", "m").normal((sum(sizes), 2)).astype(np.float64)
    moments = Moments((2,))
    for start, size in zip(np.cumsum((0, *sizes)), sizes, strict=False):
        moments.update(data[start : start + size])
    assert np.allclose(moments.mean, data.mean(0), rtol=1e-12)
    assert np.allclose(moments.variance, data.var(0), rtol=1e-9)
    assert moments.count == sum(sizes)


def test_observations_are_normalised_by_everything_seen_so_far():
    wrapper = normaliser(observation=True)
    found = [wrapper(step(tick)) for tick in range(20)][-1].obs["vector"]
    seen = np.concatenate([step(tick).obs["vector"] for tick in range(20)]).astype(np.float64)
    assert np.allclose(found, (seen[-4:] - seen.mean(0)) / seen.std(0), atol=1e-5)
    assert found.dtype == np.float32


def test_images_are_left_alone():
    assert normaliser(observation=True)(step(0)).obs["image"] is IMAGE


def test_normalised_observations_are_clipped():
    wrapper = normaliser(observation=True, clip=0.5)
    for tick in range(5):
        found = wrapper(step(tick)).obs["vector"]
    assert np.abs(found).max() == 0.5


def test_the_row_that_came_in_is_not_changed():
    before = copy.deepcopy(step(0))
    row = step(0)
    normaliser(observation=True, reward=True)(row)
    assert np.array_equal(row.obs["vector"], before.obs["vector"])
    assert np.array_equal(row.reward, before.reward)


def rewards(values: list[float], first: list[bool]) -> Step:
    flags = np.zeros(len(values), bool)
    obs = {"vector": np.zeros((len(values), 3), np.float32), "image": IMAGE[:2]}
    return Step(obs, np.array(values, np.float32), np.array(first), flags, flags)


def test_rewards_are_divided_by_the_deviation_of_discounted_returns():
    # Discount 1/2. Returns of environment 0: 2, 1 + 1 = 2, then a first row, then 4.
    # Of environment 1: 6, 3 + 1 = 4, 2 + 0 = 2, 1 - 3 = -2.
    wrapper = normaliser(reward=True, envs=2)
    found = wrapper(rewards([0, 0], [True, True]))
    assert found.reward.tolist() == [0.0, 0.0]
    found = wrapper(rewards([2, 6], [False, False]))
    assert np.allclose(found.reward, np.array([2, 6]) / np.std([2, 6]))
    found = wrapper(rewards([1, 1], [False, False]))
    assert np.allclose(found.reward, np.array([1, 1]) / np.std([2, 6, 2, 4]))
    found = wrapper(rewards([0, 0], [True, False]))
    assert found.reward.tolist() == [0.0, 0.0]
    found = wrapper(rewards([4, -3], [False, False]))
    assert np.allclose(found.reward, np.array([4, -3]) / np.std([2, 6, 2, 4, 2, 4, -2]))
    assert found.reward.dtype == np.float32


def test_normalised_rewards_are_clipped():
    wrapper = normaliser(reward=True, clip=1.0, envs=2)
    assert wrapper(rewards([2, -6], [False, False])).reward.tolist() == pytest.approx([0.5, -1.0])


def test_a_normaliser_that_is_off_changes_nothing():
    row = step(0)
    found = normaliser()(row)
    assert found.obs["vector"] is row.obs["vector"]
    assert found.reward is row.reward


def test_frozen_statistics_are_used_and_not_updated():
    wrapper = normaliser(observation=True, reward=True)
    for tick in range(5):
        wrapper(step(tick))
    before = copy.deepcopy(wrapper.state())
    first, second = (wrapper(step(9), frozen=True) for _ in range(2))
    assert np.array_equal(first.obs["vector"], second.obs["vector"])
    assert not np.array_equal(first.obs["vector"], step(9).obs["vector"])
    assert str(wrapper.state()) == str(before)


def test_a_restored_normaliser_goes_on_equal():
    wrapper, other = normaliser(observation=True, reward=True), normaliser(observation=True, reward=True)
    for tick in range(5):
        wrapper(step(tick))
    state = wrapper.state()
    other.load(copy.deepcopy(state))
    for tick in range(5, 10):
        a, b = wrapper(step(tick)), other(step(tick))
        assert np.array_equal(a.obs["vector"], b.obs["vector"])
        assert np.array_equal(a.reward, b.reward)


def test_a_saved_state_does_not_change_with_later_rows():
    wrapper = normaliser(observation=True, reward=True)
    wrapper(step(0))
    state = wrapper.state()
    before = str(state)
    wrapper(step(1))
    assert str(state) == before


def test_rewards_are_clipped_whether_normalised_or_not():
    row = step(0)._replace(reward=np.array([3.0, -3.0, 0.5, 0.0], np.float32))
    assert normaliser(clip_reward=1.0)(row).reward.tolist() == [1.0, -1.0, 0.5, 0.0]
    assert np.abs(normaliser(reward=True, clip_reward=0.25)(row).reward).max() == 0.25
    assert row.reward[0] == 3.0
