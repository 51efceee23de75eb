"""Two traces of one moment of two runs: where they part first.

Both are walked side by side. As long as all agrees, what goes into an operation is equal unless it came from outside; so the
first disagreement is one of four: a constant, something handed in, an operation that gives something else for the same, or
another operation. Where only operations differ, the walk goes on behind them, until values do.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

Note = Mapping[str, Any]
AHEAD, ALIKE = 200, 6  # where operations differ: how far to look for a common continuation, and how long that must be
LISTED = 4  # findings of that kind


class Finding(NamedTuple):
    """The notes of both runs where they part; None where one has no such operation."""

    kind: Literal["constant", "input", "output", "operation"]
    a: Note | None
    b: Note | None
    what: tuple[str, Any, Any] = ("", None, None)  # what differs, in A, in B
    extra: tuple[int, int] = (0, 0)  # how many operations each has before they agree again, if they do


def parting(a: Sequence[Note], b: Sequence[Note]) -> list[Finding]:
    """Other operations, in their order, up to the first other value; nothing if the traces agree."""
    found: list[Finding] = []
    i = j = 0
    while i < len(a) or j < len(b):
        left, right = a[i] if i < len(a) else None, b[j] if j < len(b) else None
        if left is None or right is None:
            return [*found, Finding("operation", left, right, extra=(len(a) - i, len(b) - j))]
        difference = _difference(left, right)
        if difference is None:
            i, j = i + 1, j + 1
            continue
        found.append(difference)
        step = _continuation(a[i:], b[j:]) if difference.kind == "operation" and len(found) < LISTED else None
        if step is None:
            return found
        found[-1] = difference._replace(extra=step)
        i, j = i + step[0], j + step[1]
    return found


def _difference(a: Note, b: Note) -> Finding | None:
    if a["operation"] != b["operation"] or a["part"] != b["part"] or len(a["inputs"]) != len(b["inputs"]):
        return Finding("operation", a, b)
    for x, y in zip(a["inputs"], b["inputs"], strict=True):
        if x["digest"] != y["digest"]:
            return Finding("input", a, b, (x["argument"], x, y))
    for name in [*a["constants"], *(name for name in b["constants"] if name not in a["constants"])]:
        x, y = a["constants"].get(name), b["constants"].get(name)
        if x != y:
            return Finding("constant", a, b, (name, x, y))
    for number, (x, y) in enumerate(zip(a["outputs"], b["outputs"], strict=False)):
        if x["digest"] != y["digest"]:
            return Finding("output", a, b, (str(number), x, y))
    return None


def _continuation(a: Sequence[Note], b: Sequence[Note]) -> tuple[int, int] | None:
    """After how many operations of each both do the same again for a while, with the fewest left out; None if never."""
    for total in range(1, AHEAD):
        for left in range(total + 1):
            x, y = a[left : left + ALIKE], b[total - left : total - left + ALIKE]
            if x and y and [_alike(note) for note in x] == [_alike(note) for note in y]:
                return left, total - left
    return None


def _alike(note: Note) -> tuple[Any, ...]:
    return note["operation"], [item["shape"] for item in note["inputs"]]


# -- In words ----------------------------------------------------------------------------------------------------------


def told(finding: Finding) -> Iterator[str]:
    """What a finding says: what differs, then where."""
    a, b, (name, x, y) = finding.a, finding.b, finding.what
    if a is None or b is None or finding.kind == "operation":
        yield "other operations"
        for which, note, count in zip("AB", (a, b), finding.extra, strict=True):
            yield f"{which} {_does(note, count, sum(finding.extra))}"
        return
    operation = a["operation"]
    if finding.kind == "constant":
        yield f"{operation} is given equal tensors and another constant: {name} = {x} in A, {y} in B"
    elif finding.kind == "input":
        outside = f"something else from outside: {x['name'] or y['name'] or 'numbers made in Python'}"
        yield f"{operation} is given {'what was computed otherwise before' if x['inside'] else outside} ({name})"
    else:
        yield f"{operation} gives something else for equal inputs"
    yield place(a)
    if place(a) != place(b):
        yield f"in B: {place(b)}"
    if finding.kind != "constant":
        yield from (f"{which} {_shown(tensor)}" for which, tensor in zip("AB", (x, y), strict=True))


def _does(note: Note | None, count: int, total: int) -> str:
    if note is None:
        return "has come to its end"
    if total and not count:
        return "does nothing there"
    return f"does {place(note)}{f', and {count - 1} operations more' if count > 1 else ''}"


def place(note: Note) -> str:
    """An operation, its module and its source."""
    module = f" in module {note['module']}" if note["module"] else ""
    backward = f" in the backward pass ({note['backward']}) of what is done" if note["backward"] else ""
    inner, *callers = note["source"] or ["outside the package "]
    where, _, function = inner.rpartition(" ")
    called = f", called from {' < '.join(callers)}" if callers else ""
    return f"operation {note['operation']}{backward}{module} ({where}, function {function}){called}"


def brief(note: Note) -> str:
    """One line of orientation."""
    shapes = ", ".join(f"{item['dtype']}{item['shape']}" for item in note["outputs"])
    source = note["source"][0] if note["source"] else "?"
    return (
        f"#{note['number']} {note['operation']} -> {shapes or 'nothing'}  {source}{' (backward)' if note['backward'] else ''}"
    )


def _shown(tensor: Mapping[str, Any]) -> str:
    return f"{tensor['dtype']}{tensor['shape']}, digest {tensor['digest']}, starts {tensor['head']}"
