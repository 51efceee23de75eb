"""What is checked where: of many like cases some in the quick suite, and of shapes and types those of the first calls."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jaxtyping
import pytest

LOOKS = ("run.", "log", "resume=", "seed=", "env.processes=", "replay.workers=", "replay.place=", "replay.chunk=")  # no shapes
_seen: set[frozenset[str]] = set()


def mostly_slow(cases: Iterable[Any], *quick: Any) -> list[Any]:
    """Cases of a test of which only these are in the quick suite: they are alike, and each takes seconds."""
    cases = list(cases)
    assert all(case in cases for case in quick), f"{quick} are not all among {cases}"
    return [case if case in quick else pytest.param(case, marks=pytest.mark.slow) for case in cases]


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
