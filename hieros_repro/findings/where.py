"""Which runs are meant: agent=hieros and (env.task=three or not seed<100)."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hieros_repro.check import nearest
from hieros_repro.findings.record import Record
from hieros_repro.records import UserError

TOKEN = re.compile(
    r"""\s*(?:(?P<sign>!=|<=|>=|=|<|>|~|\(|\))|"(?P<quoted>[^"]*)"|'(?P<single>[^']*)'|(?P<word>[^\s=<>!~()"']+))"""
)
COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    "<=": lambda a, b: bool(a <= b),
    ">": lambda a, b: bool(a > b),
    ">=": lambda a, b: bool(a >= b),
}
VALUES = 8  # of a key that are listed
Test = Callable[[Mapping[str, Any]], bool]


def chosen(records: Sequence[Record], where: str) -> list[Record]:
    """The runs of which the words hold; an error that names what there is if there is none.

        words  = term { or term };  term = factor { and factor };  factor = [not] ( "(" words ")" | key sign value )
        sign   = "=" | "!=" | "<" | "<=" | ">" | ">=" | "~" (a regular expression is found in the value)

    Keys are those of the configuration, of the results and `env`, `agent`, `status`, `commit`, ...; a run without the key has
    the value null.
    """
    reader = _Reader(where, {key for run in records for key in run.facts})
    test = reader.words()
    reader.end()
    facts = [run.facts | {"seed": run.seed} for run in records]
    found = [run for run, known in zip(records, facts, strict=True) if test(known)]
    if not found:
        keys = dict.fromkeys(reader.asked)
        values = {key: {_text(known.get(key)) for known in facts} for key in keys}
        there = "; ".join(f"{key} is {_some(values[key])}{_near(reader.wanted[key], values[key])}" for key in keys)
        raise UserError(f"--where {where!r}: no run is meant by it; {there}")
    return found


def _some(values: set[str]) -> str:
    """Some of the values that there are, as a sentence lists them; numbers by their size."""
    ordered = sorted(values, key=_by_size)
    if len(ordered) > VALUES:
        return f"one of {', '.join(ordered[:VALUES])} and {len(ordered) - VALUES} more"
    return ordered[0] if len(ordered) == 1 else f"one of {', '.join(ordered)}"


def _near(asked: str, values: set[str]) -> str:
    """The value that may have been meant, where that does not go without saying."""
    return "" if asked in values or len(values) < 2 else nearest(asked, sorted(values))


def _by_size(text: str) -> tuple[bool, float, str]:
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text


def _text(value: Any) -> str:
    """As it is typed."""
    text = {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))
    return text if len(text) <= 40 else f"{text[:37]}..."


class _Reader:
    """A recursive descent over the tokens."""

    def __init__(self, where: str, keys: set[str]):
        self._where, self._keys, self._next = where, keys | {"seed"}, 0
        self.asked: list[str] = []  # keys that are compared
        self.wanted: dict[str, str] = {}  # and the last value that each is compared with
        self._tokens = self._cut()

    def _cut(self) -> list[tuple[str, str]]:
        tokens, at = [], 0
        while self._where[at:].strip():
            match = TOKEN.match(self._where, at)
            if match is None:
                raise self._wrong(f"what begins at {self._where[at:].strip()[:20]!r} cannot be read")
            kind = str(match.lastgroup)
            tokens.append(("quoted" if kind == "single" else kind, match[kind]))
            at = match.end()
        return tokens

    def _wrong(self, text: str) -> UserError:
        return UserError(f"--where {self._where!r}: {text}; it is written like: agent=hieros and env.task=three")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._next] if self._next < len(self._tokens) else ("end", "")

    def _take(self, *allowed: str) -> str:
        kind, text = self._peek()
        if kind not in allowed:
            raise self._wrong(f"{text!r} is not expected there" if text else "it ends too early")
        self._next += 1
        return text

    def _took(self, *token: str) -> bool:
        found = self._peek() == token
        self._next += found
        return found

    def end(self) -> None:
        self._take("end")

    def words(self) -> Test:
        terms = [self._term()]
        while self._took("word", "or"):
            terms.append(self._term())
        return lambda facts: any(term(facts) for term in terms)

    def _term(self) -> Test:
        factors = [self._factor()]
        while self._took("word", "and"):
            factors.append(self._factor())
        return lambda facts: all(factor(facts) for factor in factors)

    def _factor(self) -> Test:
        if self._took("word", "not"):
            inner = self._factor()
            return lambda facts: not inner(facts)
        if self._took("sign", "("):
            inner = self.words()
            if not self._took("sign", ")"):
                raise self._wrong("a parenthesis is not closed")
            return inner
        return self._comparison()

    def _nearest(self, key: str) -> str:
        """Of the same part of the configuration, if something there is like it."""
        prefix, dot, _ = key.rpartition(".")
        beside = sorted(known for known in self._keys if dot and known.rpartition(".")[0] == prefix)
        return nearest(key, beside) or nearest(key, sorted(self._keys))

    def _comparison(self) -> Test:
        key, sign = self._take("word"), self._take("sign")
        if key not in self._keys:
            raise self._wrong(f"no run has {key!r}{self._nearest(key)}")
        self.asked.append(key)
        quoted = self._peek()[0] == "quoted"
        text = self.wanted[key] = self._take("word", "quoted")
        if sign == "~":
            try:
                form = re.compile(text)
            except re.error as error:
                raise self._wrong(f"{text!r} is not a regular expression ({error})") from error
            return lambda facts: form.search(str(facts.get(key))) is not None
        if sign not in COMPARE:
            raise self._wrong(f"{sign!r} is not expected there")
        return lambda facts: _holds(COMPARE[sign], sign, facts.get(key), text, quoted)


def _holds(compare: Callable[[Any, Any], bool], sign: str, value: Any, text: str, quoted: bool) -> bool:
    """Numbers are compared as numbers where both are some, else as texts; null is neither less nor more than anything."""
    if isinstance(value, int | float) and not isinstance(value, bool) and not quoted:
        try:
            return compare(value, float(text.replace("_", "")))
        except ValueError:
            return sign == "!="
    if value is None or isinstance(value, bool):
        value = {None: "null", True: "true", False: "false"}[value]
        return compare(value, text.lower()) if sign in ("=", "!=") else False
    return compare(str(value), text)
