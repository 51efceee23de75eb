"""From a class and its configuration to environments: what each is wrapped into, and what many of them are put into."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from hieros_repro.determinism.keys import Key
from hieros_repro.env.base import Env
from hieros_repro.env.normalise import Normaliser
from hieros_repro.env.vector import Seeds, Vector
from hieros_repro.env.wrapper import wrapped
from hieros_repro.records import Spaces

# They share an environment's node of the configuration. A class that takes one of their arguments itself keeps it.
SHELLS: tuple[Callable[..., Any], ...] = (wrapped, Vector, Normaliser)


@dataclass(frozen=True)
class Maker:
    """Makes one environment per call; picklable, since worker processes make their own."""

    kind: type[Env]
    values: Mapping[str, Any]
    wrappers: Mapping[str, Any] = field(default_factory=dict)
    render: bool = False

    def __call__(self) -> Env:
        return wrapped(self.kind(*([True] if self.render else []), **self.values), **self.wrappers)


class Recipe(NamedTuple):
    """A node of the group `env`, split by who takes what."""

    make: Maker
    vector: Mapping[str, Any]
    normalise: Mapping[str, Any]

    @classmethod
    def of(cls, kind: type[Env], node: Mapping[str, Any], parameters: Callable[[Any], Iterable[str]]) -> "Recipe":
        """`parameters` tells the configuration that a callable takes."""
        own = {name: node[name] for name in parameters(kind)}
        if own.get("length") and "action_repeat" not in own:  # steps are counted after repeating, its own before
            own["length"] *= node["action_repeat"]
        shells = ({name: node[name] for name in parameters(shell) if name not in own} for shell in SHELLS)
        wrappers, vector, normalise = shells
        return cls(Maker(kind, own, wrappers), vector, normalise)

    def training(self, seeds: Seeds) -> Vector:
        return Vector(self.make, seeds, **self.vector)

    def evaluation(self, seeds: Seeds, num_envs: int, render: bool = False) -> Vector:
        """Environments of which evaluation replaces some values, as many as asked for."""
        make = replace(self.make, values={**self.make.values, **self.make.kind.evaluation}, render=render)
        return Vector(make, seeds, **{**self.vector, "num_envs": num_envs})

    def references(self) -> Mapping[str, float]:
        return self.make.kind.references(**self.make.values)

    def pictures(self, envs: Vector) -> Mapping[str, np.ndarray]:
        """What such environments show of their past, all of them together; one more is made for it, where they do."""
        if self.make.kind.pictures is Env.pictures:
            return {}
        with closing(self.make()) as env:
            return env.pictures(envs.snapshots())

    def normaliser(self, spaces: Spaces, num_envs: int) -> Normaliser:
        return Normaliser(spaces, num_envs, **self.normalise)


def training_seeds(key: Key, seed: int, mode: str) -> Seeds:
    """Environment i's first reset uses seed + i; every later one, and with `keyed` the first too, its key."""

    def seeds(env: int, episode: int) -> int:
        if episode == 0 and mode == "offset":
            return seed + env
        return key("env", env, episode).seed()

    return seeds
