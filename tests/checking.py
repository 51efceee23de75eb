"""Where the shapes and types of calls are not checked, which takes longer than the calls: see conftest."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jaxtyping

LOOKS = ("run.", "log", "resume=", "seed=", "env.processes=", "replay.workers=", "replay.place=", "replay.chunk=")  # no shapes
_seen: set[frozenset[str]] = set()


@contextmanager
def unchecked(really: bool = True) -> Iterator[None]:
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", before or really)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


@contextmanager
def checked_once(typed: Sequence[str]) -> Iterator[None]:
    """Checked in the first run of a configuration to its end: the calls of those after it are the same.

    What only continues a run says nothing of its configuration, and is always checked.
    """
    config = frozenset(override for override in typed if not override.startswith(LOOKS))
    with unchecked(config in _seen):
        yield
    if config:
        _seen.add(config)
