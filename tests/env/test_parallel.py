import contextlib
import functools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from hieros_repro.determinism.settings import WORKSPACE
from hieros_repro.env import parallel
from hieros_repro.env.base import Env
from hieros_repro.env.contract import EnvContract, rows
from hieros_repro.env.gymnasium import Gymnasium
from hieros_repro.env.making import Maker
from hieros_repro.env.parallel import EnvironmentFailed
from hieros_repro.env.vector import Vector
from hieros_repro.records import UserError
from tests.env import worlds
from tests.env.worlds import Faulty, Remembered, Scripted
from tests.runs import ROOT, command, environment, facts, run, short, unequal_files

ENDS = {0: (5, True), 1: (4, False), 10: (7, False), 20: (1, True), 30: (3, True), 31: (3, False)}
WORLDS = {
    "discrete": functools.partial(Scripted, ENDS, "discrete"),
    "multidiscrete": functools.partial(Scripted, ENDS, "multidiscrete"),
    "continuous": functools.partial(Scripted, ENDS, "continuous"),
    "snapshots": functools.partial(Remembered, ENDS),
    "images": Maker(Gymnasium, {"id": f"{worlds.__name__}:Picture-v0", "kwargs": {}, "length": None}),
    "many of all": Maker(Gymnasium, {"id": f"{worlds.__name__}:Mixed-v0", "kwargs": {}, "length": None}),
}
COUNT = 4


def seeds(env: int, episode: int) -> int:
    return 10 * env + episode


@pytest.fixture
def vector():
    """Makes vectors, all closed in the end."""
    with contextlib.ExitStack() as stack:

        def made(make, processes: int = 2, count: int = COUNT, timeout: float = 60.0) -> Vector:
            envs = Vector(make, seeds, num_envs=count, processes=processes, worker_timeout=timeout)
            stack.callback(envs.close)
            return envs

        yield made


def workers(envs: Vector) -> list[int]:
    return [worker._process.pid for worker in envs.batch._workers]


