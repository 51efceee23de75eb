"""Which code ran: commit, branch, uncommitted changes; or a digest of the sources where there is no git."""

import hashlib
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(__file__).resolve().parents[1]


def code() -> dict[str, Any]:
    """Facts about the code. `sources` alone decides whether two runs had the same code; the rest says where to find it."""
    commit = _git("rev-parse", "HEAD")
    return {
        "commit": commit,
        "branch": _git("rev-parse", "--abbrev-ref", "HEAD") if commit else None,
        "changed": bool(_git("status", "--porcelain", "--", "hieros_repro", "conf")) if commit else None,
        "sources": sources_digest(),
    }


def patch() -> str:
    """Uncommitted changes, new files included, as a patch against the commit; empty without git or changes."""
    if _git("rev-parse", "HEAD") is None:
        return ""
    changes = _git("diff", "HEAD", "--binary", strip=False) or ""
    for name in (_git("ls-files", "--others", "--exclude-standard") or "").splitlines():
        changes += _git("diff", "--no-index", "--binary", "--", "/dev/null", name, strip=False, fails=True) or ""
    return changes


def sources_digest() -> str:
    """One digest of every Python file of the package, line endings aside; equal in a checkout and in an installed wheel."""
    digest = hashlib.sha256()
    for path in sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE / "conf"):
        digest.update(path.relative_to(PACKAGE).as_posix().encode() + b"\0")
        digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:32]


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
