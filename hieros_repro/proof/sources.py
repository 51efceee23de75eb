"""The code that a run was made by, brought back for as long as it is needed: its commit with its uncommitted changes."""

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hieros_repro.provenance.code import ROOT, sources_digest


@contextlib.contextmanager
def sources(run: Path, facts: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """A folder that holds the package as this run had it, and what is to be said of it: the present one where that is the
    same or nothing else can be had, otherwise a temporary one."""
    then, present = facts["code"], sources_digest(facts.get("plugins") or ())
    if then["sources"] == present:
        yield ROOT, "the present code, which made it"
        return
    commit = then["commit"]
    if not _known(commit):
        name = f"commit {commit[:10]} is not known here" if commit else "it names no commit"
        yield ROOT, f"the PRESENT code, not its own (sources {then['sources'][:10]}): {name}"
        return
    folder = Path(tempfile.mkdtemp(prefix="hieros-sources-"))
    try:
        problem = _unpack(folder, commit, run / "code.patch")
        if problem:
            yield ROOT, f"the PRESENT code, not its own: {problem}"
        else:
            yield folder, f"commit {commit[:10]}{' with its changes' if then['changed'] else ''}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _known(commit: str | None) -> bool:
    if not commit or not (ROOT / ".git").exists():
        return False
    return subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], cwd=ROOT, capture_output=True).returncode == 0


def _unpack(folder: Path, commit: str, patch: Path) -> str:
    """Puts a commit with a patch into a folder; what was wrong, or nothing. The repository itself is only read."""
    archive = folder / "commit.tar"
    steps = [["git", "archive", "--format=tar", f"--output={archive}", commit], ["tar", "-xf", str(archive), "-C", str(folder)]]
    for step in steps:
        done = subprocess.run(step, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            return f"commit {commit[:10]} could not be unpacked ({done.stderr.strip()})"
    archive.unlink()
    if patch.exists() and patch.stat().st_size:
        outside = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}  # else it would patch a repository around it
        applied = subprocess.run(
            ["git", "apply", str(patch.resolve())], cwd=folder, env=outside, capture_output=True, text=True
        )
        if applied.returncode:
            return f"{patch} does not apply to commit {commit[:10]} ({applied.stderr.strip().splitlines()[-1]})"
    return ""
