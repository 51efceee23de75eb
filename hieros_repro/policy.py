"""A trained policy in Python: hieros_repro.load(run).act(observation)."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig, OmegaConf

from hieros_repro import build
from hieros_repro.agent.base import Agent
from hieros_repro.check import check
from hieros_repro.command import conf
from hieros_repro.determinism.keys import Key
from hieros_repro.env.normalise import Normaliser
from hieros_repro.records import Spaces, Step, UserError
from hieros_repro.run import checkpoint as checkpoints


class Policy:
    """A trained policy: observations of one environment in, actions out. Its carry starts anew after `reset()`."""

    def __init__(self, agent: Agent, normaliser: Normaliser, spaces: Spaces, step: int, seed: int):
        self.agent, self.normaliser, self.spaces = agent, normaliser, spaces
        self.step = step  # environment steps it was trained for
        self._key = Key(seed)("eval", "policy")
        self._tick = 0
        self.reset()

    def reset(self) -> None:
        """The next observation is the first of an episode."""
        self._carry, self._first = self.agent.initial(1), True

    def act(self, observation: Any, greedy: bool = True) -> Any:
        """The action for one observation: an array, or a mapping of arrays as the environment shows them."""
        given = observation if isinstance(observation, Mapping) else {self._only(): observation}
        if missing := [name for name in self.spaces.observation if name not in given]:
            raise ValueError(f"the policy was trained on {', '.join(missing)}, and is given {', '.join(map(str, given))}")
        obs = {name: np.asarray(given[name], space.dtype)[None] for name, space in self.spaces.observation.items()}
        for name, space in self.spaces.observation.items():
            if obs[name].shape[1:] != tuple(space.shape):
                raise ValueError(
                    f"observation {name!r} has shape {obs[name].shape[1:]}, the policy was trained on {space.shape}"
                )
        flags = np.array([[self._first], [False], [False]])
        now = Step(self.normaliser.observe(obs), np.zeros(1, np.float32), *flags)
        noise = {name: draw[0] for name, draw in self.agent.act_noise(self._key(self._tick), 1, 1).items()}
        action, self._carry, _ = self.agent.act(now, self._carry, noise, greedy)
        self._first, self._tick = False, self._tick + 1
        return action[0].item() if self.spaces.action.kind == "discrete" else action[0]

    def _only(self) -> str:
        names = list(self.spaces.observation)
        if len(names) > 1:
            raise ValueError(f"this policy was trained on several observations: pass a mapping with {', '.join(names)}")
        return names[0]


def load(run: str | Path, checkpoint: str | int | None = None, device: str | None = None) -> Policy:
    """The policy of a run folder: its newest intact checkpoint, that of a step, or "best"; on the run's device or another.

    hieros_repro.load("outputs/cartpole").act(observation)
    """
    folder = Path(run)
    config = read_config(folder, device)
    facts = json.loads((folder / "run.json").read_text(encoding="utf8"))
    name = checkpoint if checkpoint is not None else checkpoints.newest(folder / "checkpoints", print)
    if name is None:
        raise UserError(f"{folder}: it has no intact checkpoint")
    parts, manifest = checkpoints.load(folder / "checkpoints" / (name if isinstance(name, str) else f"step_{name}"))
    spaces = Spaces.from_plain(facts["spaces"])
    learner = build.agent(config, spaces, build.construct(config["hardware"]))
    learner.load(parts["agent"])
    normaliser = build.recipe(config["env"]).normaliser(spaces, 1)
    normaliser.load(parts["env"]["normaliser"])
    return Policy(learner, normaliser, spaces, manifest["step"], config["seed"])


def _completed(config: Any) -> Any:
    """With the keys that have come since the run was made, at the values that change nothing."""
    page = OmegaConf.load(conf() / "train.yaml")
    pages = {
        "env": OmegaConf.load(conf() / "env" / "_vector.yaml"),
        "determinism": OmegaConf.load(conf() / "determinism" / "strict.yaml"),
        "run": page.run,
        "sweep": page.sweep,
    }
    for group, usual in pages.items():
        if group in config:
            config[group] = OmegaConf.merge(usual, config[group])
    return config


def read_config(folder: Path, device: str | None = None) -> dict[str, Any]:
    """The configuration a run folder holds, checked like one that was typed: a foreign file can name no foreign code."""
    if not (folder / "config.yaml").exists():
        raise UserError(f"{folder}: not a run folder (it has no config.yaml)")
    config = _completed(OmegaConf.load(folder / "config.yaml"))
    if device is not None:
        config.hardware.device = device
    return check(DictConfig(config))
