import numpy as np
import pytest

from hieros_repro.log.tally import Tally
from hieros_repro.records import Episode


def filled():
    tally = Tally()
    tally.pay(np.float32([1, 2, 3]), 3)
    tally.pay(np.float32([0, 4, 0]), 2)  # one environment was reset
    tally.ended([Episode(0, 10, 3.0), Episode(2, 20, 4.5)])
    return tally


def test_a_row_has_the_mean_reward_per_transition_and_the_episodes():
    expected = {"train/reward": 10 / 5, "episode/score": 3.75, "episode/length": 15.0, "episode/count": 2}
    assert filled().row() == pytest.approx(expected)


def test_what_was_counted_is_forgotten():
    tally = filled()
    tally.row()
    assert tally.row() == {}
    tally.pay(np.float32([7]), 1)
    assert tally.row() == {"train/reward": 7.0}


def test_many_small_rewards_are_summed_in_double_precision():
    tally = Tally()
    for _ in range(10_000):
        tally.pay(np.float32([0.1]), 1)
    assert tally.row()["train/reward"] == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_it_survives_a_checkpoint_and_the_saved_state_does_not_move_on():
    tally, other = filled(), Tally()
    other.load(tally.state())
    tally.ended([Episode(1, 1, 1.0)])
    assert other.row() == filled().row()
