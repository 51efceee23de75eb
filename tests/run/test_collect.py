import numpy as np
import pytest

from hieros_repro.agent.chance import Chance
from hieros_repro.determinism.keys import Key
from hieros_repro.env.dummy import Dummy
from hieros_repro.env.gymnasium import Gymnasium
from hieros_repro.env.normalise import Normaliser
from hieros_repro.env.vector import Vector
from hieros_repro.hardware.device import Hardware
from hieros_repro.run.collect import collect
from hieros_repro.run.evaluation import NoiseFeed

LENGTHS = (3, 1, 5, 2, 4, 1, 2)  # of the episodes by number


def clock():
    """Lives seed + 1 steps."""
    return Gymnasium(id="tests.worlds:ClockTest-v0", kwargs={}, length=None)


def dummy():
    return Dummy(task="continuous", size=4, length=3, terminal=False)


def played(make, num_envs, episodes, scale=False):
    """Episode n is reset with LENGTHS[n] - 1, those that nobody asked for with 0."""
    number = lambda env, nth: env + num_envs * nth  # noqa: E731
    seeds = lambda env, nth: LENGTHS[number(env, nth)] - 1 if number(env, nth) < len(LENGTHS) else 0  # noqa: E731
    envs = Vector(make, seeds, num_envs=num_envs, processes=0, worker_timeout=60.0)
    agent = Chance(envs.spaces, Key(0), Hardware(device="cpu", precision="fp32", threads=1, compile=None, ranks=1), 1, hold=1)
    normaliser = Normaliser(
        envs.spaces, num_envs, normalise_observation=scale, normalise_reward=scale, normalise_discount=0.9, normalise_clip=1.0,
        clip_reward=0.5,
    )  # fmt: skip
    noise = NoiseFeed(Key(0)("data", "act"), agent, num_envs)
    try:
        yield from collect(agent, envs, normaliser, noise, episodes, greedy=False)
    finally:
        envs.close()


@pytest.mark.parametrize("num_envs", [1, 2, 3, 7])
def test_episodes_come_in_order_however_many_play_at_once(num_envs):
    """Short ones wait for the long ones before them, and none is asked for twice."""
    found = list(played(clock, num_envs, len(LENGTHS)))
    assert [number for number, _ in found] == list(range(len(LENGTHS)))
    assert [len(episode.reward) for _, episode in found] == list(LENGTHS)
    assert [episode.episode.length for _, episode in found] == list(LENGTHS)


def test_only_as_many_as_asked_for():
    assert [number for number, _ in played(clock, 2, 3)] == [0, 1, 2]


def test_row_t_holds_what_was_seen_at_t_and_done_there():
    """The dummy shows the steps since its reset, its seed, and its last action."""
    for number, episode in played(dummy, 2, 4):
        shown = episode.obs["vector"]
        assert shown[:, 0].tolist() == [0, 1, 2, 3] and set(shown[:, 1]) == {LENGTHS[number] - 1}
        assert np.array_equal(shown[1:, 2:], episode.action) and not shown[0, 2:].any()
        assert len(np.unique(episode.action)) == 18
        assert episode.reward.tolist() == [1, 1, 1] and not episode.terminal


def test_rows_are_as_shown_and_paid_though_the_agent_sees_them_normalised():
    [plain], [scaled] = (list(played(dummy, 1, 1, scale)) for scale in (False, True))
    assert np.array_equal(plain[1].obs["vector"], scaled[1].obs["vector"])
    assert scaled[1].reward.tolist() == [1, 1, 1]
