"""E environments as one, in this process; every reset seeded explicitly, every state restorable in the middle of an episode."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.records import Count, Episode, Spaces, Step, Tree

if TYPE_CHECKING:
    from hieros_repro.env.base import Env


class Seeds(Protocol):
    """The seed of environment i's n-th true reset."""

    def __call__(self, env: int, episode: int) -> int: ...


class Vector:
    """Steps E environments in order. Semantics of episodes and resets: records.Step.

    An environment's state is its reset seed and the actions since; restoring replays them and checks the observation.
    Every tick returns fresh arrays, which nobody writes to again.
    """

    def __init__(self, make: "Callable[[], Env]", seeds: Seeds, *, num_envs: Count):
        self.envs = [make() for _ in range(num_envs)]
        self.spaces: Spaces = self.envs[0].spaces
        self.num_envs = num_envs
        self.finished: list[Episode] = []  # since somebody last took them
        self._seeds = seeds
        self._shapes = {name: (num_envs, *space.shape) for name, space in self.spaces.observation.items()}
        self._dtypes = {name: space.dtype for name, space in self.spaces.observation.items()}
        self._episodes = [0] * num_envs  # true resets so far
        self._reset_seeds = [0] * num_envs
        self._actions: list[list[Any]] = [[] for _ in range(num_envs)]
        self._scores = [0.0] * num_envs
        self.now: Step | None = None

    def reset(self) -> Step:
        """The first row of E new episodes."""
        self.now = self._blank()
        for i in range(self.num_envs):
            self._start(i, self.now)
        return self.now

    def step(self, action: np.ndarray) -> Step:
        """One tick: environments whose last row was shown start anew, the others take their action."""
        before, after = self.now, self._blank()
        assert before is not None, "reset() comes first"
        obs, reward, _, is_last, is_terminal = after
        ended = before.is_last.tolist()
        for i, chosen in enumerate(action):
            if ended[i]:
                self._start(i, after)
                continue
            seen, gain, terminated, truncated = self.envs[i].step(chosen)
            for name, value in seen.items():
                obs[name][i] = value
            reward[i] = gain
            self._actions[i].append(chosen)
            self._scores[i] += gain
            if terminated or truncated:
                is_last[i], is_terminal[i] = True, terminated
                self.finished.append(Episode(i, len(self._actions[i]), self._scores[i]))
        self.now = after
        return after

    def take_finished(self) -> list[Episode]:
        finished, self.finished = self.finished, []
        return finished

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _start(self, i: int, row: Step) -> None:
        seed = self._seeds(i, self._episodes[i])
        for name, value in self.envs[i].reset(seed).items():
            row.obs[name][i] = value
        row.is_first[i] = True
        self._episodes[i] += 1
        self._reset_seeds[i], self._actions[i], self._scores[i] = seed, [], 0.0

    def _blank(self) -> Step:
        obs = {name: np.empty(shape, self._dtypes[name]) for name, shape in self._shapes.items()}
        return Step(obs, np.zeros(self.num_envs, np.float32), *np.zeros((3, self.num_envs), bool))

    # -- State ---------------------------------------------------------------------------------------------------------

    def state(self) -> Tree:
        assert self.now is not None, "there is no state before reset()"
        return {
            "episodes": list(self._episodes),
            "seeds": list(self._reset_seeds),
            "actions": [np.array(actions, self.spaces.action.dtype) for actions in self._actions],
            "scores": list(self._scores),
            "flags": np.stack([self.now.is_first, self.now.is_last, self.now.is_terminal]),
            "reward": self.now.reward,
            "digest": digest_tree(self.now.obs),
        }

    def load(self, state: Tree) -> Step:
        """Replays every environment to where it was and returns the row it showed."""
        if len(state["seeds"]) != self.num_envs:
            raise ValueError(f"the checkpoint holds {len(state['seeds'])} environments, this run has {self.num_envs}")
        now = self._blank()
        for i, (seed, actions) in enumerate(zip(state["seeds"], state["actions"], strict=True)):
            self._replay(i, seed, actions, now)
        now.reward[:] = state["reward"]
        for flag, saved in zip(now[2:], state["flags"], strict=True):
            flag[:] = saved
        found = digest_tree(now.obs)
        if found != state["digest"]:
            raise ValueError(
                f"the environments did not come back: replaying their actions shows observations with digest {found}, "
                f"the checkpoint has {state['digest']}. The environment is not a function of its seed and actions, or its "
                "version differs"
            )
        self._episodes, self._scores = list(state["episodes"]), list(state["scores"])
        self.finished = []
        self.now = now
        return now

    def _replay(self, i: int, seed: int, actions: np.ndarray, row: Step) -> None:
        seen = self.envs[i].reset(seed)
        self._reset_seeds[i], self._actions[i] = seed, []
        for chosen in actions:
            seen = self.envs[i].step(chosen)[0]
            self._actions[i].append(chosen)
        for name, value in seen.items():
            row.obs[name][i] = value
