"""Files of rows: complete or absent, never changed again, with a digest of every byte. numpy opens them as .npz archives.

Equal rows give equal bytes, so a file's digest names its content.
"""

import hashlib
import io
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hieros_repro import atomic
from hieros_repro.records import Damaged

SUFFIX = ".npz"
_DATE = (1980, 1, 1, 0, 0, 0)  # an archive holds a date; the clock must not reach the digest
_UNREADABLE = (  # what numpy and zipfile raise on bytes that are not what they expect; TypeError: a single array
    ValueError, OSError, EOFError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile, zlib.error
)  # fmt: skip
_LEVEL = 1  # of zlib: pictures of games shrink as well at the fastest level


class Stored(NamedTuple):
    """A file of rows, as whoever needs it remembers it."""

    name: str
    rows: int
    bytes: int
    sha256: str


def write(path: Path, rows: Mapping[str, np.ndarray], compress: bool = True) -> Stored:
    """Arrays of equal length under one name. All of them or nothing, and durable."""
    content = _archive(rows, compress)
    atomic.write(path, content)
    count = len(next(iter(rows.values())))
    return Stored(path.name, count, len(content), hashlib.sha256(content).hexdigest())


def read(folder: Path, stored: Stored) -> dict[str, np.ndarray]:
    """The rows of a file, once every byte of it is known to be what was written."""
    return opened(verified(folder, stored), folder / stored.name)


def verified(folder: Path, stored: Stored) -> bytes:
    """The content of an intact file."""
    path = folder / stored.name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Damaged(f"{path}: missing") from None
    if len(content) != stored.bytes:
        raise Damaged(f"{path}: {len(content)} bytes instead of {stored.bytes}: truncated or changed")
    if hashlib.sha256(content).hexdigest() != stored.sha256:
        raise Damaged(f"{path}: its SHA-256 is not the recorded one: corrupted or changed")
    return content


def opened(content: bytes, path: Path) -> dict[str, np.ndarray]:
    """The arrays in an archive. Nothing in it can execute."""
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except _UNREADABLE as error:
        raise Damaged(f"{path}: not an archive of arrays ({error})") from error


def _archive(rows: Mapping[str, np.ndarray], compress: bool) -> bytes:
    buffer = io.BytesIO()
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(rows):
            array = io.BytesIO()
            np.lib.format.write_array(array, np.ascontiguousarray(rows[name]), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _DATE), array.getbuffer(), method, _LEVEL)
    return buffer.getvalue()
