from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Damaged, Memory, Rows
from hieros_repro.replay import storage
from hieros_repro.replay.filing import named
from hieros_repro.replay.windows import Windows
from tests.replay.making import (
    ENVS,
    REQUEST,
    add,
    all_windows,
    batch_of,
    done,
    drive,
    filled,
    sparse,
    through_a_file,
    told,
    windows,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- Files that are not what they were ---------------------------------------------------------------------------------


def archive(**arrays: np.ndarray) -> bytes:
    return storage._archive(arrays, True)


def spoil(path: Path, kind: str) -> None:
    content = path.read_bytes()
    if kind == "a flipped bit":
        changed = bytearray(content)
        changed[len(content) // 2] ^= 1
        path.write_bytes(changed)
    elif kind == "truncated":
        path.write_bytes(content[:-1])
    elif kind == "longer":
        path.write_bytes(content + b"\0")
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "missing":
        path.unlink()
    elif kind == "other rows":
        path.write_bytes(archive(stream=np.zeros(33, np.uint32), action=np.zeros(33, np.int64)))
    elif kind == "another run's":
        folder = path.parent.parent / "another"
        replay = windows(folder)
        add(replay, 0, 50, lambda tick: Rows({"action": done(tick) + 1})).state()
        path.write_bytes((folder / path.name).read_bytes())


SAYS = {
    "a flipped bit": "SHA-256 is not the recorded one",
    "truncated": "bytes instead of",
    "longer": "bytes instead of",
    "empty": "0 bytes instead of",
    "missing": "missing",
    "other rows": "bytes instead of|SHA-256",
    "another run's": "bytes instead of|SHA-256",
}


@pytest.mark.parametrize("kind", SAYS)
def test_a_file_that_is_not_what_was_written_is_refused_by_name(tmp_path, kind):
    state = filled(tmp_path / "files").state()
    path = tmp_path / "files" / named(33, 66)
    spoil(path, kind)
    with pytest.raises(Damaged, match=SAYS[kind]) as caught:
        windows(tmp_path / "files").load(state)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith("replay.recover=true goes on without the 33 steps it holds")


@pytest.mark.parametrize("name", ["notes.txt", named(33, 70), named(20, 40), "steps-1-2.npz"])
def test_what_nobody_wrote_is_refused_by_name(tmp_path, name):
    state = filled(tmp_path).state()
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(Damaged, match=f"{name}: not part of this replay; move it away"):
        windows(tmp_path).load(state)
    assert (tmp_path / name).read_bytes() == b"mine"


def test_what_a_killed_process_left_is_removed(tmp_path):
    replay = filled(tmp_path)
    state, expected = replay.state(), names(tmp_path)
    add(replay, 50, 90).state()
    (tmp_path / f".partial-{named(264, 297)}").write_bytes(b"half")
    assert len(names(tmp_path)) > len(expected) + 1
    windows(tmp_path).load(state)
    assert names(tmp_path) == expected


def test_older_files_that_other_checkpoints_need_are_left_alone(tmp_path):
    replay = filled(tmp_path)
    old = replay.state()
    new = add(replay, 50, 100).state()
    windows(tmp_path).load(new)
    assert {name for name, *_ in old["files"]} <= set(names(tmp_path))
    replay = windows(tmp_path)
    replay.load(old)
    assert add(replay, 50, 100).state()["files"] == new["files"]


# -- Going on without what was lost ------------------------------------------------------------------------------------


def recovered(folder: Path, state: Any, **changes: Any) -> Windows:
    other = windows(folder, recover=True, **changes)
    other.load(state)
    assert other.changed
    return other


def crossings(replay: Windows) -> int:
    """That no window goes on behind a gap as if nothing were missing. Returns how many reach across one."""
    found = all_windows(replay)
    ids = found["obs.id"].astype(int)
    gaps = np.diff(ids[:, :, 0]) != 1
    assert (ids[:, :, 1] == ids[:, :1, 1]).all()
    assert found["is_last"][:, :-1][gaps].all() and found["is_first"][:, 1:][gaps].all()
    row = ids.sum(2) % 7  # of an episode
    assert (found["is_last"][:, :-1][~gaps] == (row[:, :-1][~gaps] == 6)).all()
    assert (found["is_first"][:, 1:][~gaps] == (row[:, 1:][~gaps] == 0)).all()
    return int(gaps.sum())


@pytest.mark.parametrize("kind", ["a flipped bit", "missing"])
def test_with_recover_it_goes_on_without_a_damaged_file(tmp_path, kind, capsys):
    """Ticks 11 ... 21 are lost; of each environment 3 windows reach across the gap."""
    state = filled(tmp_path / "files").state()
    spoil(tmp_path / "files" / named(33, 66), kind)
    replay = recovered(tmp_path / "files", state)
    ticks = set(all_windows(replay)["obs.id"][:, :, 0].astype(int).ravel().tolist())
    assert ticks == set(range(50)) - set(range(11, 22))
    assert crossings(replay) == 3 * 3
    told = capsys.readouterr().out
    assert told.startswith(f"going on without 33 steps: {tmp_path / 'files' / named(33, 66)}: ")
    batch_of(replay, REQUEST, 0)


@pytest.mark.parametrize("lost", [[0], [1], [3], [0, 1], [1, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("ticks", [50, 44])
def test_whatever_is_lost_it_goes_on_and_is_saved_and_loaded_again(tmp_path, lost, ticks):
    """4 files of 11 ticks; after 44 ticks no step is in none of them."""
    memory = Memory(4, refreshed=("deter",))

    def rows(tick: int) -> Rows:
        return Rows({"action": done(tick), "deter": np.full((ENVS, 2), tick, np.float32)})

    state = filled(tmp_path / "files", ticks, rows, memory=memory, size=600).state()
    for number in lost:
        (tmp_path / "files" / named(33 * number, 33 * (number + 1))).unlink()
    replay = recovered(tmp_path / "files", state, memory=memory, size=600)
    for start in (ticks, ticks + 5, ticks + 60):
        state = through_a_file(tmp_path / "checkpoints", replay.state())
        assert not {named(33 * n, 33 * n + 33) for n in lost} & {name for name, *_ in state["files"]}
        replay.close()
        replay = windows(tmp_path / "files", memory=memory, size=600)
        replay.load(state)
        assert not replay.changed
        add(replay, start, start + 5 if start == ticks else start + 55, rows)
        found = all_windows(replay)
        assert np.array_equal(found["deter"][..., 0], found["obs.id"][..., 0])
        assert crossings(replay) > 0 or 0 in lost
    assert set(range(ticks, ticks + 110)) <= set(found["obs.id"][:, :, 0].astype(int).ravel().tolist())


def test_what_is_lost_of_a_recovered_replay_can_be_given_up_too(tmp_path):
    state = filled(tmp_path / "files", size=600).state()
    (tmp_path / "files" / named(33, 66)).unlink()
    state = add(recovered(tmp_path / "files", state, size=600), 50, 80).state()
    (tmp_path / "files" / named(99, 132)).unlink()
    replay = recovered(tmp_path / "files", state, size=600)
    ticks = set(all_windows(replay)["obs.id"][:, :, 0].astype(int).ravel().tolist())
    assert ticks == set(range(80)) - set(range(11, 22)) - set(range(33, 44))
    assert crossings(replay) == 18


def test_a_gap_is_bridged_in_each_stream_where_its_next_step_comes(tmp_path):
    """Environment 2 has a step every fifth tick: the lost file holds one of them, the next one none."""
    state = filled(tmp_path / "files", 60, sparse, chunk=5, size=600).state()
    files = sorted((tmp_path / "files").iterdir())
    holds_2 = [2 in np.load(path)["stream"] for path in files]
    lost = next(n for n in range(5, len(files)) if holds_2[n] and not holds_2[n + 1])
    files[lost].unlink()
    replay = recovered(tmp_path / "files", state, size=600, chunk=5)
    for _ in range(2):
        found = all_windows(replay)
        apart = np.array([1, 2, 5])[found["obs.id"][:, :1, 1].astype(int)]
        gaps = np.diff(found["obs.id"][:, :, 0]) != apart
        assert {0, 2} <= set(found["obs.id"][gaps.any(1)][:, 0, 1].tolist())
        assert found["is_last"][:, :-1][gaps].all() and found["is_first"][:, 1:][gaps].all()
        state = through_a_file(tmp_path / "checkpoints", replay.state())
        replay.close()
        replay = windows(tmp_path / "files", size=600, chunk=5)
        replay.load(state)


def test_a_gap_at_the_end_is_bridged_even_if_the_run_stops_before_the_next_step(tmp_path):
    state = filled(tmp_path / "files", 44, size=600).state()
    (tmp_path / "files" / named(99, 132)).unlink()
    replay = recovered(tmp_path / "files", state, size=600)
    state = through_a_file(tmp_path / "checkpoints", replay.state())
    replay.close()
    replay = windows(tmp_path / "files", size=600)
    replay.load(state)
    add(replay, 44, 50)
    assert crossings(replay) == 9


def test_streams_that_lost_nothing_are_not_cut(tmp_path):
    """The lost file holds steps of environment 0 alone."""

    def rows(tick: int) -> Rows:
        return Rows({"action": done(tick)}, np.array([True, tick < 10, tick < 10 or tick >= 20]))

    state = filled(tmp_path / "files", 30, rows, chunk=5, size=600).state()
    with_only_0 = [path for path in sorted((tmp_path / "files").iterdir()) if not np.load(path)["stream"].any()]
    with_only_0[-1].unlink()
    replay = recovered(tmp_path / "files", state, size=600, chunk=5)
    add(replay, 30, 40)
    found = all_windows(replay)
    first = found["is_first"][:, 1:] & ((found["obs.id"][:, 1:].sum(2) % 7) != 0)
    assert set(found["obs.id"][:, 1:][first][:, 1].tolist()) == {0.0}


def test_with_recover_and_nothing_lost_nothing_changes(tmp_path):
    replay = windows(tmp_path / "files", "naive", online=True)
    drive(replay, REQUEST, 0, 61)
    state = through_a_file(tmp_path / "checkpoints", replay.state())
    expected = drive(replay, REQUEST, 61, 120)
    replay.close()
    other = windows(tmp_path / "files", "naive", online=True, recover=True)
    other.load(state)
    assert not other.changed
    assert drive(other, REQUEST, 61, 120) == expected


def test_flags_that_were_set_later_stay_with_their_steps_when_others_are_lost(tmp_path):
    replay = filled(tmp_path / "files", 30, size=600)
    replay.cut()
    state = add(replay, 30, 60).state()
    (tmp_path / "files" / named(33, 66)).unlink()
    found = all_windows(recovered(tmp_path / "files", state, size=600))
    assert found["is_last"][found["obs.id"][:, :, 0] == 29].all()


def test_no_step_that_a_batch_is_to_be_read_from_changes_with_what_comes(tmp_path):
    """Each of 90 windows is chosen while nothing has come after the gap, and read when something has."""
    state = filled(tmp_path / "files", 44, size=600).state()
    (tmp_path / "files" / named(99, 132)).unlink()
    replay = recovered(tmp_path / "files", state, size=600)
    before, after = (replay.choose(Key(7)("replay", 0), REQUEST._replace(batch=900)) for _ in range(2))
    expected = before.gather()
    last = told(expected, "obs.id")[:, :, 0] == 32  # the step before the gap
    assert last.any() and told(expected, "is_last")[last].all()
    add(replay, 44, 45)
    assert digest_tree(after.gather()) == digest_tree(expected)
