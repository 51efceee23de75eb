"""From a class and its configuration to replays: a selector is put into the windows that it chooses from."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hieros_repro.records import Memory
from hieros_repro.replay.base import Held, Replay
from hieros_repro.replay.mixed import mixed, require_fillable
from hieros_repro.replay.selector import Selector
from hieros_repro.replay.windows import Windows

# They share a selector's node of the configuration.
SHELLS: tuple[Callable[..., Any], ...] = (Windows, mixed)


def made(
    kind: type[Replay] | type[Selector],
    held: Held,
    memories: Mapping[str, Memory],
    node: Mapping[str, Any],
    parameters: Callable[[Any], Iterable[str]],
) -> dict[str, Replay]:
    """An agent's replays, by name, from a node of the configuration. `parameters` tells what of it a callable takes."""
    require_fillable(node.get("dataset"), memories)
    return {name: _made(kind, held.of(name, memory), node, parameters) for name, memory in memories.items()}


def _made(
    kind: type[Replay] | type[Selector], held: Held, node: Mapping[str, Any], parameters: Callable[[Any], Iterable[str]]
) -> Replay:
    own = {name: node[name] for name in parameters(kind)}
    if issubclass(kind, Replay):
        return kind(held, **own)  # type: ignore[call-arg]
    stores, mixes = ({name: node[name] for name in parameters(shell)} for shell in SHELLS)

    def windows(held: Held, **changes: Any) -> Windows:
        return Windows(lambda capacity: kind(capacity, **own), held, **{**stores, **changes})

    return mixed(windows(held), windows, held, **mixes)
