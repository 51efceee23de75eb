import io
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from hieros_repro import atomic
from hieros_repro.records import Damaged
from hieros_repro.replay import storage
from hieros_repro.replay.storage import Stored, opened, read, verified, write

ROWS = {
    "obs.image": np.arange(5 * 12, dtype=np.uint8).reshape(5, 2, 2, 3),
    "action": np.arange(5),
    "reward": np.linspace(-1, 1, 5, dtype=np.float32),
    "is_first": np.array([True, False, False, False, True]),
    "half": np.ones((5, 0, 3), np.float16),
}


@pytest.mark.parametrize("compress", [True, False])
def test_rows_come_back_as_they_were(tmp_path, compress):
    stored = write(tmp_path / "rows.npz", ROWS, compress)
    found = read(tmp_path, stored)
    assert sorted(found) == sorted(ROWS)
    for name, value in ROWS.items():
        assert np.array_equal(found[name], value) and found[name].dtype == value.dtype
        found[name][...] = 0  # whoever reads them may change them


def test_what_is_remembered_of_a_file_is_true(tmp_path):
    stored = write(tmp_path / "rows.npz", ROWS)
    content = (tmp_path / "rows.npz").read_bytes()
    assert stored[:3] == ("rows.npz", 5, len(content))
    assert verified(tmp_path, stored) == content
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npz"]


def test_numpy_opens_it_as_an_archive_of_its_own(tmp_path):
    write(tmp_path / "rows.npz", ROWS)
    with np.load(tmp_path / "rows.npz") as archive:
        assert np.array_equal(archive["obs.image"], ROWS["obs.image"])


def test_equal_rows_are_equal_bytes_in_whatever_order_memory_and_year_they_come(tmp_path, monkeypatch):
    one = write(tmp_path / "a.npz", ROWS)
    monkeypatch.setattr("time.time", lambda: 2e9)
    other = {name: np.asfortranarray(value)[::-1][::-1] for name, value in reversed(ROWS.items())}
    assert write(tmp_path / "b.npz", other)[1:] == one[1:]


@pytest.mark.parametrize("compress", [True, False])
def test_any_other_value_is_another_digest(tmp_path, compress):
    digests = {write(tmp_path / "rows.npz", ROWS, compress).sha256}
    for name, value in ROWS.items():
        if value.size:
            other = value.copy()
            other.reshape(-1).view(np.uint8)[0] ^= 1
            digests.add(write(tmp_path / "rows.npz", {**ROWS, name: other}, compress).sha256)
    assert len(digests) == 5


def test_pictures_are_compressed_if_asked(tmp_path):
    rows = {"image": np.zeros((100, 64, 64, 3), np.uint8)}
    assert write(tmp_path / "a.npz", rows).bytes < 10_000
    assert write(tmp_path / "b.npz", rows, compress=False).bytes > 100 * 64 * 64 * 3


def test_objects_are_not_rows(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        write(tmp_path / "rows.npz", {"action": np.array([{}, []], object)})
    assert list(tmp_path.iterdir()) == []


# -- Complete or absent ------------------------------------------------------------------------------------------------


def test_a_file_that_could_not_be_synced_does_not_appear(tmp_path, monkeypatch):
    def fail(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write(tmp_path / "rows.npz", ROWS)
    assert list(tmp_path.iterdir()) == []


def test_what_was_left_half_written_is_in_nobodys_way(tmp_path):
    (tmp_path / f"{atomic.PARTIAL}rows.npz").write_bytes(b"half" * 1000)
    stored = write(tmp_path / "rows.npz", ROWS)
    assert read(tmp_path, stored).keys() == ROWS.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["rows.npz"]


# -- Damage ------------------------------------------------------------------------------------------------------------


def test_any_single_flipped_bit_is_seen(tmp_path):
    stored = write(tmp_path / "rows.npz", {"action": np.arange(3)})
    content = (tmp_path / "rows.npz").read_bytes()
    for at in range(len(content)):
        changed = bytearray(content)
        changed[at] ^= 1 << at % 8
        (tmp_path / "rows.npz").write_bytes(changed)
        with pytest.raises(Damaged, match=r"rows\.npz: its SHA-256 is not the recorded one"):
            read(tmp_path, stored)


@pytest.mark.parametrize("length", [0, 1, 100])
def test_a_file_of_another_length_is_refused(tmp_path, length):
    stored = write(tmp_path / "rows.npz", ROWS)
    (tmp_path / "rows.npz").write_bytes((tmp_path / "rows.npz").read_bytes()[:length])
    with pytest.raises(Damaged, match=rf"rows\.npz: {length} bytes instead of {stored.bytes}: truncated or changed"):
        read(tmp_path, stored)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(Damaged, match=r"rows\.npz: missing"):
        read(tmp_path, Stored("rows.npz", 1, 1, ""))


def as_bytes(save: object, *arguments: object) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arguments)  # type: ignore[operator]
    return buffer.getvalue()


def broken_stream() -> bytes:
    """An archive whose compressed content is not what zlib makes, under the right checksum of the archive."""
    content = bytearray(storage._archive({"action": np.arange(1000)}, True))
    start = content.index(b"action.npy") + len("action.npy")
    content[start : start + 20] = b"\xff" * 20
    return bytes(content)


def unknown_method() -> bytes:
    content = bytearray(storage._archive({"action": np.arange(10)}, True))
    for mark, offset in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = content.index(mark) + offset
        content[at : at + 2] = (99).to_bytes(2, "little")
    return bytes(content)


FOREIGN = {
    "empty": b"",
    "text": b"mine",
    "a single array": as_bytes(np.save, np.arange(3)),
    "a pickle": b"\x80\x04N.",
    "an archive of objects": as_bytes(lambda file: np.savez(file, action=np.array([{}], object))),
    "half an archive": storage._archive(ROWS, True)[:200],
    "a broken stream": broken_stream(),
    "an unknown compression": unknown_method(),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_is_not_an_archive_of_arrays_is_refused_by_name(kind):
    with pytest.raises(Damaged, match=r"^/run/rows\.npz: not an archive of arrays"):
        opened(FOREIGN[kind], Path("/run/rows.npz"))


def test_the_broken_stream_is_one_that_zlib_refuses():
    with zipfile.ZipFile(io.BytesIO(broken_stream())) as archive, pytest.raises(zlib.error):
        archive.read("action.npy")


def test_nothing_in_a_file_can_execute(tmp_path):
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    content = as_bytes(lambda file: np.savez(file, action=np.array([Trap()], object)))
    with pytest.raises(Damaged):
        opened(content, Path("rows.npz"))
    assert not (tmp_path / "sprung").exists()
