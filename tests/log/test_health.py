import pytest

from hieros_repro.log.health import Health
from hieros_repro.records import Hint

GOAL = Hint("Subactor-0/goal_reward", "goals are not reached", low=0.23)
ENTROPY = Hint("entropy", "at an end of its range", low=0.1, high=0.98)
KL = Hint("kl", "collapsed", low=0.1, per="weight")
IMAGE = Hint("image_loss", "it does not learn to see", falls=0.9)


def lasting(hints, **metrics):
    """What is said of metrics that two rows agree on."""
    health = Health(hints)
    assert health.see(row(501, **metrics)) == []
    return health.see(row(502, **metrics))


def row(updates=501, **metrics):
    return {"step": 8 * updates, "updates": updates, **metrics}


def test_a_metric_that_leaves_its_band_is_named_with_its_value_and_what_it_means():
    [line] = lasting([GOAL], **{GOAL.metric: 0.2})
    assert line == "look at Subactor-0/goal_reward = 0.2, below 0.23: goals are not reached"


@pytest.mark.parametrize("value, wrong", [(0.05, "below 0.1"), (0.1, None), (0.5, None), (0.98, None), (0.99, "above 0.98")])
def test_both_ends_of_a_band_count_and_belong_to_it(value, wrong):
    found = lasting([ENTROPY], entropy=value)
    assert [wrong in line for line in found] == ([True] if wrong else [])


def test_nothing_is_judged_before_it_has_settled():
    health = Health([ENTROPY])
    assert [len(health.see(row(updates, entropy=0.0))) for updates in (400, 499, 500, 501, 502)] == [0, 0, 0, 0, 1]


def test_it_is_said_once_and_again_only_after_it_was_well():
    health = Health([ENTROPY])
    said = [len(health.see(row(500 + i, entropy=value))) for i, value in enumerate([0.5, 0.0, 0.0, 0.05, 0.5, 0.0, 0.0], 1)]
    assert said == [0, 0, 1, 0, 0, 0, 1]


def test_what_is_wrong_in_a_single_row_is_not_said():
    health = Health([ENTROPY])
    assert [health.see(row(500 + i, entropy=value)) for i, value in enumerate([0.0, 0.5, 1.0, 0.5], 1)] == [[]] * 4


def test_a_metric_may_be_taken_relative_to_another():
    [line] = lasting([KL], kl=0.0004, weight=0.005)
    assert line == "look at kl / weight = 0.08, below 0.1: collapsed"
    assert lasting([KL], kl=0.0006, weight=0.005) == []
    for unknown in ({"kl": 0.01}, {"weight": 0.5}, {"kl": 0.01, "weight": 0.0}):
        assert lasting([KL], **unknown) == []


@pytest.mark.parametrize("value, count", [(91.0, 1), (90.0, 0), (10.0, 0), (200.0, 1)])
def test_what_is_to_fall_is_compared_with_what_it_first_was(value, count):
    health = Health([IMAGE])
    assert health.see(row(10, image_loss=100.0)) == [] == health.see(row(400, image_loss=95.0))
    found = health.see(row(600, image_loss=value)) + health.see(row(601, image_loss=value))
    assert len(found) == count and all(", at first 100: it does not learn to see" in line for line in found)


@pytest.mark.parametrize("value, said", [(95.0, True), (80.0, False)])
def test_what_was_first_seen_late_is_compared_with_that(value, said):
    health = Health([IMAGE])
    assert health.see(row(900, image_loss=100.0)) == []
    found = health.see(row(1400, image_loss=value)) + health.see(row(1500, image_loss=value))
    assert ["at first 100:" in line for line in found] == [True] * said


def test_it_is_given_time_to_fall():
    health = Health([IMAGE])
    said = [len(health.see(row(updates, image_loss=100.0))) for updates in (900, 1000, 1399, 1400, 1401)]
    assert said == [0, 0, 0, 0, 1]


def test_the_first_value_stays_whatever_comes_before_it_settles():
    health = Health([IMAGE])
    for updates, value in ((100, 100.0), (300, 50.0), (501, 85.0), (502, 85.0)):
        assert health.see(row(updates, image_loss=value)) == []


def test_rows_without_the_metric_or_of_evaluations_say_nothing():
    health = Health([ENTROPY, IMAGE])
    for _ in range(3):
        assert health.see(row(900)) == [] == health.see({"step": 9, "eval/score": 1.0, "entropy": 0.0})
