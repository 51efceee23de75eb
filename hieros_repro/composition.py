"""From what was typed to configurations, and what is wrong with it: every fault at once, of sweeps with the run that has it."""

import difflib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hieros_repro.check import nearest
from hieros_repro.records import Fault
from hieros_repro.sweep.launch import missing_sweeper


def distinct(jobs: list[list[str]]) -> list[list[str]]:
    """One job per distinct set of overrides, seeds aside: what there is to check."""
    found: dict[tuple[str, ...], list[str]] = {}
    for job in jobs:
        found.setdefault(tuple(override for override in job if not override.startswith("seed=")), job)
    return list(found.values())


def located(found: Sequence[tuple[list[str], list[Fault]]], axes: Sequence[str]) -> list[Fault]:
    """Every fault once; where not all jobs of a sweep have it, with the values of one that does."""
    told: dict[Fault, Fault] = {}
    for job, faults in found:
        own = " ".join(o for o in job if o.lstrip("+").partition("=")[0] in axes and not o.startswith("seed="))
        for fault in faults:
            everywhere = all(fault in others for _, others in found)
            told.setdefault(fault, fault if everywhere or not own else Fault(fault.key, f"{fault.problem} (with {own})"))
    return list(told.values())


def seed_faults(jobs: list[list[str]]) -> Iterator[Fault]:
    seeds = {override[5:]: None for job in jobs for override in job if override.startswith("seed=")}
    wrong = [seed for seed in seeds if not re.fullmatch("[0-9]+", seed) or int(seed) >= 2**31]
    if wrong:
        yield Fault("seed", f"{', '.join(map(repr, wrong))} is not allowed; it must be an integer between 0 and {2**31 - 1}")


def composed(name: str, compose: Callable[..., DictConfig], overrides: list[str], faults: list[Fault]) -> DictConfig | None:
    """Composes; where Hydra refuses, finds out all that is wrong and composes the rest."""
    loader = GlobalHydra.instance().config_loader()
    try:
        return compose(config_name=name, overrides=overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        refusal = Fault("configuration", missing_sweeper(str(error)) or " ".join(str(error).split("\n")[:2]))
    groups = [group for group in loader.list_groups("") if group != "hydra"]
    parsed = OverridesParser.create(loader).parse_overrides(overrides)
    before = len(faults)
    chosen, good = [o for o in parsed if o.key_or_group in groups], []
    for override in chosen:
        wrong = list(_group_faults(override, loader))
        faults += wrong
        good += [] if wrong else [str(override.input_line)]
    good, config = _with_their_groups(name, compose, good, faults)
    if config is None:
        faults.append(refusal)
        return None
    known = list(_paths(config))
    for override in parsed:
        if override in chosen:
            continue
        if override.is_add() or override.is_force_add() or override.key_or_group in known:
            good.append(str(override.input_line))
        else:
            faults.append(Fault(override.key_or_group, _unknown_path(override.key_or_group, known, groups)))
    if len(faults) == before:
        faults.append(refusal)
        return None
    return compose(config_name=name, overrides=good)


def _group_faults(override: Override, loader: Any) -> Iterator[Fault]:
    options = [name for name in loader.get_group_options(override.key_or_group) if not name.startswith("_")]
    value = override.value()
    for name in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
        if name not in options:
            yield Fault(override.key_or_group, f"there is no {name!r}; there are {', '.join(options)}{nearest(name, options)}")


def _with_their_groups(
    name: str, compose: Callable[..., DictConfig], chosen: list[str], faults: list[Fault]
) -> tuple[list[str], DictConfig | None]:
    """Those of these options whose groups there are, and what they compose to. An agent brings groups of its own."""
    while True:
        try:
            return chosen, compose(config_name=name, overrides=chosen)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            found = re.match(r"Could not override '([\w/]+)'\. No match in the defaults list", str(error))
        absent = {o: o.partition("=")[2] for o in chosen if found is not None and o.partition("=")[0] == found[1]}
        if found is None or not absent:
            return chosen, None
        chosen = [override for override in chosen if override not in absent]
        why = _without(found[1], name, compose, chosen)
        faults += [Fault(found[1], f"{option!r} is of no use: {why}") for option in absent.values()]


def _without(group: str, name: str, compose: Callable[..., DictConfig], chosen: list[str]) -> str:
    """Why there is no such group, and with which agents there is."""
    from hieros_repro.help import brought

    try:
        options = compose(config_name=name, overrides=chosen, return_hydra_config=True).hydra.runtime.choices
    except (HydraException, OmegaConfBaseException, ValueError):
        options = {}
    if options.get("agent") is None:
        return f"{name} has no group {group}"
    agents = brought().get(group, [])
    others = f", as {', '.join(agents)} have" if agents else f"; no defaults list names it: +{group}=<option> adds it"
    return f"agent={options['agent']} has no {group}{others}"


def _paths(config: Any, prefix: str = "") -> Iterator[str]:
    for key in config:
        path = f"{prefix}{key!s}"
        yield path
        if OmegaConf.is_dict(config._get_node(key)) and not OmegaConf.is_missing(config, key):
            yield from _paths(config._get_node(key), f"{path}.")


def _unknown_path(path: str, known: list[str], groups: list[str]) -> str:
    """The same last name elsewhere, the nearest one beside it, or the nearest full path."""
    parent, _, last = path.rpartition(".")
    elsewhere = [name for name in known if name.rpartition(".")[2] == last]
    if elsewhere:
        return f"unknown key; did you mean {' or '.join(elsewhere[:3])}?"
    if parent in known:
        beside = {name.rpartition(".")[2]: name for name in known if name.rpartition(".")[0] == parent}
        close = [beside[name] for name in difflib.get_close_matches(last, beside, n=2, cutoff=0.5)]
        return "unknown key" + (f"; did you mean {' or '.join(close)}?" if close else "")
    everything = list(dict.fromkeys([*known, *groups]))
    return f"unknown key{nearest(path, everything, count=2) or nearest(last, [n.rpartition('.')[2] for n in known])}"