def gone(pid: int) -> bool:
    """Whether a process has ended; one whose parent has died may wait for its burial."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait(until, seconds: float = 10.0) -> bool:
    ends = time.monotonic() + seconds
    while not until() and time.monotonic() < ends:
        time.sleep(0.02)
    return until()


# -- Equal numbers -----------------------------------------------------------------------------------------------------


class TestInWorkers(EnvContract):
    """What a worker holds behaves like any environment."""

    draws_pictures = False
    accounts = ("tens", "seed")

    def make(self) -> Env:
        return Remembered({10: (5, True), 11: (7, False), 3: (20, True), 8: (20, True)})


def account(envs: Vector) -> tuple:
    """All that is seen of a vector from its first row on: rows, episodes, state."""
    envs.reset()
    return rows(envs, range(25)), envs.take_finished(), plain(envs.state())


def plain(tree):
    if isinstance(tree, dict):
        return {name: plain(value) for name, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [plain(value) for value in tree]
    return (str(tree.dtype), tree.tolist()) if isinstance(tree, np.ndarray) else tree


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("processes", [1, 3])
def test_worker_processes_change_no_number(vector, world, processes):
    expected = account(vector(WORLDS[world], 0))
    assert account(vector(WORLDS[world], processes)) == expected
    assert world == "many of all" or len(expected[1]) > 4


@pytest.mark.parametrize("processes", [2, 4, 9])
def test_any_number_of_worker_processes_gives_the_same(vector, processes):
    envs = vector(WORLDS["discrete"], processes)
    assert len(workers(envs)) == min(processes, COUNT)
    assert account(envs) == account(vector(WORLDS["discrete"], 0))


def test_a_native_batch_is_the_same_in_workers(vector):
    adapter = pytest.importorskip("hieros_repro.env.pinpad.adapter")
    make = Maker(adapter.PinPad, {"task": "three", "length": 20, "size": 16})
    assert account(vector(make, 2, 5)) == account(vector(make, 0, 5))


def test_workers_take_neighbouring_environments_in_order(vector):
    envs = vector(WORLDS["discrete"], 3, 8)
    assert [list(worker.envs) for worker in envs.batch._workers] == [[0, 1], [2, 3, 4], [5, 6, 7]]
    assert envs.reset().obs["vector"][:, 0].tolist() == [0, 10, 20, 30, 40, 50, 60, 70]


def test_a_row_from_workers_is_never_written_to_again(vector):
    envs = vector(WORLDS["images"])
    first = envs.reset()
    before = first.obs["image"].copy()
    rows(envs, range(3))
    assert np.array_equal(first.obs["image"], before)
    assert first.is_first.all() and not first.reward.any()


def test_accounts_of_episodes_come_with_the_environment_that_they_are_of(vector):
    envs = vector(functools.partial(Remembered, {10: (2, True), 30: (2, False)}))
    envs.reset()
    rows(envs, range(2))
    assert [(e.env, e.length, e.score, e.account) for e in envs.take_finished()] == [
        (1, 2, 3.0, {"tens": 0, "seed": 10}),
        (3, 2, 3.0, {"tens": 0, "seed": 30}),
    ]


@pytest.mark.parametrize("world", ["discrete", "snapshots", "images"])
@pytest.mark.parametrize(("saved", "loaded"), [(0, 2), (2, 0), (3, 2)])
def test_a_state_is_restored_under_another_number_of_processes(vector, world, saved, loaded):
    one, other = vector(WORLDS[world], saved), vector(WORLDS[world], loaded)
    one.reset()
    rows(one, range(9))
    other.load(one.state())
    one.take_finished()
    assert plain([*other.now]) == plain([*one.now])
    assert rows(one, range(9, 20)) == rows(other, range(9, 20))
    assert one.take_finished() == other.take_finished()


def test_a_picture_comes_from_the_environment_that_is_asked_for(vector):
    make = Maker(Gymnasium, {"id": "tests.worlds:ClockTest-v0", "kwargs": {}, "length": None}, render=True)
    with contextlib.closing(
        Vector(make, lambda env, episode: env, num_envs=4, processes=2, worker_timeout=60.0)
    ) as envs:  # environment i has i + 1 steps left, and is 40 (i + 1) bright
        envs.reset()
        assert [envs.render(env)[0, 0, 0] for env in range(4)] == [40, 80, 120, 160]


# -- What goes wrong ---------------------------------------------------------------------------------------------------


def failure(envs: Vector, ticks: int = 5) -> str:
    with pytest.raises(EnvironmentFailed) as caught:
        envs.reset()
        rows(envs, range(ticks))
    return str(caught.value)


@pytest.mark.parametrize("place", ["reset", "step"])
@pytest.mark.parametrize("env", [0, 1, 2, 3])
def test_an_environment_that_raises_is_named_with_its_traceback(vector, place, env):
    text = failure(vector(functools.partial(Faulty, place, "raises", 10 * env)))
    assert text.startswith(
        f"environment {env} raised in the worker process of environments {env // 2 * 2} to {env // 2 * 2 + 1}:"
    )
    assert re.search(rf"worlds\.py\", line \d+, in {place}\n", text)
    assert "OverflowError: the pole broke" in text
    assert text.endswith(f"in environment {env}")


def test_an_environment_that_cannot_be_made_is_said_with_its_traceback(vector):
    with pytest.raises(
        EnvironmentFailed, match=r"an environment that was being made raised in the worker process of"
    ) as caught:
        vector(functools.partial(Faulty, "init", "raises"))
    assert re.search(r"worlds\.py\", line \d+, in __init__\n", str(caught.value))
    assert "OverflowError: the pole broke" in str(caught.value)


@pytest.mark.parametrize("place", ["init", "reset", "step"])
def test_what_the_user_must_mend_comes_through_as_it_is(vector, place):
    with pytest.raises(UserError) as caught:
        failure(vector(functools.partial(Faulty, place, "refuses", 20)))
    assert str(caught.value) == "env.task: the file of this task is not there"
    assert getattr(caught.value, "__notes__", []) == ([] if place == "init" else ["in environment 2"])


def test_a_killed_worker_is_named_with_what_killed_it(vector):
    text = failure(vector(functools.partial(Faulty, "step", "is killed", 30)))
    assert text.startswith("environment 3 died with SIGKILL in the worker process of environments 2 to 3:")


def test_a_worker_that_left_is_named_with_its_exit_code(vector):
    assert failure(vector(functools.partial(Faulty, "step", "leaves", 10))).startswith("environment 1 died with exit code 3 in")


def test_a_crashed_worker_shows_where_it_was(vector):
    text = failure(vector(functools.partial(Faulty, "step", "crashes", 20)))
    assert text.startswith("environment 2 died with SIGSEGV in")
    assert re.search(r"Fatal Python error: Segmentation fault.*worlds\.py\", line \d+ in step\n", text, re.DOTALL)


@pytest.mark.parametrize("place", ["reset", "step"])
def test_a_worker_that_hangs_shows_where_it_is(vector, place):
    envs = vector(functools.partial(Faulty, place, "sleeps", 30))
    for worker in envs.batch._workers:
        worker.timeout = 0.5  # only now: starting takes longer
    started = time.monotonic()
    text = failure(envs)
    assert time.monotonic() < started + 2.5
    assert text.startswith("environment 3 gave no answer for 0.5 s (env.worker_timeout) in the worker process of")
    assert re.search(rf"worlds\.py\", line \d+ in {place}\n", text)
    started = time.monotonic()
    envs.close()
    assert time.monotonic() < started + 1.0


def test_a_worker_that_hangs_while_it_makes_its_environments_shows_where_it_is(monkeypatch, vector):
    monkeypatch.setattr(parallel, "CLOSING_SECONDS", 0.2)
    with pytest.raises(EnvironmentFailed) as caught:
        vector(functools.partial(Faulty, "init", "sleeps"), timeout=3.0)
    assert str(caught.value).startswith("an environment that was being made gave no answer for 3 s (env.worker_timeout) in")
    assert re.search(r"worlds\.py\", line \d+ in __init__\n", str(caught.value))


# -- Nothing is left ---------------------------------------------------------------------------------------------------


def shared_files() -> set[str]:
    """What this process has mapped from the folder of shared memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if "/dev/shm/" in line}


