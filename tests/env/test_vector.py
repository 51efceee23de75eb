import copy

import numpy as np
import pytest

from hieros_repro.build import training_seeds
from hieros_repro.determinism.keys import Key
from hieros_repro.env.vector import Vector
from hieros_repro.records import Episode
from tests.env.worlds import Foreign, Scripted

# Environment i's n-th episode has seed 10 i + n. Environment 0's first episode is over (terminal) after 2 steps, environment
# 1's first by a time-out after 3.
ENDS = {0: (2, True), 10: (3, False)}


def seeds(env: int, episode: int) -> int:
    return 10 * env + episode


def vector(kind: str = "discrete", count: int = 2, ends: dict = ENDS) -> Vector:
    return Vector(lambda: Scripted(ends, kind), seeds, num_envs=count, processes=0, worker_timeout=60.0)


def table(rows: list) -> list[dict]:
    return [
        {
            "obs": row.obs["vector"].tolist(),
            "reward": row.reward.tolist(),
            "first": row.is_first.tolist(),
            "last": row.is_last.tolist(),
            "terminal": row.is_terminal.tolist(),
        }
        for row in rows
    ]


def row(obs: list, reward: list, first: str = "..", last: str = "..", terminal: str = "..") -> dict:
    flags = {"first": first, "last": last, "terminal": terminal}
    return {"obs": obs, "reward": reward} | {name: [mark == "x" for mark in marks] for name, marks in flags.items()}


def test_episodes_and_resets_are_as_written_by_hand():
    envs = vector()
    rows = [envs.reset(), *(envs.step(np.array([a, 8])) for a in (1, 2, 3, 4, 5))]
    assert table(rows) == [
        row([[0, 0, -1], [10, 0, -1]], [0, 0], first="xx"),
        row([[0, 1, 1], [10, 1, 8]], [1, 1]),
        row([[0, 2, 2], [10, 2, 8]], [2, 2], last="x.", terminal="x."),
        row([[1, 0, -1], [10, 3, 8]], [0, 3], first="x.", last=".x"),  # action 3 is ignored; a time-out is not terminal
        row([[1, 1, 4], [11, 0, -1]], [1, 0], first=".x"),
        row([[1, 2, 5], [11, 1, 8]], [2, 1]),
    ]


def test_finished_episodes_are_handed_over_once_with_length_and_score():
    envs = vector()
    envs.reset()
    for _ in range(3):
        envs.step(np.array([0, 0]))
    assert envs.take_finished() == [Episode(0, 2, 3.0), Episode(1, 3, 6.0)]
    assert envs.take_finished() == []


def test_a_row_is_never_written_to_again():
    envs = vector()
    rows = [envs.reset()]
    before = copy.deepcopy(table(rows))
    for action in range(6):
        rows.append(envs.step(np.array([action, action])))
        before += copy.deepcopy(table(rows[-1:]))
    assert table(rows) == before


def test_stepping_comes_after_resetting():
    with pytest.raises(AssertionError, match=r"reset\(\) comes first"):
        vector().step(np.array([0, 0]))


def test_the_first_seeds_are_offset_by_the_environment():
    found = training_seeds(Key(42), 42, "offset")
    assert [found(env, 0) for env in range(4)] == [42, 43, 44, 45]
    assert found(2, 1) == Key(42)("env", 2, 1).seed()


def test_keyed_seeds_share_nothing_with_neighbouring_runs():
    found = {training_seeds(Key(seed), seed, "keyed")(env, 0) for seed in (42, 43, 44) for env in range(8)}
    assert len(found) == 24


# State


@pytest.mark.parametrize("kind", ["discrete", "multidiscrete", "continuous"])
@pytest.mark.parametrize("ticks", range(6))
def test_a_restored_vector_goes_on_as_if_nothing_had_happened(kind, ticks):
    """At every tick around the ends of the two first episodes."""

    def action(tick: int) -> np.ndarray:
        return np.array([tick % 9, 8]) if kind == "discrete" else np.full((2, 2), tick % 9, envs.spaces.action.dtype)

    envs, other = vector(kind), vector(kind)
    envs.reset()
    for tick in range(ticks):
        envs.step(action(tick))
    now = other.load(copy.deepcopy(envs.state()))
    assert table([now]) == table([envs.now])
    envs.take_finished()
    for tick in range(ticks, ticks + 8):
        assert table([envs.step(action(tick))]) == table([other.step(action(tick))])
    assert envs.take_finished() == other.take_finished()


def test_restoring_forgets_what_the_vector_had_done_since():
    envs = vector()
    envs.reset()
    envs.step(np.array([1, 1]))
    state = copy.deepcopy(envs.state())
    for _ in range(7):
        envs.step(np.array([5, 5]))
    envs.load(state)
    assert envs.take_finished() == []
    assert table([envs.step(np.array([2, 8]))]) == [row([[0, 2, 2], [10, 2, 8]], [2, 2], last="x.", terminal="x.")]


def test_a_restored_vector_can_be_saved_again():
    envs, other = vector(), vector()
    envs.reset()
    envs.step(np.array([3, 4]))
    other.load(envs.state())
    again = other.state()
    assert {name: str(value) for name, value in again.items()} == {name: str(value) for name, value in envs.state().items()}


def test_an_environment_that_is_no_function_of_its_seed_is_refused():
    envs, other = (Vector(lambda: Foreign({}), seeds, num_envs=2, processes=0, worker_timeout=60.0) for _ in range(2))
    envs.reset()
    envs.step(np.array([1, 1]))
    state = envs.state()
    with pytest.raises(
        ValueError, match=f"did not come back.*the checkpoint has {state['digest']}.*not a function of its seed"
    ):
        other.load(state)


def test_another_number_of_environments_is_refused():
    envs = vector()
    envs.reset()
    with pytest.raises(ValueError, match="holds 2 environments, this run has 3"):
        vector(count=3).load(envs.state())
