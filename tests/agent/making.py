"""Agents and experience for tests, without environments."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from hieros_repro.agent.base import Agent
from hieros_repro.agent.dqn import DQN
from hieros_repro.agent.ppo import PPO
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.records import Request, Space, Spaces, Step
from tests.checking import unchecked

VECTOR = Space("vector", (3,))
IMAGE = Space("image", (16, 16, 3))
DISCRETE = Space("discrete", (), sizes=(4,))
ACTIONS = {
    "discrete": DISCRETE,
    "multidiscrete": Space("multidiscrete", (2,), sizes=(3, 2)),
    "continuous": Space("continuous", (2,), low=(-0.5, -1.0), high=(0.5, 1.0)),
}
ONE_ACTION = Spaces({"vector": VECTOR}, DISCRETE)


def hardware(precision: Any = "fp32") -> Hardware:
    return Hardware(device="cpu", precision=precision, threads=1, compile=None, ranks=1)


def ppo(spaces: Spaces = ONE_ACTION, seed: int = 0, precision: Any = "fp32", **changes: Any) -> PPO:
    values = {
        "hidden": [8, 8], "activation": "tanh", "image_depth": 2, "learning_rate": 1e-3, "warmup_steps": 0,
        "minibatch_size": 16, "epochs": 3, "accumulate": 1, "discount": 0.9, "trace": 0.8, "clip": 0.2, "value_clip": None,
        "value_scale": 1.0, "entropy": 0.01, "value_coefficient": 0.5, "normalise_advantage": True, "max_grad_norm": 0.5,
        "target_kl": None, "adam_eps": 1e-5,
    } | changes  # fmt: skip
    values.setdefault("final_learning_rate", values["learning_rate"])
    return PPO(spaces, Key(seed)("init"), hardware(precision), 1000, **values)  # type: ignore[arg-type]


def dqn(spaces: Spaces = ONE_ACTION, seed: int = 0, precision: Any = "fp32", **changes: Any) -> DQN:
    values = {
        "hidden": [8, 8], "activation": "relu", "image_depth": 2, "learning_rate": 1e-3, "batch_size": 16, "train_ratio": 4.0,
        "n_step": 3, "discount": 0.9, "value_scale": 1.0, "epsilon": 0.5, "final_epsilon": 0.1, "exploration_steps": 1000,
        "target_every": 2, "max_grad_norm": 10.0, "adam_eps": 1e-8,
    } | changes  # fmt: skip
    how = values.pop("how", None) or hardware(precision)
    values.setdefault("final_learning_rate", values["learning_rate"])
    return DQN(spaces, Key(seed)("init"), how, 1000, **values)  # type: ignore[arg-type]


def seen(spaces: Spaces, count: int, seed: int = 0) -> Step:
    """A row of `count` environments in the middle of their episodes."""
    draw = np.random.default_rng(seed)
    obs = {name: _observation(space, (count,), draw) for name, space in spaces.observation.items()}
    flags = np.zeros((3, count), bool)
    return Step(obs, np.zeros(count, np.float32), *flags)


def experience(agent: Agent, spaces: Spaces = ONE_ACTION, seed: int = 1) -> dict[str, Any]:
    """The batches of an update, from the kind of replay the agent learns from; none for one that does not learn."""
    if not agent.due(0):
        return {}
    return {"rollout": rollout, "windows": windows}[agent.remembers[0]](agent, spaces, seed=seed)


@unchecked()
def rollout(agent: Agent, spaces: Spaces = ONE_ACTION, length: int = 12, envs: int = 4, seed: int = 1) -> dict[str, Any]:
    """A batch as the rollout replay gives it, with ends of both kinds, acted by the agent itself."""
    draw, shape = np.random.default_rng(seed), (length, envs)
    obs = {name: _observation(space, (length + 1, envs), draw) for name, space in spaces.observation.items()}
    noise = agent.act_noise(Key(seed)("act"), length, envs)
    rows = []
    for t in range(length):
        now = seen(spaces, envs)._replace(obs={name: array[t] for name, array in obs.items()})
        rows.append(agent.act(now, agent.initial(envs), {k: v[t] for k, v in noise.items()})[2]["rollout"].values["action"])
    t, env = np.indices(shape)
    is_last = (t + 2 * env) % 6 == 3
    valid = np.ones(shape, bool)
    valid[1:] = ~is_last[:-1]  # the row after a last row is an episode's first
    batch = {
        "obs": obs,
        "action": np.stack(rows),
        "reward": draw.normal(size=shape).astype(np.float32),
        "is_last": is_last,
        "is_terminal": is_last & (env % 2 == 0),  # elsewhere time-outs
        "valid": valid,
    }
    return {"rollout": batch}


@unchecked()
def windows(agent: Agent, spaces: Spaces = ONE_ACTION, seed: int = 1) -> dict[str, Any]:
    """A batch of windows as a replay of windows gives it, some across ends of both kinds, acted by the agent itself. What
    updates write back comes as of the first step only. Of further replays, what the agent remembers of a life."""
    [request, *others] = agent.due(0)
    draw, shape = np.random.default_rng(seed), (request.batch, request.length)
    window, t = np.indices(shape)
    flags = _flags(window, t)
    flags["is_first"][:, 0] = True
    obs = {name: _observation(space, shape, draw) for name, space in spaces.observation.items()}
    noise, rows = agent.act_noise(Key(seed)("act"), request.length, request.batch), []
    for tick in range(request.length):
        now = seen(spaces, request.batch)._replace(obs={name: array[:, tick] for name, array in obs.items()})
        drawn = {name: block[tick] for name, block in noise.items()}
        rows.append(agent.act(now, agent.initial(request.batch), drawn)[2]["windows"].values)
    refreshed, reward = agent.replays()["windows"].refreshed, draw.normal(size=shape).astype(np.float32)
    own = {name: np.stack([row[name] for row in rows], 1) for name in rows[0] if name not in refreshed}
    batch = {"obs": obs, **own, "reward": reward, **flags} | {name: rows[0][name] for name in refreshed}
    return {"windows": batch} | (_remembered(agent, spaces, others, seed) if others else {})


def _flags(env: np.ndarray, t: Any) -> dict[str, np.ndarray]:
    """Of episodes of six rows, which in every second environment end by a time-out."""
    age = (env + t) % 6
    return {"is_first": age == 0, "is_last": age == 5, "is_terminal": (age == 5) & (env % 2 == 0)}


def _remembered(agent: Agent, spaces: Spaces, requests: Sequence[Request], seed: int) -> dict[str, Any]:
    """The first rows of some replays in a life of the agent, in which not all environments' episodes begin at once."""
    envs, length = np.arange(requests[0].batch), requests[0].length
    draw, carry, tick = np.random.default_rng(seed), agent.initial(len(envs)), 0
    noise = agent.act_noise(Key(seed)("act"), length * max(memory.every for memory in agent.replays().values()), len(envs))
    lived: dict[str, list[list[dict[str, Any]]]] = {request.replay: [[] for _ in envs] for request in requests}
    while any(len(own) < length for every in lived.values() for own in every):
        flags = _flags(envs, tick) | ({"is_first": envs >= 0} if tick == 0 else {})
        now = seen(spaces, len(envs), seed + tick)._replace(reward=draw.normal(size=len(envs)).astype(np.float32), **flags)
        _, carry, found = agent.act(now, carry, {name: block[tick] for name, block in noise.items()})
        tick += 1
        for replay, rows in found.items():
            for env in envs[rows.mask] if replay in lived else []:
                lived[replay][env].append({name: value[env] for name, value in rows.values.items()})
    return {replay: _batch([own[:length] for own in every]) for replay, every in lived.items()}


def _batch(windows: list[list[dict[str, Any]]]) -> dict[str, Any]:
    """What agents remember of what they saw stands apart from the rest."""
    values = {name: np.stack([[row[name] for row in rows] for rows in windows]) for name in windows[0][0]}
    obs = {name.removeprefix("obs."): value for name, value in values.items() if name.startswith("obs.")}
    return {"obs": obs} | {name: value for name, value in values.items() if not name.startswith("obs.")}


def learn(agent: Agent, batches: dict[str, Any], update: int = 0, step: int = 100) -> dict[str, Any]:
    """One update with the noise of its number."""
    noise = hardware().to_device(agent.learn_noise(Key(0)("learn", update), batches))
    return dict(agent.learn(hardware().to_device(batches), noise, step)[0])


def weights(agent: Agent) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in agent.parameters().items()}


def _observation(space: Space, shape: tuple[int, ...], draw: np.random.Generator) -> np.ndarray:
    full = (*shape, *space.shape)
    return draw.integers(0, 256, full).astype(np.uint8) if space.kind == "image" else draw.normal(size=full).astype(np.float32)
