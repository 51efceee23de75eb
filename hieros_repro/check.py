"""Checks a configuration against the constructors it names, before anything is built: every fault at once.

The rule that makes this possible: a constructor's keyword-only arguments are its configuration, its positional ones are parts
it is given. Their annotations are the schema; there is no second one.
"""

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hieros_repro.records import Between, ConfigError, Fault, needs_extra

ALLOWED = ("hieros_repro",)
EXTRAS = {  # package that is imported -> extra that installs it
    "ale_py": "atari",
    "cv2": "atari",
    "dm_control": "dmc",
    "crafter": "crafter",
    "minigrid": "minigrid",
    "imageio_ffmpeg": "video",
    "pygame": "video",
    "hydra_plugins.hydra_joblib_launcher": "sweep",
    "hydra_plugins.hydra_submitit_launcher": "slurm",
    "hydra_plugins.hydra_ray_launcher": "ray",
    "hydra_plugins.hydra_optuna_sweeper": "sweep",
    "minari": "minari",
    "torch_tpu": "tpu",
}


class Page(NamedTuple):
    """What a verb's page may hold besides free values: settings with their types, and groups that name a `_target_`."""

    settings: Mapping[str, Any]
    groups: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()  # groups that may be given as a text instead


TRAIN = Page(
    settings={
        "seed": Annotated[int, Between(0, 2**31 - 1)],
        "resume": str | None,
        "resume_numerics": Literal["refuse", "accept"],
        "plugins": list[str],
    },
    groups=("env", "agent", "replay", "determinism", "hardware", "log", "run", "sweep"),
    free=("size", "world"),  # an agent's node refers to its world
)


def check(config: DictConfig, page: Page = TRAIN) -> dict[str, Any]:
    """The configuration as plain data, resolved. Raises ConfigError with every fault."""
    faults: list[Fault] = []
    plain = _plain(config, "", faults)
    _check_page(plain, page, faults)
    if faults:
        raise ConfigError(_unique(faults))
    return plain


def _check_page(plain: dict[str, Any], page: Page, faults: list[Fault]) -> None:
    known = [*page.settings, *page.groups, *page.free]
    faults += [Fault(name, unknown(name, known)) for name in plain if name not in known]
    for name, annotation in page.settings.items():
        if name not in plain:
            faults.append(Fault(name, f"missing; it must be {describe(annotation)}"))
        elif not fits(plain[name], annotation):
            faults.append(Fault(name, mismatch(plain[name], annotation)))
    plugins = plain.get("plugins") or []
    prefixes = (*ALLOWED, *(p for p in plugins if isinstance(p, str)))
    faults += _import_plugins(plugins)
    classes: dict[str, Any] = {}
    for name in page.groups:
        node = plain.get(name)
        if name in page.texts and isinstance(node, str):
            continue
        if name == "replay" and node is None and not getattr(classes.get("agent"), "remembers", ()):
            continue  # an agent that remembers nothing needs none
        if not isinstance(node, dict) or "_target_" not in node:
            faults.append(Fault(name, "missing: a group with a _target_ is needed"))
        else:
            classes[name] = check_node(name, node, prefixes, faults)
    faults += _match_replay(plain, classes)
    faults += _match_dataset(plain)
    faults += _match_size(plain)
    faults += _match_window(plain, classes) if not faults else ()


def check_node(path: str, node: dict[str, Any], prefixes: Sequence[str], faults: list[Fault]) -> Any:
    """Checks one `_target_` node against its constructor and returns the constructor, or None."""
    target = locate(path, node["_target_"], prefixes, faults)
    if target is None:
        return None
    own = parameters(target)
    allowed = dict(own)
    for shell in target.shells() if hasattr(target, "shells") else ():
        allowed = parameters(shell) | allowed
    before = len(faults)
    values = {name: value for name, value in node.items() if name not in ("_target_", "_partial_", "_convert_")}
    faults += [Fault(f"{path}.{name}", unknown(name, allowed)) for name in values if name not in allowed]
    for name, annotation in allowed.items():
        if name not in values:
            faults.append(Fault(f"{path}.{name}", f"missing; it must be {describe(annotation)}"))
        elif not _check_nested(f"{path}.{name}", values[name], prefixes, faults) and not fits(values[name], annotation):
            faults += _unfit(f"{path}.{name}", values[name], annotation)
    if len(faults) == before and hasattr(target, "check"):
        found = target.check(**{name: value for name, value in values.items() if name in own})
        faults += [Fault(f"{path}.{fault.key}", fault.problem) for fault in found]
    return target


