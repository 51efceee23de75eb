"""Which code ran: commit, branch, uncommitted changes; or a digest of the sources where there is no git."""

import hashlib
import importlib.util
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(__file__).resolve().parents[1]


def code(plugins: Sequence[str] = ()) -> dict[str, Any]:
    """Facts about the code, plugins included. `sources` alone decides whether two runs had the same code; the rest says where
    to find it."""
    commit = _git("rev-parse", "HEAD")
    return {
        "commit": commit,
        "branch": _git("rev-parse", "--abbrev-ref", "HEAD") if commit else None,
        "changed": bool(_git("status", "--porcelain", "--", "hieros_repro", "conf")) if commit else None,
        "sources": sources_digest(plugins),
    }


def patch() -> str:
    """Uncommitted changes, new files included, as a patch against the commit; empty without git or changes."""
    if _git("rev-parse", "HEAD") is None:
        return ""
    changes = _git("diff", "HEAD", "--binary", strip=False) or ""
    for name in (_git("ls-files", "--others", "--exclude-standard") or "").splitlines():
        changes += _git("diff", "--no-index", "--binary", "--", "/dev/null", name, strip=False, fails=True) or ""
    return changes


def sources_digest(plugins: Sequence[str] = ()) -> str:
    """One digest of every Python file of the package and of plugins, line endings aside; equal in a checkout and a wheel."""
    digest = hashlib.sha256()
    ours = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE / "conf")
    named = [(path.relative_to(PACKAGE).as_posix(), path) for path in ours]
    for name, path in [*named, *(found for plugin in plugins for found in _plugin_files(plugin))]:
        digest.update(name.encode() + b"\0")
        digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:32]


def _plugin_files(plugin: str) -> list[tuple[str, Path]]:
    """(name, file) of a plugin's sources: its package's files, or its one module."""
    spec = importlib.util.find_spec(plugin)
    if spec is None or (spec.origin is None and not spec.submodule_search_locations):
        return []
    places = [Path(place) for place in spec.submodule_search_locations or ()]
    files = [(place, path) for place in places for path in sorted(place.rglob("*.py"))]
    found = [(f"{plugin}/{path.relative_to(place).as_posix()}", path) for place, path in files]
    return found or [(plugin, Path(str(spec.origin)))]


def _git(*arguments: str, strip: bool = True, fails: bool = False) -> str | None:
    """git's output in the checkout this package is in, or None where there is no git or no checkout."""
    if not (ROOT / ".git").exists():
        return None
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    if done.returncode and not fails:
        return None
    return done.stdout.strip() if strip else done.stdout
