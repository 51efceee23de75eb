"""From a checked configuration to the parts of a run, wired."""

import functools
import importlib
from collections.abc import Callable, Mapping
from typing import Any

from hieros_repro.agent.base import Agent
from hieros_repro.check import parameters
from hieros_repro.determinism.keys import Key
from hieros_repro.env.vector import Seeds, Vector
from hieros_repro.env.wrapper import Normaliser
from hieros_repro.hardware.device import Hardware
from hieros_repro.log.base import Log
from hieros_repro.records import Spaces
from hieros_repro.run.evaluation import Evaluator
from hieros_repro.run.loop import Loop, Parts
from hieros_repro.run.recorder import Recorder

Plain = Mapping[str, Any]


def construct(node: Plain, *parts: Any) -> Any:
    """Calls the constructor a node names: parts it is given first, the node's values as keyword arguments."""
    values = {name: value for name, value in node.items() if not name.startswith("_")}
    nested = {n: construct(v) if isinstance(v, dict) and "_target_" in v else v for n, v in values.items()}
    return target(node)(*parts, **nested)


def target(node: Plain) -> Any:
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)


def shells(node: Plain) -> tuple[Plain, list[dict[str, Any]]]:
    """Splits an environment's node into its own part and the arguments of each of its shells."""
    taken = [{name: node[name] for name in parameters(shell)} for shell in target(node).shells]
    others = {name for arguments in taken for name in arguments}
    return {name: value for name, value in node.items() if name not in others}, taken


def environments(node: Plain, seeds: Seeds, num_envs: int | None = None, render: bool = False) -> Vector:
    """The vector of environments that a node of the group `env` describes."""
    own, (vector, _) = shells(node)
    make = functools.partial(construct, own, *([True] if render else []))
    shell = target(node).shells[0]
    return shell(make, seeds, **(vector | ({} if num_envs is None else {"num_envs": num_envs})))


def normaliser(node: Plain, spaces: Spaces, num_envs: int) -> Normaliser:
    """The running statistics that a node of the group `env` asks for."""
    _, (_, arguments) = shells(node)
    return target(node).shells[1](spaces, num_envs, **arguments)


def training_seeds(key: Key, seed: int, mode: str) -> Seeds:
    """Environment i's first reset uses seed + i; every later one, and with `keyed` the first too, its key."""

    def seeds(env: int, episode: int) -> int:
        if episode == 0 and mode == "offset":
            return seed + env
        return key("env", env, episode).seed()

    return seeds


def agent(config: Plain, spaces: Spaces, hardware: Hardware) -> Agent:
    """The agent, its parameters filled from the seed."""
    horizon = config["run"]["horizon"] or config["run"]["steps"]
    return construct(config["agent"], spaces, Key(config["seed"])("init"), hardware, horizon)


def loop(config: Plain, log: Log, recorder: Recorder, stop: Callable[[], bool]) -> Loop:
    """Everything wired: the loop of this configuration, at its start."""
    key, hardware, plan = Key(config["seed"]), construct(config["hardware"]), construct(config["run"])
    settings = construct(config["determinism"])
    envs = environments(config["env"], training_seeds(key, config["seed"], settings.env_seeds))
    learner = agent(config, envs.spaces, hardware)
    parts = Parts(
        key=key,
        hardware=hardware,
        envs=envs,
        normaliser=normaliser(config["env"], envs.spaces, envs.num_envs),
        agent=learner,
        replays={name: construct(config["replay"], envs.spaces, envs.num_envs) for name in learner.remembers},
        evaluator=Evaluator(functools.partial(environments, config["env"]), plan.eval_envs, key("eval")),
        log=log,
        save=recorder.save,
        keep_best=recorder.keep_best,
    )
    return Loop(parts, plan, stop, settings.save_rng)
