"""--help of the Hydra verbs: every group with its options, every key with its value and its one-line meaning.

The meanings are the comments in the YAML files, so there is one place to keep them true.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from hieros_repro.command import conf

USAGE = """\
{about}
Options are given as key=value. A sweep: -m key=a,b,c. Also:
  --cfg job [--resolve]   print the whole configuration and exit
  --info defaults-tree    print where it comes from
  -sc install=bash        TAB completion: eval "$(python -m hieros_repro.{name} -sc install=bash)"
"""


def page(name: str, about: str, overrides: list[str]) -> str:
    """The help page for the groups as chosen by `overrides` and by default."""
    main = conf() / f"{name}.yaml"
    chosen = _choices(main) | dict(o.partition("=")[::2] for o in overrides if re.fullmatch(r"[a-z]+=[\w-]+", o))
    chosen = _choices(conf() / "agent" / f"{chosen.get('agent')}.yaml") | chosen
    chosen = {group: re.sub(r"\$\{(\w+)\}", lambda other: chosen[other[1]], str(option)) for group, option in chosen.items()}
    lines = [USAGE.format(about=about.strip() + "\n", name=name)]
    known = [*chosen, *(brought() if "agent" in chosen else ())]
    groups = {group: _options(group) for group in known if (conf() / group).is_dir() and group != "hydra"}
    if groups:
        lines.append("Groups (chosen ones marked):")
        for group, options in groups.items():
            marked = [f"[{option}]" if option == chosen.get(group) else option for option in options]
            whose = "" if group in chosen else f"    (of agent={', '.join(brought()[group])})"
            lines.append(f"  {group:<13} {'  '.join(marked)}{whose}")
        lines.append("")
    for page in _pages(main):
        lines += [*_lines([page]), ""]
    for group, option in chosen.items():
        file = conf() / group / f"{option}.yaml"
        if group in groups and file.exists() and group != "experiment":
            about_option = _header(file)
            lines.append(f"{group}={option}" + (f": {about_option}" if about_option else ""))
            lines += [*_lines(_pages(file), group), ""]
    return "\n".join(lines).rstrip()


def _options(group: str) -> list[str]:
    return sorted(path.stem for path in (conf() / group).glob("*.yaml") if not path.stem.startswith("_"))


def brought() -> dict[str, list[str]]:
    """Groups that there are only with some agents -> those agents."""
    found: dict[str, list[str]] = {}
    for agent in _options("agent"):
        for group in _choices(conf() / "agent" / f"{agent}.yaml"):
            found.setdefault(group, []).append(agent)
    return {group: agents for group, agents in found.items() if (conf() / group).is_dir()}


def _choices(path: Path) -> dict[str, str]:
    """group -> option, from a file's defaults list."""
    found: dict[str, Any] = {}
    for entry in _defaults(path):
        if isinstance(entry, dict):
            choices = {group.removeprefix("override ").lstrip("/"): option for group, option in entry.items()}
            found |= {group.partition("@")[0]: option for group, option in choices.items()}
        elif (path.parent / f"{entry}.yaml").exists():
            found |= _choices(path.parent / f"{entry}.yaml")
    return found


def _defaults(path: Path) -> list[Any]:
    return (yaml.safe_load(path.read_text(encoding="utf8")) or {}).get("defaults", []) if path.exists() else []


def _pages(path: Path, prefix: str = "") -> Iterator[tuple[Path, str]]:
    """A file after the files of the same group that it starts from, each with the key below which its own keys are."""
    for entry in _defaults(path):
        name, _, below = entry.partition("@") if isinstance(entry, str) else ("", "", "")
        base = path.parent / f"{name}.yaml"
        if name and base.exists():
            yield from _pages(base, ".".join(filter(None, [prefix, below])))
    yield path, prefix


def _header(path: Path) -> str:
    """What the first comment lines of a file say."""
    lines = []
    for line in path.read_text(encoding="utf8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.lstrip("# "))
    return " ".join(lines)


def _lines(pages: Iterable[tuple[Path, str]], prefix: str = "") -> Iterator[str]:
    """One line per key: path = value, and the comment behind it. Of several pages the last word on a key counts."""
    found: dict[str, tuple[str, str]] = {}
    for path, below in pages:
        for name, value, comment in _keys(path, ".".join(filter(None, [prefix, below]))):
            found[name] = (value, comment or found.get(name, ("", ""))[1])
    for name, (value, comment) in found.items():
        yield f"  {name + ' = ' + value:<46} {comment}".rstrip()


def _keys(path: Path, prefix: str) -> Iterator[tuple[str, str, str]]:
    """Key path, value and comment."""
    parents: list[tuple[int, str]] = []
    skipping = False
    for line in _written_out(path.read_text(encoding="utf8").splitlines()):
        match = re.match(r"^(\s*)([\w.]+):(?:\s+(?!\s*#)(.*?))?(?:\s+#\s*(.*))?$", line)
        if not match:
            continue
        indent, key, value, comment = len(match[1]), match[2], match[3], match[4]
        if indent == 0:
            skipping = key == "defaults"
        if skipping or key in ("_target_", "_partial_"):
            continue
        while parents and parents[-1][0] >= indent:
            parents.pop()
        name = ".".join(filter(None, [prefix, *(parent for _, parent in parents), key]))
        if not value:
            parents.append((indent, key))
            continue
        yield name, value, comment or ""


def _written_out(lines: list[str]) -> Iterator[str]:
    """With the lines of an anchor (key: &name) repeated below every alias (key: *name)."""
    known: dict[str, list[str]] = {}
    for i, line in enumerate(lines, 1):
        match = re.match(r"^( *)(\w+): ([&*])(\w+)", line)
        if not match:
            yield line
            continue
        indent, key, sign, name = match.groups()
        if sign == "&":
            inside = takewhile(re.compile(f"{indent} ").match, lines[i:])
            known[name] = [below[len(indent) :] for below in inside]
        yield f"{indent}{key}:"
        yield from (indent + below for below in known[name] if sign == "*")
