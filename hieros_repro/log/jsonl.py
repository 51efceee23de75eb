"""Append-only files of JSON lines whose length is checkpoint state, so that a resumed run continues them exactly."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hieros_repro.records import UserError


class JsonLines:
    """One JSON object a line. Floats are written so that they read back to the same bits."""

    def __init__(self, path: Path):
        self.path = path
        self._file = path.open("ab")

    def write(self, row: dict[str, Any]) -> None:
        self._file.write(json.dumps(row).encode() + b"\n")

    def flush(self) -> None:
        self._file.flush()

    def offset(self) -> int:
        """The file's length with everything written so far."""
        self.flush()
        return self._file.tell()

    def cut(self, offset: int) -> None:
        """Forgets what was written past `offset`: lines of a future that a crash made undone."""
        size = self.offset()
        if size < offset:
            raise UserError(f"{self.path} has {size} bytes, fewer than the {offset} the checkpoint knows: it was changed")
        self._file.truncate(offset)
        self._file.seek(0, 2)

    def close(self) -> None:
        self._file.close()


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a file; a last line cut short by a crash is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}, line {number}: not a JSON object ({error})") from error
