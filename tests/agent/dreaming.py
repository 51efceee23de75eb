"""World-model agents of a few units, for tests."""

from functools import cache, partial
from typing import Any

import numpy as np

from hieros_repro import build
from hieros_repro.agent.hierarchy import Hierarchy
from hieros_repro.check import check
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.records import Spaces
from tests.agent.making import ONE_ACTION, hardware, seen
from tests.runs import compose

TINY = (
    "size=nano", "size.deter=16", "size.units=16", "size.stoch=4", "size.classes=4", "size.depth=4", "size.layers=1",
    "size.head_units=16", "world.head_units=16", "world.blocks=4", "world.vector_layers=1", "agent.batch_size=4",
    "agent.batch_length=6", "agent.learning_rate=1e-3",
)  # fmt: skip
OWN = {
    "director": ("agent.imag_horizon=4", "agent.subactor_update_every=2", "agent.goals.codes=3", "agent.goals.classes=4"),
    "dreamer": ("agent.imag_horizon=3", "agent.optimiser.warmup=0"),
    "hieros": (  # three levels that act every 1, 2 and 4 steps
        "size.state=4", "agent.imag_horizon=4", "agent.subactor_update_every=2", "agent.goals.codes=3", "agent.goals.classes=4",
        "agent.goals.code_units=16", "agent.optimiser.warmup=0",
    ),
}  # fmt: skip
OWN["hieros_compat"] = OWN["hieros"]


@cache
def settings(name: str, *changes: str) -> dict[str, Any]:
    """The checked values of the group `agent`."""
    return check(compose(f"agent={name}", "env=dummy", *TINY, *OWN[name], *changes))["agent"]


def hierarchy(
    name: str, spaces: Spaces = ONE_ACTION, *changes: str, seed: int = 0, how: Hardware | None = None, **values: Any
) -> Hierarchy:
    """`changes` are those of the command line; `values` replace what the constructor is given."""
    given = settings(name, *changes) | values
    return build.construct(given, spaces, Key(seed)("init"), how or hardware(), 1000)


director, dreamer, hieros = (partial(hierarchy, name) for name in ("director", "dreamer", "hieros"))


def update(agent: Hierarchy, batches: dict[str, Any], number: int = 0, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Metrics and write-backs of one update with the noise of its number. `changes` replace parts of the lowest world's."""
    noise = dict(agent.learn_noise(Key(0)("learn", number), batches))
    noise["windows"] = noise["windows"] | changes
    return agent.learn(hardware().to_device(batches), hardware().to_device(noise), 100)


def floats(metrics: dict[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items()}


def three(spaces: Spaces = ONE_ACTION, **values: Any) -> Hierarchy:
    """Director with a level in between."""
    levels = settings("director")["levels"]
    middle = {**levels["manager"], "rewards": {"goal": 1.0, "extrinsic": 0.5}}
    stack = {"worker": levels["worker"], "middle": middle, "manager": levels["manager"]}
    return director(spaces, levels=stack, max_hierarchy=3, **values)


def drawn(agent: Hierarchy, tick: int, envs: int) -> dict[str, np.ndarray]:
    return {name: block[0] for name, block in agent.act_noise(Key(tick)("act"), 1, envs).items()}


def lived(agent: Hierarchy, resets: dict[int, int], ticks: int = 6, envs: int = 2) -> list[dict[str, Any]]:
    """The carries after each tick; `resets`: tick -> the environment that begins anew there."""
    carry, found = agent.initial(envs), []
    for tick in range(ticks):
        first = np.array([tick == 0 or resets.get(tick) == env for env in range(envs)])
        now = seen(ONE_ACTION, envs, seed=tick)._replace(is_first=first)
        _, carry, _ = agent.act(now, carry, drawn(agent, tick, envs))
        found.append(carry)
    return found
