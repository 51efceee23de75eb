"""What tests of agents have in common."""

import numpy as np
import pytest

from hieros_repro.agent import film


@pytest.fixture
def drawn(monkeypatch):
    """What frames of films are made of: (title, heads, rows)."""
    found = []

    def grid(title, heads, rows):
        found.append((title, heads, {row.name: row for row in rows}))
        return np.zeros((2, 2, 3), np.uint8)

    monkeypatch.setattr(film, "grid", grid)
    return found
