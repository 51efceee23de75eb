"""With plugins=[tests.dying] a process is killed as it writes its DIE_FILE-th file of steps: at DIE_MOMENT, half or after."""

import itertools
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hieros_repro import atomic
from hieros_repro.replay import filing, storage

_count = itertools.count(1)


def write(path: Path, rows: Mapping[str, np.ndarray], compress: bool = True) -> storage.Stored:
    wanted = next(_count) == int(os.environ["DIE_FILE"]) and os.environ["DIE_MOMENT"]
    if wanted == "half":
        path.with_name(f"{atomic.PARTIAL}{path.name}").write_bytes(b"PK half an archive")
        os.kill(os.getpid(), signal.SIGKILL)
    stored = storage.write(path, rows, compress)
    if wanted == "after":
        os.kill(os.getpid(), signal.SIGKILL)
    return stored


if "DIE_FILE" in os.environ:
    filing.write = write
