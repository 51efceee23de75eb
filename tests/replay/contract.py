"""What every replay promises. A test class inherits this and says how its replay is made, and what it is asked for."""

import copy
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from hieros_repro.determinism import snapshot
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Request
from hieros_repro.replay.base import Replay
from tests.replay.making import add, batch_of, done, drive, seen, through_a_file, told


class ReplayContract:
    make: Callable[[Path], Replay]
    request: ClassVar[Request]
    ticks: ClassVar[int] = 48  # after which there is a batch
    every: ClassVar[int] = 3  # ticks, at which there may be one
    rows_are_right: Callable[[Mapping[str, Any]], None]  # that every row of a batch is one that was added

    @pytest.fixture
    def replay(self, tmp_path: Path) -> Replay:
        return type(self).make(tmp_path / "files")

    def again(self, tmp_path: Path, name: str = "others") -> Replay:
        return type(self).make(tmp_path / name)

    def drive(self, replay: Replay, start: int, end: int) -> list[str]:
        return drive(replay, self.request, start, end, every=self.every)

    def test_batches_are_a_function_of_keys_requests_and_what_was_added(self, replay, tmp_path):
        found = self.drive(replay, 0, 2 * self.ticks)
        assert len(found) > 1
        assert found == self.drive(self.again(tmp_path), 0, 2 * self.ticks)

    def test_a_batch_holds_the_rows_that_were_added(self, replay):
        add(replay, 0, self.ticks)
        assert replay.ready(self.request, ending=False)
        self.rows_are_right(batch_of(replay, self.request, 0))

    def test_nothing_is_drawn_from_a_global_generator(self, replay):
        before = digest_tree(snapshot.take())
        add(replay, 0, self.ticks)
        batch_of(replay, self.request, 0)
        replay.state()
        assert digest_tree(snapshot.take()) == before

    def test_another_thread_gathers_the_same(self, replay, tmp_path):
        other, found = self.again(tmp_path), {}
        for one in (replay, other):
            add(one, 0, self.ticks)
        choice = other.choose(Key(7)("replay", 0), self.request)
        thread = threading.Thread(target=lambda: found.update(choice.gather()))
        thread.start()
        thread.join()
        assert digest_tree(found) == digest_tree(batch_of(replay, self.request, 0))

    @pytest.mark.parametrize("at", [1, 46, 61])
    def test_restored_from_a_checkpoint_it_goes_on_as_if_nothing_had_happened(self, replay, tmp_path, at):
        begun = self.drive(replay, 0, at)
        state = through_a_file(tmp_path / "checkpoints", replay.state())
        going_on = self.drive(replay, at, 140)
        replay.close()
        other = type(self).make(tmp_path / "files")
        other.load(state)
        assert not other.changed
        assert going_on == self.drive(other, at, 140)
        assert begun + going_on == self.drive(self.again(tmp_path), 0, 140)

    def test_what_was_restored_saves_what_it_was_restored_from(self, replay, tmp_path):
        self.drive(replay, 0, 61)
        state = replay.state()
        replay.close()
        other = type(self).make(tmp_path / "files")
        other.load(copy.deepcopy(state))
        assert digest_tree(other.state()) == digest_tree(state)

    def test_a_state_does_not_change_with_what_comes_later(self, replay):
        self.drive(replay, 0, 61)
        state = replay.state()
        before = digest_tree(state)
        self.drive(replay, 61, 140)
        assert digest_tree(state) == before

    def test_choosing_changes_nothing_that_was_added(self, replay, tmp_path):
        """A batch may be written to by whoever learns from it."""
        add(replay, 0, self.ticks)
        batch_of(replay, self.request, 0)["reward"][:] = np.nan
        add(replay, self.ticks, 2 * self.ticks)
        self.rows_are_right(batch_of(replay, self.request, 1))

    def test_closing_twice_is_no_error(self, replay):
        add(replay, 0, self.ticks)
        replay.close()
        replay.close()


class LastingContract(ReplayContract):
    """What is more, of those from which a row can be shown again and again."""

    def test_other_keys_choose_other_windows(self, replay):
        add(replay, 0, self.ticks)
        batches = [batch_of(replay, self.request, number) for number in (0, 1)]
        assert digest_tree(batches[0]) != digest_tree(batches[1])

    @pytest.mark.parametrize("later", [1, 2, 100])
    def test_adding_after_choosing_does_not_change_what_was_chosen(self, replay, tmp_path, later):
        other = self.again(tmp_path)
        for one in (replay, other):
            add(one, 0, self.ticks + 100)
        expected = [digest_tree(batch_of(other, self.request, number)) for number in range(4)]
        chosen = [replay.choose(Key(7)("replay", number), self.request) for number in range(4)]
        add(replay, self.ticks + 100, self.ticks + 100 + later)
        assert [digest_tree(choice.gather()) for choice in chosen] == expected

    def test_a_batch_gathered_twice_is_the_same_batch(self, replay):
        add(replay, 0, self.ticks)
        choice = replay.choose(Key(7)("replay", 0), self.request)
        assert digest_tree(choice.gather()) == digest_tree(choice.gather())

    def test_asking_whether_it_is_ready_changes_nothing(self, replay, tmp_path):
        other = self.again(tmp_path)
        for tick in range(2 * self.ticks):
            add(replay, tick, tick + 1)
            replay.ready(self.request, ending=False)
            add(other, tick, tick + 1)
        assert digest_tree(batch_of(replay, self.request, 0)) == digest_tree(batch_of(other, self.request, 0))

    def test_it_says_about_how_much_it_copies(self, replay):
        add(replay, 0, self.ticks)
        choice = replay.choose(Key(7)("replay", 0), self.request)
        batch = choice.gather()
        arrays = [*batch["obs"].values(), *(value for name, value in batch.items() if name != "obs")]
        assert choice.bytes == pytest.approx(sum(array.nbytes for array in arrays), rel=0.05)

    def windows_are_right(self, batch: Mapping[str, Any]) -> None:
        """Row by row: consecutive rows of one environment, each as it was added but that the first is marked as first."""
        ids = told(batch, "obs.id").astype(int)
        assert ids.shape == (self.request.batch, self.request.length, 2)
        assert (ids[:, :, 1] == ids[:, :1, 1]).all()
        assert (np.diff(ids[:, :, 0]) == 1).all()
        for b, t in np.ndindex(*ids.shape[:2]):
            tick, env = ids[b, t].tolist()
            row = seen(tick)
            assert np.array_equal(told(batch, "obs.image")[b, t], row.obs["image"][env])
            assert told(batch, "action")[b, t] == done(tick)[env]
            assert told(batch, "reward")[b, t] == row.reward[env]
            assert told(batch, "is_last")[b, t] == row.is_last[env]
            assert told(batch, "is_terminal")[b, t] == row.is_terminal[env]
            assert told(batch, "is_first")[b, t] == (t == 0 or row.is_first[env])
