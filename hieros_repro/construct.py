"""From a node of a checked configuration to what it names."""

import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any

Plain = Mapping[str, Any]


def construct(node: Plain, *parts: Any) -> Any:
    """Calls the constructor a node names: parts it is given first, the node's values as keyword arguments.

    A node that says `_partial_: true` is not called yet: whoever it is given to knows its parts.
    """
    values = {name: _constructed(value) for name, value in node.items() if not name.startswith("_")}
    return partial(target(node), **values) if node.get("_partial_") else target(node)(*parts, **values)


def _constructed(value: Any) -> Any:
    """A value of a node: the nodes within it as what they construct."""
    if not isinstance(value, dict):
        return value
    return construct(value) if "_target_" in value else {name: _constructed(child) for name, child in value.items()}


def target(node: Plain) -> Any:
    module, _, name = node["_target_"].rpartition(".")
    return getattr(importlib.import_module(module), name)
