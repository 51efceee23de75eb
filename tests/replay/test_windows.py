import os
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Memory, Request, Rows, Space, Spaces, Step, UserError
from hieros_repro.replay.buffer import Places
from hieros_repro.replay.windows import Windows
from tests.replay.contract import LastingContract
from tests.replay.making import ENVS, REQUEST, SELECTORS, add, batch_of, done, drive, sparse, through_a_file, told, windows


class WindowsContract(LastingContract):
    request: ClassVar[Request] = REQUEST

    def rows_are_right(self, batch):
        self.windows_are_right(batch)


class TestUniform(WindowsContract):
    make = staticmethod(windows)


class TestTimeBalancedNaive(WindowsContract):
    make = staticmethod(lambda folder: windows(folder, "naive"))


class TestOnline(WindowsContract):
    make = staticmethod(lambda folder: windows(folder, "naive", online=True, size=1200, samples_per_insert=2.0))


@pytest.mark.parametrize("choose", ["time_balanced", "efficient"])
def test_whatever_chooses_a_restored_replay_goes_on_as_if_nothing_had_happened(tmp_path, choose):
    one = windows(tmp_path / "files", choose)
    drive(one, REQUEST, 0, 61)
    state = through_a_file(tmp_path / "checkpoints", one.state())
    expected = drive(one, REQUEST, 61, 140)
    one.close()
    other = windows(tmp_path / "files", choose)
    other.load(state)
    assert drive(other, REQUEST, 61, 140) == expected


def reloaded(folder: Path, replay: Windows, **changes: Any) -> Windows:
    """What a new process has after it loaded what `replay` saves."""
    state = through_a_file(folder.parent / "checkpoints", replay.state())
    replay.close()
    other = windows(folder, **changes)
    other.load(state)
    return other


# -- Where rows lie ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["mapped", "device"])
def test_rows_are_the_same_wherever_they_lie(tmp_path, place):
    one, other = windows(tmp_path / "a", "naive"), windows(tmp_path / "b", "naive", place=place)
    assert drive(one, REQUEST, 0, 100) == drive(other, REQUEST, 0, 100)
    assert digest_tree(one.state()) == digest_tree(other.state())
    going_on = drive(one, REQUEST, 100, 140)
    assert drive(reloaded(tmp_path / "b", other, choose="naive", place=place), REQUEST, 100, 140) == going_on


def test_a_mapped_file_has_no_name(tmp_path):
    add(windows(tmp_path / "files", place="mapped", chunk=1000), 0, 5)
    assert list((tmp_path / "files").iterdir()) == []


@pytest.mark.parametrize("choose", SELECTORS)
def test_little_is_stored_besides_the_rows(choose):
    """Of 100,000 steps of pictures all arrays together are at most 2 % larger than what was shown and done."""
    spaces = Spaces({"image": Space("image", (64, 64, 3))}, Space("discrete", (), sizes=(5,)))
    replay = windows(None, choose, Memory(64), 4, spaces, size=100_000)
    flags = np.zeros((3, 4), bool)
    step = Step({"image": np.zeros((4, 64, 64, 3), np.uint8)}, np.zeros(4, np.float32), *flags)
    replay.add(step, Rows({"action": np.zeros(4, np.int64)}), step)
    row = 64 * 64 * 3 + 8 + 4 + 3
    held = [replay.bank.arrays, vars(replay.buffer), vars(replay.selector)]
    assert sum(array.nbytes for arrays in held for array in _arrays(list(arrays.values()))) <= 1.02 * 100_000 * row


def _arrays(values: list[Any]) -> list[np.ndarray]:
    nested = [_arrays(value) for value in values if isinstance(value, list)]
    return [value for value in values if isinstance(value, np.ndarray)] + [array for arrays in nested for array in arrays]


def test_less_than_a_window_of_each_environment_is_refused():
    with pytest.raises(UserError, match=r"replay\.size=9: 3 steps of each of 3 environments .* it must be at least 12"):
        windows(None, size=9)
    windows(None, size=12)


