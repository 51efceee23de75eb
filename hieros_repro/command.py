"""How a Hydra verb starts: its help, the check of what was typed, the interpreter's environment, Hydra, the exit code.

Exit codes: 0 finished, 1 failed, 2 bad input, 75 stopped and resumable, 130 interrupted with nothing to resume.
"""

import io
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import hydra
import yaml
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hieros_repro.check import TRAIN, Page, check
from hieros_repro.composition import composed, distinct, located, seed_faults
from hieros_repro.determinism.settings import environment, restart_with
from hieros_repro.records import ConfigError, Failed, Fault, Stopped, UserError
from hieros_repro.sweep.launch import missing, missing_sweeper
from hieros_repro.sweep.search import ends, examples, is_search

FINISHED, FAILED, BAD_INPUT, STOPPED, INTERRUPTED = 0, 1, 2, 75, 130
PACKAGE = Path(__file__).resolve().parent
CHOICES = (*TRAIN.groups, *TRAIN.free, "experiment")  # what has options


class Verb(NamedTuple):
    """A command that Hydra configures."""

    config_name: str
    page: Page
    job: Callable[[DictConfig], Any]
    about: str


def conf() -> Path:
    """The folder of configurations: beside the package in a checkout, inside it in an installed wheel."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


def run(verb: Verb) -> None:
    """Runs a verb as a program and exits with its code."""
    arguments = get_args_parser().parse_args(sys.argv[1:])
    if arguments.help:
        from hieros_repro.help import page

        print(page(verb.config_name, verb.about, arguments.overrides))
        sys.exit(FINISHED)
    asking = arguments.cfg or arguments.info or arguments.shell_completion or arguments.hydra_help
    named = {_key(override) for override in arguments.overrides}
    chosen = choices(arguments.overrides) if verb.config_name == "train" else []
    untyped = [choice for choice in chosen if _key(choice) not in named]
    arguments.overrides += untyped
    sys.argv += untyped
    sweep = None
    try:
        if arguments.multirun and verb.config_name != "train":
            raise UserError(f"-m sweeps over runs of train; {verb.config_name} takes one at a time")
        if not asking:
            sweep = prepare(verb, arguments.overrides, arguments.multirun, arguments.config_dir)
        with _without_hidden() if arguments.shell_completion and "query" in named else nullcontext():
            sys.exit(_hydra(verb, single=not (asking or arguments.multirun)) if sweep is None else _sweep(verb, sweep))
    except Stopped as stopped:
        _complain(stopped)
        sys.exit(STOPPED)
    except UserError as error:
        _complain(error)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)
    finally:
        if sweep is not None:
            from hieros_repro.sweep.summary import table

            print(table(sweep))


def _hydra(verb: Verb, single: bool) -> int:
    """Hands over to Hydra. In a single run the job's fate becomes an exit code; in a sweep Hydra has to see it raise."""
    code = FINISHED

    def job(config: DictConfig) -> Any:
        nonlocal code
        try:
            return verb.job(config)
        except UserError as error:
            _complain(error)
            code = BAD_INPUT
        except Failed as error:
            _complain(error)
            code = FAILED
        return None

    if single:  # what nobody expected is raised as it is, with its traceback; the interpreter's exit code is 1
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    task = job if single else verb.job
    hydra.main(version_base="1.3", config_path=str(conf()), config_name=verb.config_name)(task)()
    return code


def _sweep(verb: Verb, folder: Path) -> int:
    """Hands a sweep over to Hydra; what its jobs came to is in its folder."""
    from hieros_repro.sweep import conduct

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        with conduct.directed(folder):
            _hydra(verb, single=False)
    except HydraException as error:
        raise UserError(str(error).splitlines()[0]) from error
    return conduct.verdict(folder)


@contextmanager
def _without_hidden() -> Iterator[None]:
    """Prints what Hydra offers for TAB but for options that begin with an underscore: files that others start from."""
    offered = io.StringIO()
    try:
        with redirect_stdout(offered):
            yield
    finally:
        sys.stdout.write(re.sub(r"[\w/@.+~-]+=(?:\S*,)?_\w+[ \n]?", "", offered.getvalue()))


def _complain(error: BaseException) -> None:
    sys.stdout.flush()
    print(str(error) if isinstance(error, Stopped) else f"error: {error}", file=sys.stderr)


# -- Before Hydra starts -----------------------------------------------------------------------------------------------


def prepare(verb: Verb, overrides: list[str], multirun: bool, config_dir: str | None = None) -> Path | None:
    """Composes everything that was typed, brings the interpreter's environment in order, checks, and lays out a sweep.

    The environment comes before the check, which imports torch. Returns the sweep's folder.
    """
    faults: list[Fault] = []
    with composer(config_dir) as compose:
        jobs, parsed = jobs_of(verb.config_name, overrides, multirun)
        faults += seed_faults(jobs)
        faults += _folder_faults(parsed) if multirun else []
        found: list[tuple[list[str], list[Fault]]] = [(job, []) for job in distinct(jobs)]
        configs = [composed(verb.config_name, compose, job, own) for job, own in found]
        node = hydras(verb.config_name, overrides, faults) if not any([faults, *(own for _, own in found)]) else None
    if node is not None:
        _set_environment([config for config in configs if config is not None])
    checked = []
    for config, (_, own) in zip(configs, found, strict=True):
        try:
            checked += [check(config, verb.page)] if config is not None else []
        except ConfigError as error:
            own += [fault for fault in error.faults if fault.key not in {known.key for known in own}]
    told = located(found, [override.key_or_group for override in parsed if override.is_sweep_override()])
    known = {fault.key for fault in faults}
    faults += [fault for fault in told if fault.key not in known]
    if faults:
        raise ConfigError(faults)
    if node is not None and not multirun and is_search(node):
        raise UserError("hydra/sweeper=optuna: a search has many runs, which needs -m")
    if multirun:
        from hieros_repro.sweep.layout import Asked, lay_out

        assert node is not None, "what cannot be composed is a fault"
        folder, arguments = lay_out(Asked(overrides, parsed, jobs, checked, node, config_dir))
        sys.argv[1:] = [*sys.argv[1:], *arguments]
        return folder
    return None


