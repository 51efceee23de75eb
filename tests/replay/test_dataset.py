import errno
import json
import shutil

import numpy as np
import pytest

from hieros_repro.records import Damaged, UserError
from hieros_repro.replay import dataset as module
from hieros_repro.replay import parts, storage
from hieros_repro.replay.dataset import Dataset, Writer
from tests.replay.recorded import IMAGES, plain, rows, written


@pytest.fixture
def known(tmp_path):
    return written(tmp_path / "known")


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# -- What is written is read ---------------------------------------------------------------------------------------------


def test_an_episode_of_t_steps_has_a_row_more():
    found = plain(rows(3, 2))
    assert found["obs.vector"] == [[300, -300], [301, -301], [302, -302]]
    assert found["reward"] == [0, 1, 2] and found["action"] == [0, 1, 0]
    assert found["is_first"] == [True, False, False] and found["is_last"] == [False, False, True]
    assert found["is_terminal"] == [False, False, True] and plain(rows(2, 2))["is_terminal"] == [False, False, False]


def test_episodes_come_back_as_they_were_written_in_order(known):
    found = list(Dataset.open(known.path).rows())
    assert [plain(episode) for episode in found] == [plain(rows(n, length)) for n, length in enumerate((3, 1, 2, 4))]
    assert {name: value.dtype for name, value in found[0].items()} == {name: v.dtype for name, v in rows(0, 3).items()}


def test_a_file_closes_at_the_first_episode_end_past_its_number_of_rows(known):
    """Rows per episode: 4, 2, 3, 5; a file is full at 6."""
    files = [(e.file, e.first) for e in known.episodes]
    assert files == [(f"rows-00000{n}.npz", first) for n, first in ((0, 0), (0, 4), (1, 0), (1, 3))]


def test_an_episode_is_told_as_data(known):
    told = [(e.number, e.seed, e.length, e.score, e.terminal, e.account) for e in known.episodes]
    assert told[:2] == [(0, 0, 3, 6.0, False, {"nth": 0.0}), (1, 7, 1, 1.0, True, {"nth": 1.0})]
    assert (known.count, known.steps, known.manifest["counts"]["rows"]) == (4, 10, 14)
    assert Dataset.open(known.path).spaces == IMAGES


def test_a_part_gives_its_episodes_only_and_reads_only_their_files(known):
    parts.write(known.path, parts.SPLITS, known.digest, {}, {"train": [2, 3], "val": [0, 1]}, False)
    (known.path / "rows-000001.npz").unlink()
    assert [plain(episode) for episode in known.rows("val")] == [plain(rows(0, 3)), plain(rows(1, 1))]
    with pytest.raises(Damaged, match=r"rows-000001\.npz: missing"):
        list(known.rows("train"))


# -- Versions ------------------------------------------------------------------------------------------------------------


def test_equal_content_has_an_equal_version_whenever_wherever_and_under_whatever_name(known, tmp_path):
    other = written(tmp_path / "other", created="another day")
    assert (other.digest, other.version) == (known.digest, known.digest[:12])
    assert other.manifest["seal"] != known.manifest["seal"]
    assert {**contents(other.path), "manifest.json": b""} == {**contents(known.path), "manifest.json": b""}


def test_the_version_does_not_depend_on_how_well_zlib_compresses(known, tmp_path, monkeypatch):
    write = storage.write
    monkeypatch.setattr(storage, "write", lambda path, rows: write(path, rows, compress=False))
    other = written(tmp_path / "other")
    assert other.manifest["files"]["rows-000000.npz"]["bytes"] != known.manifest["files"]["rows-000000.npz"]["bytes"]
    assert other.digest == known.digest
    other.verify()


@pytest.mark.parametrize("change", ["a reward", "a seed", "an order", "a fact", "a layout"])
def test_other_content_has_another_version(known, tmp_path, change):
    episodes = [(rows(n, length), 7 * n, {"nth": float(n)}) for n, length in enumerate((3, 1, 2, 4))]
    if change == "a reward":
        episodes[2][0]["reward"][1] += 1
    if change == "a seed":
        episodes[2] = (episodes[2][0], 15, episodes[2][2])
    if change == "an order":
        episodes.reverse()
    with Writer(tmp_path / "other", IMAGES, 7 if change == "a layout" else 6) as writer:
        for episode in episodes:
            writer.add(*episode)
        source = {"env": {"id": "Known-v0"}, "agent": "none"} | ({"agent": "some"} if change == "a fact" else {})
        assert writer.finish(source, [], {}).digest != known.digest


# -- Complete or absent --------------------------------------------------------------------------------------------------


def test_what_is_not_finished_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "new", IMAGES, 1) as writer:
        writer.add(rows(0, 3))
        assert not (tmp_path / "new").exists()
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_writer_left_is_cleared_away(known, tmp_path):
    (tmp_path / ".partial-new").mkdir()
    (tmp_path / ".partial-new" / "rows-000009.npz").write_bytes(b"half")
    written(tmp_path / "new").verify()
    assert {path.name for path in tmp_path.iterdir()} == {"known", "new"}