def test_more_than_the_memory_holds_is_refused_with_the_first_step(monkeypatch):
    """123 steps of 35 bytes and more, of 4,000."""
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 4000}[name])
    with pytest.raises(UserError, match=r"replay\.size: 123 steps need .* replay\.place=mapped"):
        add(windows(None), 0, 1)
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 5000}[name])
    add(windows(None), 0, 1)


# -- Masks -------------------------------------------------------------------------------------------------------------


def test_only_what_the_mask_names_is_remembered(tmp_path):
    replay = add(windows(tmp_path / "files", size=900), 0, 200, sparse)
    assert replay.buffer.lengths.tolist() == [200, 100, 40]
    ids = told(batch_of(replay, REQUEST._replace(batch=200), 0), "obs.id").astype(int)
    assert set(ids[:, 0, 1].tolist()) == {0, 1, 2}
    apart = np.array([1, 2, 5])[ids[:, :1, 1]]
    assert (np.diff(ids[:, :, 0]) == apart).all()
    assert (ids[:, :, 0] % apart == 0).all()


@pytest.mark.parametrize("changes", [{}, {"size": 900, "chunk": 50}, {"chunk": 10_000}])
def test_restored_with_masks_it_goes_on_as_if_nothing_had_happened(tmp_path, changes):
    replay = windows(tmp_path / "files", "naive", **changes)
    drive(replay, REQUEST, 0, 177, sparse)
    other = reloaded(tmp_path / "files", replay, choose="naive", **changes)
    uninterrupted = windows(tmp_path / "c", "naive", **changes)
    drive(uninterrupted, REQUEST, 0, 177, sparse)
    assert drive(other, REQUEST, 177, 300, sparse) == drive(uninterrupted, REQUEST, 177, 300, sparse)
    assert digest_tree(other.state()) == digest_tree(uninterrupted.state())


# -- What an agent asks for --------------------------------------------------------------------------------------------


def test_without_observations_only_the_agents_own_rows_are_kept(tmp_path):
    replay = windows(tmp_path / "files", memory=Memory(4, observes=False))

    def rows(tick: int) -> Rows:
        return Rows({"action": done(tick), "obs.deter": np.full((ENVS, 5), tick, np.float32)})

    drive(replay, REQUEST, 0, 50, rows)
    expected = windows(tmp_path / "b", memory=Memory(4, observes=False))
    drive(expected, REQUEST, 0, 50, rows)
    batch = batch_of(replay, REQUEST, 50)
    assert batch["obs"].keys() == {"deter"} and batch["obs"]["deter"].shape == (6, 4, 5)
    assert sorted(batch) == ["action", "is_first", "is_last", "is_terminal", "obs", "reward"]
    batch_of(expected, REQUEST, 50)
    other = reloaded(tmp_path / "files", replay, memory=Memory(4, observes=False))
    assert drive(other, REQUEST, 50, 90, rows) == drive(expected, REQUEST, 50, 90, rows)


def test_nothing_is_ready_before_min_size_steps_are_there():
    replay = windows(None, min_size=31)
    assert [add(replay, tick, tick + 1).ready(REQUEST, False) for tick in range(12)] == 10 * [False] + 2 * [True]


def test_nothing_is_ready_before_there_are_as_many_windows_as_are_asked_for():
    """3 environments have 6 windows of 4 after 5 ticks."""
    replay = windows(None)
    assert [add(replay, tick, tick + 1).ready(REQUEST, True) for tick in range(6)] == [False] * 4 + [True, True]


def test_a_step_is_replayed_no_more_often_than_allowed():
    """24 steps an update, 3 steps a tick: at 2 replays a step there is an update every fourth tick."""
    replay, updates = windows(None, samples_per_insert=2.0), []
    for tick in range(40):
        add(replay, tick, tick + 1)
        while replay.ready(REQUEST, False):
            batch_of(replay, REQUEST, tick)
            updates.append(tick)
    assert replay.sampled == 24 * len(updates) == 240
    assert updates == [4, 7, 11, 15, 19, 23, 27, 31, 35, 39]


def test_a_request_for_another_length_is_a_mistake():
    with pytest.raises(AssertionError, match="windows have 4 steps, not 5"):
        add(windows(None), 0, 20).choose(Key(0)("replay", 0), Request("windows", 2, 5))


