"""From a checked configuration to the parts of a run, wired."""

from collections.abc import Callable
from typing import Any

from hieros_repro.agent.base import Agent
from hieros_repro.check import parameters
from hieros_repro.construct import Plain, construct, target
from hieros_repro.determinism.keys import Key
from hieros_repro.env.making import Recipe, training_seeds
from hieros_repro.hardware.device import Hardware
from hieros_repro.log.base import Log
from hieros_repro.records import Memory, Spaces
from hieros_repro.replay.base import Held
from hieros_repro.replay.making import made
from hieros_repro.run.evaluation import Evaluator
from hieros_repro.run.loop import Loop, Parts
from hieros_repro.run.recorder import Recorder


def recipe(node: Plain) -> Recipe:
    """How the environments are made that a node of the group `env` describes."""
    return Recipe.of(target(node), node, parameters)


def numerics(config: Plain, hardware: Hardware) -> dict[str, Any]:
    """Everything besides code, configuration and seed that legitimately changes bits."""
    own = recipe(config["env"]).make
    return {**hardware.numerics(), "env": dict(own.kind.numerics(**own.values))}


def agent(config: Plain, spaces: Spaces, hardware: Hardware) -> Agent:
    """The agent, its parameters filled from the seed."""
    horizon = config["run"]["horizon"] or config["run"]["steps"]
    return construct(config["agent"], spaces, Key(config["seed"])("init"), hardware, horizon)


def loop(config: Plain, log: Log, recorder: Recorder, stop: Callable[[], bool]) -> Loop:
    """Everything wired: the loop of this configuration, at its start."""
    key, hardware, plan = Key(config["seed"]), construct(config["hardware"]), construct(config["run"])
    settings = construct(config["determinism"])
    world = recipe(config["env"])
    envs = world.training(training_seeds(key, config["seed"], settings.env_seeds))
    learner = agent(config, envs.spaces, hardware)
    node, held = config.get("replay") or {}, Held(envs.spaces, envs.num_envs, Memory(), recorder.replay, hardware.device)
    parts = Parts(
        key=key,
        hardware=hardware,
        envs=envs,
        normaliser=world.normaliser(envs.spaces, envs.num_envs),
        agent=learner,
        replays=made(target(node), held, memories, node, parameters) if (memories := learner.replays()) else {},
        evaluator=Evaluator(world.evaluation, plan.eval_envs, key("eval"), world.references()),
        log=log,
        save=recorder.save,
        keep_best=recorder.keep_best,
        pictures=world.pictures,
        frames=config["env"]["action_repeat"],
    )
    return Loop(parts, plan, stop, settings)
