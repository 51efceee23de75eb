"""E environments as one: episodes, seeds and scores are kept here, in whatever way the environments are stepped."""

from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.env.base import Batch, Env, Past, Slots
from hieros_repro.env.parallel import Parallel
from hieros_repro.records import Count, Diverged, Episode, Natural, Positive, Spaces, Step, Tree

# What a run says of its episodes, which no environment's account may overwrite.
RESERVED = frozenset({"step", "env", "length", "return", "count", "episodes", "human_normalised"})
RESERVED |= {"score", "score_std", "score_min", "score_max"}


class Seeds(Protocol):
    """The seed of environment i's n-th reset."""

    def __call__(self, env: int, episode: int) -> int: ...


class Vector:
    """Steps E environments, in this process or in `processes` others. Semantics of episodes and resets: records.Step.

    An environment's state is its reset seed and either a snapshot or the actions since, which restoring replays; either way
    the observation is checked. Every tick returns fresh arrays, which nobody writes to again.
    """

    def __init__(self, make: Callable[[], Env], seeds: Seeds, *, num_envs: Count, processes: Natural, worker_timeout: Positive):
        self.batch: Batch
        if processes:
            self.batch = Parallel(make, num_envs, min(processes, num_envs), worker_timeout)
        else:
            self.batch = make().batch(make, num_envs)
        self.spaces: Spaces = self.batch.spaces
        self.num_envs = num_envs
        self.finished: list[Episode] = []  # since somebody last took them
        self.now: Step | None = None
        self._seeds = seeds
        self._shapes = {name: (num_envs, *space.shape) for name, space in self.spaces.observation.items()}
        self._dtypes = {name: space.dtype for name, space in self.spaces.observation.items()}
        self._episodes = [0] * num_envs  # resets so far
        self._reset_seeds = [0] * num_envs
        self._lengths = np.zeros(num_envs, np.int64)  # actions since
        self._scores = np.zeros(num_envs)
        self._actions: list[np.ndarray] = []  # of the latest ticks, where replaying needs them

    def reset(self) -> Step:
        """The first row of E new episodes."""
        return self._tick(np.zeros(self.num_envs), range(self.num_envs))

    def step(self, action: np.ndarray) -> Step:
        """One tick: environments whose last row was shown start anew, the others take their action."""
        assert self.now is not None, "reset() comes first"
        action = np.asarray(action, self.spaces.action.dtype)  # what is replayed, or handed to a worker, is what was done
        return self._tick(action, np.flatnonzero(self.now.is_last).tolist() if self.now.is_last.any() else ())

    def _tick(self, action: np.ndarray, starting: "range | list[int] | tuple[int, ...]") -> Step:
        seeds = {i: self._seeds(i, self._episodes[i]) for i in starting}
        slots = self._blank()
        accounts = self.batch.step(action, seeds, slots)
        if not np.isfinite(slots.reward).all():
            wrong = int(np.flatnonzero(~np.isfinite(slots.reward))[0])
            raise Diverged(f"environment {wrong} paid {slots.reward[wrong]} in step {self._lengths[wrong] + 1} of its episode")
        self._scores += slots.reward
        self._lengths += 1
        if not self.batch.remembers:
            self._actions.append(np.array(action))
        is_first = np.zeros(self.num_envs, bool)
        for i, seed in seeds.items():
            is_first[i] = True
            self._episodes[i] += 1
            self._reset_seeds[i], self._lengths[i], self._scores[i] = seed, 0, 0.0
        for i, account in accounts.items():
            if taken := RESERVED & account.keys():
                raise ValueError(
                    f"account() of environment {i} tells {', '.join(sorted(taken))}, which the run itself measures"
                )
            self.finished.append(Episode(i, int(self._lengths[i]), float(self._scores[i]), account))
        if seeds:
            self._forget()
        self.now = Step(slots.obs, slots.reward.astype(np.float32), is_first, slots.is_last, slots.is_terminal)
        return self.now

    def take_finished(self) -> list[Episode]:
        finished, self.finished = self.finished, []
        return finished

    def render(self, env: int) -> np.ndarray:
        return self.batch.render(env)

    def snapshots(self) -> list[Tree]:
        """Of every environment, where it takes them."""
        return self.batch.snapshot()

    def close(self) -> None:
        self.batch.close()

    def _blank(self) -> Slots:
        obs = {name: np.empty(shape, self._dtypes[name]) for name, shape in self._shapes.items()}
        return Slots(obs, np.zeros(self.num_envs), *np.zeros((2, self.num_envs), bool))

    def _forget(self) -> None:
        """Drops ticks that no episode under way needs; only when half of them are such, as each drop costs a copy."""
        needed = int(self._lengths.max())
        if len(self._actions) > 2 * needed + 64:
            self._actions = self._actions[len(self._actions) - needed :]

    # -- State ---------------------------------------------------------------------------------------------------------

    def state(self, exact: bool = True) -> Tree:
        """Where the environments are. Not `exact`: only what new episodes need."""
        assert self.now is not None, "there is no state before reset()"
        dtype, taken = self.spaces.action.dtype, len(self._actions)
        since = [int(length) if exact and not self.batch.remembers else 0 for length in self._lengths]
        return {
            "episodes": list(self._episodes),
            "seeds": list(self._reset_seeds),
            "actions": [np.array([a[i] for a in self._actions[taken - n :]], dtype) for i, n in enumerate(since)],
            "snapshots": self.batch.snapshot() if exact else [None] * self.num_envs,
            "lengths": self._lengths.tolist(),
            "scores": self._scores.tolist(),
            "flags": np.stack([self.now.is_first, self.now.is_last, self.now.is_terminal]),
            "reward": self.now.reward,
            "digest": digest_tree(self.now.obs),
        }

    def load(self, state: Mapping[str, Tree]) -> Step:
        """Every environment to where it was; returns the row it showed."""
        obs = self.restored(state)
        found = digest_tree(obs)
        if found != state["digest"]:
            raise ValueError(
                f"the environments did not come back: restoring them shows observations with digest {found}, the checkpoint "
                f"has {state['digest']}. The environment is not a function of its seed and actions, or its version differs; "
                "to go on with new episodes: determinism.resume=episode_boundary"
            )
        self._episodes, self._reset_seeds = list(state["episodes"]), list(state["seeds"])
        self._lengths, self._scores = np.array(state["lengths"]), np.array(state["scores"])
        self._actions = _by_tick(state["actions"], self.spaces.action.dtype)
        self.finished = []
        self.now = Step(obs, np.array(state["reward"]), *(np.array(flag) for flag in state["flags"]))
        return self.now

    def restored(self, state: Mapping[str, Tree]) -> Mapping[str, np.ndarray]:
        """Every environment to where it was; the observation that is shown there."""
        self._fits(state)
        pasts = [Past(*past) for past in zip(state["seeds"], state["actions"], state["snapshots"], strict=True)]
        lengths = zip(pasts, state["lengths"], strict=True)
        if not all(past.snapshot is not None or len(past.actions) == length for past, length in lengths):
            raise ValueError(
                "the checkpoint does not say where its environments were: it was saved under "
                "determinism.resume=episode_boundary, so only that can continue it"
            )
        obs = self._blank().obs
        self.batch.restore(pasts, obs)
        return obs

    def start_anew(self, state: Mapping[str, Tree]) -> Step:
        """The first rows of the episodes after those of a state: what was under way there is given up."""
        self._fits(state)
        self._episodes, self.finished, self._actions = list(state["episodes"]), [], []
        return self.reset()

    def _fits(self, state: Mapping[str, Tree]) -> None:
        if len(state["seeds"]) != self.num_envs:
            raise ValueError(f"the checkpoint holds {len(state['seeds'])} environments, this run has {self.num_envs}")


def _by_tick(actions: list[np.ndarray], dtype: np.dtype) -> list[np.ndarray]:
    """What each environment did since its reset, as one array per tick; ticks end together."""
    ticks = max(map(len, actions), default=0)
    shape = next((a.shape[1:] for a in actions if len(a)), ())
    table = np.zeros((ticks, len(actions), *shape), dtype)
    for i, taken in enumerate(actions):
        if len(taken):
            table[ticks - len(taken) :, i] = taken
    return list(table)