# -- Online ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [120, 1200, 30_000])
def test_online_shows_every_step_once_before_any_other(size):
    """Of 3 environments 6 windows of 4 become full in 8 ticks, and are shown in 3 batches of 2."""
    replay, shown = windows(None, online=True, size=size), []
    for start in (0, 8):
        add(replay, start, start + 8)
        shown += [batch_of(replay, Request("windows", 2, 4), number) for number in range(3)]
    steps = Counter(tuple(pair) for batch in shown for pair in told(batch, "obs.id").reshape(-1, 2).astype(int).tolist())
    assert steps == Counter((tick, env) for tick in range(16) for env in range(ENVS))


def test_online_passes_over_what_was_forgotten_unseen():
    replay = add(windows(None, online=True), 0, 100)
    ids = told(batch_of(replay, REQUEST, 0), "obs.id")
    assert ids[:, 0].tolist() == [[60, 0], [60, 1], [60, 2], [64, 0], [64, 1], [64, 2]]


def test_online_fills_up_with_other_windows():
    replay = add(windows(None, online=True), 0, 9)
    ids = told(batch_of(replay, REQUEST._replace(batch=8), 0), "obs.id")
    assert ids[:6, 0].tolist() == [[0, 0], [0, 1], [0, 2], [4, 0], [4, 1], [4, 2]]
    assert ids.shape == (8, 4, 2)


def test_what_online_has_not_shown_is_shown_after_a_restart(tmp_path):
    replay = add(windows(tmp_path / "files", online=True), 0, 20)
    first = told(batch_of(replay, REQUEST, 0), "obs.id")[:, 0].tolist()
    second = told(batch_of(reloaded(tmp_path / "files", replay, online=True), REQUEST, 1), "obs.id")[:, 0].tolist()
    assert first + second == [[tick, env] for tick in (0, 4, 8, 12) for env in range(ENVS)]


def test_what_online_has_not_shown_does_not_depend_on_when_somebody_asked(tmp_path):
    """4 steps of each environment are kept: nearly all are forgotten unseen."""
    asked, other = (windows(tmp_path / name, online=True, size=12) for name in "ab")
    for tick in range(30):
        add(asked, tick, tick + 1).state()
    assert add(other, 0, 30).state()["unseen"] == asked.state()["unseen"] == []
    assert add(other, 30, 32).state()["unseen"] == add(asked, 30, 32).state()["unseen"] == [84, 85, 86]


def test_what_online_shows_counts_as_shown():
    """Windows 0 to 2 begin at tick 0, windows 12 to 14 at tick 4; they are all of the batch."""
    replay = add(windows(None, "naive", online=True), 0, 9)
    batch_of(replay, REQUEST, 0)
    assert np.flatnonzero(replay.selector.state()["counts"]).tolist() == [0, 1, 2, 12, 13, 14]
    batch_of(replay, REQUEST, 1)
    assert replay.selector.state()["counts"].sum() == 12


# -- What updates write back -------------------------------------------------------------------------------------------

REFRESHED = Memory(4, refreshed=("deter",))


def with_deter(tick: int) -> Rows:
    """deter is -tick until an update says otherwise."""
    return Rows({"action": done(tick), "deter": np.full((ENVS, 2), -tick, np.float32)})


def deter(replay: Windows, stream: int, at: int) -> float:
    found = replay.bank.fetch("deter", replay.buffer.slots(Places.of([[stream, at]])))
    assert (found == found[0, 0]).all()
    return float(found[0, 0])


def values(count: int, start: float = 100.0) -> dict[str, torch.Tensor]:
    """start, start + 1, ... for the rows of windows of 4."""
    return {"deter": (start + torch.arange(4.0 * count).reshape(count, 4, 1)).expand(count, 4, 2)}


def test_of_what_is_written_back_a_batch_holds_the_first_rows():
    replay = add(windows(None, memory=REFRESHED), 0, 30, with_deter)
    batch = batch_of(replay, REQUEST, 0)
    assert batch["deter"].shape == (6, 2)
    assert np.array_equal(batch["deter"], -batch["obs"]["id"][:, 0, :1] * [1, 1])


