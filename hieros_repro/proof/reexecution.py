"""verify run=<run>: does a run that there is come out again here?

Its own configuration is executed in a folder aside, and its ledger and metrics are followed line by line while that runs: the
first other digest ends it. Where the numerics are others than recorded, equal bits cannot be expected: then it runs on and its
evaluations are held against the interval that the run's own episodes let expect.
"""

import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hieros_repro.determinism.ledger import Difference, Line, first_difference
from hieros_repro.determinism.numerics import changed, differences
from hieros_repro.exactness import INEXACT
from hieros_repro.log import jsonl
from hieros_repro.proof import execution
from hieros_repro.proof.difference import compare
from hieros_repro.provenance.code import ROOT
from hieros_repro.records import Failed, UserError
from hieros_repro.stats.table import markdown

QUIET = {
    "log.terminal": "quiet",
    "log.tensorboard": False,
    "log.wandb": "disabled",
    "run.video_every": 0,
    "run.final_video": False,
}
LEVEL = 0.95
PAUSE, PROGRESS = 0.1, 5.0  # seconds between two looks, and between two lines about how far it is


class Broken(Failed):
    """A claim that does not hold."""


class Seen(NamedTuple):
    """How far a run was followed, and where it parted from the recorded one."""

    step: int
    digests: int
    rows: int
    parted: list[str]


def reexecute(run: Path, folder: Path, steps: int | None, composition: list[list[str]]) -> str:
    """What was seen, in a line. `steps`: how far to follow it; `composition`: what was typed and comes out otherwise."""
    config, facts = execution.read(run)
    known = {path: value for path, value in QUIET.items() if path.split(".")[1] in config[path.split(".")[0]]}
    process = execution.start(execution.request(run, folder, known), ROOT, folder.with_suffix(".txt"))
    try:
        while not (folder / "config.yaml").exists() and process.poll() is None:
            time.sleep(PAUSE)
        if not (folder / "config.yaml").exists():
            raise _ended(run, process.wait(), folder)
        here = execution.read(folder)[1]
        rows = [*composition, *listed(facts, here)]
        same = "configuration, code, packages and numerics are as recorded"
        print(markdown(("what", "in the run", "here"), rows) if rows else same, flush=True)
        other = changed(facts["numerics"], here["numerics"]) or facts.get("bit_comparable") is False
        if other:
            print("equal bits cannot be expected: the numerics differ, or the run is marked so; statistics decide", flush=True)
        seen = follow(run, folder, process, steps, stops=not other)
        code = process.poll()
        if code not in (None, 0):
            raise _ended(run, code, folder)
    finally:
        process.kill()
        process.wait()
    if other:
        return _statistically(run, folder, seen)
    return _exactly(run, folder, seen)


def _ended(run: Path, code: int, folder: Path) -> Exception:
    said = folder.with_suffix(".txt").read_text(encoding="utf8").strip()
    inexact = next((line for line in said.splitlines() if INEXACT in line), None)
    if inexact:
        return Broken(inexact.partition("Inexact: ")[2] or inexact)
    return UserError(f"{run} could not be executed again (exit code {code}):\n{said[-execution.TAIL :]}")


