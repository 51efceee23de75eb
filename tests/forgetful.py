"""With plugins=[tests.forgetful] a run that goes on has lost what FORGET names, as if its checkpoint had never held it.

`age` is of the carry, `refreshed` what updates wrote back into the replay. Anything else is a tensor of the agent's
"parameters", which is then as it is before any learning.
"""

import os
from collections.abc import Mapping
from typing import Any

import torch

from hieros_repro.agent.hierarchy import Hierarchy
from hieros_repro.replay.windows import Windows
from hieros_repro.run.loop import Loop

_load_agent, _load_loop, _load_windows = Hierarchy.load, Loop.load, Windows.load


def load_agent(agent: Hierarchy, state: Mapping[str, Any]) -> None:
    name = os.environ["FORGET"]
    fresh = agent.net.state_dict()[name].clone()
    assert not torch.equal(fresh, state["parameters"][name]), f"nothing would be lost with {name}"
    _load_agent(agent, {**state, "parameters": {**state["parameters"], name: fresh}})


def load_loop(loop: Loop, state: Mapping[str, Any]) -> None:
    _load_loop(loop, state)
    loop.carry = {**loop.carry, "age": torch.zeros_like(loop.carry["age"])}


def load_windows(windows: Windows, state: Mapping[str, Any]) -> None:
    _load_windows(windows, {**state, "refreshed": {name: 0 * values for name, values in state["refreshed"].items()}})


if os.environ.get("FORGET") == "age":
    Loop.load = load_loop
elif os.environ.get("FORGET") == "refreshed":
    Windows.load = load_windows
elif "FORGET" in os.environ:
    Hierarchy.load = load_agent
