"""Evaluation: its own environments, carry and keys. It reads the agent and changes nothing."""

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from hieros_repro.agent.base import Agent
from hieros_repro.agent.picture import PLAIN, Row, grid
from hieros_repro.determinism.keys import Key
from hieros_repro.env.normalise import Normaliser
from hieros_repro.env.vector import Seeds, Vector
from hieros_repro.hardware.device import Hardware
from hieros_repro.records import Arrays, Carry, Episode, Step
from hieros_repro.stats.normalise import human_normalised

NOISE_BLOCK = 256  # ticks of acting noise drawn at once
SLOWER = 4  # times: films of short dreams, to be followed by eye


class Result(NamedTuple):
    """Scores in the order of (environment, episode)."""

    episodes: list[Episode]
    references: Mapping[str, float] = MappingProxyType({})  # scores of others in the same environment, by name

    @property
    def scores(self) -> list[float]:
        return [episode.score for episode in self.episodes]

    def metrics(self) -> dict[str, float]:
        scores = np.array(self.scores)
        row = {
            "eval/score": float(scores.mean()),
            "eval/score_min": float(scores.min()),
            "eval/score_max": float(scores.max()),
            "eval/length": float(np.mean([episode.length for episode in self.episodes])),
            "eval/episodes": len(scores),
        }
        if len(scores) > 1:
            row["eval/score_std"] = float(scores.std(ddof=1))
        if {"random", "human"} <= set(self.references):
            row["eval/human_normalised"] = human_normalised(row["eval/score"], **self.references)
        told = [episode.account for episode in self.episodes]
        names = sorted({name for account in told for name in account})
        return row | {f"eval/{name}": float(np.mean([account[name] for account in told if name in account])) for name in names}


class NoiseFeed:
    """Acting noise, tick by tick, drawn from the key in blocks: a function of the tick alone."""

    def __init__(self, key: Key, agent: Agent, num_envs: int):
        self._key, self._agent, self._num_envs = key, agent, num_envs
        self._block: Arrays = {}
        self._number = -1

    def __call__(self, tick: int) -> dict[str, np.ndarray]:
        number, row = divmod(tick, NOISE_BLOCK)
        if number != self._number:
            self._block = self._agent.act_noise(self._key(number), NOISE_BLOCK, self._num_envs)
            self._number = number
        return {name: block[row] for name, block in self._block.items()}


class Evaluator:
    """Plays episodes in environments of its own, built anew for each evaluation."""

    def __init__(
        self,
        make: Callable[[Seeds, int, bool], Vector],
        num_envs: int,
        key: Key,
        references: Mapping[str, float] = MappingProxyType({}),
    ):
        self._make, self._references = make, references
        self._num_envs = num_envs
        self._key = key

    def __call__(
        self,
        agent: Agent,
        normaliser: Normaliser,
        step: int,
        episodes: int,
        greedy: bool = True,
        stop: Callable[[], bool] = lambda: False,
    ) -> Result | None:
        """`episodes` episodes at environment step `step`, dealt to the environments in turn, so that short ones do not crowd
        out long ones. Seeds: eval/<step>/<env>/<episode>. None if `stop` says so before the end."""
        key = self._key(step)
        count = min(self._num_envs, episodes)
        envs = self._make(lambda env, episode: key(env, episode).seed(), count, False)
        wanted = [len(range(i, episodes, count)) for i in range(count)]
        found: list[list[Episode]] = [[] for _ in range(count)]
        try:
            for _ in play(agent, envs, normaliser, NoiseFeed(key("act"), agent, count), greedy):
                if stop():
                    return None
                for episode in envs.take_finished():
                    if len(found[episode.env]) < wanted[episode.env]:
                        found[episode.env].append(episode)
                if all(len(done) == want for done, want in zip(found, wanted, strict=True)):
                    break
        finally:
            envs.close()
        return Result([episode for done in found for episode in done], self._references)

    def films(
        self, agent: Agent, normaliser: Normaliser, step: int, batches: Mapping[str, Any], hardware: Hardware
    ) -> Iterator[tuple[str, list[np.ndarray], int]]:
        """An episode, and what the agent makes of the batches of its latest update, if there was one: name, frames, how many
        times slower than usual to show them."""
        yield "episode", self.film(agent, normaliser, step), 1
        if batches:
            noise = hardware.to_device(agent.film_noise(self._key(step, "dream"), batches))
            for name, frames in agent.films(batches, noise).items():
                yield name, frames, SLOWER

    def film(self, agent: Agent, normaliser: Normaliser, step: int) -> list[np.ndarray]:
        """The frames of one greedy episode, beside each the goals the agent acts for there, if it has any."""
        key = self._key(step, "film")
        envs = self._make(lambda env, episode: key(env, episode).seed(), 1, True)
        frames, goals = [], []
        try:
            for row, carry in play(agent, envs, normaliser, NoiseFeed(key("act"), agent, 1), greedy=True):
                frames.append(envs.render(0))
                goals.append(agent.beside(carry))  # chosen when the row before was seen
                if row.is_last[0]:
                    return [_beside(t, *shown) for t, shown in enumerate(zip(frames, [*goals[1:], goals[-1]], strict=True))]
        finally:
            envs.close()
        raise AssertionError("play() goes on for ever")


def _beside(tick: int, frame: np.ndarray, goals: Mapping[str, np.ndarray]) -> np.ndarray:
    if not goals:
        return frame
    images = [frame, *goals.values()]
    return grid(f"step {tick} of an episode", ["environment", *goals], [Row("", images, [PLAIN] * len(images))])


def play(agent: Agent, envs: Vector, normaliser: Normaliser, noise: NoiseFeed, greedy: bool) -> Iterator[tuple[Step, Carry]]:
    """Rows of an agent acting for ever, the first included, and what it carries there."""
    now, carry, tick = normaliser(envs.reset(), frozen=True), agent.initial(envs.num_envs), 0
    yield now, carry
    while True:
        action, carry, _ = agent.act(now, carry, noise(tick), greedy)
        now, tick = normaliser(envs.step(action), frozen=True), tick + 1
        yield now, carry