def test_two_cannot_write_the_same_at_once(tmp_path):
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "new", IMAGES, 6):
        with pytest.raises(UserError, match="another process is writing it"), Writer(tmp_path / "new", IMAGES, 6):
            pass
        raise ZeroDivisionError


def test_nothing_is_ever_overwritten(known):
    before = contents(known.path)
    with pytest.raises(UserError, match="there is something already"):
        written(known.path)
    assert contents(known.path) == before


def test_a_full_disk_is_said_in_a_sentence(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "write", full)
    with pytest.raises(UserError, match="the disk is full"):
        written(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_of_no_episodes_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no episode"):
        written(tmp_path / "new", ())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("reward", np.zeros(4), "reward is float64"),
        ("obs.vector", np.zeros((4, 3), np.float32), r"obs\.vector is float32 \(4, 3\)"),
        ("is_last", np.array([False, True, False, True]), "not one whole episode"),
        ("is_first", np.zeros(4, bool), "not one whole episode"),
        ("is_terminal", np.array([True, False, False, True]), "not one whole episode"),
        ("logit", np.zeros(4), "has .*logit"),
    ],
)
def test_rows_that_are_no_episode_of_these_spaces_are_refused(tmp_path, name, value, said):
    with pytest.raises(ValueError, match=said), Writer(tmp_path / "new", IMAGES, 6) as writer:
        writer.add({**rows(0, 3), name: value})


# -- Damage --------------------------------------------------------------------------------------------------------------


def test_a_flipped_bit_anywhere_is_found_and_its_file_named(known):
    parts.write(known.path, parts.SPLITS, known.digest, {"seed": 1}, {"train": [0, 1, 2], "val": [3]}, False)
    known.verify()
    for path in sorted(known.path.iterdir()):
        content = path.read_bytes()
        for at in range(0, len(content), 1 + len(content) // 120):
            path.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
            with pytest.raises(Damaged, match=path.name):
                Dataset.open(known.path).verify()
        path.write_bytes(content)
    known.verify()


@pytest.mark.parametrize("name", ["manifest.json", "episodes.jsonl", "rows-000001.npz", "splits.json"])
def test_a_truncated_file_is_named(known, name):
    parts.write(known.path, parts.SPLITS, known.digest, {}, {"train": [0, 1, 2], "val": [3]}, False)
    path = known.path / name
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(Damaged, match=name):
        Dataset.open(known.path).verify()


@pytest.mark.parametrize("name", ["manifest.json", "episodes.jsonl", "rows-000001.npz"])
def test_a_missing_file_is_named(known, name):
    (known.path / name).unlink()
    with pytest.raises(Damaged, match=f"{name}: missing"):
        Dataset.open(known.path).verify()


def test_a_foreign_file_is_named(known):
    (known.path / "notes.txt").write_text("mine")
    with pytest.raises(Damaged, match=r"notes\.txt: not part of this dataset"):
        known.verify()


@pytest.mark.parametrize("text", ["[]", "{}", "nothing", '{"format": "one"}', "null"])
def test_what_is_no_manifest_is_named(known, text):
    (known.path / "manifest.json").write_text(text)
    with pytest.raises(Damaged, match=r"manifest\.json: not the manifest"):
        Dataset.open(known.path)


def test_a_manifest_whose_facts_were_changed_and_sealed_again_is_found(known):
    """The digest of the whole is one of the facts too."""
    facts = json.loads((known.path / "manifest.json").read_text())
    facts["content"]["source"]["agent"] = "better"
    facts["seal"] = module._seal(facts)
    (known.path / "manifest.json").write_text(module._text(facts))
    with pytest.raises(Damaged, match=r"manifest\.json: its SHA-256"):
        Dataset.open(known.path)


def test_a_format_to_come_is_refused_with_the_reason(known):
    facts = json.loads((known.path / "manifest.json").read_text())
    (known.path / "manifest.json").write_text(json.dumps({**facts, "format": 2}))
    with pytest.raises(Damaged, match="written in format 2; this version reads up to 1"):
        Dataset.open(known.path)


@pytest.mark.parametrize("where", ["nowhere", "."])
def test_what_is_no_dataset_is_no_damage(tmp_path, where):
    with pytest.raises(UserError, match="not a dataset") as caught:
        Dataset.open(tmp_path / where)
    assert not isinstance(caught.value, Damaged)


def test_reading_finds_damage_before_it_gives_a_row(known):
    path = known.path / "rows-000000.npz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(Damaged, match=r"rows-000000\.npz"):
        next(Dataset.open(known.path).rows())


def test_a_copy_is_the_same_dataset(known, tmp_path):
    copy = Dataset.open(shutil.copytree(known.path, tmp_path / "copy"))
    copy.verify()
    assert copy.digest == known.digest
