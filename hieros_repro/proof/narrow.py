"""compare A B --narrow: what makes two runs part. Both are executed again, to the first update and then to the first operation
that differs; the runs themselves are only read.

First with an entry in the ledger for every update, which names the update and the component; then once more, eagerly, with
every operation of that update (and of the act before it) noted. Each side is executed by the code that it was made by.
"""

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.ledger import MEANINGS, TICKS, Difference, first_difference
from hieros_repro.determinism.numerics import differences
from hieros_repro.log import jsonl
from hieros_repro.proof import execution, traces
from hieros_repro.proof.difference import NOT_COMPARED
from hieros_repro.proof.sources import sources
from hieros_repro.records import Damaged
from hieros_repro.run import checkpoint as checkpoints

LOOKING = {  # changes nothing that is computed
    "run.fingerprint_every": 1, "run.eval_every": 0, "run.final_episodes": 0, "run.checkpoint_every": 0, "run.video_every": 0,
    "run.final_video": False, "run.log_every": 0, "log.terminal": "quiet", "log.tensorboard": False, "log.wandb": "disabled",
}  # fmt: skip
COMPUTED = ("action", "losses", "gradients", "parameters")  # what operations on tensors come to
BEFORE = 4  # operations that are shown before the one
NAMED = 3  # tensors that are shown of a component
HINTS = {
    "observation": "look at the environment env: its version, wrappers and seeds (keys env/<number>/<episode>)",
    "batch": "look at the selector of that replay and at what it stores (key replay/{update}/<replay>)",
    "noise": "look at what learn_noise draws and from which names (key learn/{update})",
    "weights": "nothing is learned between two updates: look at what else touches parameters",
    "start": "look at the seed and at how parameters are initialised (keys init/<module path>)",
}


class Sides(NamedTuple):
    """Two runs, the code that executes each again, and where."""

    runs: tuple[Path, Path]
    trees: tuple[Path, Path]
    folder: Path


