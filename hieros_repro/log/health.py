"""Whether a run's metrics are where they should be."""

from collections.abc import Mapping, Sequence
from typing import Any

from hieros_repro.records import Hint

SETTLED = 500  # updates before which nothing is judged, and that a metric has to fall from what it first was
LASTING = 2  # rows in a row that must be wrong: each is about one batch only


class Health:
    """Compares every row with hints. What it knows is a function of the rows it was shown."""

    def __init__(self, hints: Sequence[Hint] = ()):
        self._hints = hints
        self._first: dict[str, tuple[int, float]] = {}  # updates, value
        self._wrong_for: dict[Hint, int] = {}  # rows

    def see(self, row: Mapping[str, Any]) -> list[str]:
        """One line for each metric that has just been out of its band for long enough."""
        if "updates" not in row:
            return []
        found = []
        for hint in self._hints:
            value = _value(hint, row)
            if value is None:
                continue
            since, first = self._first.setdefault(hint.metric, (row["updates"], value))
            if row["updates"] <= SETTLED:
                continue
            why = _wrong(hint, value, first if row["updates"] - since >= SETTLED else None)
            self._wrong_for[hint] = self._wrong_for.get(hint, 0) + 1 if why else 0
            if self._wrong_for[hint] == LASTING:
                found.append(f"look at {hint.metric}{f' / {hint.per}' if hint.per else ''} = {value:.3g}, {why}: {hint.text}")
        return found


def _wrong(hint: Hint, value: float, first: float | None) -> str | None:
    if hint.low is not None and value < hint.low:
        return f"below {hint.low:.3g}"
    if hint.high is not None and value > hint.high:
        return f"above {hint.high:.3g}"
    if hint.falls is not None and first is not None and value > hint.falls * first:
        return f"at first {first:.3g}"
    return None


def _value(hint: Hint, row: Mapping[str, Any]) -> float | None:
    if hint.per is None:
        return row.get(hint.metric)
    return row[hint.metric] / row[hint.per] if row.get(hint.per) and hint.metric in row else None
