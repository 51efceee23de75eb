"""Datasets: recorded episodes in a folder of files that never change, and a manifest with the digest of every byte.

    manifest.json        what the episodes came from, the SHA-256 of every file and of the whole, when and where it was made
    episodes.jsonl       one line an episode: seed, length, score, how it ended, where its rows are
    rows-000000.npz ...  whole episodes, one after the other: obs.<name>, action, reward, is_first, is_last, is_terminal
    splits.json, folds.json    which episodes belong to which part, once somebody has said so

The digest of the whole is one of the content alone, neither of dates nor of how well a machine's zlib compresses: equal content
has equal versions wherever and whenever it was made.
"""

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from hieros_repro import atomic
from hieros_repro.records import Arrays, Damaged, Spaces, UserError
from hieros_repro.replay import parts, storage

FORMAT = 1
MANIFEST = "manifest.json"
EPISODES = "episodes.jsonl"
FLAGS = ("is_first", "is_last", "is_terminal")
Part = Iterator[tuple["Recorded", dict[str, np.ndarray]]]


class Recorded(NamedTuple):
    """An episode of a dataset: a line of episodes.jsonl."""

    number: int
    seed: int | None  # of its reset, where it is known
    length: int  # steps; it has a row more
    score: float
    terminal: bool  # whether it ended; a time-out otherwise
    file: str
    first: int  # its first row in that file
    account: Mapping[str, float] = MappingProxyType({})  # what else the environment told of it, by name


def dtypes(spaces: Spaces) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """The type and shape of what a row holds, by name."""
    seen = {f"obs.{name}": (space.dtype, tuple(space.shape)) for name, space in spaces.observation.items()}
    flags = {name: (np.dtype(bool), ()) for name in FLAGS}
    return {**seen, "action": (spaces.action.dtype, tuple(spaces.action.shape)), "reward": (np.dtype(np.float32), ()), **flags}


def episode(spaces: Spaces, obs: Arrays, action: np.ndarray, reward: np.ndarray, terminal: bool) -> dict[str, np.ndarray]:
    """The rows of an episode of T steps from T + 1 observations, T actions and T rewards.

    The first row's reward and the last row's action, which nobody reads, are zero, so that equal episodes are equal bytes.
    """
    steps = len(reward)
    flags = np.zeros((len(FLAGS), steps + 1), bool)
    flags[0, 0], flags[1, -1], flags[2, -1] = True, True, terminal
    values = {f"obs.{name}": value for name, value in obs.items()} | dict(zip(FLAGS, flags, strict=True))
    values["reward"] = np.concatenate([np.zeros(1), reward])
    values["action"] = np.concatenate([action, np.zeros((1, *np.shape(action)[1:]))])
    return {name: np.asarray(values[name], dtype) for name, (dtype, _) in dtypes(spaces).items()}


