"""Searches: sweeps whose next values Optuna chooses, from the scores so far.

Nothing but the run folders is kept. A sampler is a function of its seed and of the scores it was told, so the same command
proposes the same trials again: those that are finished give their score at once, the one that was interrupted goes on, and the
search is where it was. A longer search begins with the shorter one.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Glob, Override

from hieros_repro import atomic
from hieros_repro.records import UserError
from hieros_repro.run.folder import RunFolder
from hieros_repro.stats.table import markdown, number


def is_search(node: Mapping[str, Any]) -> bool:
    """Whether Hydra's node has its values chosen by Optuna."""
    return "hydra_optuna_sweeper" in node["sweeper"]["_target_"]


def refuse_unrepeatable(node: Mapping[str, Any], swept: Sequence[Override]) -> None:
    sweeper = node["sweeper"]
    sampler = sweeper.get("sampler") or {}
    if "seed" in sampler and sampler["seed"] is None:
        raise UserError("hydra.sweeper.sampler.seed: null is not allowed, or no two searches would be equal; give it a number")
    if sweeper.get("storage") is not None:
        raise UserError("hydra.sweeper.storage: a search goes on from its run folders; leave it out")
    if any(override.key_or_group == "seed" for override in swept):
        raise UserError("seed: a search takes one; run its best trial under other seeds afterwards, in a sweep")


def chooses(override: str) -> bool:
    """Whether an override changes which trials there are; a longer search only goes on."""
    key = override.lstrip("+~").partition("=")[0]
    return key.startswith(("hydra.sweeper.", "hydra/sweeper/")) and key != "hydra.sweeper.n_trials"


def silence() -> None:
    """Optuna writes a line about every trial, in colours that only a terminal shows; what its trials came to is told here."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)


def ends(override: Override) -> tuple[str, str]:
    """The first and the last of an override's values: what can be checked of it before the search."""
    key, value = override.get_key_element(), override.value()
    if override.is_discrete_sweep() or isinstance(override.value(), Glob):
        values = list(override.sweep_string_iterator())
        return f"{key}={values[0]}", f"{key}={values[-1]}"
    return f"{key}={value.start}", f"{key}={value.end}"  # type: ignore[union-attr]


def examples(parsed: Sequence[Override]) -> list[list[str]]:
    """Two jobs: every searched value at its one end, and at its other."""
    pairs = [
        ends(o) if o.is_sweep_override() else (f"{o.get_key_element()}={o.get_value_element_as_str()}",) * 2 for o in parsed
    ]
    return [list(job) for job in zip(*pairs, strict=True)]


def trials(sweep: Path) -> str:
    """The trials, best first; those without a score, or with one that is no number, last. Also written as search.md."""
    facts = json.loads((sweep / "sweep.json").read_text(encoding="utf8"))
    metric, axes, direction = facts["metric"], facts["axes"], facts["search"]
    sign = 1 if direction == "minimize" else -1
    rows = []
    for name, overrides in facts["jobs"].items():
        told = RunFolder(sweep / name).read()
        status = told.get("status", "pending")
        score = told["results"].get(metric) if status == "finished" else None
        values = dict(override.lstrip("+").partition("=")[::2] for override in overrides)
        place = (True, 0.0) if score is None or math.isnan(score) else (False, sign * score)
        rows.append((place, [number(score), *(values.get(axis, "-") for axis in axes), status, name]))
    rows.sort(key=lambda row: row[0])
    table = [[str(place), *row] for place, (_, row) in enumerate(rows, start=1)]
    text = markdown(("", metric, *axes, "status", "folder"), table)
    atomic.write(sweep / "search.md", f"# Trials, best first ({direction} {metric})\n\n{text}\n")
    return text