def _set_environment(configs: list[DictConfig]) -> None:
    """Variables that act only before the interpreter or a library starts; restarts the process once where it must."""
    nodes = [c.determinism for c in configs if "determinism" in c]
    wanted = [environment(node.get("algorithms"), node.get("hash_seed")) for node in nodes]
    if not wanted:
        return
    if any(other != wanted[0] for other in wanted):
        raise UserError("determinism.hash_seed or determinism.algorithms=off cannot vary within one sweep: run two sweeps")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(configs[0].hardware.threads)
    restart_with(wanted[0])


@contextmanager
def composer(config_dir: str | None = None) -> Iterator[Callable[..., DictConfig]]:
    """Composition outside a Hydra job. `config_dir`: a user's own folder of groups, as given with --config-dir."""
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(version_base="1.3", config_dir=str(conf())):
        if config_dir is not None:
            own = Path(config_dir).resolve()
            if not own.is_dir():
                raise UserError(f"--config-dir={config_dir}: there is no such folder")
            path = create_config_search_path(str(conf()))
            path.append(provider="command-line", path=f"file://{own}", anchor=SearchPathQuery("main", None))
            GlobalHydra.instance().clear()
            Hydra.create_main_hydra2(task_name="app", config_search_path=path)
        yield hydra.compose


def jobs_of(config_name: str, overrides: list[str], multirun: bool) -> tuple[list[list[str]], list[Override]]:
    """The overrides of every job that was asked for, and all as parsed. Of a search, whose jobs nobody knows, two examples."""
    loader = GlobalHydra.instance().config_loader()
    node = hydras(config_name, overrides, []) if multirun else None
    params = [f"{key}={value}" for key, value in (node["sweeper"].get("params") or {}).items()] if node is not None else []
    try:
        everything = OverridesParser.create(loader).parse_overrides([*params, *overrides])
    except HydraException as error:
        raise ConfigError([Fault("command line", str(error).splitlines()[0])]) from None
    parsed = list({override.get_key_element(): override for override in everything if not _is_hydras(override)}.values())
    swept = [override for override in parsed if override.is_sweep_override()]
    if swept and not multirun:
        faults = [
            Fault(o.get_key_element(), f"{o.input_line!r} gives several values, which needs -m (one run each)") for o in swept
        ]
        raise ConfigError(faults)
    if node is not None and is_search(node):
        return examples(parsed), parsed
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    try:
        return BasicSweeper.split_arguments(parsed, max_batch_size=None)[0], parsed
    except HydraException as error:
        raise ConfigError([Fault("command line", f"{error}; a range without steps needs hydra/sweeper=optuna")]) from None


def hydras(config_name: str, overrides: list[str], faults: list[Fault]) -> dict[str, Any] | None:
    """Hydra's own node, as it would be for these overrides; of those with several values, with the first."""
    parsed = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(overrides)
    single = [ends(override)[0] if override.is_sweep_override() else str(override.input_line) for override in parsed]
    try:
        config = hydra.compose(config_name=config_name, overrides=single, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        reason = f": {error.__cause__}".splitlines()[0] if error.__cause__ else ""
        faults.append(Fault("command line", missing_sweeper(str(error)) or str(error).splitlines()[0] + reason))
        return None
    node: Any = config.hydra
    return {
        "launcher": OmegaConf.to_container(node.launcher, resolve=False),
        "sweeper": OmegaConf.to_container(node.sweeper, resolve=False),
        "runtime": {"choices": OmegaConf.to_container(node.runtime.choices)},
    }


def _folder_faults(parsed: list[Override]) -> Iterator[Fault]:
    if any(override.key_or_group == "run.dir" for override in parsed):
        yield Fault("run.dir", "a sweep names the folders of its runs; where the sweep itself lies is said by sweep.dir")


def _is_hydras(override: Override) -> bool:
    key = override.key_or_group
    if key in ("hydra/launcher", "hydra/sweeper") and isinstance(override.value(), str):
        options = GlobalHydra.instance().config_loader().get_group_options(key)
        if str(override.value()) not in options:
            missing(key, str(override.value()), options)
    return key.startswith(("hydra.", "hydra/"))


def choices(overrides: list[str]) -> list[str]:
    """The options of groups with which the run was started that is resumed here.

    Keys are checked and completed against them; values are those in the run's own folder.
    """
    wanted = next((override.removeprefix("resume=") for override in overrides if override.startswith("resume=")), "null")
    named, _, step = wanted.rpartition("@")
    path = Path(named if step.isdigit() else wanted) / "overrides.yaml"
    if wanted in ("null", "auto", "exact", "episode_boundary") or not path.is_file():
        return []
    before = yaml.safe_load(path.read_text(encoding="utf8")) or []
    return list({_key(override): override for override in before if _key(override) in CHOICES}.values())


def typed(overrides: list[str]) -> list[str]:
    """Without the options that a resumed run brought along."""
    chosen = choices(overrides)
    return [override for override in overrides if override not in chosen]


def _key(override: str) -> str:
    return override.partition("=")[0]
