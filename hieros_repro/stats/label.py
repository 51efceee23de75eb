"""Names of groups, as short as they can be in a figure: what tells them apart, on lines that break where a reader would."""

import re
from collections.abc import Collection, Iterable

DIGITS = 4  # significant ones of a number in a short name
PIECES = re.compile(r"[^,=]*[,=]|[^,=]+")  # of a word: a line may end after each


def shortened(names: Collection[str]) -> dict[str, str]:
    """Name -> short name. Names are made of words, some of them key=value.

    Words that all names share are left out; of a key, the parts before its last are, where the rest is no other key's;
    of long numbers, all but four digits. What would make two names equal is not done.
    """
    names = list(dict.fromkeys(names))
    words = {name: name.split() for name in names}
    shared = set(words[names[0]]).intersection(*words.values()) if len(names) > 1 else set()
    apart = {name: [word for word in words[name] if word not in shared] for name in names}
    found = _distinct({name: " ".join(kept) for name, kept in apart.items()}, names)
    keys = _keys(word.partition("=")[0] for kept in found.values() for word in kept.split() if "=" in word)
    found = _distinct({name: " ".join(_keyed(word, keys) for word in kept.split()) for name, kept in found.items()}, found)
    return _distinct({name: re.sub(r"-?\d+\.\d+(?:e[-+]?\d+)?", _rounded, kept) for name, kept in found.items()}, found)


def _distinct(short: dict[str, str], before: "Collection[str] | dict[str, str]") -> dict[str, str]:
    """The shorter names if they tell all apart, else those of before."""
    if all(short.values()) and len(set(short.values())) == len(short):
        return short
    return before if isinstance(before, dict) else {name: name for name in before}


def _keys(keys: Iterable[str]) -> dict[str, str]:
    """Key -> the fewest of its last parts that no other key ends with."""
    every = {key: key.split(".") for key in keys}
    found = {}
    for key, parts in every.items():
        count = 1
        while count < len(parts) and any(parts[-count:] == other[-count:] for name, other in every.items() if name != key):
            count += 1
        found[key] = ".".join(parts[-count:])
    return found


def _keyed(word: str, keys: dict[str, str]) -> str:
    key, sign, value = word.partition("=")
    return f"{keys[key]}={value}" if sign else word


def _rounded(match: re.Match[str]) -> str:
    """A number of more digits than can be read, with few."""
    text = match[0]
    return text if len(re.sub(r"e.*|\D", "", text).lstrip("0")) <= DIGITS else f"{float(text):.{DIGITS}g}"


def wrapped(name: str, width: int) -> str:
    """Lines of about this width, which end at spaces; in a longer word also after commas and equal signs. No piece is cut."""
    lines: list[str] = []
    for word in name.split():
        pieces = [word] if len(word) <= width else PIECES.findall(word)
        for place, piece in enumerate(pieces):
            space = "" if place else " "
            if lines and len(lines[-1] + space + piece) <= width:
                lines[-1] += space + piece
            else:
                lines.append(piece)
    return "\n".join(lines)
