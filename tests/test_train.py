import fcntl
import math
import os
import subprocess
import sys

import pytest

from hieros_repro.records import ConfigError, Diverged, UserError
from hieros_repro.run.folder import RunFolder
from hieros_repro.train import train
from tests.checking import mostly_slow
from tests.envs import Hashed, Unlucky, chosen
from tests.runs import FILES, SHORT, SHORT_DREAMER, compose, facts, process, run, short, unequal_files


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory):
    """The same run in a process whose shell and working directory are not this one's."""
    cwd = tmp_path_factory.mktemp("else") / "where with spaces"
    cwd.mkdir()
    shell = {"PYTHONHASHSEED": "7", "CUBLAS_WORKSPACE_CONFIG": ":16:8", "OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    done = process("train", *short("run"), cwd=cwd, LC_ALL="C", **shell)
    assert done.returncode == 0, done.stderr
    return cwd / "run"


def test_the_same_configuration_gives_the_same_files(tmp_path, whole):
    again = run(tmp_path / "again")
    assert unequal_files(whole, again) == []
    assert facts(whole)["digests"] == facts(again)["digests"]


def test_another_process_directory_and_shell_give_the_same_files(whole, elsewhere):
    assert unequal_files(whole, elsewhere) == []
    assert facts(whole)["digests"] == facts(elsewhere)["digests"]


@pytest.mark.parametrize("name", FILES)
def test_diff_prints_nothing_about_equal_runs(whole, elsewhere, name):
    done = subprocess.run(["diff", whole / name, elsewhere / name], capture_output=True, text=True)
    assert (whole / name).stat().st_size > 0
    assert (done.returncode, done.stdout) == (0, "")


def test_threads_come_from_the_configuration_and_not_from_the_shell(elsewhere):
    assert facts(elsewhere)["numerics"]["threads"] == 1


def test_another_seed_gives_other_files(tmp_path, whole):
    other = run(tmp_path / "other", "seed=43")
    assert unequal_files(whole, other) == list(FILES)
    assert facts(whole)["digests"] != facts(other)["digests"]


@pytest.mark.parametrize("env", mostly_slow(["Pendulum-v1", "FrozenLake-v1"], "Pendulum-v1"))
def test_other_environments_repeat_too(tmp_path, env):
    a, b = (
        run(tmp_path / name, "env=gymnasium", f"env.id={env}", "env.normalise_observation=true", "env.normalise_reward=true")
        for name in "ab"
    )
    assert unequal_files(a, b) == []


def test_the_hash_seed_is_pinned_whatever_the_shell_says(tmp_path):
    for name, outside in (("a", "1"), ("b", "random")):
        done = process("train", *short(tmp_path / name, *chosen(Hashed)), cwd=tmp_path, PYTHONHASHSEED=outside)
        assert done.returncode == 0, done.stderr
    assert unequal_files(tmp_path / "a", tmp_path / "b") == []


def test_an_unpinned_hash_seed_is_the_shells(tmp_path):
    loose = [*chosen(Hashed), "determinism.hash_seed=null", "run.steps=60"]
    for name, outside in (("a", "1"), ("b", "2")):
        assert process("train", *short(tmp_path / name, *loose), cwd=tmp_path, PYTHONHASHSEED=outside).returncode == 0
    assert "metrics.jsonl" in unequal_files(tmp_path / "a", tmp_path / "b")


def test_settings_of_one_run_do_not_leak_into_the_next(tmp_path, whole):
    loose = run(tmp_path / "loose", "determinism=off", "run.steps=60")
    strict = run(tmp_path / "strict")
    assert not facts(loose)["numerics"]["deterministic"]
    assert facts(strict)["numerics"] == facts(whole)["numerics"]
    assert unequal_files(whole, strict) == []


# -- Where a run lives -------------------------------------------------------------------------------------------------


def test_without_a_name_runs_get_folders_of_their_own_under_outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        run("null", "run.steps=60", "run.final_episodes=0")
    found = sorted((tmp_path / "outputs" / "cartpole-v1-ppo").iterdir())
    assert len(found) == 2
    assert all(path.name.endswith("_seed-42") for path in found)


def test_a_folder_that_holds_a_run_is_not_written_over(whole):
    before = (whole / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError) as caught:
        run(whole, "seed=1")
    assert f"run.dir={whole}" in str(caught.value)
    assert f"resume={whole}" in str(caught.value)
    assert (whole / "metrics.jsonl").read_bytes() == before


def test_a_folder_that_a_living_process_holds_is_refused(tmp_path):
    with RunFolder(tmp_path / "run").held():
        done = process("train", *short("run", "resume=auto"), cwd=tmp_path)
    assert done.returncode == 2
    assert "error: run.dir=run: another process is running this run right now" in done.stderr
    assert os.listdir(tmp_path / "run") == [".lock"]


def test_a_lock_dies_with_its_process(tmp_path):
    code = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX); os.abort()"
    subprocess.run([sys.executable, "-c", code, tmp_path / ".lock"])
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert not RunFolder(tmp_path).is_held()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    done = process("train", *short("file/run"), cwd=tmp_path)
    assert done.returncode == 2
    assert "error: run.dir=file/run: cannot be written (Not a directory)" in done.stderr


