import copy

import numpy as np
import pytest

from hieros_repro.build import training_seeds
from hieros_repro.determinism.keys import Key
from hieros_repro.env.vector import Vector
from hieros_repro.records import Episode, Failed
from tests.env.worlds import Foreign, Remembered, Scripted, Unsaved

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


# What environments may not do


class Telling(Scripted):
    """Tells what it is told to tell, and pays so."""

    def __init__(self, account: dict[str, float], paid: dict[tuple[int, int], float]):
        super().__init__(ENDS)
        self.told, self.paid = account, paid

    def step(self, action):
        obs, reward, *over = super().step(action)
        return obs, self.paid.get((self.seed, self.ticks), reward), *over

    def account(self):
        return self.told


def telling(account: dict[str, float], paid: dict[tuple[int, int], float]) -> Vector:
    envs = Vector(lambda: Telling(account, paid), seeds, num_envs=2, processes=0, worker_timeout=60.0)
    envs.reset()
    return envs


def test_an_account_may_not_tell_what_the_run_itself_measures():
    envs = telling({"return": 1.0, "length": 2, "keys": 3}, {})
    envs.step(np.array([0, 0]))
    with pytest.raises(ValueError, match=r"account\(\) of environment 0 tells length, return, which the run itself measures"):
        envs.step(np.array([0, 0]))


@pytest.mark.parametrize("name", ["step", "env", "length", "return", "count", "episodes", "human_normalised", "score_std"])
def test_the_names_of_a_row_of_episodes_and_of_its_summary_are_taken(name):
    envs = telling({name: 1.0}, {})
    envs.step(np.array([0, 0]))
    with pytest.raises(ValueError, match=f"tells {name}, which"):
        envs.step(np.array([0, 0]))


def test_other_names_are_free():
    envs = telling({"steps": 1.0, "lengths": 2}, {})
    for _ in range(2):
        envs.step(np.array([0, 0]))
    assert envs.take_finished() == [Episode(0, 2, 3.0, {"steps": 1.0, "lengths": 2})]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_reward_that_is_no_number_ends_the_run_and_is_named(value):
    envs = telling({}, {(10, 2): value})
    envs.step(np.array([0, 0]))
    with pytest.raises(Failed, match=rf"^environment 1 paid {value} in step 2 of its episode$"):
        envs.step(np.array([0, 0]))


@pytest.mark.filterwarnings("ignore:invalid value")
def test_infinite_rewards_do_not_cancel_out():
    with pytest.raises(Failed, match=r"^environment 0 paid inf in step 1 of its episode$"):
        telling({}, {(0, 1): np.inf, (10, 1): -np.inf}).step(np.array([0, 0]))


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


@pytest.mark.parametrize("kind", [Scripted, Unsaved])
def test_a_state_for_new_episodes_holds_nothing_of_those_under_way(kind):
    """No snapshot is taken and no action is kept."""
    envs = Vector(lambda: kind(ENDS), seeds, num_envs=2, processes=0, worker_timeout=60.0)
    envs.reset()
    for action in (1, 2):
        envs.step(np.array([action, 8]))
    state = envs.state(exact=False)
    assert state["snapshots"] == [None, None] and [actions.size for actions in state["actions"]] == [0, 0]
    assert state["episodes"] == [1, 1]


def test_an_exact_state_holds_actions_or_snapshots_of_the_episodes_under_way():
    for kind, actions, snapshots in ((Scripted, [2, 2], [None, None]), (Remembered, [0, 0], [0, 10])):
        envs = Vector(lambda kind=kind: kind({}), seeds, num_envs=2, processes=0, worker_timeout=60.0)
        envs.reset()
        for action in (1, 2):
            envs.step(np.array([action, 8]))
        state = envs.state()
        assert [len(taken) for taken in state["actions"]] == actions
        assert [tree and tree["of"].tolist()[0] for tree in state["snapshots"]] == snapshots


@pytest.mark.parametrize("exact", [False, True])
def test_new_episodes_follow_those_that_a_state_gives_up(exact):
    envs, other = vector(), vector()
    envs.reset()
    for action in (1, 2, 3):  # environment 0 is in its second episode, environment 1's first is just over
        envs.step(np.array([action, 8]))
    other.reset()
    other.step(np.array([0, 0]))
    first = other.start_anew(copy.deepcopy(envs.state(exact)))
    assert table([first]) == [row([[2, 0, -1], [11, 0, -1]], [0, 0], first="xx")]
    assert table([other.step(np.array([4, 5]))]) == [row([[2, 1, 4], [11, 1, 5]], [1, 1])]
    assert other.take_finished() == []
    assert table([envs.load(other.state())]) == table([other.now])


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


def test_a_state_that_does_not_say_where_the_environments_were_is_refused():
    """Even where every observation looks alike, so that its digest could not tell."""
    envs = vector()
    envs.reset()
    envs.step(np.array([1, 1]))
    with pytest.raises(ValueError, match=r"saved under determinism.resume=episode_boundary, so only that can continue it"):
        vector().load(envs.state(exact=False))