def _unfit(path: str, value: Any, annotation: Any) -> list[Fault]:
    """What is wrong with a value that does not fit: of a mapping, which of its items."""
    if isinstance(value, dict) and get_origin(annotation) in (dict, Mapping):
        item = get_args(annotation)[1]
        return [Fault(f"{path}.{name}", mismatch(child, item)) for name, child in value.items() if not fits(child, item)]
    return [Fault(path, mismatch(value, annotation))]


def _check_nested(path: str, value: Any, prefixes: Sequence[str], faults: list[Fault]) -> bool:
    """Checks the nodes within a value, and says whether it is one, or a mapping of some."""
    if not isinstance(value, dict):
        return False
    if "_target_" in value:
        check_node(path, value, prefixes, faults)
        return True
    return any([_check_nested(f"{path}.{name}", child, prefixes, faults) for name, child in value.items()])


def locate(path: str, target: str, prefixes: Sequence[str], faults: list[Fault]) -> Any:
    """The class a `_target_` names, if it may be named and can be imported."""
    if not isinstance(target, str):
        faults.append(Fault(f"{path}._target_", mismatch(target, str)))
        return None
    if not any(target == prefix or target.startswith(f"{prefix}.") for prefix in prefixes):
        allowed = ", ".join(f"{prefix}.*" for prefix in prefixes)
        faults.append(Fault(f"{path}._target_", f"{target!r} is not allowed; only {allowed}; plugins=[...] adds packages"))
        return None
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
        if callable(found):
            return found
        faults.append(Fault(f"{path}._target_", f"{target!r} is not a class or a function"))
    except ModuleNotFoundError as error:
        faults.append(Fault(f"{path}._target_", missing_module(error.name or module, target)))
    except AttributeError:
        names = [n for n in vars(importlib.import_module(module)) if not n.startswith("_")]
        faults.append(Fault(f"{path}._target_", f"{module} has no {name!r}{nearest(name, names)}"))
    return None


def parameters(target: Callable[..., Any]) -> dict[str, Any]:
    """The keyword-only parameters of a constructor, with their annotations."""
    constructor = target.__init__ if inspect.isclass(target) else target
    found = {}
    for name, parameter in inspect.signature(constructor).parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            annotation = parameter.annotation
            if isinstance(annotation, str):
                annotation = eval(annotation, constructor.__globals__)
            found[name] = Any if annotation is inspect.Parameter.empty else annotation
    return found


def _match_replay(plain: dict[str, Any], classes: Mapping[str, Any]) -> Iterator[Fault]:
    """A replay that the agent cannot use is a fault."""
    agent, replay = classes.get("agent"), classes.get("replay")
    remembers, kind = getattr(agent, "remembers", ()), getattr(replay, "kind", None)
    if agent is not None and remembers and kind is not None and kind not in remembers:
        yield Fault("replay", f"a {kind} replay cannot serve {agent.__name__}, which learns from: {', '.join(remembers)}")


def _match_size(plain: dict[str, Any]) -> Iterator[Fault]:
    """A replay that never holds what it waits for would never be learned from."""
    replay = plain.get("replay")
    size, least = (replay.get(name) for name in ("size", "min_size")) if isinstance(replay, dict) else (None, None)
    if isinstance(size, int) and isinstance(least, int) and least > size:
        yield Fault("replay.min_size", f"{least} steps are never stored: replay.size is {size}; lower one or raise the other")


