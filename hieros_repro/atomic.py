"""Files that are complete or absent: written aside, brought to the disk, and then put in their place."""

import contextlib
import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path

PARTIAL = ".partial-"  # how names of what is being written begin; an owner of a folder may delete what a crash left


@contextlib.contextmanager
def replaced(path: Path, shared: bool = False) -> Iterator[Path]:
    """A file to be written beside `path`, which then takes the place of what is there, durably. Where anything fails, what is
    there stays. `shared`: several processes may write it at once; the last one to be done wins."""
    whose = f"{os.uname().nodename}-{os.getpid()}-{threading.get_ident()}-" if shared else ""  # nobody else's, on any machine
    partial = path.with_name(f"{PARTIAL}{whose}{path.name}")
    try:
        yield partial
        sync(partial)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write(path: Path, content: str | bytes, shared: bool = False) -> None:
    """The content of a file, all of it or nothing."""
    with replaced(path, shared) as partial:
        partial.write_bytes(content.encode("utf8") if isinstance(content, str) else content)


def sync(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk, as far as it may be opened. Some file systems cannot be
    asked for that of a folder."""
    with contextlib.suppress(PermissionError):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)
