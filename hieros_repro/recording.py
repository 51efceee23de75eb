"""Recording a dataset: from what was asked to a policy, its environments, and the episodes written down."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from omegaconf import DictConfig

from hieros_repro.check import Page, check
from hieros_repro.records import Between, Count, UserError
from hieros_repro.replay.dataset import Dataset, Writer, episode, vacant

PAGE = Page(
    settings={
        "out": str,
        "episodes": Count,
        "seed": Annotated[int, Between(0, 2**31 - 1)],
        "greedy": bool,
        "run": str | None,
        "checkpoint": int | Literal["best"] | None,
        "device": Literal["cpu", "cuda", "tpu"] | None,
        "rows_per_file": Count,
        "plugins": list[str],
    },
    groups=("env", "agent", "determinism", "hardware"),
    free=("size", "replay", "world"),
)
NO_NUMBER = ("processes", "worker_timeout")  # keys of env that change none
OF_A_RUN = ("env.num_envs", *(f"env.{key}" for key in NO_NUMBER))  # what may be typed beside run=


class Player(NamedTuple):
    """Who plays, and what to say of it."""

    agent: Any
    normaliser: Any
    source: dict[str, Any]
    made: dict[str, Any]


def record(config: DictConfig, asked: list[str]) -> Dataset:
    """Plays and writes. `asked`: the overrides as typed.

    Episode n is reset with the seed data/record/<n>, so equal environments start equal episodes however many play at once.
    """
    from hieros_repro import build
    from hieros_repro.determinism import snapshot
    from hieros_repro.determinism.keys import Key
    from hieros_repro.provenance.made import made
    from hieros_repro.run.collect import collect
    from hieros_repro.run.evaluation import NoiseFeed

    plain = check(config, PAGE)
    out, wanted, key = Path(plain["out"]), plain["episodes"], Key(plain["seed"])("data")
    vacant(out)
    settings = _of_run(plain, asked) if plain["run"] else plain
    build.construct(settings["determinism"]).apply()
    build.construct(settings["hardware"]).apply()
    snapshot.seed_global(plain["seed"])
    count = min(settings["env"]["num_envs"], wanted)
    recipe = build.recipe(settings["env"])
    recipe = recipe._replace(vector={**recipe.vector, "num_envs": count})
    envs = recipe.training(lambda env, nth: key("record", env + count * nth).seed())
    try:
        player = _trained(plain, settings) if plain["run"] else _fresh(plain, recipe, envs.spaces)
        with Writer(out, envs.spaces, plain["rows_per_file"]) as writer:
            noise = NoiseFeed(key("act"), player.agent, count)
            for n, played in collect(player.agent, envs, player.normaliser, noise, wanted, plain["greedy"]):
                rows = episode(envs.spaces, played.obs, played.action, played.reward, played.terminal)
                writer.add(rows, key("record", n).seed(), played.episode.account)
                _progress(n + 1, wanted)
            env = {name: value for name, value in settings["env"].items() if name not in NO_NUMBER}
            source = {"env": env, **player.source, "greedy": plain["greedy"], "seed": plain["seed"]}
            return writer.finish(source, [], {**made(settings["plugins"]), **player.made, "hardware": settings["hardware"]})
    finally:
        envs.close()


def _fresh(plain: Mapping[str, Any], recipe: Any, spaces: Any) -> Player:
    """An agent as it is before it has learned anything."""
    from hieros_repro import build

    config = {**plain, "run": {"horizon": 1, "steps": 1}}  # it will not train
    agent = build.agent(config, spaces, build.construct(plain["hardware"]))
    return Player(agent, recipe.normaliser(spaces, 1), {"agent": plain["agent"], "trained": None}, {})


def _trained(plain: Mapping[str, Any], settings: Mapping[str, Any]) -> Player:
    """The policy of a run."""
    from hieros_repro import policy
    from hieros_repro.determinism.ledger import describe_all

    trained = policy.load(plain["run"], plain["checkpoint"], plain["device"])
    told = {"seed": settings["seed"], "step": trained.step, "parameters": describe_all(trained.agent.parameters())}
    source = {"agent": settings["agent"], "trained": told}
    return Player(trained.agent, trained.normaliser, source, {"run": plain["run"]})


def _of_run(plain: Mapping[str, Any], asked: list[str]) -> dict[str, Any]:
    """A run's configuration, with what was typed about how many environments play at once."""
    from hieros_repro import policy

    keys = [override.lstrip("+~").partition("=")[0] for override in asked]
    groups = ("env", "agent", "replay", "world", "determinism", "hardware", "size")
    foreign = [key for key in keys if key.split(".")[0] in groups and key not in OF_A_RUN]
    if foreign:
        allowed = ", ".join(OF_A_RUN)
        raise UserError(f"{foreign[0]}: with run= the run's own is used; besides, only {allowed} may be given")
    config = policy.read_config(Path(plain["run"]), plain["device"])
    typed = {key.partition(".")[2]: plain["env"][key.partition(".")[2]] for key in keys if key in OF_A_RUN}
    return {**config, "env": {**config["env"], **typed}}


def _progress(done: int, wanted: int) -> None:
    """A line that is written over, where somebody is watching."""
    if sys.stderr.isatty():
        print(f"\r{done:,} of {wanted:,} episodes", end="\n" if done == wanted else "", file=sys.stderr, flush=True)
