"""What any single environment can be wrapped into. A wrapper's own state, if it has one, is part of the snapshot."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hieros_repro.env.base import Env, Outcome
from hieros_repro.records import Count, Space, Spaces, Tree, UserError


class Wrapper(Env):
    """Passes everything on."""

    def __init__(self, env: Env):
        self.env, self.spaces, self.meanings = env, env.spaces, env.meanings  # type: ignore[misc]

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        return self.env.reset(seed)

    def step(self, action: np.ndarray | int) -> Outcome:
        return self.env.step(action)

    def account(self) -> Mapping[str, float]:
        return self.env.account()

    def snapshot(self) -> Tree:
        return self.env.snapshot()

    def restore(self, seed: int, snapshot: Tree) -> dict[str, np.ndarray]:
        return self.env.restore(seed, snapshot)

    def restorable(self) -> bool:
        return self.env.restorable()

    def render(self) -> np.ndarray:
        return self.env.render()

    def pictures(self, snapshots: Sequence[Tree]) -> Mapping[str, np.ndarray]:
        return self.env.pictures(snapshots)

    def close(self) -> None:
        self.env.close()


class Repeat(Wrapper):
    """Takes every action `times` times, or until the episode ends. Rewards add up; the last observation is shown."""

    def __init__(self, env: Env, times: int):
        super().__init__(env)
        self.times = times

    def step(self, action: np.ndarray | int) -> Outcome:
        total = 0.0
        for _ in range(self.times):
            obs, reward, terminated, truncated = self.env.step(action)
            total += reward
            if terminated or truncated:
                break
        return obs, total, terminated, truncated


class TimeLimit(Wrapper):
    """Ends an episode after `length` steps: a time-out, not a termination."""

    def __init__(self, env: Env, length: int):
        super().__init__(env)
        self.length = length
        self.steps = 0

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self.steps = 0
        return self.env.reset(seed)

    def step(self, action: np.ndarray | int) -> Outcome:
        obs, reward, terminated, truncated = self.env.step(action)
        self.steps += 1
        return obs, reward, terminated, truncated or (self.steps >= self.length and not terminated)

    def snapshot(self) -> Tree:
        return {"steps": self.steps, "inner": self.env.snapshot()} if self.env.restorable() else None

    def restore(self, seed: int, snapshot: Tree) -> dict[str, np.ndarray]:
        self.steps = snapshot["steps"]
        return self.env.restore(seed, snapshot["inner"])

    def pictures(self, snapshots: Sequence[Tree]) -> Mapping[str, np.ndarray]:
        return self.env.pictures([snapshot["inner"] for snapshot in snapshots])


class Resize(Wrapper):
    """Images at another size; each new pixel is the mean of the area it covers, rounded."""

    def __init__(self, env: Env, size: tuple[int, int]):
        super().__init__(env)
        self.size = size
        images = {name: space for name, space in env.spaces.observation.items() if space.kind == "image"}
        self.spaces = Spaces(
            {n: replace(s, shape=(*size, s.shape[2])) if n in images else s for n, s in env.spaces.observation.items()},
            env.spaces.action,
        )
        self._shares = {name: _shares(space.shape, size) for name, space in images.items()}

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        return self._resized(self.env.reset(seed))

    def step(self, action: np.ndarray | int) -> Outcome:
        obs, *outcome = self.env.step(action)
        return self._resized(obs), *outcome  # type: ignore[return-value]

    def restore(self, seed: int, snapshot: Tree) -> dict[str, np.ndarray]:
        return self._resized(self.env.restore(seed, snapshot))

    def _resized(self, obs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: self._image(value, *self._shares[name]) if name in self._shares else value for name, value in obs.items()}

    def _image(self, image: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Sums of whole numbers, which floats hold exactly in whatever order they are added; then one division."""
        height, width, channels = image.shape
        lower = (rows @ image.reshape(height, -1).astype(rows.dtype)).reshape(-1, width, channels)
        smaller = (columns @ lower.swapaxes(0, 1).reshape(width, -1)).reshape(len(columns), -1, channels)
        return np.rint(smaller.swapaxes(0, 1) / (height * width)).astype(np.uint8)


