"""What the documentation says to type works as it stands."""

import re
import subprocess
import sys
import textwrap

from tests.runs import ROOT, environment, facts, process, short


def test_the_environment_of_the_guide_trains_from_a_users_own_folders(tmp_path):
    guide = (ROOT / "docs" / "extending.md").read_text(encoding="utf8")
    for block in re.findall(r"(?:^    .*\n|^\n)+", guide, re.M):
        code = textwrap.dedent(block).strip()
        name = re.match(r"# (\S+\.(?:py|yaml))$", code.splitlines()[0]) if code else None
        if name:
            path = tmp_path / name[1]
            path.parent.mkdir(parents=True)
            path.write_text(code + "\n", encoding="utf8")
    typed = [o for o in short(tmp_path / "run") if not o.startswith("env.num_envs")]
    own = ("--config-dir", "conf", "env=corridor", "plugins=[mypackage]")
    done = process("train", *own, *typed, cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 0, done.stderr
    assert facts(tmp_path / "run")["plugins"] == ["mypackage"]
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_corridor.py"]
    shell = environment(PYTHONPATH=f"{tmp_path}:{ROOT}")
    done = subprocess.run(tests, cwd=tmp_path, env=shell, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and " passed" in done.stdout.splitlines()[-1], done.stdout


def test_every_file_the_readme_points_to_exists():
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf8")):
            assert (page.parent / target).exists(), f"{page.name} points to {target}"
