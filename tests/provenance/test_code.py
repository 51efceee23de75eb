import subprocess

import pytest

from hieros_repro.provenance import code


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two files that stands for ours, outside git."""
    folder = tmp_path / "hieros_repro"
    (folder / "nn").mkdir(parents=True)
    (folder / "a.py").write_bytes(b"x = 1\n")
    (folder / "nn" / "b.py").write_bytes(b"y = 2\n")
    monkeypatch.setattr(code, "PACKAGE", folder)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    return folder


def git(folder, *arguments: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c", "-c", "commit.gpgsign=false", "-c", "init.defaultBranch=trunk")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(package):
    git(package.parent, "init")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-m", "one")
    return package


@pytest.mark.parametrize(
    "change",
    [
        lambda p: (p / "nn" / "b.py").write_bytes(b"y = 3\n"),
        lambda p: (p / "c.py").write_bytes(b""),
        lambda p: (p / "a.py").unlink(),
        lambda p: (p / "a.py").rename(p / "z.py"),
        lambda p: (p / "a.py").rename(p / "nn" / "a.py"),
    ],
    ids=["changed", "added", "removed", "renamed", "moved"],
)
def test_the_digest_of_the_sources_changes_with_any_file(package, change):
    before = code.sources_digest()
    change(package)
    assert code.sources_digest() != before


def test_line_endings_and_other_files_do_not_count(package):
    before = code.sources_digest()
    (package / "a.py").write_bytes(b"x = 1\r\n")
    (package / "notes.txt").write_text("notes")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_bytes(b"\0")
    assert code.sources_digest() == before


def test_without_git_only_the_sources_are_known(package):
    found = code.code()
    assert found == {"commit": None, "branch": None, "changed": None, "sources": code.sources_digest()}
    assert code.patch() == ""


def test_a_clean_checkout_has_commit_and_branch_and_no_changes(checkout):
    found = code.code()
    assert len(found["commit"]) == 40
    assert (found["branch"], found["changed"]) == ("trunk", False)
    assert code.patch() == ""


def test_a_patch_restores_uncommitted_changes_and_new_files(checkout, tmp_path_factory):
    (checkout / "a.py").write_bytes(b"x = 100\n")
    (checkout / "new.py").write_bytes(b"z = 3\n")
    assert code.code()["changed"] is True
    changes, expected = code.patch(), code.sources_digest()
    other = tmp_path_factory.mktemp("other")
    git(other, "clone", str(checkout.parent), ".")
    (other / "changes.patch").write_text(changes)
    git(other, "apply", "changes.patch")
    (other / "hieros_repro").rename(checkout.parent / "elsewhere")
    code.PACKAGE = checkout.parent / "elsewhere"
    assert code.sources_digest() == expected
