"""How the levels of a hierarchy are doing, as a table: of every level its losses, its rewards, and how freely it acts.

Metrics are told apart by their names: Subactor-<i>/<what>. Agents that name theirs otherwise have no table.
"""

import re
from collections.abc import Mapping
from typing import Any

LOSSES = ("wm_loss", "kl", "subgoal_error", "actor_loss", "critic_loss")
REWARD, ENTROPY = "_reward", "entropy"


def table(metrics: Mapping[str, Any], count: int = 0) -> str:
    """One line per level under a line of names; "" where there are no levels. What a level does not have is a dash. Those of
    `count` levels that have not learned yet are named."""
    levels: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        if found := re.fullmatch(r"(Subactor-\d+)/(\w+)", name):
            levels.setdefault(found[1], {})[found[2]] = value
    if not levels:
        return ""
    known = list(dict.fromkeys(what for level in levels.values() for what in level))
    shown = [what for what in LOSSES if what in known]
    shown += [what for what in known if what.endswith(REWARD)] + [ENTROPY] * (ENTROPY in known)
    rows = [["level", *shown]]
    rows += [[name, *(_number(levels[name].get(what)) for what in shown)] for name in sorted(levels, key=_place)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    waiting = [name for name in (f"Subactor-{i}" for i in range(count)) if name not in levels]
    if waiting:
        lines.append(f"{', '.join(waiting)}: no update yet (higher levels learn more seldom, once their replay has a batch)")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _place(level: str) -> int:
    return int(level.rpartition("-")[2])