def test_closing_ends_every_worker_and_is_done_once(vector):
    envs = vector(WORLDS["discrete"], 3)
    pids = workers(envs)
    assert not any(map(gone, pids))
    envs.close()
    assert all(map(gone, pids))
    envs.close()


def test_the_shared_memory_has_no_name_that_could_be_left_behind(vector):
    before = shared_files()
    vector(WORLDS["images"], 2)
    assert {path.endswith("(deleted)") for path in shared_files() - before} == {True}


@pytest.mark.parametrize("place", ["init", "reset", "step"])
def test_after_a_failure_no_worker_is_left(monkeypatch, vector, place):
    started, start = [], subprocess.Popen
    monkeypatch.setattr(parallel.subprocess, "Popen", lambda *a, **k: started.append(start(*a, **k)) or started[-1])
    with pytest.raises(EnvironmentFailed):
        envs = vector(functools.partial(Faulty, place, "raises"), 3)
        with contextlib.closing(envs):
            envs.reset()
            rows(envs, range(5))
    assert len(started) == 3 and all(gone(process.pid) for process in started)


@pytest.mark.parametrize("fault", ["sleeps", "stands still", "raises", "is killed"])
def test_closing_never_hangs(monkeypatch, vector, fault):
    """However many workers do: they are waited for together."""
    monkeypatch.setattr(parallel, "CLOSING_SECONDS", 0.5)
    envs = vector(functools.partial(Faulty, "close", fault), 4)
    envs.reset()
    pids, started = workers(envs), time.monotonic()
    envs.close()
    assert time.monotonic() < started + 1.5
    assert all(map(gone, pids))


