"""How a run is asked to stop: by a signal, or by a file that tells all runs of a sweep at once, on whatever machine."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

_FILE: ContextVar[Path | None] = ContextVar("_FILE", default=None)


@contextmanager
def stop_when(file: Path) -> Iterator[None]:
    """Runs inside stop as soon as that file is there."""
    token = _FILE.set(file)
    try:
        yield
    finally:
        _FILE.reset(token)


@contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """SIGTERM and SIGINT ask the run to stop after its tick; a second SIGINT interrupts it at once.

    So does the signal by which a scheduler announces the end of a job's time, if somebody waits for it: once the run has come
    to rest it is passed on to them, who have the job queued again.
    """
    received: list[int] = []

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT and received:
            raise KeyboardInterrupt
        received.append(number)

    file = _FILE.get()

    def asked() -> bool:
        return bool(received) or (file is not None and file.exists())

    if threading.current_thread() is not threading.main_thread():
        yield lambda: file is not None and file.exists()
        return
    announced = [number for number in (_announcement(),) if callable(signal.getsignal(number))]
    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT, *announced)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in set(announced) & set(received):
            signal.raise_signal(number)


def _announcement() -> int:
    """The signal that submitit has Slurm send before the time is up."""
    return int(getattr(signal, "SIG" + os.environ.get("SUBMITIT_PREEMPT_SIGNAL", "USR2"), signal.SIGUSR2))
