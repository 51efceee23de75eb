"""What the process that started a sweep does while its jobs run, and what it says at the end."""

import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hieros_repro.run.folder import invocation
from hieros_repro.sweep import board, search
from hieros_repro.sweep.board import Board

FINISHED, FAILED, STOPPED = 0, 1, 75


@contextmanager
def directed(folder: Path) -> Iterator[None]:
    """What the process that started the sweep does beside it: SIGTERM and Ctrl-C ask every job to stop, wherever it runs; a
    second Ctrl-C ends at once. Prints the progress of jobs whose output goes elsewhere."""
    notes = Board(folder)
    heard: list[int] = []

    def note(number: int, frame: Any) -> None:
        if number == signal.SIGINT and heard:
            raise KeyboardInterrupt
        heard.append(number)
        notes.stop()

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    ended = threading.Event()
    follower = threading.Thread(target=board.follow, args=(notes.lines, ended), daemon=True)
    follower.start()
    try:
        yield
    except Exception as error:
        if not _is_launchers(error):
            raise
        print(f"error: {type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr)
    finally:
        ended.set()
        follower.join()
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_launchers(error: Exception) -> bool:
    """Whether a launcher or sweeper says so of jobs that are lost or have no score; what they came to is noted elsewhere."""
    if isinstance(error, BrokenExecutor) or type(error).__module__.split(".")[0] in ("submitit", "ray"):
        return True
    return isinstance(error, ValueError) and "No trials are completed" in str(error)  # Optuna, at a search's end


def verdict(folder: Path) -> int:
    """The exit code of this start of the sweep, with one line on what went wrong."""
    notes = Board(folder)
    found, facts = notes.notes(), notes.facts()
    asked = facts["started"] if not facts["search"] else list(found)
    failed = {name: found[name].text for name in found if found[name].outcome == "failed"}
    stopped = [name for name in asked if name in found and found[name].outcome == "stopped"]
    lost = [name for name in asked if name in found and found[name].outcome == "running"]
    waiting = [name for name in asked if name not in found]
    ahead = "; ".join(filter(None, (_named("to go on with", [*lost, *stopped]), _named("to begin", waiting))))
    again = f"{ahead or 'nothing is left to do'}; the same command goes on: {invocation('train')} {facts['command']}"
    if facts["search"]:
        print(search.trials(folder))
    if notes.stopping() or stopped:
        print(f"the sweep was stopped: {again}", file=sys.stderr)
        return STOPPED
    for name, text in failed.items():
        print(f"failed: {name}: {text.splitlines()[0] if text else ''}", file=sys.stderr)
    for name in lost:
        print(f"lost: {name}: its process ended without a word", file=sys.stderr)
    for name in waiting:
        print(f"not begun: {name}: the sweep ended before it", file=sys.stderr)
    if failed or lost or waiting:
        total, counts = len(set(asked) | set(found)), {"failed": len(failed) + len(lost), "not begun": len(waiting)}
        told = ", ".join(f"{count} of {total} runs {what}" for what, count in counts.items() if count)
        print(f"error: {told}", file=sys.stderr)
        if lost or waiting:
            print(again, file=sys.stderr)
        return FAILED
    return FINISHED


def _named(what: str, names: list[str]) -> str:
    return f"{what}: {', '.join(names)}" if names else ""
