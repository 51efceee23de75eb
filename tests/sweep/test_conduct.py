"""What the process that started a sweep says at its end."""

import pytest

from hieros_repro.sweep import conduct
from hieros_repro.sweep.board import Board

COMMAND = "-m seed=1,2,3 hydra/launcher=joblib"


@pytest.fixture
def board(tmp_path):
    """Of a sweep of three runs, of which no job has begun."""
    board = Board(tmp_path)
    board.write_facts({"started": ["seed-1", "seed-2", "seed-3"], "search": None, "command": COMMAND})
    board.clear()
    return board


def said(board, capsys):
    code = conduct.verdict(board.sweep)
    return code, capsys.readouterr().err.splitlines()


def test_of_a_sweep_that_is_finished_nothing_is_said(board, capsys):
    for name in ("seed-1", "seed-2", "seed-3"):
        board.note(name, "finished")
    assert said(board, capsys) == (conduct.FINISHED, [])


def test_jobs_whose_process_was_killed_are_named_with_the_command_that_goes_on(board, capsys):
    """A killed worker ends its fellows: their notes say that they run, and nobody runs them."""
    board.note("seed-1", "running")
    board.note("seed-2", "running")
    code, lines = said(board, capsys)
    assert code == conduct.FAILED
    assert lines[-2] == "error: 2 of 3 runs failed, 1 of 3 runs not begun"
    assert lines[-1].startswith(
        "to go on with: seed-1, seed-2; to begin: seed-3; the same command goes on: python -m hieros_repro"
    )
    assert lines[-1].endswith(f".train {COMMAND}")


def test_a_sweep_that_was_stopped_names_what_is_left(board, capsys):
    board.note("seed-1", "finished")
    board.note("seed-2", "stopped")
    code, lines = said(board, capsys)
    assert code == conduct.STOPPED
    [line] = lines
    assert line.startswith("the sweep was stopped: to go on with: seed-2; to begin: seed-3; the same command goes on: ")
    assert line.endswith(COMMAND)


def test_of_runs_that_failed_by_themselves_no_command_is_said_to_go_on(board, capsys):
    for name in ("seed-1", "seed-2"):
        board.note(name, "finished")
    board.note("seed-3", "failed", "ValueError: no\nmore")
    assert said(board, capsys) == (conduct.FAILED, ["failed: seed-3: ValueError: no", "error: 1 of 3 runs failed"])