def test_closing_never_waits_for_a_worker_that_stands_still(monkeypatch, vector):
    monkeypatch.setattr(parallel, "CLOSING_SECONDS", 0.3)
    envs = vector(WORLDS["discrete"])
    envs.reset()
    pids = workers(envs)
    os.kill(pids[1], signal.SIGSTOP)
    envs.close()
    assert all(map(gone, pids))


ALONE = """
import functools, sys
from hieros_repro.env.vector import Vector
from tests.env.worlds import Faulty
if __name__ == "__main__":
    make = functools.partial(Faulty, "step", sys.argv[1])
    envs = Vector(make, lambda i, n: 10 * i + n, num_envs=2, processes=2, worker_timeout=60.0)
    envs.reset()
    print(*(worker._process.pid for worker in envs.batch._workers), flush=True)
    while True:
        envs.step([0, 0])
"""


@pytest.mark.parametrize("doing", ["none", "sleeps"])
def test_no_worker_outlives_a_killed_main_process(tmp_path, doing):
    """Neither one that works nor one that hangs."""
    script = ALONE.replace('"step", sys.argv[1]', '"nowhere", "raises"') if doing == "none" else ALONE
    main = subprocess.Popen(
        [sys.executable, "-c", script, doing], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, text=True
    )
    with main:
        pids = [int(pid) for pid in main.stdout.readline().split()]
        time.sleep(0.3)
        assert len(pids) == 2 and not any(map(gone, pids))
        main.kill()
    assert wait(lambda: all(map(gone, pids)), 5.0)


# -- Runs --------------------------------------------------------------------------------------------------------------

TWO = ("plugins=[tests.envs]", "env._target_=tests.envs.Interrupting", "env.processes=2")


def interrupted(folder: Path, at: int, *overrides: str) -> subprocess.CompletedProcess[str]:
    """A run during whose at-th step of its first worker Ctrl-C is typed: every process of the terminal is told."""
    return subprocess.run(
        command("train", *short(folder, *TWO, *overrides)), env=environment(INTERRUPT_AT=str(at)), cwd=ROOT,
        capture_output=True, text=True, timeout=120, start_new_session=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("at", [1, 120])
def test_ctrl_c_stops_a_run_with_workers_which_goes_on_to_the_same_files(tmp_path, monkeypatch, at):
    done = interrupted(tmp_path / "run", at)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)  # as the program sets it
    assert done.returncode == 75, done.stderr
    assert re.search(r"stopped at step \d+ with a checkpoint", done.stderr)
    assert "Traceback" not in done.stderr
    assert facts(tmp_path / "run")["status"] == "stopped"
    whole = run(tmp_path / "whole", *TWO, "env.processes=0")
    assert unequal_files(whole, run(tmp_path / "run", *TWO, "resume=auto")) == []


STARTING = """
import functools, os, signal, subprocess, sys
from hieros_repro.env import parallel
from hieros_repro.env.vector import Vector
from tests.env.worlds import Scripted
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
start = subprocess.Popen
def interrupted(*a, **k):
    process = start(*a, **k)
    os.killpg(os.getpgrp(), signal.SIGINT)
    return process
parallel.subprocess.Popen = interrupted
envs = Vector(functools.partial(Scripted, {}), lambda i, n: 10 * i + n, num_envs=2, processes=2, worker_timeout=60.0)
print(envs.reset().obs["vector"][:, 0].tolist(), bool(heard))
envs.close()
"""


def test_ctrl_c_while_workers_start_ends_none_of_them():
    done = subprocess.run(
        [sys.executable, "-c", STARTING], env=environment(), cwd=ROOT, capture_output=True, text=True, start_new_session=True
    )
    assert done.stdout == "[0.0, 10.0] True\n", done.stderr
