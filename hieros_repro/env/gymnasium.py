"""Any Gymnasium environment, by id."""

import copy
import difflib
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces as gym_spaces
from gymnasium.error import Error as GymnasiumError

from hieros_repro.env.base import Env, Outcome
from hieros_repro.records import CannotRender, Count, Fault, Space, Spaces, UserError


class Gymnasium(Env):
    """Wraps gymnasium.make(id, **kwargs).

    A Box of uint8 with two or three axes is an image (shown with its channels last), any other Box a vector; Discrete
    observations become one-hot vectors; a Dict or Tuple gives one entry per leaf. Time limits are those of the registration
    unless `length` overrides them.
    """

    def __init__(self, render: bool = False, *, id: str, kwargs: dict[str, Any], length: Count | None):
        mode: dict[str, Any] = {"render_mode": "rgb_array"} if render else {}
        if render:  # off screen, and without a greeting
            os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
            os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
        self.id, (module, _, name) = id, id.rpartition(":")
        if module:
            importlib.import_module(module)
        spec = copy.deepcopy(gymnasium.spec(name))
        self._limit = length or spec.max_episode_steps  # kept here: every wrapper costs a call per step
        spec.max_episode_steps, spec.order_enforce = None, False
        try:
            self.env = gymnasium.make(spec, disable_env_checker=True, **mode, **kwargs)
        except TypeError as error:
            if not kwargs:
                raise
            raise UserError(f"env.kwargs={kwargs}: {id} was not made with them: {error}") from error
        observation, self._read = _observation(self.env.observation_space)
        self.spaces = Spaces(observation, _action(self.env.action_space))
        self._offset = getattr(self.env.action_space, "start", 0)
        self._shift = isinstance(self.env.action_space, gym_spaces.Discrete) and int(self._offset) != 0

    @classmethod
    def check(cls, *, id: str, kwargs: dict[str, Any], length: int | None) -> Iterator[Fault]:
        """Is the id registered, and is what it needs installed?"""
        module, _, name = id.rpartition(":")
        try:
            if module:
                importlib.import_module(module)
            spec = gymnasium.spec(name)
        except ModuleNotFoundError as error:
            yield Fault("id", f"{id!r}: the module {error.name!r} is not installed")
            return
        except GymnasiumError:
            near = difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.4)
            yield Fault("id", f"{id!r} is not registered with Gymnasium; nearest: {', '.join(near) or 'none'}")
            return
        try:
            if isinstance(spec.entry_point, str):  # else it is the class or function itself
                gymnasium.envs.registration.load_env_creator(spec.entry_point)
        except (ImportError, GymnasiumError) as error:
            yield Fault("id", f"{id!r} needs a package that is not installed: {error}")

    @classmethod
    def sources(cls, **values: Any) -> list[str]:
        """Where the environment's class and what it inherits from are defined."""
        module, _, name = values["id"].rpartition(":")
        if module:
            importlib.import_module(module)
        entry = gymnasium.spec(name).entry_point
        creator = gymnasium.envs.registration.load_env_creator(entry) if isinstance(entry, str) else entry
        return [cls.__module__ for cls in getattr(creator, "__mro__", [creator])]

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self._steps = 0
        return self._read(self.env.reset(seed=seed)[0])

    def step(self, action: np.ndarray | int) -> Outcome:
        obs, reward, terminated, truncated, _ = self.env.step(action + self._offset if self._shift else action)
        self._steps += 1
        return self._read(obs), float(reward), bool(terminated), bool(truncated) or self._steps == self._limit

    def render(self) -> np.ndarray:
        if self.env.render_mode != "rgb_array":
            raise CannotRender(f"{self.id} was made without pictures, or has none to give")
        return np.asarray(self.env.render())

    def close(self) -> None:
        self.env.close()


Reader = Callable[[Any], np.ndarray]


def _observation(space: gymnasium.Space) -> tuple[dict[str, Space], Callable[[Any], dict[str, np.ndarray]]]:
    """The spaces by name, and the function that turns an observation into arrays by name."""
    leaves = dict(_leaves(space, "", lambda obs: obs))
    if len(leaves) == 1:  # the commonest, without a loop per step
        ((name, (ours, read)),) = leaves.items()
        return {name: ours}, lambda obs: {name: read(obs)}
    readers = [(name, read) for name, (_, read) in leaves.items()]
    return {name: ours for name, (ours, _) in leaves.items()}, lambda obs: {name: read(obs) for name, read in readers}


def _leaves(space: gymnasium.Space, name: str, find: Callable[[Any], Any]) -> Iterator[tuple[str, tuple[Space, Reader]]]:
    """Name -> our space and how to read it, for every leaf. What lies in a Dict or Tuple is named by its path."""
    if isinstance(space, gym_spaces.Dict | gym_spaces.Tuple):
        children = space.spaces.items() if isinstance(space, gym_spaces.Dict) else enumerate(space.spaces)
        for key, child in children:
            yield from _leaves(child, f"{name}_{key}" if name else str(key), lambda obs, key=key: find(obs)[key])  # type: ignore[misc]
        return
    ours, read = _leaf(space)
    yield name or ("image" if ours.kind == "image" else "vector"), (ours, read if not name else lambda obs: read(find(obs)))


def _leaf(space: gymnasium.Space) -> tuple[Space, Reader]:
    if isinstance(space, gym_spaces.Box):
        if space.dtype == np.uint8 and len(space.shape) == 3:
            if space.shape[0] <= 4 < space.shape[2]:
                return Space("image", (*space.shape[1:], space.shape[0])), lambda obs: obs.transpose(1, 2, 0)
            return Space("image", space.shape), lambda obs: obs
        if space.dtype == np.uint8 and len(space.shape) == 2:
            return Space("image", (*space.shape, 1)), lambda obs: obs[:, :, None]
        return Space("vector", space.shape), lambda obs: obs
    if isinstance(space, gym_spaces.Discrete):
        table = np.eye(int(space.n), dtype=np.float32)
        return Space("vector", (int(space.n),)), lambda obs: table[int(obs) - int(space.start)]
    if isinstance(space, gym_spaces.MultiDiscrete | gym_spaces.MultiBinary):
        return Space("vector", (gym_spaces.flatdim(space),)), lambda obs: np.asarray(gym_spaces.flatten(space, obs))
    raise UserError(f"observations of {space} are not supported: wrap them into Box, Discrete or Dict")


def _action(space: gymnasium.Space) -> Space:
    if isinstance(space, gym_spaces.Discrete):
        return Space("discrete", (), sizes=(int(space.n),))
    if isinstance(space, gym_spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return Space("multidiscrete", space.shape, sizes=tuple(int(n) for n in space.nvec))
    if isinstance(space, gym_spaces.MultiBinary) and len(space.shape) == 1:
        return Space("multidiscrete", space.shape, sizes=(2,) * space.shape[0])
    if isinstance(space, gym_spaces.Box) and np.issubdtype(space.dtype, np.floating):
        low, high = (tuple(float(x) for x in bound.flatten()) for bound in (space.low, space.high))
        return Space("continuous", space.shape, low=low, high=high)
    raise UserError(f"actions of {space} are not supported: use Discrete, MultiDiscrete or a float Box")
