import errno
import os
import threading
from pathlib import Path

import pytest

from hieros_repro import atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["text é", b"\x00\xff"])
def test_what_is_written_takes_the_place_of_what_was_there(tmp_path, content):
    path = tmp_path / "file"
    path.write_text("a longer one than is to come")
    atomic.write(path, content)
    assert path.read_bytes() == (content.encode("utf8") if isinstance(content, str) else content)
    assert names(tmp_path) == ["file"]


def test_a_file_is_on_the_disk_before_it_has_its_name_and_its_name_before_it_is_done(tmp_path, monkeypatch):
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        events.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", lambda self, other: (events.append("named"), replace(self, other))[1])
    atomic.write(tmp_path / "file", "x")
    assert events == [f"{atomic.PARTIAL}file", "named", tmp_path.name]


@pytest.mark.parametrize("moment", ["writing", "syncing", "naming"])
def test_whatever_fails_what_was_there_stays_and_nothing_else(tmp_path, monkeypatch, moment):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(*given: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if moment == "syncing":
        monkeypatch.setattr(os, "fsync", fail)
    if moment == "naming":
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="No space"), atomic.replaced(path) as partial:
        partial.write_text("half")
        if moment == "writing":
            fail()
    assert path.read_text() == "old" and names(tmp_path) == ["file"]


def test_what_a_crash_left_half_written_is_in_nobodys_way(tmp_path):
    (tmp_path / f"{atomic.PARTIAL}file").write_text("half " * 1000)
    atomic.write(tmp_path / "file", "whole")
    assert (tmp_path / "file").read_text() == "whole" and names(tmp_path) == ["file"]


def test_a_shared_file_is_written_aside_under_a_name_of_its_writer(tmp_path):
    with atomic.replaced(tmp_path / "file", shared=True) as partial:
        partial.write_text("mine")
        assert partial.name == f"{atomic.PARTIAL}{os.uname().nodename}-{os.getpid()}-{threading.get_ident()}-file"
        other = threading.Thread(target=atomic.write, args=(tmp_path / "file", "of another, not shared"))
        other.start()
        other.join()
    assert (tmp_path / "file").read_text() == "mine" and names(tmp_path) == ["file"]


def test_a_folder_that_may_not_be_read_can_be_written_to(tmp_path, monkeypatch):
    opened = os.open

    def refused(path, flags, *rest):
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *rest)

    monkeypatch.setattr(os, "open", refused)
    atomic.write(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "x"
