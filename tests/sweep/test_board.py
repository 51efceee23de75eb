import json
import threading

import pytest

from hieros_repro.records import UserError
from hieros_repro.sweep import board
from hieros_repro.sweep.board import Board, Pace, told


def make(folder, status, **facts):
    """A run folder as a run that ended so would leave it."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"status": status, **facts}))
    return folder


# -- Notes ---------------------------------------------------------------------------------------------------------------


def test_notes_are_of_this_start_of_the_sweep(tmp_path):
    notes = Board(tmp_path)
    notes.clear()
    notes.note("seed-1", "running")
    notes.note("seed-1", "finished")
    notes.note("seed-2", "failed", "no luck")
    assert Board(tmp_path).notes() == {"seed-1": ("finished", ""), "seed-2": ("failed", "no luck")}
    notes.stop()
    assert Board(tmp_path).stopping()
    notes.clear()
    assert (notes.notes(), notes.stopping()) == ({}, False)


def test_a_job_of_an_earlier_start_still_heeds_its_word_and_leaves_the_new_one_alone(tmp_path):
    old = Board(tmp_path)
    old.clear()
    old.stop()
    new = Board(tmp_path)
    new.clear()
    assert old.stopping() and not new.stopping() and not Board(tmp_path).stopping()
    old.note("seed-1", "stopped")
    assert Board(tmp_path).notes() == {}


def test_a_line_of_progress_is_not_told_twice_in_a_row(tmp_path):
    for line in ("1 of 2", "2 of 2", "2 of 2"):
        Board(tmp_path).tell(line)
    assert Board(tmp_path).lines.read_text() == "1 of 2\n2 of 2\n"


def test_a_trial_is_listed_when_it_comes_up_and_once(tmp_path):
    notes = Board(tmp_path)
    notes.write_facts({"jobs": {"a": ["x=1"]}})
    notes.register("b", ["x=2"], 500)
    notes.register("b", ["x=3"], 900)
    assert notes.facts() == {"jobs": {"a": ["x=1"], "b": ["x=2"]}, "steps": {"b": 500}}


def test_two_processes_do_not_run_one_sweep(tmp_path):
    import fcntl

    with (tmp_path / ".started").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is running this sweep right now"):
            Board(tmp_path).keep_others_out()
    Board(tmp_path).keep_others_out()
    Board(tmp_path).keep_others_out()


# -- The plan ------------------------------------------------------------------------------------------------------------


def test_what_there_is_to_do_follows_from_the_run_folders(tmp_path):
    for status in ("finished", "failed", "stopped"):
        make(tmp_path / status, status)
    make(tmp_path / "killed", "running")  # by nobody who lives
    names = ["finished", "failed", "stopped", "killed", "new"]
    plan = board.planned(tmp_path, names, retry_failed=False)
    assert plan == {
        board.TO_SKIP: ["finished"],
        board.TO_LEAVE: ["failed"],
        board.TO_RESUME: ["stopped", "killed"],
        board.TO_RUN: ["new"],
    }
    assert board.announced(plan).splitlines() == [
        "  skip (finished): finished",
        "  skip (failed): failed  (run them again with sweep.retry_failed=true)",
        "  resume: stopped, killed",
        "  run: new",
    ]
    assert board.planned(tmp_path, ["failed"], retry_failed=True)[board.TO_RESUME] == ["failed"]


# -- Progress ------------------------------------------------------------------------------------------------------------


def test_the_time_left_is_the_steps_left_at_the_pace_so_far_shared_by_parallel_jobs():
    """150 steps took 30 s; 250 are left at 0.2 s each: 50 s for one job at a time, 25 s for two, and no fewer for nine."""
    paces = [
        Pace("finished", 100, 100, 20.0), Pace("running", 100, 50, 10.0), Pace("pending", 200, 0, 0.0),
        Pace("failed", 100, 0, 0.0),
    ]  # fmt: skip
    assert told(paces, 1) == "1 of 4 finished, 1 failed, 1 running; about 50 s left"
    assert told(paces, 2) == "1 of 4 finished, 1 failed, 1 running; about 25 s left"
    assert told(paces, 9) == "1 of 4 finished, 1 failed, 1 running; about 25 s left"


def test_no_time_is_told_where_none_is_known_or_nothing_is_left():
    assert told([Pace("pending", 100, 0, 0.0)], 1) == "0 of 1 finished"
    assert told([Pace("finished", 100, 100, 5.0)], 1) == "1 of 1 finished"
    assert told([Pace("finished", 100, 100, 5.0), Pace("failed", 100, 30, 2.0)], 1) == "1 of 2 finished, 1 failed"


def test_a_runs_pace_is_read_from_its_folder(tmp_path):
    done = make(tmp_path / "done", "finished", results={"step": 128}, wall_seconds=3.5)
    assert board.pace(done, 120) == Pace("finished", 120, 128, 3.5)
    part = make(tmp_path / "part", "running")
    (part / "timing.jsonl").write_text('{"step": 50, "steps_per_second": 5.0}\n{"step": 80, "steps_per_second": 20.0}\n')
    assert board.pace(part, 120) == Pace("interrupted", 120, 80, 4.0)
    assert board.pace(tmp_path / "none", 120) == Pace("pending", 120, 0, 0.0)


def test_progress_counts_the_trials_that_a_search_has_not_chosen_yet(tmp_path):
    make(tmp_path / "a", "finished", results={"step": 100}, wall_seconds=10.0)
    facts = {"jobs": {"a": []}, "steps": {"a": 100}, "parallel": 1, "trials": 4}
    (tmp_path / "sweep.json").write_text(json.dumps(facts))
    assert board.progress(tmp_path) == "1 of 4 finished; about 30 s left"


def test_lines_that_are_appended_are_printed_once_and_to_the_last(tmp_path, capsys):
    path, ended = tmp_path / "lines", threading.Event()
    following = threading.Thread(target=board.follow, args=(path, ended, 0.01))
    following.start()
    path.write_text("one\ntw")
    with path.open("a") as file:
        file.write("o\nthree\n")
    ended.set()
    following.join(timeout=30)
    assert capsys.readouterr().out == "one\ntwo\nthree\n"
