"""Results held against what was expected of them: references/*.yaml.

config: {env.id: CartPole-v1, agent.clip: 0.2}    # what the numbers are about: runs of another configuration are not judged
seeds: 5                                          # so many seeds at least have a finished run
expected:
  eval/score: {value: 207.5, tolerance: 0.1}      # the mean over seeds within 10 % ...
  eval/length: {value: 500, absolute: 2}          # ... or within 2 of it
  eval/score_min: {interval: [180, 230]}          # the 95 % t-interval over seeds and this one overlap
  convergence_step: {at_most: 60_000, share: 0.9} # a bound, and for how many of all seeds there must be a value
sources: {the paper: {mean: 210}}                 # printed, not judged
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hieros_repro.check import nearest
from hieros_repro.findings.record import Record
from hieros_repro.records import UserError
from hieros_repro.stats.aggregate import Summary, summarise
from hieros_repro.stats.table import number

KEYS = ("config", "expected", "sources", "seeds")
CONDITIONS = ("value", "tolerance", "absolute", "interval", "at_least", "at_most", "share")
USUAL = 0.1  # the relative tolerance of a value that names none
HEADER = ("metric", "expected", "n", "mean", "std", "95 % interval", "verdict")


class References(NamedTuple):
    """A references file."""

    expected: dict[str, dict[str, Any]]
    sources: dict[str, dict[str, Any]]
    seeds: int
    config: dict[str, Any] = {}  # noqa: RUF012  (read only)


class Verdict(NamedTuple):
    """One expectation and what became of it."""

    metric: str
    wording: str
    found: Summary | None
    met: bool
    word: str  # met, NOT MET, missing, not finite

    def cells(self) -> list[str]:
        if self.found is None:
            return [self.metric, self.wording, "0", "-", "-", "-", self.word]
        found = self.found
        interval = "-" if found.low is None else f"[{number(found.low)}, {number(found.high)}]"
        return [self.metric, self.wording, str(found.n), number(found.mean), number(found.std), interval, self.word]


def read(path: Path) -> References:
    """The file, checked: what nobody would look at is an error."""
    if not path.is_file():
        beside = sorted(one.name for one in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        raise UserError(f"{path}: no such references file{nearest(path.name, beside)}")
    try:
        wanted = yaml.safe_load(path.read_text(encoding="utf8"))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())[:200]})") from error
    if not isinstance(wanted, dict) or not isinstance(wanted.get("expected"), dict):
        raise UserError(f"{path}: not a references file (it has no `expected:`)")
    for name, expectation in wanted["expected"].items():
        _check(path, name, expectation)
    unknown = [name for name in wanted if name not in KEYS]
    if unknown:
        raise UserError(f"{path}: there is no key {unknown[0]!r}; there are {', '.join(KEYS)}{nearest(unknown[0], KEYS)}")
    config = wanted.get("config") or {}
    _check_config(path, config)
    return References(wanted["expected"], wanted.get("sources") or {}, int(wanted.get("seeds", 1)), config)


def _check_config(path: Path, config: Any) -> None:
    if not isinstance(config, dict):
        raise UserError(f"{path}: config: {config!r} is not a mapping of keys such as agent.clip to values")
    for key, value in config.items():
        if isinstance(value, dict):
            raise UserError(f"{path}: config: {key} is a mapping; write its keys with dots: {key}.{next(iter(value), '<key>')}")


def _check(path: Path, name: str, expectation: Any) -> None:
    if not isinstance(expectation, dict) or not expectation:
        raise UserError(f"{path}: {name}: {expectation!r} is not a mapping of {', '.join(CONDITIONS)}")
    for key, value in expectation.items():
        if key not in CONDITIONS:
            known = ", ".join(CONDITIONS)
            raise UserError(f"{path}: {name}: there is no condition {key!r}; there are {known}{nearest(key, CONDITIONS)}")
        numbers = value if key == "interval" and isinstance(value, list) and len(value) == 2 else [value]
        if any(isinstance(one, bool) or not isinstance(one, int | float) for one in numbers):
            form = "two numbers [low, high]" if key == "interval" else "a number"
            raise UserError(f"{path}: {name}: {key} = {value!r}; it must be {form}")
    if {"tolerance", "absolute"} & expectation.keys() and "value" not in expectation:
        raise UserError(f"{path}: {name}: a tolerance needs a value")


def differing(references: References, runs: Sequence[Record]) -> list[str]:
    """In which keys runs are not what the numbers are about, a line for each; runs that have not begun are not known yet."""
    begun = [run for run in runs if run.group]
    known = {key for run in begun for key in run.facts}
    lines = []
    for key, wanted in references.config.items():
        if begun and key not in known:
            lines.append(f"{key} = {wanted!r} in the file; no run has that key{nearest(key, sorted(known))}")
            continue
        others = [run.facts.get(key) for run in begun if key not in run.facts or not _same(wanted, run.facts[key])]
        if others:
            found = " or ".join(dict.fromkeys(repr(value) for value in others))
            lines.append(f"{key} = {wanted!r} in the file, {found} in {len(others)} of {len(begun)} run(s)")
    return lines


def _same(wanted: Any, found: Any) -> bool:
    """Equal, and both or neither true or false; YAML reads 1e-4 as a text, a configuration as a number."""
    if isinstance(wanted, str) and isinstance(found, float):
        with contextlib.suppress(ValueError):
            return float(wanted) == found
    return wanted == found and isinstance(wanted, bool) == isinstance(found, bool)


def judge(references: References, runs: Sequence[Record], tolerance: float | None = None) -> list[Verdict]:
    """A verdict for every expectation, over the seeds' runs. `tolerance`: relative, in place of those in the file."""
    asked = counted(runs)
    finished = [run for run in asked if run.status == "finished"]
    verdicts = [_judge(name, wanted, finished, len(asked), tolerance) for name, wanted in references.expected.items()]
    if references.seeds > 1:
        enough = len(finished) >= references.seeds
        verdicts.append(Verdict("finished runs", f"at least {references.seeds}, are {len(finished)}", None, enough,
                                "met" if enough else "NOT MET"))  # fmt: skip
    return verdicts