def test_a_batch_holds_what_was_there_when_it_was_chosen():
    replay = add(windows(None, memory=REFRESHED), 0, 30, with_deter)
    choice = replay.choose(Key(7)("replay", 0), REQUEST)
    replay.write_back(choice.places, values(6))
    batch = choice.gather()
    assert np.array_equal(batch["deter"], -batch["obs"]["id"][:, 0, :1] * [1, 1])
    again = replay.choose(Key(7)("replay", 0), REQUEST).gather()
    assert (again["deter"] >= 100).all() and np.array_equal(again["obs"]["id"], batch["obs"]["id"])


def test_of_two_values_for_a_step_the_later_row_wins():
    replay = add(windows(None, memory=REFRESHED), 0, 30, with_deter)
    replay.write_back([[1, 5], [1, 7], [0, 5]], values(3))
    assert [deter(replay, 1, at) for at in range(4, 12)] == [-4, 100, 101, 104, 105, 106, 107, -11]
    assert [deter(replay, 0, at) for at in range(4, 10)] == [-4, 108, 109, 110, 111, -9]


def test_values_for_fewer_rows_are_those_of_the_last():
    """The first row of the later window is the third of the earlier one, and keeps what that one found."""
    replay = add(windows(None, memory=REFRESHED), 0, 30, with_deter)
    replay.write_back([[1, 5], [1, 7]], {name: value[:, 1:] for name, value in values(2).items()})
    assert [deter(replay, 1, at) for at in range(4, 12)] == [-4, -5, 101, 102, 105, 106, 107, -11]


def test_a_step_that_was_forgotten_meanwhile_is_passed_over():
    """40 steps of each stream are kept: after 43 ticks steps 0 to 2 are gone, and others are in the slots of 0 and 1."""
    replay = add(windows(None, memory=REFRESHED), 0, 43, with_deter)
    replay.write_back([[0, 0], [0, 1]], values(2))
    assert [deter(replay, 0, at) for at in (3, 4, 5, 41, 42)] == [106, 107, -5, -41, -42]


def test_what_was_not_announced_cannot_be_written_back():
    replay = add(windows(None, memory=REFRESHED), 0, 30, with_deter)
    with pytest.raises(ValueError, match=r"'logit' was written back, and the agent announced deter"):
        replay.write_back([[0, 5]], {"logit": torch.zeros(1, 4, 2)})


@pytest.mark.parametrize("place", ["memory", "device"])
@pytest.mark.parametrize("at", [30, 77])
def test_what_was_written_back_is_there_after_a_restart(tmp_path, at, place):
    def learn(replay: Windows, start: int, end: int) -> list[str]:
        found = []
        for tick in range(start, end):
            add(replay, tick, tick + 1, with_deter)
            if replay.ready(REQUEST, False):
                choice = replay.choose(Key(7)("replay", tick), REQUEST)
                found.append(digest_tree(choice.gather()))
                replay.write_back(choice.places, values(6, 10.0 * tick))
        return found

    replay, uninterrupted = (windows(folder, memory=REFRESHED, place=place) for folder in (tmp_path / "files", tmp_path / "c"))
    learn(replay, 0, at)
    begun = learn(uninterrupted, 0, at)
    other = reloaded(tmp_path / "files", replay, memory=REFRESHED, place=place)
    assert begun and learn(other, at, 120) == learn(uninterrupted, at, 120)
    assert digest_tree(other.state()) == digest_tree(uninterrupted.state())
    assert all("deter" not in np.load(path) for path in (tmp_path / "files").glob("*.npz"))


# -- Episodes that are cut off -----------------------------------------------------------------------------------------


def lasts(replay: Windows, env: int, ticks: range) -> list[bool]:
    places = Places(np.full(len(ticks), env), np.array(ticks))
    return replay.bank.fetch("is_last", replay.buffer.slots(places)).tolist()