@dataclass(frozen=True)
class Dataset:
    """A dataset on disk. Opening it reads the manifest; whatever is read later is checked against that."""

    path: Path
    manifest: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls, path: str | Path) -> "Dataset":
        folder = Path(path)
        try:
            text = (folder / MANIFEST).read_bytes().decode("utf8")
            facts = json.loads(text)
            known = facts["format"] <= FORMAT
            intact = known and text == _text(facts) and facts["seal"] == _seal(facts) and facts["sha256"] == _digest(facts)
        except (FileNotFoundError, NotADirectoryError):
            if (folder / EPISODES).exists():
                raise Damaged(f"{folder / MANIFEST}: missing") from None
            raise UserError(f"{folder}: not a dataset (it has no {MANIFEST})") from None
        except (ValueError, KeyError, TypeError) as error:
            raise Damaged(f"{folder / MANIFEST}: not the manifest of a dataset ({error})") from None
        if not known:
            raise Damaged(f"{folder}: written in format {facts['format']}; this version reads up to {FORMAT}")
        if not intact:
            raise Damaged(f"{folder / MANIFEST}: its SHA-256 is not the recorded one: corrupted or changed")
        return cls(folder, facts)

    @property
    def digest(self) -> str:
        return self.manifest["sha256"]

    @property
    def version(self) -> str:
        return self.manifest["version"]

    @property
    def content(self) -> Mapping[str, Any]:
        """What the episodes are, besides the files: spaces, source, pipeline, rows_per_file."""
        return self.manifest["content"]

    @property
    def steps(self) -> int:
        return self.manifest["counts"]["steps"]

    @property
    def count(self) -> int:
        """How many episodes there are."""
        return self.manifest["counts"]["episodes"]

    @cached_property
    def spaces(self) -> Spaces:
        return Spaces.from_plain(self.content["spaces"])

    @cached_property
    def episodes(self) -> list[Recorded]:
        """Every episode, in order."""
        text = storage.verified(self.path, self._stored(EPISODES)).decode("utf8")
        return [Recorded(**json.loads(line)) for line in text.splitlines()]

    def parts(self) -> dict[str, list[int]]:
        """The episodes of every part that somebody has made, by name: train, fold-1/val, ..."""
        return parts.read(self.path, self.digest)

    def members(self, part: str | None) -> list[int]:
        """The episodes of a part; None: of the whole."""
        return list(range(self.count)) if part is None else parts.named(self.path, self.digest, part)

    def rows(self, part: str | None = None) -> Iterator[dict[str, np.ndarray]]:
        """The rows of a part, episode by episode."""
        return (rows for _, rows in self.read(part))

    def read(self, part: str | None = None) -> Part:
        """Every episode of a part with its rows, in order. A file that is damaged gives none of its rows."""
        wanted = set(self.members(part))
        episodes: dict[str, list[Recorded]] = {}
        for e in self.episodes:
            if e.number in wanted:
                episodes.setdefault(e.file, []).append(e)
        for stored in self._row_files():
            here = episodes.get(stored.name, [])
            held = storage.read(self.path, stored) if here else {}
            for e in here:
                yield e, {name: values[e.first : e.first + e.length + 1] for name, values in held.items()}

    def verify(self) -> None:
        """Reads every byte; raises Damaged, naming the file that is not what it was."""
        for name in self.manifest["files"]:
            storage.verified(self.path, self._stored(name))
        foreign = sorted({path.name for path in self.path.iterdir()} - {MANIFEST, *self.manifest["files"], *parts.FILES})
        if foreign:
            raise Damaged(f"{self.path / foreign[0]}: not part of this dataset")
        self.parts()

    def _row_files(self) -> list[storage.Stored]:
        return [self._stored(name) for name in self.manifest["files"] if name != EPISODES]

    def _stored(self, name: str) -> storage.Stored:
        facts = self.manifest["files"][name]
        return storage.Stored(name, facts["rows"], facts["bytes"], facts["sha256"])


# -- Writing -----------------------------------------------------------------------------------------------------------


