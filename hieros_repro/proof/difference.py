"""Two runs: are they equal wherever both were looked at, and if not, where do they part first?"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hieros_repro.check import nearest
from hieros_repro.determinism.numerics import differences
from hieros_repro.log import jsonl
from hieros_repro.records import UserError

NOWHERE = "the runs have no common steps in ledger or metrics"
NOT_COMPARED = ("run.dir", "resume", "resume_numerics", "sweep.", "log.")


def compare(a: Path, b: Path) -> tuple[bool, str]:
    """Whether two runs are equal wherever both were looked at, and an account of it in plain words. Runs that were nowhere
    looked at both are neither: a UserError."""
    from hieros_repro.determinism.ledger import first_difference

    facts = [_facts(run) for run in (a, b)]
    lines = [f"A  {a}", f"B  {b}", *_expectations(a, b, facts)]
    difference, compared = first_difference(jsonl.read(a / "ledger.jsonl"), jsonl.read(b / "ledger.jsonl"))
    if difference is not None:
        return False, "\n".join([*lines, *_explain(difference, a, b)])
    rows, row_difference = _first_row_difference(a, b)
    if row_difference is not None:
        return False, "\n".join([*lines, f"ledgers agree ({compared} digests), but metrics.jsonl does not:", *row_difference])
    digests = [run.get("digests", {}).get("parameters") for run in facts]
    finals = [(run.get("results") or {}).get("step") for run in facts]
    ended = finals[0] == finals[1] and None not in digests
    if ended and digests[0] != digests[1]:
        return False, "\n".join([*lines, f"final parameters differ: {digests[0]} in A, {digests[1]} in B"])
    if not compared and not rows:
        if not ended or not any(run.get("parameters") for run in facts):
            raise UserError(f"{a}, {b}: nothing could be compared: {NOWHERE}, and no final parameters of one step")
        return True, "\n".join([*lines, f"equal: final parameters {digests[0]}; only these were compared: {NOWHERE}"])
    end = f", final parameters {digests[0]}" if digests[0] is not None and digests[0] == digests[1] else ""
    return True, "\n".join([*lines, f"equal: {compared} digests and {rows} metrics rows at common steps{end}"])


def existing(run: Path, key: str = "") -> Path:
    """The folder that was named, if it is there. `key`: how it was typed, as in run=..."""
    if run.is_dir():
        return run
    beside = run.parent.iterdir() if run.parent.is_dir() else ()
    raise UserError(f"{key}{run}: there is no such folder{nearest(run.name, (path.name for path in beside if path.is_dir()))}")


def _facts(run: Path) -> dict[str, Any]:
    path = existing(run) / "run.json"
    if (run / "sweep.json").exists():
        raise UserError(f"{run}: it is a sweep, not a run; groups of runs are compared with `--` between them: A -- B")
    if not path.exists():
        raise UserError(f"{run}: not a run folder (it has no run.json)")
    return json.loads(path.read_text(encoding="utf8"))


def _expectations(a: Path, b: Path, facts: list[dict[str, Any]]) -> Iterator[str]:
    """What makes it legitimate for the two to differ."""
    configs = [yaml.safe_load((run / "config.yaml").read_text(encoding="utf8")) for run in (a, b)]
    found = {path: pair for path, pair in differences(*configs).items() if not path.startswith(NOT_COMPARED)}
    for path, (old, new) in found.items():
        yield f"configuration differs: {path} = {old!r} in A, {new!r} in B"
    for path, (old, new) in differences(facts[0]["numerics"], facts[1]["numerics"]).items():
        yield f"numerics differ, so the bits need not be equal: {path} = {old!r} in A, {new!r} in B"
    if facts[0]["code"]["sources"] != facts[1]["code"]["sources"]:
        yield f"code differs: {_code(facts[0])} in A, {_code(facts[1])} in B"


def _code(facts: Mapping[str, Any]) -> str:
    code = facts["code"]
    commit = (code["commit"] or "no commit")[:10] + (" with changes" if code["changed"] else "")
    return f"{commit}, sources {code['sources'][:10]}"


def _explain(difference: Any, a: Path, b: Path) -> Iterator[str]:
    from hieros_repro.determinism.ledger import MEANINGS

    since = "from the start" if difference.agreed is None else f"up to step {difference.agreed:,}"
    agreed = "nothing was compared before" if difference.agreed is None else f"everything agrees {since}"
    ticks = f", {difference.ticks_before} ticks before it" if difference.ticks_before else ""
    yield f"first difference: {difference.component} at step {difference.step:,} (update {difference.update}){ticks}; {agreed}"
    for name, (left, right) in list(difference.tensors.items())[:5]:
        yield f"  {name}"
        yield f"    A {_shown(left)}"
        yield f"    B {_shown(right)}"
        yield from (f"    {line}" for line in _elements(name, difference, a, b))
    if len(difference.tensors) > 5:
        yield f"  and {len(difference.tensors) - 5} more"
    first = difference.component == "weights" and difference.update == 1
    yield f"meaning: {'other initial weights: look at the seed' if first else MEANINGS[difference.component]}"


def _shown(facts: Mapping[str, Any] | None) -> str:
    if facts is None:
        return "absent"
    values = facts.get("head", facts.get("latest"))
    text = f"digest {facts['digest']}"
    if values:
        text += f", starts {values}"
    return text + (f", norm {facts['norm']!r}" if "norm" in facts else "")


def _elements(name: str, difference: Any, a: Path, b: Path) -> Iterator[str]:
    """The first differing element of a parameter, from the two runs' checkpoints nearest after the difference."""
    if difference.component not in ("weights", "parameters"):
        return
    import torch

    from hieros_repro.run import checkpoint

    common = set(checkpoint.steps(a / "checkpoints")) & set(checkpoint.steps(b / "checkpoints"))
    later = sorted(step for step in common if step >= difference.step)
    if not later:
        return
    tensors = [checkpoint.load(run / "checkpoints" / f"step_{later[0]}")[0]["agent"]["parameters"].get(name) for run in (a, b)]
    if tensors[0] is None or tensors[1] is None or tensors[0].shape != tensors[1].shape:
        return
    unequal = torch.nonzero(tensors[0] != tensors[1])
    if len(unequal):
        where = tuple(unequal[0].tolist())
        values = [tensor[where].item() for tensor in tensors]
        total = tensors[0].numel()
        yield (
            f"in the checkpoints of step {later[0]:,}, {len(unequal)} of {total} elements differ, "
            f"first {list(where)}: {values[0]!r} in A, {values[1]!r} in B"
        )