def narrow(a: Path, b: Path) -> list[str]:
    """An account of where exactly two runs part, line by line."""
    accounts = [execution.read(run) for run in (a, b)]
    recorded, _ = first_difference(*_ledgers(a, b))
    until = recorded.update if recorded else _first_row(a, b)
    if until is None:
        return ["nothing to narrow: where both were looked at, the two runs are equal"]
    checkpoint = common_checkpoint(a, b, recorded.step if recorded else None)
    folder = Path(tempfile.mkdtemp(prefix="hieros-narrow-"))
    try:
        with contextlib.ExitStack() as stack:
            trees = [stack.enter_context(sources(run, facts)) for run, (_, facts) in zip((a, b), accounts, strict=True)]
            lines = [
                "",
                f"executed again from {'the start' if checkpoint is None else f'the checkpoint of step {checkpoint:,}'}",
            ]
            lines += [f"  {name}: by {account}" for name, (_, account) in zip("AB", trees, strict=True)]
            sides = Sides((a, b), (trees[0][0], trees[1][0]), folder)
            ledgers = _execute(sides, "ledger", checkpoint, {"until_update": until or None})
            found, compared = first_difference(*_ledgers(*ledgers))
            lines += [line for side in zip("AB", (a, b), ledgers, strict=True) for line in _strays(*side, checkpoint)]
            if found is None:
                return [*lines, f"executed again, both do the same ({compared} digests): neither code, configuration nor seed",
                        "makes the difference; look at numerics, and at environments that do not repeat"]  # fmt: skip
            found, tick = moment(found, ledgers)
            lines += _told(found, tick)
            configs = [config for config, _ in accounts]
            return [*lines, *_traced(sides, checkpoint, found, tick, configs)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# -- Executing ---------------------------------------------------------------------------------------------------------


def common_checkpoint(a: Path, b: Path, before: int | None) -> int | None:
    """The last step at which both have a checkpoint and all that what follows depends on is equal."""
    if any(execution.read(run)[0]["determinism"].get("resume") == "episode_boundary" for run in (a, b)):
        return None  # a checkpoint would not bring the episodes back
    starts = [execution.starts(run) for run in (a, b)]
    for step in sorted(set(starts[0]) & set(starts[1]), reverse=True):
        if before is not None and step >= before:
            continue
        states = [_state(start[step]) for start in starts]
        if states[0] is not None and states[0] == states[1]:
            return step
    return None


def _state(path: Path) -> str | None:
    """A digest of everything in a checkpoint but what was looked at; None where it cannot be started from."""
    try:
        parts, _ = checkpoints.load(path)
        if any(checkpoints.replay_problems(path)):
            return None
    except Damaged:
        return None
    loop = parts["loop"]
    counters = {name: loop["counters"][name] for name in ("step", "tick", "update", "pace")}
    return digest_tree({**parts, "loop": {"counters": counters, "carry": loop["carry"], "feed": loop["feed"]}})


def _execute(sides: Sides, name: str, checkpoint: int | None, wanted: Mapping[str, Any]) -> tuple[Path, Path]:
    """Both once more, one after the other; the folders."""
    folders = []
    for side, run, tree in zip("ab", sides.runs, sides.trees, strict=True):
        config, _ = execution.read(run)
        eager = {"hardware.compile": None} if "trace" in wanted and "compile" in config["hardware"] else {}
        known = {path: value for path, value in LOOKING.items() if path.split(".")[1] in config[path.split(".")[0]]}
        print(f"executing {side.upper()} again ({name})", file=sys.stderr, flush=True)
        more = {**wanted, "fresh_ledger": checkpoint is not None, "tried": True}
        asked = execution.request(run, sides.folder / f"{name}-{side}", known | eager, checkpoint, **more)
        folders.append(execution.execute(asked, tree))
    return folders[0], folders[1]


def _ledgers(a: Path, b: Path) -> Iterator[Iterator[dict[str, Any]]]:
    return (jsonl.read(run / "ledger.jsonl") for run in (a, b))


def _first_row(a: Path, b: Path) -> int | None:
    """The update of the first row of metrics that differs, where ledgers tell nothing."""
    for left, right in zip(*(jsonl.read(run / "metrics.jsonl") for run in (a, b)), strict=False):
        if left != right:
            return int(max(left.get("updates", 0), right.get("updates", 0)))
    ends = [execution.read(run)[1].get("digests", {}).get("parameters") for run in (a, b)]
    return 0 if ends[0] != ends[1] else None


def _strays(name: str, run: Path, again: Path, checkpoint: int | None) -> Iterator[str]:
    """Whether a run has come out again, as far as its own ledger tells. Streams begin anew at a checkpoint."""
    skipped = () if checkpoint is None else ("observation", "action")
    lines = (
        (line for line in jsonl.read(folder / "ledger.jsonl") if line["component"] not in skipped) for folder in (run, again)
    )
    found, _ = first_difference(*lines)
    if found is not None:
        yield f"{name} does not come out again as it was: {found.component} of update {found.update} is another than recorded"


# -- What was found ----------------------------------------------------------------------------------------------------


def moment(found: Difference, ledgers: tuple[Path, Path]) -> tuple[Difference, int]:
    """The tick whose act or environments to look at, counted from the run's first, 0; -1 is the reset before it. And whether
    an action came first where experience differs.

    An entry has a mark for every tick since the one before it: with an entry for every update these are few, and as all is
    equal before them, they are counted from the first.
    """
    ticks = json.loads((ledgers[0] / "ticks.json").read_text(encoding="utf8"))
    last, experience = ticks.get(str(found.update), ticks["end"]), ("observation", "action")
    if found.component not in experience:
        return found, last - 1
    marks: dict[str, list[list[str]]] = {name: [] for name in experience}
    entry = next(x["entry"] for x in jsonl.read(ledgers[0] / "ledger.jsonl") if (x["update"], x["step"]) == found[1::-1])
    for line in (line for lines in _ledgers(*ledgers) for line in lines):
        if (line["update"], line["entry"]) == (found.update, entry) and line["component"] in marks:
            text = line["ticks"]
            marks[line["component"]].append([text[i : i + 4] for i in range(0, len(text), 4)])
    if any(len(both) != 2 or max(map(len, both)) >= TICKS for both in marks.values()):
        return found, last - 1 - (found.ticks_before or 0)
    start = last - len(marks["action"][0])  # of A, whose ticks these are
    resets = len(marks["observation"][0]) - len(marks["action"][0])  # 1 where the entry is the run's first
    first = {name: _first_unequal(*both) for name, both in marks.items()}
    if first["action"] <= first["observation"] - resets:
        return found._replace(component="action", tensors={"action": (None, None)}), start + first["action"]
    return found._replace(component="observation"), start + first["observation"] - resets


def _first_unequal(a: list[str], b: list[str]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _told(found: Difference, tick: int) -> Iterator[str]:
    agreed = "nothing before it" if found.agreed is None else f"all updates up to step {found.agreed:,} agree"
    at = f", tick {tick:,}" if found.component in ("observation", "action") else ""
    yield f"first of all: {found.component} of update {found.update}{at} (step {found.step:,}); {agreed}"
    yield f"  {', '.join(list(found.tensors)[:6])}{' ...' if len(found.tensors) > 6 else ''}"


def _traced(sides: Sides, checkpoint: int | None, found: Difference, tick: int, configs: list[dict[str, Any]]) -> Iterator[str]:
    experience = found.component in ("observation", "action")
    trace = {"update": None if experience else found.update, "tick": tick}
    stop = {"until_tick": max(tick + 1, 1)} if experience else {"until_update": found.update}
    folders = _execute(sides, "trace", checkpoint, {"trace": trace, **stop})
    if found.component not in COMPUTED:
        yield from _from_outside(found, folders)
        return
    notes = [list(jsonl.read(folder / "trace.jsonl")) for folder in folders]
    parting = traces.parting(*notes)
    if found.component == "action":
        yield from (f"  {line}" for line in elements(*_kept(folders, "action")))
    if not parting and not any(notes):
        yield "cause: another action, chosen without any operation on tensors"
        yield from (f"  {line}" for line in _chosen(configs))
        return
    if not parting:
        yield f"executed eagerly, operation by operation, both do the same ({len(notes[0])} operations)"
        yield f"the difference comes with hardware.compile={configs[0]['hardware'].get('compile')}"
        return
    yield f"traced: {len(notes[0])} operations in A, {len(notes[1])} in B"
    for finding in parting:
        headline, *details = [*traces.told(finding), *_more(finding, folders, configs)]
        yield f"{'cause' if finding is parting[0] else 'then'}: {headline}"
        yield from (f"  {line}" for line in details)
    yield from _orientation(parting[0], notes[0])


def _from_outside(found: Difference, folders: tuple[Path, Path]) -> Iterator[str]:
    """What was handed in differs: the first elements, and where to look."""
    name = found.component
    yield from (f"  {line}" for line in elements(*_kept(folders, name)))
    if name == "observation" and all((folder / "action.pt").exists() for folder in folders):
        same = not list(elements(*_kept(folders, "action")))
        yield f"  {'after equal actions' if same else 'after other actions'}; the first index is the environment's"
    first = name == "weights" and found.update == 1
    hint = HINTS["start" if first else name].replace("{update}", str(found.update - 1))
    yield f"meaning: {MEANINGS[name]}" if not first else "meaning: other initial weights"
    yield f"cause: {name} from outside; {hint}"


def _more(finding: traces.Finding, folders: tuple[Path, Path], configs: list[dict[str, Any]]) -> Iterator[str]:
    """Elements of what differs, and the keys of the configuration that differ or have just these two values."""
    if finding.kind in ("input", "output") and finding.a is not None and finding.b is not None:
        kept = []
        for folder, note in zip(folders, (finding.a, finding.b), strict=True):
            tensors, start = torch.load(folder / "tensors.pt", weights_only=True), f"{note['number']} {finding.kind} "
            kept.append({name.removeprefix(f"{note['number']} "): t for name, t in tensors.items() if name.startswith(start)})
        yield from elements(*kept)
    if finding.kind in ("constant", "input"):
        yield from _chosen(configs, finding.what[1:])


def _chosen(configs: list[dict[str, Any]], values: tuple[Any, ...] = ()) -> Iterator[str]:
    """The keys of the configurations that have just these two values; if none has, all that differ."""
    differing = {path: pair for path, pair in differences(configs[0], configs[1]).items() if not path.startswith(NOT_COMPARED)}
    exact = [path for path, pair in differing.items() if tuple(map(repr, pair)) == values]
    if exact:
        yield f"which is {' or '.join(exact)} of the configuration"
    elif differing:
        yield f"the configurations differ in {', '.join(f'{path} ({a!r}, {b!r})' for path, (a, b) in differing.items())}"


def _kept(folders: tuple[Path, Path], name: str) -> list[dict[str, torch.Tensor]]:
    """What both runs' loops showed under a name at the moment that was looked at."""
    return [torch.load(folder / f"{name}.pt", weights_only=True) for folder in folders]


def _orientation(finding: traces.Finding, notes: list[dict[str, Any]]) -> Iterator[str]:
    number = finding.a["number"] if finding.a is not None else len(notes)
    yield "before it, in both:" if number else "it is the first operation"
    yield from (f"  {traces.brief(note)}" for note in notes[max(0, number - BEFORE) : number])


def elements(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> Iterator[str]:
    """The first differing element of every tensor that differs, as far as a few lines go."""
    unequal = [name for name in a if name not in b or a[name].shape != b[name].shape or not torch.equal(a[name], b[name])]
    for name in unequal[:NAMED]:
        if name not in b or a[name].shape != b[name].shape:
            yield f"{name}: {list(a[name].shape)} in A, {list(b[name].shape) if name in b else 'absent'} in B"
            continue
        where = torch.nonzero(a[name] != b[name])
        at = tuple(where[0].tolist())
        values = f"{a[name][at].item()!r} in A, {b[name][at].item()!r} in B"
        yield f"{name}: {len(where)} of {a[name].numel()} elements differ, first {list(at)}: {values}"
    if len(unequal) > NAMED:
        yield f"and {len(unequal) - NAMED} more"
