import errno
import hashlib
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hieros_repro import atomic
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.records import Memory, Rows
from hieros_repro.replay import filing
from hieros_repro.replay.filing import named, prune, span
from hieros_repro.run import checkpoint
from tests.replay.making import ENVS, REQUEST, add, all_windows, done, drive, filled, sparse, through_a_file, windows
from tests.runs import ROOT, environment


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# -- State and back ----------------------------------------------------------------------------------------------------

moments = st.lists(st.integers(0, 60), min_size=1, max_size=3)


@settings(max_examples=12, deadline=None)
@given(
    moments, st.integers(10, 80), st.sampled_from([12, 120, 600]), st.sampled_from(["all", "sparse", "drawn"]), st.booleans()
)
def test_saved_and_loaded_at_any_moments_it_goes_on_as_if_nothing_had_happened(
    tmp_path_factory, stays, chunk, size, mask, online
):
    def rows(tick: int) -> Rows:
        if mask == "drawn":
            return Rows({"action": done(tick)}, np.random.default_rng(tick).random(ENVS) < [0.9, 0.3, 0.02])
        return sparse(tick) if mask == "sparse" else Rows({"action": done(tick)})

    folder = tmp_path_factory.mktemp("replay")
    made = {"choose": "naive", "chunk": chunk, "size": size, "online": online}
    replay, uninterrupted, now = windows(folder / "a", **made), windows(folder / "b", **made), 0
    for stay in stays:
        assert drive(replay, REQUEST, now, now + stay, rows) == drive(uninterrupted, REQUEST, now, now + stay, rows)
        now += stay
        state = through_a_file(folder / "checkpoints", replay.state())
        replay.close()
        replay = windows(folder / "a", **made)
        replay.load(state)
    assert drive(replay, REQUEST, now, now + 40, rows) == drive(uninterrupted, REQUEST, now, now + 40, rows)
    assert digest_tree(replay.state()) == digest_tree(uninterrupted.state())


def test_equal_steps_are_equal_files_byte_for_byte(tmp_path):
    """However often a state was asked for, and however slowly files are written."""
    one, other = windows(tmp_path / "a"), windows(tmp_path / "b", place="mapped")
    add(one, 0, 60)
    for tick in range(60):
        add(other, tick, tick + 1).state()
    states = [replay.state() for replay in (one, other)]
    assert states[0]["files"] == states[1]["files"]
    contents = [[path.read_bytes() for path in sorted(folder.iterdir())] for folder in (tmp_path / "a", tmp_path / "b")]
    assert contents[0] == contents[1] and len(contents[0]) == 5


def test_a_file_holds_the_steps_that_its_name_tells(tmp_path):
    filled(tmp_path).state()
    assert names(tmp_path) == [named(33 * n, 33 * (n + 1)) for n in range(4)]
    with np.load(tmp_path / named(33, 66)) as file:
        assert file["stream"].tolist() == [0, 1, 2] * 11
        assert file["obs.id"][:, 0].tolist() == np.repeat(np.arange(11, 22), 3).tolist()
        assert file["action"].tolist() == [done(tick)[env] for tick in range(11, 22) for env in range(3)]
        assert sorted(file.files) == ["action", "is_first", "is_last", "is_terminal", "obs.id", "obs.image", "reward", "stream"]