def _first_row_difference(a: Path, b: Path) -> tuple[int, list[str] | None]:
    """How many rows of metrics.jsonl at common steps were compared, and the first that differ.

    What summarises the time since the previous row is compared only where the previous rows are at common steps too.
    """
    tables = [_rows(run) for run in (a, b)]
    compared, in_step = 0, True  # in_step: the previous training rows were at a common step
    for key in sorted({*tables[0], *tables[1]}):
        training = key[1] == "train"
        if key not in tables[0] or key not in tables[1]:
            in_step = in_step and not training
            continue
        left, right = (table[key] for table in tables)
        if training and not in_step:
            left, right = ({k: v for k, v in row.items() if not k.startswith(("train/", "episode/"))} for row in (left, right))
        in_step, compared = in_step or training, compared + 1
        unequal = [name for name in {**left, **right} if left.get(name) != right.get(name)]
        if unequal:
            name = unequal[0]
            return compared, [f"  step {key[0]:,}: {name} = {left.get(name)!r} in A, {right.get(name)!r} in B"]
    return compared, None


def _rows(run: Path) -> dict[tuple[int, str], dict[str, Any]]:
    """(step, kind) -> row; evaluations over different numbers of episodes are different kinds."""
    return {
        (row["step"], f"eval-{row['eval/episodes']}" if "eval/score" in row else "train"): row
        for row in jsonl.read(run / "metrics.jsonl")
    }
