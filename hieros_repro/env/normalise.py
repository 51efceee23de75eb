"""Running statistics that normalise what a vector of environments shows."""

from typing import Any

import numpy as np

from hieros_repro.records import Arrays, Fraction, NonNegative, Spaces, Step, Tree

EPSILON = 1e-8


class Moments:
    """Mean and variance of everything seen so far, per dimension (Chan et al. 1979), in float64."""

    def __init__(self, shape: tuple[int, ...]):
        self.mean = np.zeros(shape)
        self.variance = np.ones(shape)
        self.count = 0.0

    def update(self, batch: np.ndarray) -> None:
        """Merges the moments of a batch: n = n1 + n2, m = m1 + d n2/n, s = s1 + s2 + d^2 n1 n2/n with d = m2 - m1."""
        count, mean, variance = len(batch), batch.mean(0), batch.var(0)
        total, gap = self.count + count, mean - self.mean
        squares = self.variance * self.count + variance * count + gap**2 * self.count * count / total
        self.mean, self.variance, self.count = self.mean + gap * count / total, squares / total, total

    def state(self) -> Tree:
        return {"mean": self.mean.copy(), "variance": self.variance.copy(), "count": self.count}

    def load(self, state: Tree) -> None:
        self.mean, self.variance = np.array(state["mean"]), np.array(state["variance"])
        self.count = state["count"]


class Normaliser:
    """Normalises vector observations and rewards by statistics shared over environments, updated once a tick.

    Observations become (x - mean) / std. Rewards are divided by the standard deviation of the discounted return, summed per
    environment as it goes; they keep their sign and zero. Both are clipped. `clip_reward` bounds rewards whether they are
    normalised or not. Scores of episodes are of rewards as they were paid.
    """

    def __init__(
        self,
        spaces: Spaces,
        num_envs: int,
        *,
        normalise_observation: bool,
        normalise_reward: bool,
        normalise_discount: Fraction,
        normalise_clip: NonNegative,
        clip_reward: NonNegative | None,
    ):
        self.reward, self.discount, self.clip = normalise_reward, normalise_discount, normalise_clip
        self.clip_reward = clip_reward
        vectors = {name: space for name, space in spaces.observation.items() if space.kind == "vector"}
        self._observations = {name: Moments(v.shape) for name, v in vectors.items()} if normalise_observation else {}
        self._returns = Moments(())
        self._running = np.zeros(num_envs)

    def __call__(self, step: Step, frozen: bool = False) -> Step:
        """The normalised row. Frozen (evaluation): the statistics are used, not updated."""
        if not frozen:
            self._update(step)
        if self._observations:
            step = step._replace(obs=self.observe(step.obs))
        if self.reward:
            scaled = step.reward / np.sqrt(self._returns.variance + EPSILON)
            step = step._replace(reward=np.clip(scaled, -self.clip, self.clip).astype(np.float32))
        if self.clip_reward is not None:
            step = step._replace(reward=np.clip(step.reward, -self.clip_reward, self.clip_reward))
        return step

    def observe(self, obs: Arrays) -> dict[str, np.ndarray]:
        normalised = dict(obs)
        for name, moments in self._observations.items():
            scaled = (obs[name] - moments.mean) / np.sqrt(moments.variance + EPSILON)
            normalised[name] = np.clip(scaled, -self.clip, self.clip).astype(np.float32)
        return normalised

    def _update(self, step: Step) -> None:
        for name, moments in self._observations.items():
            moments.update(step.obs[name])
        if self.reward:
            self._running = self._running * self.discount * ~step.is_first + step.reward
            if not step.is_first.all():
                self._returns.update(self._running[~step.is_first])

    def state(self) -> dict[str, Any]:
        return {
            "observations": {name: moments.state() for name, moments in self._observations.items()},
            "returns": self._returns.state(),
            "running": self._running.copy(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """What a branch has only just switched on, or whose environments start anew, is not in the state."""
        for name, moments in self._observations.items():
            if name in state["observations"]:
                moments.load(state["observations"][name])
        self._returns.load(state["returns"])
        if "running" in state:
            self._running = np.array(state["running"])
