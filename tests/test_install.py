import json
import os
import subprocess
import sys

import pytest

from tests.runs import ROOT, environment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package as a wheel brings it, without this checkout."""
    folder = tmp_path_factory.mktemp("install")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = folder / "source"
    tracked = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in tracked.stdout.splitlines():
        if name.startswith(("hieros_repro/", "conf/")) or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    subprocess.run([*pip, "wheel", "--no-build-isolation", "--no-deps", "-w", folder / "wheel", source], check=True)
    (wheel,) = (folder / "wheel").iterdir()
    subprocess.run([*pip, "install", "--no-deps", "--target", folder / "site", wheel], check=True)
    return folder / "site"


def ask(installed, cwd, *arguments):
    shell = environment(PYTHONPATH=str(installed))
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=shell, capture_output=True, text=True, timeout=300)


def test_an_installed_wheel_trains_in_an_empty_folder(installed, tmp_path):
    done = ask(installed, tmp_path, "-m", "hieros_repro.train", "experiment=smoke", "run.dir=run", "log=quiet")
    assert done.returncode == 0, done.stderr
    told = json.loads((tmp_path / "run" / "run.json").read_text())
    assert told["status"] == "finished"
    assert told["code"]["commit"] is None
    assert len(told["code"]["sources"]) == 32
    assert os.listdir(tmp_path) == ["run"]
    again = ask(installed, tmp_path, "-m", "hieros_repro.evaluate", "run=run", "episodes=2", "video=false")
    assert again.returncode == 0, again.stderr


def test_an_installed_wheel_brings_every_module_and_every_configuration(installed):
    for part in ("hieros_repro", "conf"):
        files = {p.relative_to(ROOT / part) for p in (ROOT / part).rglob("*") if p.suffix in (".py", ".yaml")}
        there = installed / ("hieros_repro" if part == "hieros_repro" else "hieros_repro/conf")
        assert [str(name) for name in sorted(files) if not (there / name).exists()] == []


def test_the_installed_code_has_the_digest_of_the_checkout(installed, tmp_path):
    code = "from hieros_repro.provenance.code import sources_digest; print(sources_digest())"
    here = subprocess.run([sys.executable, "-c", code], env=environment(), cwd=tmp_path, capture_output=True, text=True)
    assert ask(installed, tmp_path, "-c", code).stdout == here.stdout != ""


def test_an_installed_wheel_has_a_command_for_every_verb(installed):
    scripts = {path.name for path in (installed / "bin").iterdir()}
    assert {"hieros-train", "hieros-evaluate", "hieros-verify", "hieros-compare", "hieros-doctor", "hieros-dataset"} <= scripts
