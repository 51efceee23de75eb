import json
import os
import subprocess
import sys

import pytest

from hieros_repro.records import UserError
from hieros_repro.run.folder import RunFolder
from tests.runs import ROOT

HOLD = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(descriptor, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / ".lock"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_a_folder_that_another_process_holds_is_refused(tmp_path, holder):
    with pytest.raises(UserError, match=f"run.dir={tmp_path}: another process is running"), RunFolder(tmp_path).held():
        pass


def test_a_killed_process_holds_nothing_any_more(tmp_path, holder):
    holder.kill()
    holder.wait()
    with RunFolder(tmp_path).held() as folder:
        assert folder.is_held()


def test_a_second_holder_in_the_same_process_is_refused_too(tmp_path):
    with RunFolder(tmp_path).held(), pytest.raises(UserError), RunFolder(tmp_path).held():
        pass


def test_a_folder_is_free_again_after_an_error(tmp_path):
    with pytest.raises(KeyError), RunFolder(tmp_path).held():
        raise KeyError
    assert not RunFolder(tmp_path).is_held()


def test_a_running_run_is_believed_while_its_process_lives(tmp_path, holder):
    RunFolder(tmp_path).update(status="running")
    assert RunFolder(tmp_path).read()["status"] == "running"
    holder.kill()
    holder.wait()
    assert RunFolder(tmp_path).read()["status"] == "interrupted"


@pytest.mark.parametrize("status", ["finished", "failed", "stopped"])
def test_an_ended_run_is_believed(tmp_path, status):
    RunFolder(tmp_path).update(status=status)
    assert RunFolder(tmp_path).read()["status"] == status


def test_a_folder_without_an_account_reads_as_nothing(tmp_path):
    assert RunFolder(tmp_path).read() == {} and not RunFolder(tmp_path / "absent").is_held()


def test_an_update_changes_what_it_names_and_nothing_else(tmp_path):
    folder = RunFolder(tmp_path)
    folder.update(status="running", seed=3)
    folder.update(status="finished", results={"a": 1})
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "finished", "seed": 3, "results": {"a": 1}}


def test_an_update_that_fails_leaves_the_old_account_whole(tmp_path, monkeypatch):
    folder = RunFolder(tmp_path)
    folder.update(status="running", seed=3)
    with pytest.raises(TypeError):
        folder.update(status="finished", results=object())
    monkeypatch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        folder.update(status="finished")
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "running", "seed": 3}


def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path):
    (tmp_path / "file").write_text("")
    says = rf"run.dir={tmp_path / 'file' / 'run'}: cannot be written \(Not a directory\)"
    with pytest.raises(UserError, match=says), RunFolder(tmp_path / "file" / "run").held():
        pass


@pytest.mark.parametrize("there", [None, ".", "of_mine"])
def test_of_a_run_that_is_refused_nothing_is_left(tmp_path, there):
    path = tmp_path / "outputs" / "run"
    if there is not None:
        (path / there).mkdir(parents=True)
    with pytest.raises(UserError, match="no"), RunFolder(path).held() as folder:
        folder.write("config.yaml", "")
        (path / "replay" / "windows").mkdir(parents=True)
        raise UserError("no")
    if there is None:
        assert list(tmp_path.iterdir()) == []
    else:
        assert {found.name for found in path.iterdir()} == {there} - {"."}


def test_a_lock_that_was_there_before_a_refused_run_stays(tmp_path):
    (tmp_path / ".lock").touch()
    with pytest.raises(UserError, match="no"), RunFolder(tmp_path).held():
        raise UserError("no")
    assert [found.name for found in tmp_path.iterdir()] == [".lock"]


def test_what_somebody_keeps_where_a_run_is_to_be_is_not_taken_for_a_runs(tmp_path):
    with RunFolder(tmp_path).held() as folder:
        assert not folder.ours
    with RunFolder(tmp_path).held() as folder:
        assert folder.ours


def test_a_folder_that_was_taken_away_while_its_lock_was_waited_for_is_not_held(tmp_path, monkeypatch):
    path = tmp_path / "run"
    monkeypatch.setattr("hieros_repro.run.folder._locked", lambda descriptor: (path / ".lock").unlink() is None)
    with pytest.raises(UserError, match="another process has just taken it away; run this again"), RunFolder(path).held():
        pass


def test_other_folders_beside_a_refused_run_stay(tmp_path):
    path = tmp_path / "outputs" / "run"
    with pytest.raises(UserError), RunFolder(path).held():
        (tmp_path / "outputs" / "other").mkdir()
        raise UserError
    assert [found.name for found in (tmp_path / "outputs").iterdir()] == ["other"]


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_a_run_that_breaks_before_it_has_begun_can_be_looked_at(tmp_path, error):
    with pytest.raises(error), RunFolder(tmp_path / "run").held() as folder:
        folder.write("config.yaml", "")
        raise error
    assert folder.exists()


def test_a_run_that_is_refused_after_it_has_begun_stays(tmp_path):
    with pytest.raises(UserError), RunFolder(tmp_path / "run").held() as folder:
        folder.write("config.yaml", "")
        folder.begun = True
        raise UserError
    assert folder.exists()


def test_a_run_exists_once_it_has_a_configuration(tmp_path):
    assert not RunFolder(tmp_path).exists()
    (tmp_path / "config.yaml").write_text("")
    assert RunFolder(tmp_path).exists()


def test_somebody_who_only_looks_whether_a_run_is_held_keeps_nobody_out(tmp_path):
    """Another process looks all the time; each look has the lock for an instant."""
    (tmp_path / ".lock").touch()
    own = (
        f"from pathlib import Path; from hieros_repro.run.folder import RunFolder; folder = RunFolder(Path({str(tmp_path)!r}))"
    )
    look = f"{own}\nprint('looking', flush=True)\nwhile True: folder.is_held()"
    looker = subprocess.Popen([sys.executable, "-c", look], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert looker.stdout.readline() == "looking\n"
        for _ in range(1_000):
            with RunFolder(tmp_path).held():
                pass
    finally:
        looker.kill()
        looker.communicate()


def test_a_file_in_the_place_of_a_run_folder_is_no_run_and_cannot_be_held(tmp_path):
    folder = RunFolder(tmp_path / "file")
    folder.path.touch()
    assert folder.read() == {} and not folder.exists() and not folder.is_held()
    with pytest.raises(UserError, match=r"file: cannot be written \(File exists\)"), folder.held():
        pass
