"""Parts of a dataset, by episode: train, val and test, and the folds of cross-validation. Drawn once from a seed, kept as data.

A file of parts says which dataset it is about and holds a digest of itself, so that it serves no other and cannot change.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hieros_repro import atomic
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Damaged, UserError

SPLITS, FOLDS = FILES = ("splits.json", "folds.json")
Parts = dict[str, list[int]]


def split(count: int, fractions: Mapping[str, float], seed: int) -> Parts:
    """Episodes 0 ... count - 1 in parts of the given shares, which sum to 1. A part whose share is 0 is left out.

    What rounding down leaves goes to the largest remainders.
    """
    told = ", ".join(f"{name}={share:g}" for name, share in fractions.items())
    if any(not 0 <= share <= 1 for share in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-9:
        raise UserError(f"{told}: shares are between 0 and 1 and sum to 1, these sum to {sum(fractions.values()):g}")
    shares = {name: share for name, share in fractions.items() if share > 0}
    exact = {name: round(share * count, 9) for name, share in shares.items()}
    sizes = {name: int(size) for name, size in exact.items()}
    most_owed = sorted(shares, key=lambda name: sizes[name] - exact[name])
    for name in most_owed[: count - sum(sizes.values())]:
        sizes[name] += 1
    empty = [name for name, size in sizes.items() if size == 0]
    if empty:
        raise UserError(
            f"{told}: {count} episodes are too few, {' and '.join(empty)} would be empty; ask for more, or for 0 of it"
        )
    order, found, start = Key(seed)("data", "split").permutation(count).tolist(), {}, 0
    for name, size in sizes.items():
        found[name] = sorted(order[start : start + size])
        start += size
    return found


def folds(count: int, k: int, repeats: int, seed: int) -> Parts:
    """k folds of equal size (but for one episode), `repeats` times over: fold-1/train and fold-1/val ... fold-<k repeats>/val.

    Folds 1 ... k are the first repeat, k + 1 ... 2 k the second: each episode is in `val` once a repeat.
    """
    if not 2 <= k <= count:
        raise UserError(f"k={k}: of {count} episodes there are between 2 and {count} folds")
    if repeats < 1:
        raise UserError(f"repeats={repeats}: it is at least 1")
    found = {}
    for repeat in range(repeats):
        order = Key(seed)("data", "folds", repeat).permutation(count).tolist()
        for i in range(k):
            val, name = order[i * count // k : (i + 1) * count // k], f"fold-{repeat * k + i + 1}"
            found[f"{name}/train"] = sorted(set(order) - set(val))
            found[f"{name}/val"] = sorted(val)
    return found


# -- Kept as data ------------------------------------------------------------------------------------------------------


def write(folder: Path, file: str, dataset: str, how: Mapping[str, Any], found: Parts, replace: bool) -> bool:
    """Keeps parts in a dataset's folder; False if they are there already. Others are replaced only if `replace` says so."""
    facts = {"dataset": dataset, "how": dict(how), "parts": found}
    text = _text({**facts, "sha256": sha256(facts)})
    path = folder / file
    if path.exists() and path.read_bytes() == text.encode("utf8"):
        return False
    if path.exists() and not replace:
        raise UserError(f"{path}: there are others already, which somebody may be using; --replace replaces them")
    atomic.write(path, text)
    return True


def read(folder: Path, dataset: str) -> Parts:
    """Every part that is kept for this dataset."""
    return {name: members for file in FILES for name, members in _load(folder / file, dataset).items()}


def named(folder: Path, dataset: str, part: str) -> list[int]:
    """The episodes of a part."""
    found = _load(folder / (FOLDS if part.startswith("fold-") else SPLITS), dataset)
    if part not in found:
        there = list(read(folder, dataset))
        shown = ", ".join(there[:6]) + (", ..." if len(there) > 6 else "")
        raise UserError(
            f"{folder}: it has no part {part!r}; " + (f"there are {shown}" if there else "the verb split makes parts")
        )
    return found[part]


def _load(path: Path, dataset: str) -> Parts:
    try:
        text = path.read_text(encoding="utf8")
        facts = json.loads(text)
        own = {name: value for name, value in facts.items() if name != "sha256"}
        intact = text == _text(facts) and facts["sha256"] == sha256(own)
        about, found = facts["dataset"], facts["parts"]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{path}: not a file of parts ({error})") from None
    if not intact:
        raise Damaged(f"{path}: its SHA-256 is not the recorded one: corrupted or changed")
    if about != dataset:
        raise Damaged(f"{path}: made for the dataset {about[:12]}, this is {dataset[:12]}: split it anew")
    return found


def sha256(facts: Any) -> str:
    """Of plain data, in whatever order its keys are."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode("utf8")).hexdigest()


def _text(facts: Mapping[str, Any]) -> str:
    """JSON with a line for every part."""
    members = ",\n".join(f"  {json.dumps(name)}: {json.dumps(listed)}" for name, listed in facts["parts"].items())
    rest = ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in facts.items() if name != "parts")
    return f'{{\n{rest},\n "parts": {{\n{members}\n }}\n}}\n'
