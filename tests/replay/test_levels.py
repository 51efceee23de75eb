"""Replays of levels: of every nth step only, at different ticks in different environments, with values of the agent's own."""

from typing import Any

import numpy as np
import pytest

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.records import Memory, Rows, UserError
from tests.replay.making import ENVS, REQUEST, add, all_windows, batch_of, done, drive, through_a_file, told, windows
from tests.replay.test_recovery import recovered

# -- Sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("every", "size", "min_size", "steps", "awaited"),
    [
        (1, 120, 31, 40, 31),
        (1, 120, 1, 40, 1),
        (4, 120, 100, 10, 25),
        (4, 121, 101, 11, 26),  # 31 and 26 steps
        (16, 120, 1000, 4, 63),  # 8 steps would be less than a window of 4 of each environment
        (4, 120, 31, 10, 12),  # 8 steps would be as well
        (4, 120, 5, 10, 5),
        (4, 120, 0, 10, 0),
        (1000, 12, 0, 4, 0),
    ],
)
def test_of_every_nth_step_an_nth_is_kept_and_awaited_but_a_window_of_each_environment(every, size, min_size, steps, awaited):
    replay = windows(None, memory=Memory(4, every=every), size=size, min_size=min_size)
    assert (replay.buffer.steps, replay.min_size, replay.selector.capacity) == (steps, awaited, ENVS * (steps - 3))


def test_less_than_a_window_of_each_environment_is_refused_whatever_is_remembered():
    with pytest.raises(UserError, match=r"replay\.size=9: 3 steps of each .* at least 12"):
        windows(None, memory=Memory(4, every=5), size=9)


def test_it_is_ready_when_an_nth_of_min_size_is_there():
    """25 steps are there after 9 ticks of 3 environments."""
    replay = windows(None, memory=Memory(4, every=4), min_size=100)
    assert [add(replay, tick, tick + 1).ready(REQUEST, False) for tick in range(10)] == [False] * 8 + [True] * 2


@pytest.mark.parametrize("size", [120, 12])
def test_the_smallest_replay_serves_batches(size):
    replay = add(windows(None, memory=Memory(4, every=1000), size=size, min_size=1000), 0, 20)
    assert replay.ready(REQUEST, False) and told(batch_of(replay, REQUEST, 0), "reward").shape == (6, 4)


def test_room_and_files_are_those_of_an_nth_of_the_steps(tmp_path):
    """10 steps of each of 3 environments, of 8 bytes of an action, 24 of the agent's own, 4 of a reward and 3 flags."""
    memory = Memory(4, observes=False, row_bytes=24, every=4)

    def rows(tick: int) -> Rows:
        return Rows({"action": done(tick), "obs.deter": np.zeros((ENVS, 6), np.float32)})

    replay = add(windows(tmp_path / "a", memory=memory), 0, 30, rows)
    held = sum(array.nbytes for array in replay.bank.arrays.values())
    assert held == replay.bank.count * 39
    assert [replay.room(steps) for steps in (0, 60, 61, 10_000)] == [0, 15 * 39, 16 * 39, held]
    assert replay.need() == 3 * 10 * 8 // 10 + 3 * 10 * 24
    assert windows(tmp_path / "b", memory=memory, compress=False).need() == 3 * 10 * 32


# -- Values of the agent's own -----------------------------------------------------------------------------------------

CLOCK = 4
OWN = Memory(4, observes=False, every=CLOCK)


def level(tick: int) -> Rows:
    """What a level remembers of environment e at ticks 4 n - e; every value tells which n, and whose."""
    env = np.arange(ENVS)
    n = (tick + env) // CLOCK
    values = {
        "action": np.eye(8, dtype=np.float32)[(n + env) % 8].reshape(ENVS, 2, 4),
        "obs.deter": np.broadcast_to((n + env / 8)[:, None, None], (ENVS, 2, 3)).astype(np.float32),
        "obs.cells": np.broadcast_to(((7 * n + env) % 256)[:, None], (ENVS, 5)).astype(np.uint8),
        "reward": (-n - env / 8).astype(np.float32),
        "is_first": n % 6 == 1,
        "is_last": n % 6 == 0,
        "is_terminal": n % 12 == 0,
    }
    return Rows(values, (tick + env) % CLOCK == 0)


def level_is_right(batch: Any) -> None:
    assert sorted(batch) == ["action", "is_first", "is_last", "is_terminal", "obs", "reward"]
    obs = {name: np.asarray(value) for name, value in batch["obs"].items()}
    deter = obs["deter"]
    n, env = np.floor(deter[..., 0, 0]).astype(int), (8 * (deter[..., 0, 0] % 1)).astype(int)
    assert {name: (value.dtype, value.shape[2:]) for name, value in obs.items()} == {
        "deter": (np.float32, (2, 3)),
        "cells": (np.uint8, (5,)),
    }
    assert (deter == deter[..., :1, :1]).all() and (np.diff(n) == 1).all() and (np.diff(env) == 0).all()
    assert (obs["cells"] == ((7 * n + env) % 256)[..., None]).all()
    assert np.array_equal(np.asarray(batch["action"]).reshape(*n.shape, 8).argmax(-1), (n + env) % 8)
    assert np.array_equal(batch["reward"], (-n - env / 8).astype(np.float32))
    first = n % 6 == 1
    first[:, 0] = True
    assert np.array_equal(batch["is_first"], first) and np.asarray(batch["is_first"]).dtype == bool
    assert np.array_equal(batch["is_last"], n % 6 == 0) and np.array_equal(batch["is_terminal"], n % 12 == 0)


