import json
import sqlite3

import pytest

from hieros_repro.findings import archive, record
from hieros_repro.records import UserError
from tests.findings.folders import run


@pytest.fixture
def sweep(tmp_path):
    """Two of three seeds finished; the third has not begun."""
    folder = tmp_path / "outputs" / "sweeps" / "one"
    for seed in (1, 2):
        run(folder / f"seed-{seed}", seed, 10.0 * seed, typed=["agent=hieros"])
    jobs = {f"seed-{seed}": ["agent=hieros", f"seed={seed}"] for seed in (1, 2, 3)}
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    return folder


def test_a_sweep_is_all_its_jobs_in_their_order_also_those_that_have_not_begun(sweep):
    found = archive.read([sweep])
    assert [(one.seed, one.status) for one in found] == [(1, "finished"), (2, "finished"), (3, "pending")]
    assert found[2].typed == ["agent=hieros"]


def test_runs_and_sweeps_are_found_wherever_they_are_below_a_folder(sweep, tmp_path):
    single = run(tmp_path / "outputs" / "pinpad-hieros" / "x", 9, 5.0)
    run(single / "checkpoints" / "not a run of its own", 9, 5.0)
    run(tmp_path / "outputs" / ".hidden", 9, 5.0)
    assert [one.seed for one in archive.read([tmp_path / "outputs"])] == [9, 1, 2, 3]


def test_a_run_named_twice_is_one_run(sweep):
    assert len(archive.read([sweep, sweep / "seed-1", sweep / ".." / "one" / "seed-2"])) == 3


def test_a_folder_without_a_run_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: there is no run in it"):
        archive.read([tmp_path])
    with pytest.raises(UserError, match=r"absent: there is no such folder"):
        archive.read([tmp_path / "absent"])


def test_what_has_not_changed_is_not_read_again(sweep, monkeypatch):
    before = archive.read([sweep])
    monkeypatch.setattr(record, "read", lambda folder: pytest.fail(f"{folder} was read again"))
    assert archive.read([sweep]) == before


def test_what_has_changed_is_read_again(sweep):
    archive.read([sweep])
    path = sweep / "seed-2" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "failed"}))
    run(sweep / "seed-3", 3, 30.0, typed=["agent=hieros"])
    assert [one.status for one in archive.read([sweep])] == ["finished", "failed", "finished"]


def test_a_moved_folder_of_runs_is_known_by_its_new_name(sweep):
    archive.read([sweep])
    moved = sweep.rename(sweep.with_name("two"))
    assert [one.folder for one in archive.read([moved])][:2] == [str(moved / "seed-1"), str(moved / "seed-2")]


def test_an_index_of_another_layout_is_made_anew(sweep):
    before = archive.read([sweep])
    with sqlite3.connect(sweep / archive.INDEX) as index:
        index.execute("UPDATE layout SET version = 'older'")
        index.execute("UPDATE runs SET record = '{}'")
    assert archive.read([sweep]) == before


def test_a_folder_that_cannot_be_written_is_read_all_the_same(sweep, monkeypatch):
    connect = sqlite3.connect

    def refusing(path, **options):
        if path != ":memory:":
            raise sqlite3.OperationalError("unable to open database file")
        return connect(path, **options)

    monkeypatch.setattr(sqlite3, "connect", refusing)
    assert len(archive.read([sweep])) == 3
    assert not (sweep / archive.INDEX).exists()


def test_an_index_that_is_no_database_is_made_anew(sweep):
    before = archive.read([sweep])
    (sweep / archive.INDEX).write_bytes(b"no database" * 1000)
    assert archive.read([sweep]) == before == archive.read([sweep])


def test_a_damaged_run_is_said_to_be_damaged_and_keeps_no_other_from_being_read(sweep):
    (sweep / "seed-1" / "run.json").write_text('{"status": "finis')
    found = archive.read([sweep])
    assert [one.status for one in found] == ["damaged", "finished", "pending"]
    assert "seed-1: its files cannot be read: JSONDecodeError" in found[0].error


def test_a_file_in_the_place_of_a_run_folder_is_a_run_that_has_not_begun(sweep):
    (sweep / "seed-3").touch()
    assert [one.status for one in archive.read([sweep])] == ["finished", "finished", "pending"]