def _match_window(plain: dict[str, Any], classes: Mapping[str, Any]) -> Iterator[Fault]:
    """A replay that never holds one window would never be learned from."""
    agent: Any = classes.get("agent")
    envs = plain["env"].get("num_envs") if "env" in plain else None
    if not hasattr(agent, "window") or envs is None or getattr(classes.get("replay"), "kind", None) != "windows":
        return
    replay, length = plain["replay"], agent.window(**plain["agent"])
    size, recorded = replay.get("size"), replay.get("dataset") is not None and replay.get("dataset_share") == 1
    if size is not None and not recorded and -(-size // envs) < length:
        steps = f"{-(-size // envs)} steps of each of {envs} environments are less than one window of {length}"
        yield Fault("replay.size", f"{size}: {steps}; it must be at least {envs * (length - 1) + 1}")


def _match_dataset(plain: dict[str, Any]) -> Iterator[Fault]:
    """Who collects nothing learns from what was recorded, and from nothing else; it was recorded as it was shown and paid."""
    run, replay, env = ({} if not isinstance(plain.get(name), dict) else plain[name] for name in ("run", "replay", "env"))
    dataset, share = replay.get("dataset"), replay.get("dataset_share")
    if dataset is None:
        if replay.get("dataset_part") is not None:
            yield Fault(
                "replay.dataset_part", f"{replay['dataset_part']!r} of no dataset; name one with replay.dataset=<folder>"
            )
        if run.get("collect") is False:
            yield Fault("run.collect", "false means learning from a dataset alone; name one with replay.dataset=<folder>")
        return
    if run.get("collect") is False and share != 1:
        yield Fault("replay.dataset_share", f"{share}: with run.collect=false there is nothing but the dataset; it must be 1.0")
    if share == 0:
        yield Fault("replay.dataset_share", "0: nothing would come from the dataset; it must be above 0")
    for name in ("normalise_observation", "normalise_reward"):
        if env.get(name):
            yield Fault(f"env.{name}", "true, but a dataset's rows are not normalised; with replay.dataset it must be false")


def _import_plugins(plugins: Any) -> Iterator[Fault]:
    for name in plugins if isinstance(plugins, list) else ():
        try:
            importlib.import_module(str(name))
        except ModuleNotFoundError as error:
            yield Fault("plugins", f"{name!r} cannot be imported: {error}")


# -- Types -------------------------------------------------------------------------------------------------------------


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value has the annotated type and keeps its bounds."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any or origin is Callable:
        return annotation is Any  # a node for something callable was checked as one
    if origin is Annotated:
        bounds = [extra for extra in arguments[1:] if isinstance(extra, Between)]
        return fits(value, arguments[0]) and all(bound.holds(value) for bound in bounds)
    if origin in (Union, types.UnionType):
        return any(fits(value, option) for option in arguments)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if origin in (list, Sequence, typing.Sequence):
        return isinstance(value, list) and all(fits(item, arguments[0]) for item in value)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(fits(item, arguments[1]) for item in value.values())
    if annotation in (None, type(None)):
        return value is None
    if annotation is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, annotation) if inspect.isclass(annotation) else True


def describe(annotation: Any) -> str:
    """An annotation as people say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [str(extra) for extra in arguments[1:] if isinstance(extra, Between)]
        return " ".join([describe(arguments[0]), *bounds])
    if origin in (Union, types.UnionType):
        return " or ".join(describe(option) for option in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(option) for option in arguments)
    if origin in (list, Sequence, typing.Sequence):
        return f"a list, each item {describe(arguments[0])}"
    if origin in (dict, Mapping):
        return "a mapping"
    if origin is Callable:
        return "a node with a _target_"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "null", None: "null"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def mismatch(value: Any, annotation: Any) -> str:
    shown = "null" if value is None else {True: "true", False: "false"}.get(value) if isinstance(value, bool) else repr(value)
    hint = ""
    if isinstance(value, str):
        options = [option for option in _literals(annotation) if isinstance(option, str)]
        hint = nearest(value, options)
    return f"{shown} is not allowed; it must be {describe(annotation)}{hint}"


def _literals(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    for argument in get_args(annotation) if get_origin(annotation) is not Literal else ():
        yield from _literals(argument)


def unknown(name: str, known: Iterable[str]) -> str:
    return f"unknown key{nearest(name, known)}"


def nearest(name: str, known: Iterable[str], count: int = 1) -> str:
    close = difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)
    return f"; did you mean {' or '.join(close)}?" if close else ""


def missing_module(module: str, wanted: str) -> str:
    """What to install for a module that is not there."""
    root = next((package for package in EXTRAS if module == package or module.startswith(f"{package}.")), None)
    if root is None:
        return f"{wanted} needs the module {module!r}, which is not installed"
    return needs_extra(wanted, EXTRAS[root])


# -- Plain data --------------------------------------------------------------------------------------------------------


def _plain(node: Any, path: str, faults: list[Fault]) -> Any:
    """OmegaConf's containers as dicts and lists, resolved; what cannot be resolved or is missing becomes a fault."""
    if not isinstance(node, DictConfig | ListConfig):
        return node
    keys: Iterable[Any] = node.keys() if isinstance(node, DictConfig) else range(len(node))
    found: dict[Any, Any] = {}
    for key in keys:
        name = f"{path}.{key}" if path else str(key)
        if OmegaConf.is_missing(node, key):
            faults.append(Fault(name, "a value is needed and has no default"))
            continue
        try:
            found[key] = _plain(node[key], name, faults)
        except OmegaConfBaseException as error:
            faults.append(Fault(name, str(error).splitlines()[0]))
    return found if isinstance(node, DictConfig) else list(found.values())


def _unique(faults: list[Fault]) -> list[Fault]:
    """Without repetitions, and without 'missing' where the same key already has a better fault."""
    first: dict[str, Fault] = {}
    for fault in faults:
        first.setdefault(fault.key, fault)
    return list(first.values())
