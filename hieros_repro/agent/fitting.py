"""Whether the parts of a hierarchy can be of use to each other: faults of its configuration, before anything is built."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from hieros_repro.construct import target
from hieros_repro.records import Fault


def faults(*, levels: Mapping[str, Any], goals: Any, upper_world: Any, max_hierarchy: int, **values: Any) -> Iterator[Fault]:
    """Of the values of an agent's node, its own nodes still as mappings."""
    if values["min_std"] > values["max_std"]:
        yield Fault("min_std", f"{values['min_std']} is more than max_std={values['max_std']}, the upper end of the deviation")
    if not levels:
        yield Fault("levels", "there is none, and an agent needs one or more")
        return
    if max_hierarchy > len(levels):
        yield Fault("max_hierarchy", f"{max_hierarchy}: there are {len(levels)} levels, {', '.join(map(str, levels))}")
        return
    yield from _of_entropy(levels, max_hierarchy, values["actor_entropy"], values["final_actor_entropy"])
    names, coded, single = list(levels)[:max_hierarchy], isinstance(goals, Mapping) and "codes" in goals, max_hierarchy == 1
    top = len(names) - 1
    if upper_world is None:
        yield from _of_one_world(names, **values)
    if values["replay_context"]:
        yield from _of_context({"world": values["world"]} | ({} if single else {"upper_world": upper_world}))
    if top and not coded:
        yield Fault("goals", "levels tell each other goals, so more than one needs hieros_repro.agent.goal.Goals")
    if coded and goals.get("output") == "activated" and not goals.get("layers"):
        yield Fault("goals.layers", "0: with output=activated the last layer is the output, so one or more are needed")
    for i, (name, level) in enumerate((name, levels[name]) for name in names):
        known = ["extrinsic", *(["novelty"] if coded else []), *(["goal"] if i + 1 < len(levels) and coded else [])]
        of_level = _faults(name, level, known, _unfit_to_replay(level, single=single, **values), highest=i == top)
        yield from (Fault(".".join(("levels", str(name), *path)), problem) for path, problem in of_level)


def _of_entropy(levels: Mapping[str, Any], count: int, begin: Any, end: Any) -> Iterator[Fault]:
    """Values for each level, or one for all; an adaptive weight follows no schedule."""
    for key, value in (("actor_entropy", begin), ("final_actor_entropy", end)):
        if isinstance(value, list) and not 1 <= len(value) <= count:
            yield Fault(key, f"a list of {len(value)}: 1 to {count} are needed, the last for all further levels")
    if end is not None and any(_adapts(levels[name]) for name in list(levels)[:count]):
        yield Fault(
            "final_actor_entropy", "null is needed where a level's entropy.adaptive is true: its weight moves by itself"
        )


def _adapts(level: Any) -> bool:
    return isinstance(level, Mapping) and isinstance(level.get("entropy"), Mapping) and bool(level["entropy"].get("adaptive"))


def _of_context(worlds: Mapping[str, Any]) -> Iterator[Fault]:
    """Windows start from states that a replay kept, if there are such states."""
    for name, node in worlds.items():
        if isinstance(node, Mapping) and not target(node).remembers:
            what = f"1: {name} is {target(node).__name__}, which keeps no states in a replay"
            yield Fault("replay_context", f"{what}; use 0, or world=rssm")
            return


def _of_one_world(names: Sequence[str], *, imag_horizon: int, subactor_update_every: int, **others: Any) -> Iterator[Fault]:
    """Levels that share a world dream together, the highest a whole number of its steps."""
    period = subactor_update_every ** (len(names) - 1)
    if imag_horizon % period:
        whole = f"{names[-1]!r} acts every {period} steps, and a dream holds a whole number of them"
        yield Fault("imag_horizon", f"{imag_horizon}: {whole}, e.g. {-(-imag_horizon // period) * period}")


def _faults(
    name: Any, level: Any, known: Sequence[str], unfit: str | None, highest: bool
) -> Iterator[tuple[tuple[str, ...], str]]:
    """Of one level, by the path within its node."""
    if not isinstance(name, str) or "." in name or name in ("world", "goals") or hasattr(nn.ModuleDict(), name):
        yield (), "no level may be named so; any other word will do"
    if not isinstance(level, Mapping) or "_target_" not in level:
        yield (), "a level with a _target_ is needed"
        return
    for reward in sorted(reward for reward, weight in (level.get("rewards") or {}).items() if weight and reward not in known):
        near = difflib.get_close_matches(reward, known, n=1, cutoff=0.5)
        yield ("rewards", reward), f"this level knows {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else "")
    if highest and not any(weight for reward, weight in (level.get("rewards") or {}).items() if reward != "goal"):
        yield ("rewards",), "the highest level is told no goal and has no other reward to learn from, e.g. extrinsic"
    if unfit:
        yield ("replay_value",), f"{level['replay_value']}: {unfit}"


def _unfit_to_replay(
    level: Any, single: bool, batch_size: int, batch_length: int, imag_starts: int | None, **others: Any
) -> str | None:
    """Why a level cannot learn values of replayed rows, if it is to."""
    if not isinstance(level, Mapping) or not level.get("replay_value"):
        return None
    whole = imag_starts is None or imag_starts >= batch_size * batch_length
    if not (single and whole and (level.get("rewards") or {}).get("extrinsic")):
        return (
            "values of replayed rows need an agent of one level that learns from extrinsic reward, and a dream from every row "
            "(agent.imag_starts=null)"
        )
    return "values of replayed rows need windows of 2 rows or more (agent.batch_length)" if batch_length < 2 else None