@pytest.mark.parametrize("place", ["memory", "mapped", "device"])
def test_values_of_the_agents_own_come_back_instead_of_those_that_were_shown(tmp_path, place):
    made: dict[str, Any] = {"memory": OWN, "size": 900, "chunk": 20, "place": place}
    replay = add(windows(tmp_path / "files", **made), 0, 300, level)
    assert replay.buffer.lengths.tolist() == [75] * ENVS
    level_is_right(batch_of(replay, REQUEST._replace(batch=200), 0))
    state = through_a_file(tmp_path / "checkpoints", replay.state())
    replay.close()
    other = windows(tmp_path / "files", **made)
    other.load(state)
    level_is_right(batch_of(add(other, 300, 310, level), REQUEST._replace(batch=200), 1))


def test_values_of_the_agents_own_count_where_what_is_shown_is_kept_too():
    def rows(tick: int) -> Rows:
        return Rows({"action": done(tick), "obs.id": np.full((ENVS, 2), -tick, np.float32), "reward": np.full(ENVS, 7.0)})

    batch = batch_of(add(windows(None), 0, 30, rows), REQUEST, 0)
    assert (told(batch, "obs.id") <= 0).all() and (told(batch, "reward") == 7).all()
    assert sorted(batch["obs"]) == ["id", "image"] and told(batch, "is_last").any()


# -- Streams that grow at different ticks ------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [3, 50, 161, 290])
@pytest.mark.parametrize("changes", [{}, {"size": 4000, "chunk": 10}, {"online": True, "lead": 3}])
def test_saved_and_loaded_between_its_ticks_it_goes_on_as_if_nothing_had_happened(tmp_path, at, changes):
    made: dict[str, Any] = {"choose": "naive", "memory": OWN, **changes}
    replay, uninterrupted = windows(tmp_path / "a", **made), windows(tmp_path / "b", **made)
    assert drive(replay, REQUEST, 0, at, level) == drive(uninterrupted, REQUEST, 0, at, level)
    state = through_a_file(tmp_path / "checkpoints", replay.state())
    replay.close()
    other = windows(tmp_path / "a", **made)
    other.load(state)
    found = drive(other, REQUEST, at, 400, level)
    assert found and found == drive(uninterrupted, REQUEST, at, 400, level)
    assert digest_tree(other.state()) == digest_tree(uninterrupted.state())


def test_ticks_that_bring_nothing_change_nothing(tmp_path):
    """Files are as large as if the ticks between were none: 20 steps and up to 2 more."""

    def rare(tick: int) -> Rows:
        return Rows({"action": done(tick)}, np.full(ENVS, tick % 50 == 0))

    replay = add(windows(tmp_path / "files", size=120, chunk=20), 0, 1000, rare)
    state = replay.state()
    assert [rows for _, rows, *_ in state["files"]] == [21, 21]
    assert replay.buffer.lengths.tolist() == [20] * ENVS and state["age"] == 6
    assert digest_tree(add(replay, 1001, 1050, rare).state()) == digest_tree(state)


def test_where_files_were_lost_each_stream_goes_on_with_a_new_episode(tmp_path):
    state = add(windows(tmp_path / "files", memory=OWN, size=4000, chunk=10), 0, 300, level).state()
    lost = sorted((tmp_path / "files").iterdir())[3]
    holds = np.bincount(np.load(lost)["stream"], minlength=ENVS)
    lost.unlink()
    replay = add(recovered(tmp_path / "files", state, memory=OWN, size=4000, chunk=10), 300, 320, level)
    found = all_windows(replay)
    n = np.floor(found["obs.deter"][..., 0, 0]).astype(int)
    gaps = np.diff(n) != 1
    assert holds.tolist() == [4, 3, 3]
    assert gaps.sum() == 3 * ENVS and set(np.diff(n)[gaps].tolist()) == set((holds + 1).tolist())
    assert found["is_last"][:, :-1][gaps].all() and found["is_first"][:, 1:][gaps].all()


def test_episodes_are_cut_off_in_each_stream_where_it_was():
    replay = add(windows(None, memory=OWN, size=900), 0, 49, level)
    replay.cut()
    found = all_windows(add(replay, 49, 100, level))
    n, env = np.floor(found["obs.deter"][..., 0, 0]).astype(int), (8 * (found["obs.deter"][..., 0, 0] % 1)).astype(int)
    latest = (48 + np.arange(ENVS)) // CLOCK
    assert np.array_equal(found["is_last"], (n % 6 == 0) | (n == latest[env]))
