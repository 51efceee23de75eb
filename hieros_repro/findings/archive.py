"""Many runs at once: found under folders, remembered in an index, and asked for by what they are."""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from hieros_repro.check import nearest
from hieros_repro.findings import record
from hieros_repro.findings.record import Record
from hieros_repro.records import UserError
from hieros_repro.run.folder import RunFolder

INDEX = ".index.sqlite"
LAYOUT = " ".join(("2", *Record._fields, *record.NOT_THE_RUN))  # of a record; an index of another layout is made anew
STAMPED = ("run.json", "config.yaml", "overrides.yaml", "metrics.jsonl")


def folders(path: Path) -> dict[Path, list[str]]:
    """Run folders at or below a path, in order; of a sweep all its jobs, also those that have not begun. With each what its
    sweep says was asked of it."""
    if (path / "sweep.json").exists():
        jobs = json.loads((path / "sweep.json").read_text(encoding="utf8"))["jobs"]
        return {path / name: overrides for name, overrides in jobs.items()}
    if RunFolder(path).exists() or (path / "run.json").exists():
        return {path: []}
    if not path.is_dir():
        beside = sorted(one.name for one in path.parent.iterdir() if one.is_dir()) if path.parent.is_dir() else []
        raise UserError(f"{path}: there is no such folder{nearest(path.name, beside)}")
    found: dict[Path, list[str]] = {}
    for inside in sorted(path.iterdir()):
        if inside.is_dir() and not inside.is_symlink() and not inside.name.startswith("."):
            found |= folders(inside)
    return found


def sweeps(records: Sequence[Record]) -> dict[Path, dict[str, Any]]:
    """The sweeps that runs belong to, and what each was asked."""
    folders = dict.fromkeys(Path(run.folder).parent for run in records)
    files = {folder: folder / "sweep.json" for folder in folders}
    return {folder: json.loads(file.read_text(encoding="utf8")) for folder, file in files.items() if file.exists()}


def read(paths: Sequence[Path]) -> list[Record]:
    """The records of all runs at or below the paths, each once."""
    found: dict[Path, Record] = {}
    for path in paths:
        for folder, run in gathered(path).items():
            found.setdefault(folder.resolve(), run)
    if not found:
        raise UserError(f"{', '.join(map(str, paths))}: there is no run in it")
    return list(found.values())


def gathered(path: Path) -> dict[Path, Record]:
    """The runs at or below a path. Where there are several, an index in that folder remembers those that have not changed."""
    wanted, refused = folders(path), _refused(path)
    found = _gathered(path, wanted)
    return {folder: _told(run, refused.get(folder.name)) for folder, run in found.items()}


def _gathered(path: Path, wanted: dict[Path, list[str]]) -> dict[Path, Record]:
    if len(wanted) < 2:
        return {folder: _pending(record.read(folder), asked) for folder, asked in wanted.items()}
    with _opened(path / INDEX) as index:
        known = {name: (stamp, text) for name, stamp, text in index.execute("SELECT folder, stamp, record FROM runs")}
        found, fresh = {}, []
        for folder, asked in wanted.items():
            name, stamp = str(folder.relative_to(path)), _stamp(folder)
            before = known.get(name)
            if before is not None and before[0] == stamp:
                found[folder] = Record(**{**json.loads(before[1]), "folder": str(folder)})
                continue
            run = found[folder] = _pending(record.read(folder), asked)
            if run.status != "running":  # a process may end without touching a file
                fresh.append((name, stamp, json.dumps(run._asdict())))
        gone = known.keys() - {str(folder.relative_to(path)) for folder in wanted}
        _remember(index, fresh, gone)
    return found


def _remember(index: sqlite3.Connection, fresh: Sequence[tuple[str, str, str]], gone: Iterable[str]) -> None:
    """What was read, for the next time; an index that can only be read stays as it is."""
    with contextlib.suppress(sqlite3.OperationalError), index:
        index.executemany("INSERT OR REPLACE INTO runs VALUES (?, ?, ?)", fresh)
        index.executemany("DELETE FROM runs WHERE folder = ?", [(name,) for name in gone])


def _refused(path: Path) -> dict[str, str]:
    """Of a sweep: job -> why it came to no run that could say so itself, as its summary has it."""
    summary = path / "summary.json"
    if not (path / "sweep.json").exists() or not summary.exists():
        return {}
    try:
        return {run["folder"]: run["error"] for run in json.loads(summary.read_text(encoding="utf8"))["runs"] if run["error"]}
    except (ValueError, KeyError, TypeError):  # cut off by a crash; it is written anew at the next job's end
        return {}


def _told(run: Record, refused: str | None) -> Record:
    return run._replace(error=refused) if refused and run.status == "pending" and run.error is None else run


def _pending(run: Record, asked: list[str]) -> Record:
    """A job that has not begun is what its sweep asked for."""
    if run.facts.get("run.steps") is not None or not asked:
        return run
    seeds = [override[5:] for override in asked if override.startswith("seed=")]
    seed = int(seeds[-1]) if seeds and seeds[-1].isdigit() else None
    return run._replace(seed=seed, typed=[override for override in asked if not override.startswith("seed=")])


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """The index, made anew if it is none; in memory where the folder cannot be written."""
    with closing(_connected(path)) as index:
        yield index


def _connected(path: Path) -> sqlite3.Connection:
    for place in (path, path, ":memory:"):
        try:
            index = sqlite3.connect(place, timeout=60)
            _laid_out(index)
            return index
        except sqlite3.DatabaseError as error:
            if place == ":memory:":
                raise
            if not isinstance(error, sqlite3.OperationalError):  # not a database
                path.unlink(missing_ok=True)
    raise AssertionError("a database in memory can always be opened")


def _laid_out(index: sqlite3.Connection) -> None:
    with index:
        index.execute("CREATE TABLE IF NOT EXISTS layout (version TEXT)")
        if index.execute("SELECT version FROM layout").fetchall() != [(LAYOUT,)]:
            index.execute("DROP TABLE IF EXISTS runs")
            index.execute("DELETE FROM layout")
            index.execute("INSERT INTO layout VALUES (?)", (LAYOUT,))
        index.execute("CREATE TABLE IF NOT EXISTS runs (folder TEXT PRIMARY KEY, stamp TEXT, record TEXT)")


def _stamp(folder: Path) -> str:
    """Changes whenever one of the files that a record is read from does."""
    marks = []
    for name in STAMPED:
        try:
            status = (folder / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            marks.append("-")
        else:
            marks.append(f"{status.st_mtime_ns}:{status.st_size}:{status.st_ino}")
    return " ".join(marks)