def listed(then: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[list[str]]:
    """Everything that is otherwise than recorded: code, packages, numerics."""
    for name in ("commit", "sources"):
        old, new = then["code"][name], now["code"][name]
        if old != new:
            yield [f"code.{name}", str(old)[:10], str(new)[:10]]
    old, new = then["machine"]["python"], now["machine"]["python"]
    if old != new:
        yield ["python", old, new]
    for group in ("packages", "numerics"):
        for path, (left, right) in differences(then.get(group, {}), now[group]).items():
            yield [f"{group}.{path}", str(left), str(right)]


# -- Following ---------------------------------------------------------------------------------------------------------


def follow(run: Path, folder: Path, process: Any, steps: int | None, stops: bool) -> Seen:
    """Compares what is written with what was recorded, as it comes, to the end, to `steps`, or to the first difference."""
    ledger, metrics = Tail(folder / "ledger.jsonl"), Tail(folder / "metrics.jsonl")
    recorded, rows = _entries(jsonl.read(run / "ledger.jsonl")), {_kind(row): row for row in jsonl.read(run / "metrics.jsonl")}
    entry: list[Line] = []
    seen, agreed, shown = Seen(0, 0, 0, []), None, time.monotonic()
    while True:
        ended = process.poll() is not None
        written = [(row, list(_other(rows.get(_kind(row), {}), row))) for row in metrics.read()]
        differences = [(row["step"], 1, parted) for row, parted in written if parted]
        for line in _whole(list(ledger.read()), entry, _end(written, ended)):
            if entry and _key(line) != _key(entry[0]):
                found, count = first_difference(recorded.get(_key(entry[0]), ()), entry)
                differences += [(entry[0]["step"], 0, list(_told(found._replace(agreed=agreed))))] if found else []
                seen = Seen(max(seen.step, entry[0]["step"]), seen.digests + count, seen.rows, seen.parted)
                agreed, entry = agreed if found else entry[0]["step"], []
            entry = [*entry, line] if line else entry
        for row, _ in written:
            seen = Seen(max(seen.step, row["step"]), seen.digests, seen.rows + (_kind(row) in rows), seen.parted)
        seen = seen._replace(parted=seen.parted or min(differences, default=(0, 0, []))[2])  # of one step the ledger's first
        if ended or (stops and seen.parted) or (steps is not None and seen.step >= steps):
            return seen
        if time.monotonic() - shown > PROGRESS:
            shown = time.monotonic()
            print(f"  step {seen.step:,}: {seen.digests:,} digests and {seen.rows} rows agree", flush=True)
        time.sleep(PAUSE)


def _end(written: list[tuple[dict[str, Any], list[str]]], ended: bool) -> float:
    """Up to which step nothing follows in the ledger: what it says until then is written before a row, and read after it."""
    return math.inf if ended else max((row["step"] for row, parted in written if parted), default=-math.inf)


def _whole(lines: list[Line], entry: list[Line], end: float) -> list[Line]:
    """With an empty line behind the last entry if no more of it is to come."""
    last = next(iter([*reversed(lines), *entry]), None)
    return [*lines, {}] if end == math.inf or (last is not None and last["step"] <= end) else lines


class Tail:
    """The lines of a file that is being written, as they become whole."""

    def __init__(self, path: Path):
        self.path, self._offset = path, 0

    def read(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._offset += len(line)
                yield json.loads(line)


def _key(line: Mapping[str, Any]) -> tuple[Any, Any]:
    return line.get("update"), line.get("entry")


def _entries(lines: Iterator[Line]) -> dict[tuple[Any, Any], list[Line]]:
    found: dict[tuple[Any, Any], list[Line]] = {}
    for line in lines:
        found.setdefault(_key(line), []).append(line)
    return found


def _kind(row: Mapping[str, Any]) -> tuple[int, Any]:
    return row["step"], row.get("eval/episodes")


def _told(found: Difference) -> Iterator[str]:
    agreed = "nothing was compared before" if found.agreed is None else f"everything agrees up to step {found.agreed:,}"
    yield f"first difference: {found.component} at step {found.step:,} (update {found.update}); {agreed}"
    for name, (recorded, here) in list(found.tensors.items())[:3]:
        values = [
            side and f"digest {side['digest']}, starts {side.get('head', side.get('latest'))}" for side in (recorded, here)
        ]
        yield f"  {name}: {values[0] or 'absent'} in the run"
        yield f"  {name}: {values[1] or 'absent'} here"


def _other(recorded: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    """What of a row differs, but for means since a row before: those depend on where that one was."""
    for name in here if recorded else ():
        if not name.startswith(("train/", "episode/")) and recorded.get(name) != here[name]:
            yield f"first difference: {name} at step {here['step']:,}: {recorded.get(name)!r} in the run, {here[name]!r} here"
            return


# -- Judging -----------------------------------------------------------------------------------------------------------


def _exactly(run: Path, folder: Path, seen: Seen) -> str:
    if seen.parted:
        raise Broken("\n".join(seen.parted))
    equal, text = compare(run, folder)
    if not equal:
        raise Broken(text)
    return f"it comes out again up to step {seen.step:,}: {text.splitlines()[-1].removeprefix('equal: ')}"


def _statistically(run: Path, folder: Path, seen: Seen) -> str:
    """The last evaluation that both have, at the same step and over several episodes each."""
    if not seen.parted and not seen.digests and not seen.rows:  # nobody looked: the end remains, if both have come so far
        equal, text = compare(run, folder)
        if equal:
            return text.splitlines()[-1]
        seen = seen._replace(parted=text.splitlines()[-1:])
    if not seen.parted:
        return f"equal bit by bit all the same, up to step {seen.step:,}: {seen.digests:,} digests and {seen.rows} rows"
    tables = [
        {row["step"]: row for row in jsonl.read(where / "metrics.jsonl") if "eval/score_std" in row} for where in (run, folder)
    ]
    common = sorted(set(tables[0]) & set(tables[1]))
    if not common:
        raise UserError(f"{seen.parted[0]}\nand no evaluation over several episodes could be compared: run more steps")
    old, new = (table[common[-1]] for table in tables)
    low, high = expected(old["eval/score"], old["eval/score_std"], old["eval/episodes"], new["eval/episodes"])
    account = (
        f"{seen.parted[0]}; eval/score at step {common[-1]:,} is {new['eval/score']:.4g}, expected {low:.4g} to {high:.4g} "
        f"from {old['eval/episodes']} episodes of the run (which tell nothing of how much seeds differ)"
    )
    if not low <= new["eval/score"] <= high:
        raise Broken(account)
    return account


def expected(mean: float, std: float, count: int, others: int) -> tuple[float, float]:
    """Where the mean of `others` further episodes lies with a chance of LEVEL, if they are played like these `count`:

    mean +- t(count - 1) std sqrt(1 / count + 1 / others)
    """
    from scipy import stats

    half = stats.t.ppf((1 + LEVEL) / 2, count - 1) * std * math.sqrt(1 / count + 1 / others)
    return mean - half, mean + half