class Writer:
    """Writes a dataset aside, episode by episode. `finish` makes it appear, whole; leaving without it leaves nothing."""

    def __init__(self, path: Path, spaces: Spaces, rows_per_file: int):
        self.path, self.spaces, self.rows_per_file = path, spaces, rows_per_file
        self.episodes: list[Recorded] = []
        self.name = path.resolve().name
        self._partial = path.resolve().with_name(f"{atomic.PARTIAL}{self.name}")
        self._dtypes = dtypes(spaces)
        self._waiting: list[Mapping[str, np.ndarray]] = []
        self._rows = 0  # that wait
        self._files: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> "Writer":
        vacant(self.path)
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be written ({error.strerror})") from error
        self._lock = os.open(self._partial, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise UserError(f"{self.path}: another process is writing it right now") from None
        for left in self._partial.iterdir():  # by a process that was killed
            left.unlink()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        shutil.rmtree(self._partial, ignore_errors=True)
        os.close(self._lock)
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise UserError(f"{self.path}: the disk is full; nothing was kept") from error

    def add(self, rows: Arrays, seed: int | None = None, account: Mapping[str, float] = MappingProxyType({})) -> None:
        """The next episode."""
        number = len(self.episodes)
        self._check(rows, number)
        self._waiting.append({name: np.asarray(rows[name]) for name in self._dtypes})
        length, score = len(rows["reward"]) - 1, math.fsum(rows["reward"].tolist())
        where = (f"rows-{len(self._files):06d}{storage.SUFFIX}", self._rows)
        self.episodes.append(Recorded(number, seed, length, score, bool(rows["is_terminal"][-1]), *where, dict(account)))
        self._rows += length + 1
        if self._rows >= self.rows_per_file:
            self._flush()

    def finish(self, source: Mapping[str, Any], pipeline: list[Any], made: Mapping[str, Any]) -> Dataset:
        """Completes the dataset. `made`: when and where, which is told but is no part of what it is."""
        if not self.episodes:
            raise UserError(f"{self.path}: there is no episode to write")
        self._flush()
        lines = "".join(json.dumps(e._asdict()) + "\n" for e in self.episodes)
        stored = _write(self._partial / EPISODES, lines, len(self.episodes))
        self._record(stored, stored.sha256)
        content = {"spaces": self.spaces.plain(), "source": source, "pipeline": pipeline, "rows_per_file": self.rows_per_file}
        facts = {"format": FORMAT, "name": self.name, "content": content, "files": self._files}
        facts = json.loads(json.dumps(facts))  # as it will be read: tuples are lists
        whole, steps = _digest(facts), sum(e.length for e in self.episodes)
        counts = {"episodes": len(self.episodes), "steps": steps, "rows": steps + len(self.episodes)}
        facts = {"version": whole[:12], "sha256": whole, "counts": counts, **facts, "made": json.loads(json.dumps(made))}
        _write(self._partial / MANIFEST, _text({**facts, "seal": _seal(facts)}), 0)
        atomic.sync(self._partial)
        vacant(self.path)
        self._partial.rename(self.path)
        atomic.sync(self.path.resolve().parent)
        return Dataset.open(self.path)

    def _check(self, rows: Arrays, number: int) -> None:
        if rows.keys() != self._dtypes.keys():
            told, wanted = (", ".join(sorted(names)) for names in (rows, self._dtypes))
            raise ValueError(f"episode {number} has {told}; its spaces say {wanted}")
        count = len(rows["is_first"])
        for name, (dtype, shape) in self._dtypes.items():
            value = rows[name]
            if value.shape != (count, *shape) or value.dtype != dtype:
                told, wanted = f"{value.dtype} {value.shape}", f"{dtype} {(count, *shape)}"
                raise ValueError(f"episode {number}: {name} is {told}, its space says {wanted}")
        ends, edge = np.flatnonzero(rows["is_last"]).tolist(), rows["is_terminal"][:-1]
        if np.flatnonzero(rows["is_first"]).tolist() != [0] or ends != [count - 1] or count < 2 or edge.any():
            raise ValueError(f"episode {number}: its {count} rows are not one whole episode of at least one step")

    def _flush(self) -> None:
        if self._waiting:
            path = self._partial / f"rows-{len(self._files):06d}{storage.SUFFIX}"
            rows = {name: np.concatenate([waiting[name] for waiting in self._waiting]) for name in self._dtypes}
            self._record(storage.write(path, rows), _of_arrays(rows))
            self._waiting, self._rows = [], 0

    def _record(self, file: storage.Stored, content: str) -> None:
        self._files[file.name] = {"rows": file.rows, "bytes": file.bytes, "sha256": file.sha256, "content": content}


def vacant(path: Path) -> None:
    """Refuses a place where something is: a dataset is never overwritten."""
    if path.exists():
        raise UserError(f"{path}: there is something already; a dataset is never overwritten, so name another place")


def _write(path: Path, text: str, lines: int) -> storage.Stored:
    content = text.encode("utf8")
    atomic.write(path, content)
    return storage.Stored(path.name, lines, len(content), hashlib.sha256(content).hexdigest())


def _text(facts: Mapping[str, Any]) -> str:
    return json.dumps(facts, indent=1) + "\n"


def _digest(facts: Mapping[str, Any]) -> str:
    """Of what the files hold and what the episodes are: not of the name, nor of when and where it was made."""
    files = {name: file["content"] for name, file in facts["files"].items()}
    return parts.sha256({"format": facts["format"], "content": facts["content"], "files": files})


def _of_arrays(rows: Arrays) -> str:
    """Of what arrays hold, however they are compressed."""
    state = hashlib.sha256()
    for name in sorted(rows):
        value = np.ascontiguousarray(rows[name])
        state.update(f"{name} {value.dtype.str} {value.shape}\0".encode())
        state.update(value.data)
    return state.hexdigest()


def _seal(facts: Mapping[str, Any]) -> str:
    """Of everything the manifest says."""
    return parts.sha256({name: value for name, value in facts.items() if name != "seal"})