@pytest.fixture
def disk(tmp_path):
    """A disk of 600 kB."""
    tmp_path = tmp_path / "disk"
    tmp_path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk needs the right to mount one")
    yield tmp_path
    subprocess.run(["umount", "--lazy", tmp_path], check=True)


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["run.keep_last=1"], "checkpoints: the disk is full, so the checkpoint of step"),
        (["run.keep_last=1", "run.steps=20_000", "run.checkpoint_every=0", "run.eval_every=0"], "the disk is full; make room"),
        (["run.keep_last=50"], "52 checkpoints and the replay need about"),
    ],
)
def test_a_full_disk_is_said_and_leaves_no_half_checkpoint(disk, monkeypatch, overrides, text):
    monkeypatch.setattr("hieros_repro.run.recorder.patch", lambda: "")
    (disk / "ballast").write_bytes(bytes(250_000))
    with pytest.raises(UserError, match=text):
        run(disk / "run", "agent.hidden=[64,64]", *overrides)
    folder = disk / "run" / "checkpoints"
    assert not folder.exists() or [path for path in folder.iterdir() if path.name.startswith(".partial")] == []


@pytest.mark.parametrize("made", [False, True])
def test_what_only_building_finds_is_refused_and_leaves_nothing(tmp_path, made):
    """Pictures of 48 by 48 cannot be halved until their side is 4."""
    folder = tmp_path / "outputs" / "run"
    if made:
        folder.mkdir(parents=True)
    with pytest.raises(UserError, match="the images 'image' are 48x48"):
        run(folder, "env.size=48", "log.tensorboard=true", usual=SHORT_DREAMER)
    assert list((folder if made else tmp_path).iterdir()) == []


# -- Runs that fail ----------------------------------------------------------------------------------------------------


def test_a_run_that_fails_says_so_everywhere(tmp_path):
    done = process("train", *short("run", *chosen(Unlucky)), cwd=tmp_path, UNLUCKY="42")
    assert done.returncode == 1
    assert "OverflowError: the pole broke under seed 42" in done.stderr
    told = facts(tmp_path / "run")
    assert (told["status"], told["error"]["kind"]) == ("failed", "OverflowError")
    assert told["error"]["text"] == "the pole broke under seed 42"
    assert "envs.py" in told["error"]["traceback"]


def test_numbers_that_are_no_longer_finite_end_the_run(tmp_path):
    with pytest.raises(Diverged, match=r"step \d+, update \d+: no longer finite: "):
        run(tmp_path / "run", "agent.learning_rate=1e30")
    assert facts(tmp_path / "run")["status"] == "failed"
    rows = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert "NaN" not in rows
    assert "Infinity" not in rows


# -- Own code ----------------------------------------------------------------------------------------------------------

OWN = """
import numpy as np
from hieros_repro.env.base import Env
from hieros_repro.records import Space, Spaces

class Corridor(Env):
    def __init__(self, render: bool = False, *, id: str, kwargs: dict, length: int | None):
        self.spaces = Spaces({"vector": Space("vector", (1,))}, Space("discrete", (), sizes=(2,)))

    def reset(self, seed):
        self.place = self.time = 0
        return {"vector": np.zeros(1, np.float32)}

    def step(self, action):
        self.place, self.time = self.place + (1 if action else -1), self.time + 1
        return {"vector": np.full(1, self.place, np.float32)}, float(action), abs(self.place) >= 5, self.time >= 20
"""


def test_an_own_environment_in_a_file_on_the_path_can_be_trained_on(tmp_path, monkeypatch):
    (tmp_path / "my_corridor.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    a, b = (run(tmp_path / n, "plugins=[my_corridor]", "env._target_=my_corridor.Corridor", "env.id=corridor") for n in "ab")
    assert unequal_files(a, b) == []
    assert facts(a)["plugins"] == ["my_corridor"]
    assert facts(a)["spaces"]["observation"]["vector"]["shape"] == [1]
    assert math.isfinite(facts(a)["results"]["eval/score"])


def test_an_own_environment_that_no_plugin_names_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        run(tmp_path / "run", "env._target_=tests.envs.Hashed")
    assert "env._target_: 'tests.envs.Hashed' is not allowed; only hieros_repro.*; plugins=[...] adds packages" in str(
        caught.value
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("overrides", [("agent=random",), ("hardware.precision=fp16",)])
def test_a_whole_run_with_evaluations_finishes(tmp_path, overrides):
    own = [o for o in SHORT if not (overrides[0] == "agent=random" and o.startswith(("agent.", "replay.")))]
    typed = [*overrides, *own, f"run.dir={tmp_path / 'run'}"]
    train(compose(*typed), typed)
    assert facts(tmp_path / "run")["status"] == "finished"
