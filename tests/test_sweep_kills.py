"""A whole sweep killed at any time loses nothing but its runs' tails."""

import os
import signal
import subprocess
import time

import pytest

from tests.runs import SHORT, assert_equal, command, environment, facts, process, run

SEEDS = (1, 20, 40)
RUN = tuple(o for o in SHORT if not o.startswith(("run.steps", "run.checkpoint"))) + (
    "run.steps=3000",
    "run.checkpoint_every=300",
)
SWEEP = ("-m", *RUN, f"seed={','.join(map(str, SEEDS))}", "sweep.dir=sweep", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def statuses(folder):
    return [facts(path)["status"] for path in sorted((folder / "sweep").glob("seed-*")) if (path / "run.json").exists()]


def started(folder, pause):
    """The sweep in a process group of its own, which is killed so many seconds after a run began anew."""
    before = {path: path.stat().st_mtime_ns for path in folder.glob("sweep/seed-*/config.yaml")}
    running = subprocess.Popen(
        command("train", *SWEEP), cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    while running.poll() is None and not any(
        before.get(path) != path.stat().st_mtime_ns for path in folder.glob("sweep/seed-*/config.yaml")
    ):
        time.sleep(0.02)
    time.sleep(pause)
    os.killpg(running.pid, signal.SIGKILL)
    text = running.communicate()[0]
    return running.returncode, text


@pytest.mark.slow
def test_a_parallel_sweep_that_is_killed_again_and_again_equals_runs_alone(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    ends = [started(tmp_path, pause) for pause in (0.3, 2.0, 4.0, 1.0)]
    assert all(code in (0, -signal.SIGKILL) for code, _ in ends), ends
    assert sum(code == -signal.SIGKILL for code, _ in ends) >= 2, ends
    assert statuses(tmp_path), "it was killed before anything had begun"
    done = process("train", *SWEEP, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert statuses(tmp_path) == ["finished"] * 3
    for seed in SEEDS:
        assert_equal(run(tmp_path / str(seed), f"seed={seed}", usual=RUN), tmp_path / "sweep" / f"seed-{seed}")


@pytest.mark.slow
def test_a_word_to_the_first_process_stops_the_jobs_of_all_with_a_checkpoint(tmp_path):
    """SIGTERM to the process that was started, and to no other."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    running = subprocess.Popen(
        command("train", *SWEEP), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    while running.poll() is None and len(list(tmp_path.glob("sweep/seed-*/config.yaml"))) < 2:
        time.sleep(0.02)
    running.send_signal(signal.SIGTERM)
    text = running.communicate(timeout=120)[0]
    assert running.returncode == 75, text
    assert statuses(tmp_path) == ["stopped", "stopped"]
    done = process("train", *SWEEP, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    for seed in SEEDS:
        assert_equal(run(tmp_path / str(seed), f"seed={seed}", usual=RUN), tmp_path / "sweep" / f"seed-{seed}")


@pytest.mark.slow
def test_ctrl_c_at_the_terminal_stops_every_job_with_a_checkpoint(tmp_path):
    """SIGINT to all processes of the sweep at once."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    running = subprocess.Popen(
        command("train", *SWEEP), cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, start_new_session=True,
    )  # fmt: skip
    while running.poll() is None and len(list(tmp_path.glob("sweep/seed-*/checkpoints/step_*"))) < 2:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGINT)
    text = running.communicate(timeout=120)[0]
    assert running.returncode == 75, text
    assert set(statuses(tmp_path)) <= {"stopped", "finished"}
    assert "stopped" in statuses(tmp_path)
