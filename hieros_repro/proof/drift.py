"""compare ORIGINAL RESUMED --checkpoints: how far apart two runs are at every checkpoint that both have.

Of equal runs everything is 0. Of others it tells whether they drift apart, and what of the state is the first to differ.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from hieros_repro.proof.difference import existing
from hieros_repro.records import UserError
from hieros_repro.run import checkpoint as checkpoints
from hieros_repro.stats.table import markdown

HEAD = (
    "step", "parameters", "largest absolute", "largest relative", "of", "other state, absolute", "of",
    "latest metrics, absolute", "of", "evaluation, absolute",
)  # fmt: skip


class Gap(NamedTuple):
    """The largest difference between named numbers: |a - b|, and |a - b| / max(|a|, |b|) where that is largest by itself."""

    absolute: float
    relative: float
    name: str  # where |a - b| is largest
    differing: int  # names with any difference, or in one of the two only


def drift(a: Path, b: Path) -> tuple[bool, str]:
    """Whether all common checkpoints are equal, and a table with a row for each."""
    folders = [run / "checkpoints" for run in (a, b)]
    for run in (existing(a), existing(b)):
        if not (run / "config.yaml").exists():
            raise UserError(f"{run}: not a run folder (it has no config.yaml)")
    found = [checkpoints.steps(folder) for folder in folders]
    common = sorted(set(found[0]) & set(found[1]))
    if not common:
        counts = " and ".join(
            f"{run} has {', '.join(map(str, steps)) or 'none'}" for run, steps in zip((a, b), found, strict=True)
        )
        raise UserError(f"the two runs have no checkpoint of the same step: {counts}")
    rows, equal = [], True
    for step in common:
        states = [checkpoints.load(folder / f"step_{step}")[0] for folder in folders]
        cells, same = row(*states)
        rows.append([f"{step:,}", *cells])
        equal &= same
    notes = [
        f"only {side} has checkpoints of step {', '.join(f'{step:,}' for step in sorted(set(steps) - set(common)))}"
        for side, steps in zip("AB", found, strict=True) if set(steps) - set(common)
    ]  # fmt: skip
    if any("inf" in cells for cells in rows):
        notes.append("inf: what `of` names is absent or of another shape in the other run, or a number in one of them only")
    verdict = "equal at every common checkpoint" if equal else "not equal: `of` says where the largest difference is"
    return equal, "\n".join([f"A  {a}\nB  {b}\n\n{markdown(HEAD, rows)}", *notes, verdict])


def row(a: Mapping[str, Any], b: Mapping[str, Any]) -> tuple[list[str], bool]:
    """What two checkpoints of one step differ in."""
    agents = [dict(state["agent"]) for state in (a, b)]
    parameters = gap(*(dict(numbers(agent.pop("parameters"))) for agent in agents))
    rest = [
        {"agent": agent, "env": state["env"], "carry": state["loop"]["carry"]}
        for agent, state in zip(agents, (a, b), strict=True)
    ]
    others = gap(*(dict(numbers(tree)) for tree in rest))
    counters = [state["loop"]["counters"] for state in (a, b)]
    metrics = gap(*(dict(numbers(each["learned"])) for each in counters))
    scores = [[score for _, score in each["evaluations"]][-1:] for each in counters]
    returned = abs(scores[0][0] - scores[1][0]) if all(scores) else 0.0
    cells = [f"{parameters.differing} differ", f"{parameters.absolute:.3g}", f"{parameters.relative:.3g}", parameters.name]
    cells += [f"{others.absolute:.3g}", others.name, f"{metrics.absolute:.3g}", metrics.name]
    cells += [f"{returned:.3g}" if all(scores) else "-"]
    differing = parameters.differing + others.differing + metrics.differing
    return cells, not differing and not returned and len(scores[0]) == len(scores[1])


def gap(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> Gap:
    """The largest difference between arrays of the same name. One that the other lacks, or that has another shape, or is not a
    number on one side only, is infinitely far away."""
    absolute, relative, where, count = 0.0, 0.0, "-", 0
    for name in [*a, *(name for name in b if name not in a)]:
        distance, part = _distance(a.get(name), b.get(name))
        count += distance > 0
        relative = max(relative, part)
        if distance > absolute:
            absolute, where = distance, name
    return Gap(absolute, relative, where, count)


def _distance(a: np.ndarray | None, b: np.ndarray | None) -> tuple[float, float]:
    """max |a - b|, and max |a - b| / max(|a|, |b|)."""
    if a is None or b is None or a.shape != b.shape:
        return float("inf"), float("inf")
    unequal = (a != b) & ~(np.isnan(a) & np.isnan(b))
    if not unequal.any():
        return 0.0, 0.0
    left, right = a[unequal], b[unequal]
    distance = np.nan_to_num(np.abs(left - right), nan=np.inf)
    scale = np.maximum(np.abs(left), np.abs(right))
    with np.errstate(invalid="ignore"):
        relative = np.nan_to_num(distance / scale, nan=np.inf)
    return float(distance.max()), float(relative.max())


def numbers(tree: Any, path: str = "") -> Iterator[tuple[str, np.ndarray]]:
    """Every number in a nest, as an array of doubles, by its path; texts and nothing are left out."""
    if isinstance(tree, Mapping):
        for name, child in tree.items():
            yield from numbers(child, f"{path}.{name}" if path else str(name))
    elif isinstance(tree, list | tuple) and not all(isinstance(child, int | float) for child in tree):
        for number, child in enumerate(tree):
            yield from numbers(child, f"{path}.{number}" if path else str(number))
    elif isinstance(tree, torch.Tensor | np.ndarray | list | tuple | int | float):
        array = tree.detach().cpu() if isinstance(tree, torch.Tensor) else np.asarray(tree)
        yield path, as_doubles(array)


def as_doubles(array: Any) -> np.ndarray:
    """Complex numbers as pairs."""
    if isinstance(array, torch.Tensor):
        array = (torch.view_as_real(array) if array.is_complex() else array).double().numpy()
    return np.asarray(array, np.float64)