@pytest.mark.parametrize("chunk", [3, 32])
def test_a_cut_ends_the_episodes_under_way_and_outlives_further_restarts(tmp_path, chunk):
    """Environments 0 and 1 are in mid-episode at tick 22; their row is in a file already if a file holds one tick."""
    replay = reloaded(tmp_path / "files", add(windows(tmp_path / "files", chunk=chunk), 0, 23), chunk=chunk)
    assert lasts(replay, 0, range(21, 23)) == [False, False]
    replay.cut()
    for _ in range(2):
        assert [lasts(replay, env, range(21, 23)) for env in (0, 1)] == [[False, True]] * 2
        replay = reloaded(tmp_path / "files", replay, chunk=chunk)
    add(replay, 23, 30)
    assert lasts(replay, 0, range(21, 30)) == [False, True] + [row % 7 == 6 for row in range(23, 30)]


def test_a_cut_of_nothing_changes_nothing(tmp_path):
    replay = windows(tmp_path / "files")
    replay.cut()
    assert replay.state()["marks"] == []


def test_marks_are_forgotten_with_their_steps(tmp_path):
    replay = add(windows(tmp_path / "files"), 0, 10)
    replay.cut()
    assert replay.state()["marks"] == [["is_last", env, 9] for env in range(ENVS)]
    assert add(replay, 10, 80).state()["marks"] == []


# -- Restored into something else --------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"size": 60}, {"size": 600}, {"memory": Memory(6)}, {"chunk": 7}, {"choose": "uniform"}])
def test_a_replay_of_another_size_takes_what_fits(tmp_path, changes):
    replay = windows(tmp_path / "files", "naive")
    drive(replay, REQUEST, 0, 100)
    other = reloaded(tmp_path / "files", replay, **{"choose": "naive", **changes})
    request = REQUEST._replace(length=other.memory.length)
    checker = TestUniform()
    for tick in range(100, 130):
        add(other, tick, tick + 1)
        checker.request = request  # type: ignore[misc]
        checker.windows_are_right(batch_of(other, request, tick))


@pytest.mark.parametrize("size", [60, 600])
def test_what_was_written_back_stays_with_its_steps_in_a_replay_of_another_size(tmp_path, size):
    replay = add(windows(tmp_path / "files", memory=REFRESHED), 0, 100, with_deter)
    replay.write_back([[0, 96], [1, 90]], values(2))
    other = reloaded(tmp_path / "files", replay, memory=REFRESHED, size=size)
    assert [deter(other, 0, at) for at in range(95, 100)] == [-95, 100, 101, 102, 103]
    assert [deter(other, 1, at) for at in range(89, 95)] == [-89, 104, 105, 106, 107, -94]


def test_a_replay_of_other_environments_is_refused(tmp_path):
    state = add(windows(tmp_path / "files"), 0, 10).state()
    with pytest.raises(ValueError, match="holds 3 streams, this run has 2"):
        windows(tmp_path / "b", envs=2).load(state)


def test_without_files_there_is_no_state():
    replay = windows(None)
    with pytest.raises(ValueError, match="without a folder"):
        replay.state()
    with pytest.raises(ValueError, match="without a folder"):
        replay.load({})


def test_the_files_it_will_keep_are_at_most_as_large_as_its_rows(tmp_path):
    """3 environments with 40 steps, each of 2 floats, 12 bytes of a picture and an action of 8."""
    assert windows(tmp_path / "a", compress=False).need() == 3 * 40 * (8 + 12 + 8)
    assert windows(tmp_path / "b").need() == 3 * 40 * (8 + 12 + 8) // 10


@pytest.mark.parametrize("memory", [Memory(4), Memory(4, observes=False), Memory(4, ("deter",), row_bytes=12)])
@pytest.mark.parametrize("place", ["memory", "mapped", "device"])
def test_the_room_it_says_it_takes_is_what_its_arrays_take(tmp_path, memory, place):
    """8 bytes of id, 12 of image, 8 of an action, 4 of a reward, 3 flags, and what the agent adds."""

    def rows(tick):
        return Rows({"action": done(tick), **{name: np.zeros((ENVS, 3), np.float32) for name in memory.refreshed}})

    replay = add(windows(tmp_path, memory=memory, place=place), 0, 50, rows)
    each = 15 + 20 * memory.observes + memory.row_bytes
    held = sum(array.nbytes for array in replay.bank.arrays.values())
    assert held == replay.bank.count * each
    expected = [0, 0, 0] if place == "mapped" else [0, 60 * each, held]
    assert [replay.room(steps) for steps in (0, 60, 10_000)] == expected