def test_a_state_names_the_files_that_hold_steps_of_the_buffer_and_no_others(tmp_path):
    """After 100 ticks the steps of ticks 60 ... 99 are kept; files end after ticks 10, 21, ..., 54, 65, ..., 98."""
    state = filled(tmp_path, 100).state()
    assert [name for name, *_ in state["files"]] == [named(33 * n, 33 * (n + 1)) for n in range(5, 9)]
    assert [rows for _, rows, *_ in state["files"]] == [33] * 4
    assert len(state["tail"]["action"]) == 3
    for name, _, size, digest in state["files"]:
        content = (tmp_path / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (size, digest)


def test_a_state_is_told_when_its_files_are_durable_and_no_sooner(tmp_path, monkeypatch):
    """Files and their names."""
    synced: set[str] = set()
    sync = atomic.sync
    monkeypatch.setattr(atomic, "sync", lambda path: (sync(path), synced.update(names(path) if path == tmp_path else ()))[0])
    replay = filled(tmp_path)
    assert {name for name, *_ in replay.state()["files"]} == {named(33 * n, 33 * (n + 1)) for n in range(4)} == synced
    assert {name for name, *_ in add(replay, 50, 60).state()["files"]} < synced and len(synced) == 5


def test_a_sparse_stream_keeps_only_files_alive_that_a_window_can_reach(tmp_path):
    """Environment 2 has a step every 30 ticks: its latest 3, which can be part of a window, go back 90 ticks at most."""

    def rows(tick: int) -> Rows:
        return Rows({"action": done(tick)}, np.array([True, True, tick % 30 == 0]))

    state = filled(tmp_path, 400, rows).state()
    assert len(state["files"]) <= 90 // 16 + 2
    other = windows(tmp_path)
    other.load(state)
    assert digest_tree(other.state()) == digest_tree(state)


def test_ticks_that_bring_nothing_make_no_files(tmp_path):
    def rows(tick: int) -> Rows:
        return Rows({"action": done(tick)}, np.full(ENVS, tick < 5 or tick > 150))

    replay = filled(tmp_path, 150, rows)
    state = replay.state()
    assert len(names(tmp_path)) <= 1
    replay.close()
    other = windows(tmp_path)
    other.load(state)
    add(other, 150, 160, rows)
    assert other.buffer.lengths.tolist() == [14] * ENVS


def test_nothing_is_written_of_what_updates_write_back(tmp_path):
    replay = windows(tmp_path, memory=Memory(4, refreshed=("deter",)))
    add(replay, 0, 50, lambda tick: Rows({"action": done(tick), "deter": np.ones((ENVS, 2), np.float32)})).state()
    assert all("deter" not in np.load(path) for path in tmp_path.iterdir())


# -- Pruning -----------------------------------------------------------------------------------------------------------


def test_files_that_no_state_needs_are_deleted_and_newer_ones_are_not(tmp_path):
    replay = filled(tmp_path, 100)
    state = replay.state()
    add(replay, 100, 130)
    replay.state()
    needed = {name for name, *_ in state["files"]}
    newer = {name for name in names(tmp_path) if name > max(needed)}
    (tmp_path / "notes.txt").touch()
    prune(tmp_path, needed)
    assert set(names(tmp_path)) == needed | newer | {"notes.txt"}
    assert len(newer) == 2


def test_nothing_is_deleted_while_no_state_needs_anything(tmp_path):
    filled(tmp_path, 100).state()
    before = names(tmp_path)
    prune(tmp_path, set())
    assert names(tmp_path) == before


def test_a_name_tells_what_a_file_holds():
    assert named(5, 1_000_000_000_000 - 1) == "steps-000000000005-999999999999.npz"
    assert span(named(5, 17)) == (5, 17)
    assert [span(name) for name in ("steps-5-17.npz", f".partial-{named(5, 17)}", f"{named(5, 17)}x", "manifest.json")] == [
        None
    ] * 4


# -- Writing that fails, or never ends ---------------------------------------------------------------------------------


def full(*arguments: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_is_told_when_a_state_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(filing, "write", full)
    replay = filled(tmp_path, 12)
    for _ in range(2):
        with pytest.raises(OSError, match="No space left") as caught:
            replay.state()
        assert caught.value.errno == errno.ENOSPC and "full" in [frame.name for frame in caught.traceback]


def test_a_full_disk_is_told_at_the_latest_when_the_next_file_is_due(tmp_path, monkeypatch):
    monkeypatch.setattr(filing, "write", full)
    replay = filled(tmp_path, 11)
    replay.files._writer.shutdown(wait=True)  # as if it had had the time
    with pytest.raises(OSError, match="No space left"):
        add(replay, 11, 22)


def test_what_was_not_written_in_time_is_read_before_it_is_overwritten(tmp_path, monkeypatch):
    """The writer has not even begun when the ring has gone round three times."""
    replay, other = windows(tmp_path / "a"), windows(tmp_path / "b")
    monkeypatch.setattr(replay.files._writer, "submit", lambda work: None)
    add(replay, 0, 130)
    add(other, 0, 130)
    assert replay.state()["files"] == other.state()["files"]
    assert names(tmp_path / "a") == names(tmp_path / "b")


def test_closing_does_not_wait_for_files_that_are_yet_to_be_written(tmp_path, monkeypatch):
    slow = filing.write

    def write(*arguments: Any) -> Any:
        time.sleep(0.2)
        return slow(*arguments)

    monkeypatch.setattr(filing, "write", write)
    replay = filled(tmp_path, 130)
    start = time.perf_counter()
    replay.close()
    assert time.perf_counter() - start < 1  # 11 files would take 2 seconds


CHILD = """
    import sys
    from pathlib import Path
    from hieros_repro.run import checkpoint
    from tests.replay.making import add, windows
    folder = Path(sys.argv[1])
    newest = checkpoint.newest(folder / "checkpoints", print)
    replay, tick = windows(folder / "files", "naive", online=True), newest or 0
    if newest is not None:
        replay.load(checkpoint.load(folder / "checkpoints" / f"step_{newest}")[0]["replay"])
    print("ready", flush=True)
    while True:
        add(replay, tick, tick + 7)
        tick += 7
        checkpoint.save(folder / "checkpoints", f"step_{tick}", {"replay": replay.state()}, {"step": tick})
        checkpoint.prune(folder / "checkpoints", 2, 0)
"""


@pytest.mark.slow
def test_killed_at_any_instant_the_newest_checkpoint_can_be_restored(tmp_path):
    code, draw = textwrap.dedent(CHILD), random.Random(5)
    reached = 0
    for _ in range(10):
        command = [sys.executable, "-c", code, str(tmp_path)]
        child = subprocess.Popen(command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None and child.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0.05, 0.4))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        newest = checkpoint.newest(tmp_path / "checkpoints", print)
        if newest is None:
            continue
        assert newest >= reached
        reached = newest
        replay, expected = windows(tmp_path / "files", "naive"), windows(None, "naive")
        replay.load(checkpoint.load(tmp_path / "checkpoints" / f"step_{newest}")[0]["replay"])
        add(expected, 0, newest)
        assert digest_tree(all_windows(replay)) == digest_tree(all_windows(expected))
        replay.close()
    assert reached > 0
