"""With plugins=[tests.forgetful_worlds] a run that goes on has lost what FORGET names of a level, as "1.state": of the level
above the lowest, the state of its world."""

import os
from collections.abc import Mapping
from typing import Any

import torch

from hieros_repro.run.loop import Loop

_load = Loop.load


def nothing(tree: Any) -> Any:
    return {name: nothing(value) for name, value in tree.items()} if isinstance(tree, Mapping) else torch.zeros_like(tree)


def load(loop: Loop, state: Mapping[str, Any]) -> None:
    _load(loop, state)
    place, name = os.environ["FORGET"].split(".")
    tiers = loop.carry["tiers"]
    tier = tiers[int(place)]
    held = tier[name].values() if isinstance(tier[name], Mapping) else [tier[name]]
    assert any(value.any() for value in held), f"nothing would be lost with {os.environ['FORGET']}"
    loop.carry = {**loop.carry, "tiers": {**tiers, int(place): {**tier, name: nothing(tier[name])}}}


if "FORGET" in os.environ:
    Loop.load = load  # type: ignore[method-assign]