def _shares(shape: tuple[int, ...], size: tuple[int, int]) -> list[np.ndarray]:
    """For rows and columns: (new, old) what every new pixel covers of every old one, in units that make it whole numbers."""
    exact, found = np.float32 if 255 * shape[0] * shape[1] < 2**24 else np.float64, []
    for old, new in zip(shape[:2], size, strict=True):
        starts, edges = np.arange(old) * new, np.arange(new + 1)[:, None] * old
        covered = np.minimum(edges[1:], starts + new) - np.maximum(edges[:-1], starts)
        found.append(np.maximum(covered, 0).astype(exact))
    return found


class Rescale(Wrapper):
    """Continuous actions between -1 and 1, clipped to that and stretched to the environment's bounds where those are finite."""

    def __init__(self, env: Env):
        super().__init__(env)
        space = env.spaces.action
        low, high = (np.array(bound, np.float64).reshape(space.shape) for bound in (space.low, space.high))
        finite = np.isfinite(low) & np.isfinite(high)
        self.low, self.high = np.where(finite, low, -1.0), np.where(finite, high, 1.0)
        self.bound = np.where(finite, 1.0, np.inf)
        bound = tuple(float(x) for x in self.bound.flatten())
        self.spaces = Spaces(env.spaces.observation, replace(space, low=tuple(-x for x in bound), high=bound))

    def step(self, action: np.ndarray | int) -> Outcome:
        clipped = np.clip(np.asarray(action, np.float64), -self.bound, self.bound)
        stretched = self.low + (clipped + 1) / 2 * (self.high - self.low)
        return self.env.step(np.where(np.isinf(self.bound), clipped, stretched).astype(np.float32))


class OneHot(Wrapper):
    """Discrete actions as vectors of which one entry is 1 and all others are 0, exactly."""

    def __init__(self, env: Env):
        super().__init__(env)
        (count,) = env.spaces.action.sizes
        self.spaces = Spaces(env.spaces.observation, Space("onehot", (count,), sizes=(count,)))

    def step(self, action: np.ndarray | int) -> Outcome:
        chosen = np.asarray(action)
        index = int(chosen.argmax())
        if chosen[index] != 1 or np.count_nonzero(chosen) != 1:
            raise ValueError(f"the action {chosen.tolist()} is not one-hot")
        return self.env.step(index)


def wrapped(
    env: Env,
    *,
    action_repeat: Count = 1,
    length: Count | None = None,
    resize: list[Count] | None = None,
    rescale_actions: bool = False,
    one_hot: bool = False,
) -> Env:
    """An environment in the wrappers that are asked for; what its class does itself is not asked for here."""
    action, images = env.spaces.action.kind, [s for s in env.spaces.observation.values() if s.kind == "image"]
    _needs(bool(images) or not resize, "resize", "there is no image to resize")
    _needs(action == "continuous" or not rescale_actions, "rescale_actions", f"the actions are {action}, not continuous")
    _needs(action == "discrete" or not one_hot, "one_hot", f"the actions are {action}, not discrete")
    asked: list[tuple[Any, type[Wrapper], tuple[Any, ...]]] = [
        (action_repeat > 1, Repeat, (action_repeat,)),
        (length, TimeLimit, (length,)),
        (resize, Resize, (tuple(resize or ()),)),
        (rescale_actions, Rescale, ()),
        (one_hot, OneHot, ()),
    ]
    for wanted, wrapper, arguments in asked:
        if wanted:
            env = wrapper(env, *arguments)
    return env


def _needs(holds: bool, key: str, problem: str) -> None:
    if not holds:
        raise UserError(f"env.{key}: {problem}")