def counted(runs: Sequence[Record]) -> list[Record]:
    """One run for every seed of every configuration: the first that finished, else the first."""
    known = list(dict.fromkeys(run.group for run in runs if run.group))
    only = known[0] if len(known) == 1 else ""  # what has not begun has no configuration yet
    found: dict[tuple[str, int | str], Record] = {}
    for run in runs:
        key = (run.group or only, run.folder if run.seed is None else run.seed)
        before = found.setdefault(key, run)
        if before.status != "finished" and run.status == "finished":
            found[key] = run
    return list(found.values())


def _judge(name: str, wanted: Mapping[str, Any], runs: Sequence[Record], asked: int, tolerance: float | None) -> Verdict:
    """`runs`: those that finished, of so many that were asked for."""
    values = [run.facts[name] for run in runs if run.facts.get(name) is not None]
    wording = _wording(wanted, tolerance)
    if not any(name in run.facts for run in runs):
        return Verdict(name, wording, None, False, "missing")
    if not values:
        lacking = "reached it" if name == "convergence_step" else "has a value"
        return Verdict(name, f"{wording}; 0 of {asked} {lacking}", None, False, "NOT MET")
    if not all(map(math.isfinite, values)):
        return Verdict(name, wording, None, False, "not finite")
    found = summarise(values)
    met = all(_conditions(wanted, found, len(values) / asked, tolerance))
    return Verdict(name, wording, found, met, "met" if met else "NOT MET")


def _conditions(wanted: Mapping[str, Any], found: Summary, share: float, tolerance: float | None) -> list[bool]:
    checks = []
    if "value" in wanted:
        checks.append(abs(found.mean - wanted["value"]) <= _slack(wanted, tolerance))
    if "interval" in wanted:
        low = found.mean if found.low is None else found.low
        high = found.mean if found.high is None else found.high
        checks.append(low <= wanted["interval"][1] and wanted["interval"][0] <= high)
    if "at_least" in wanted:
        checks.append(found.mean >= wanted["at_least"])
    if "at_most" in wanted:
        checks.append(found.mean <= wanted["at_most"])
    if "share" in wanted:
        checks.append(share >= wanted["share"])
    return checks


def _slack(wanted: Mapping[str, Any], tolerance: float | None) -> float:
    """How far the mean may be from the value: the command line's tolerance wins, then `absolute`, then `tolerance`."""
    relative = tolerance if tolerance is not None else wanted.get("tolerance", None if "absolute" in wanted else USUAL)
    return float(wanted["absolute"] if relative is None else relative * abs(wanted["value"]))


def _wording(wanted: Mapping[str, Any], tolerance: float | None) -> str:
    parts = []
    if "value" in wanted:
        absolute = tolerance is None and "tolerance" not in wanted and "absolute" in wanted
        slack = (
            f"{wanted['absolute']}"
            if absolute
            else f"{tolerance if tolerance is not None else wanted.get('tolerance', USUAL):.0%}"
        )
        parts.append(f"{wanted['value']} +- {slack}")
    parts += [f"interval meets [{wanted['interval'][0]}, {wanted['interval'][1]}]"] if "interval" in wanted else []
    parts += [f"at least {wanted['at_least']}"] if "at_least" in wanted else []
    parts += [f"at most {wanted['at_most']}"] if "at_most" in wanted else []
    parts += [f"for {wanted['share']:.0%} of seeds"] if "share" in wanted else []
    return ", ".join(parts)
