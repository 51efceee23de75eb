"""Episodes to keep: an agent plays, and every row is remembered as it was seen. It reads the agent and changes nothing."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hieros_repro.agent.base import Agent
from hieros_repro.env.normalise import Normaliser
from hieros_repro.env.vector import Vector
from hieros_repro.records import Arrays, Episode
from hieros_repro.run.evaluation import NoiseFeed


class Played(NamedTuple):
    """An episode of T steps: T + 1 observations, T actions, T rewards."""

    episode: Episode
    obs: Arrays
    action: np.ndarray
    reward: np.ndarray
    terminal: bool


class Track:
    """What one environment has shown and been told since its reset."""

    def __init__(self) -> None:
        self.obs: list[dict[str, np.ndarray]] = []
        self.actions: list[np.ndarray] = []
        self.rewards: list[np.float32] = []

    def end(self, episode: Episode, terminal: bool) -> Played:
        obs = {name: np.stack([seen[name] for seen in self.obs]) for name in self.obs[0]}
        return Played(episode, obs, np.stack(self.actions), np.array(self.rewards, np.float32), terminal)


def collect(
    agent: Agent, envs: Vector, normaliser: Normaliser, noise: NoiseFeed, episodes: int, greedy: bool
) -> Iterator[tuple[int, Played]]:
    """Episodes 0, 1, ... in order. Of E environments, i plays the episodes i, i + E, i + 2 E, ...

    Rows are as the environments show and pay them; the agent sees them normalised as it was trained.
    """
    count, ready, told = envs.num_envs, {}, 0
    played = [0] * count
    tracks = [Track() for _ in range(count)]
    raw, carry, tick = envs.reset(), agent.initial(count), 0
    while told < episodes:
        for i, first in enumerate(raw.is_first):
            tracks[i] = Track() if first else tracks[i]
            tracks[i].obs.append({name: value[i] for name, value in raw.obs.items()})
            if not first:
                tracks[i].rewards.append(raw.reward[i])
        for over in envs.take_finished():
            number = over.env + count * played[over.env]
            played[over.env] += 1
            if number < episodes:
                ready[number] = tracks[over.env].end(over, bool(raw.is_terminal[over.env]))
        while told in ready:
            yield told, ready.pop(told)
            told += 1
        action, carry, _ = agent.act(normaliser(raw, frozen=True), carry, noise(tick), greedy)
        action = np.array(action, envs.spaces.action.dtype)
        for track, last, taken in zip(tracks, raw.is_last, action, strict=True):
            if not last:
                track.actions.append(taken)
        raw, tick = envs.step(action), tick + 1
