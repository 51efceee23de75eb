"""Worlds of a few units, for tests: from the configuration, their parameters filled."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest
from omegaconf import OmegaConf

from hieros_repro import build
from hieros_repro.check import check
from hieros_repro.nn.block import Style
from hieros_repro.records import ConfigError, Space
from hieros_repro.world.base import World
from tests.runs import compose
from tests.world.contract import ACTION, OBSERVATION
from tests.world.observations import filled

TINY = (
    "size.deter=16", "size.stoch=4", "size.classes=4", "size.depth=4", "size.layers=1", "size.head_units=16",
    "world.head_scale=0.1",
)  # fmt: skip


@cache
def settings(*overrides: str) -> dict[str, Any]:
    """The group `world` as an agent has it."""
    found = OmegaConf.to_container(compose(*overrides).agent, resolve=True)
    assert isinstance(found, dict)
    return found["world"]


def of_size(observation: Mapping[str, Space], action: int, style: Style, *overrides: str) -> World:
    return build.construct(settings(*overrides))(observation, action, style)


def tiny(style: Style, *overrides: str) -> World:
    return filled(of_size(OBSERVATION, ACTION, style, *overrides, *(o for o in TINY if not _given(o, overrides))))


def plain(*changes: str) -> tuple[str, ...]:
    """These changes, and no free nats unless they say so: losses are those of the equations."""
    return (*changes, *(() if _given("world.free_nats=", changes) else ("world.free_nats=0.0",)))


def _given(override: str, overrides: tuple[str, ...]) -> bool:
    return any(other.partition("=")[0] == override.partition("=")[0] for other in overrides)


def assert_fault(key: str, problem: str, *overrides: str) -> None:
    """The configuration has this one fault of its world, and no other."""
    with pytest.raises(ConfigError) as caught:
        check(compose("agent=director", *overrides))
    [fault] = caught.value.faults
    assert fault.key == f"agent.world.{key}" and re.search(problem, fault.problem)
