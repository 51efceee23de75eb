import importlib
import importlib.metadata
import json
import re
import signal
import subprocess
import time

import pytest

from hieros_repro import exactness
from hieros_repro.env.gymnasium import Gymnasium
from hieros_repro.env.making import Maker, Recipe
from hieros_repro.exactness import Inexact, Verdict, require, trial, verdict
from hieros_repro.records import Failed, UserError
from tests.env import worlds
from tests.envs import Mortal, Unrepeatable, chosen
from tests.runs import facts, process, run, short


def maker(kind: type, /, **values) -> Recipe:
    return made(kind, values)


def made(kind: type, values: dict, wrappers: dict | None = None, num_envs: int = 2) -> Recipe:
    return Recipe(Maker(kind, values, wrappers or {}), {"num_envs": num_envs}, {})


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A memory of this test's own."""
    monkeypatch.setenv("HIEROS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "exactness"


@pytest.fixture
def processes(monkeypatch):
    """The parts of trials that were started."""
    started, start = [], subprocess.run

    def noted(command, **options):
        started.append(command[-2])
        return start(command, **options)

    monkeypatch.setattr(exactness.subprocess, "run", noted)
    return started


# -- What it finds -----------------------------------------------------------------------------------------------------

EXACT = {
    "replayed": maker(worlds.Scripted, ends={}, kind="continuous"),
    "several actions": maker(worlds.Scripted, ends={}, kind="multidiscrete"),
    "remembered": maker(worlds.Remembered, ends={}),
    "images": maker(Gymnasium, id="tests.env.worlds:Picture-v0", kwargs={}, length=None),
    "wrapped": made(worlds.Remembered, {"ends": {}}, {"action_repeat": 2, "length": 17}),
    "hashed with a pinned hash": maker(worlds.Hashed),
}


@pytest.mark.parametrize("name", EXACT)
def test_an_exact_environment_passes(monkeypatch, name):
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    assert trial(EXACT[name]).exact


@pytest.mark.parametrize(
    ("kind", "account"),
    [
        (worlds.Entropy, r"two equally seeded copies side by side differ at step \d: reward of environment [01] is [\d.]+ and"),
        (
            worlds.Counted,
            r"copies side by side differ at step 0: reward of environment 0 is 1\.0 and 2\.0 \(1 of 1 values differ\)",
        ),
        (worlds.Global, r"copies side by side differ at step \d: reward of environment 0 is 0\.\d+ and 0\.\d+ \(1 of 1 values"),
        (
            worlds.Foreign,
            r"side by side differ at step 0: vector\[0\] of environment 0 is \d+\.0 and \d+\.0 ",
        ),
        (worlds.Forgetful, r"1 steps after it was restored in a fresh process it differs: reward of environment 0 is"),
        (
            worlds.Shown,
            r"restored in a fresh process at step \d+ it differs: vector\[2\] of environment 0 is \d+\.0 and 0\.0 \(1 of 3",
        ),
        (worlds.Aged, r"1 steps after it was restored in a fresh process it differs: reward of environment 0 is 3\.0 and 2\.0"),
        (worlds.Hashed, r"1 steps after it was restored in a fresh process it differs: reward of environment 0 is"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_does_not_come_back_is_found_and_named(monkeypatch, kind, account):
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)
    found = trial(maker(kind, ends={}) if kind is worlds.Foreign else maker(kind))
    assert not found.exact
    assert re.search(account, found.account), found.account


def test_what_an_episode_leaves_behind_when_it_is_played_to_its_end_is_found():
    """A reset in the middle of one would not show it."""
    found = trial(maker(worlds.Worn))
    assert not found.exact
    assert re.search(r"1 steps after it was restored .* reward of environment 0 is 2\.0 and 0\.0", found.account), found.account


def test_environments_that_are_stepped_together_are_tried_as_many_as_the_run_has():
    assert trial(made(worlds.Joined, {}, num_envs=1)).exact
    found = trial(made(worlds.Joined, {}, num_envs=3))
    assert not found.exact
    assert re.search(r"1 steps after it was restored .* reward of environment 1 is \d+\.0 and 1\.0 \(2 of 3", found.account)


def test_a_state_that_cannot_be_saved_is_a_verdict_with_the_reason():
    found = trial(maker(worlds.Unsaved, ends={}))
    assert found == Verdict(False, "its state cannot be saved: root.player is or has the type builtins:function")


def test_an_environment_that_hangs_is_given_up(monkeypatch, cache):
    monkeypatch.setattr(exactness, "HANGS", 1.0)
    started = time.monotonic()
    with pytest.raises(Failed, match=r"^env: Faulty hung when it was tried: no answer for 1 s$"):
        verdict(maker(worlds.Faulty, place="init", fault="sleeps"))
    assert time.monotonic() < started + 6.0
    assert not cache.exists()


def test_a_run_is_refused_with_what_differed_and_the_way_out():
    with pytest.raises(Inexact) as caught:
        require(maker(worlds.Counted))
    first, second, third = str(caught.value).splitlines()
    assert first.startswith("env: Counted does not come back exactly, so exact resume is refused: two equally seeded copies")
    assert second.endswith("determinism.resume=episode_boundary")
    assert third.startswith("(the verdict is remembered in ")
    require(maker(worlds.Exact))


def test_an_environment_that_fails_is_shown_with_its_traceback():
    with pytest.raises(Failed) as caught:
        verdict(maker(worlds.Faulty, place="init", fault="raises"))
    assert str(caught.value).startswith("env: Faulty failed when it was tried (exit code 1):\n")
    assert re.search(r"worlds\.py\", line \d+, in __init__\n", str(caught.value))
    assert "OverflowError: the pole broke" in str(caught.value)


def test_what_the_user_must_mend_comes_through(cache):
    with pytest.raises(UserError, match=r"^env\.task: the file of this task is not there$"):
        verdict(maker(worlds.Faulty, place="init", fault="refuses"))
    assert not cache.exists()


# -- What it remembers -------------------------------------------------------------------------------------------------


def test_a_verdict_is_remembered(cache, processes):
    make = maker(worlds.Counted)
    first = verdict(make)
    assert not first.exact and processes == ["record"]
    assert verdict(make) == first and processes == ["record"]
    (file,) = cache.iterdir()
    assert json.loads(file.read_text())["environment"] == "Counted"


def test_an_exact_one_needs_two_processes_once(processes):
    for _ in range(2):
        assert verdict(maker(worlds.Exact)).exact
    assert processes == ["record", "restore"]


def identity(make: Maker) -> str:
    return exactness._identity(make)


def test_another_value_wrapper_or_class_is_tried_anew():
    others = [
        maker(worlds.Scripted, ends={}, kind="discrete"),
        maker(worlds.Scripted, ends={}, kind="continuous"),
        made(worlds.Scripted, {"ends": {}, "kind": "discrete"}, {"action_repeat": 2}),
        maker(worlds.Remembered, ends={}, kind="discrete"),
    ]
    assert len({identity(make) for make in others}) == 4
    assert identity(others[0]) == identity(maker(worlds.Scripted, ends={}, kind="discrete"))


def test_another_version_of_a_package_is_tried_anew(monkeypatch):
    monkeypatch.setattr(exactness, "_installed", exactness._installed.__wrapped__)  # nothing is remembered
    before, found = identity(maker(worlds.Exact)), list(importlib.metadata.distributions())
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: reversed(found))
    assert identity(maker(worlds.Exact)) == before  # in whatever order they are found
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: found[1:])
    assert identity(maker(worlds.Exact)) != before


def test_another_hash_seed_is_tried_anew(monkeypatch):
    found = set()
    for value in ("0", "1"):
        monkeypatch.setenv("PYTHONHASHSEED", value)
        found.add(identity(maker(worlds.Hashed)))
    monkeypatch.delenv("PYTHONHASHSEED")
    assert len({*found, identity(maker(worlds.Hashed))}) == 3


def test_another_source_of_the_class_or_of_its_base_is_tried_anew(tmp_path, monkeypatch, processes):
    for name, text in (
        ("base_of_it", "from tests.env.worlds import Exact\nclass Base(Exact):\n    pass\n"),
        ("it", "from base_of_it import Base\nclass It(Base):\n    pass\n"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    make = maker(importlib.import_module("it").It)
    found = [identity(make)]
    for name in ("it", "base_of_it"):
        with (tmp_path / f"{name}.py").open("a") as file:
            file.write("    # mended\n")
        found.append(identity(make))
    assert len(set(found)) == 3
    assert verdict(make).exact and len(processes) == 2


def test_another_source_anywhere_in_the_users_package_is_tried_anew(tmp_path, monkeypatch):
    """Whatever its modules import from one another, and when."""
    package = tmp_path / "ownpackage"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("from tests.env.worlds import Exact\nclass Mine(Exact):\n    pass\n")
    for name in ("dynamics.py", "deep/er.py"):
        (package / name).write_text("GRAVITY = 9.8\n")
    monkeypatch.syspath_prepend(tmp_path)
    make = maker(importlib.import_module("ownpackage").Mine)
    found = [identity(make)]
    for name in ("dynamics.py", "deep/er.py"):
        assert identity(make) == found[-1]
        (package / name).write_text("GRAVITY = 9.9\n")
        found.append(identity(make))
    (tmp_path / "neighbour.py").write_text("")
    assert len(set(found)) == 3 and identity(make) == found[-1]


def test_another_number_of_environments_is_tried_anew_where_they_are_stepped_together():
    for kind, count in ((worlds.Joined, 2), (worlds.Exact, 1)):
        assert len({identity(made(kind, {}, num_envs=n)) for n in (2, 3)}) == count


def test_a_memory_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HIEROS_CACHE", str(tmp_path / "file"))
    assert not verdict(maker(worlds.Counted)).exact


def test_a_damaged_memory_is_tried_anew(cache, processes):
    make = maker(worlds.Counted)
    first = verdict(make)
    for damage in ('{"verdict": {"exact": true}}', "["):
        (file,) = cache.iterdir()
        file.write_text(damage)
        assert verdict(make) == first
    assert processes == ["record"] * 3


# -- In runs -----------------------------------------------------------------------------------------------------------


def test_training_in_an_inexact_environment_is_refused(tmp_path):
    done = process("train", *short("run", *chosen(Unrepeatable)), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
    assert (
        "error: env: Unrepeatable CartPole-v1 does not come back exactly, so exact resume is refused: two equally seeded"
        in done.stderr
    )
    assert "resume=episode_boundary" in done.stderr
    assert not (tmp_path / "run").exists()


def episodes(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "episodes.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_killed_run_at_an_episode_boundary_goes_on_with_new_episodes(tmp_path):
    """Its environments die with it at the 333rd step, in the middle of episodes; the checkpoint is of step 300 or so."""
    boundary = [*chosen(Mortal), "determinism.resume=episode_boundary", "resume=auto"]
    killed = process("train", *short("run", *boundary), cwd=tmp_path, DIE_AT="333", DIE_BY=str(int(signal.SIGKILL)))
    assert killed.returncode == -signal.SIGKILL
    folder = tmp_path / "run"
    assert "resumed_at" not in facts(folder)
    before = episodes(folder)
    done = process("train", *short("run", *boundary), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    told = facts(folder)
    assert (told["status"], told["bit_comparable"], told["resumed_at"]) == ("finished", False, "episode_boundary")
    assert "the episodes under way are given up and new ones start" in done.stdout
    after = episodes(folder)
    assert after[: len(before) - 2] == before[: len(before) - 2] and len(after) > len(before)
    assert 600 <= told["results"]["step"] <= 601
    steps = [row["step"] for row in after]
    assert steps == sorted(steps)
    given_up = told["results"]["step"] - sum(row["length"] for row in after)
    assert given_up > 0  # steps of episodes that were cut, by the kill and by the end


def test_a_run_that_ended_at_an_episode_boundary_is_continued_by_its_folder_alone(tmp_path):
    """What was chosen when it began is kept."""
    folder = run(tmp_path / "run", *chosen(Unrepeatable), "resume=episode_boundary", "run.steps=200")
    assert facts(folder)["status"] == "finished" and "bit_comparable" not in facts(folder)
    run(folder, *chosen(Unrepeatable), f"resume={folder}", "run.steps=300")
    assert facts(folder)["results"]["step"] >= 300
    assert facts(folder)["resumed_at"] == "episode_boundary"
