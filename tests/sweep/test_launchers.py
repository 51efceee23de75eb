"""The launchers, really run: the files of their runs are those of the same runs alone."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hieros_repro.records import ConfigError, UserError
from hieros_repro.sweep import launch
from hieros_repro.sweep.launch import YEAR, Room, fit
from tests.envs import Mortal, chosen
from tests.runs import SHORT, assert_equal, environment, facts, run
from tests.sweep import cluster

MORTAL = chosen(Mortal)
RAY = os.environ.get("HIEROS_RAY_PYTHON") or (sys.executable if launch.has_ray() else None)


def sweep(folder: Path, *arguments: str, python: str = sys.executable, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [python, "-m", "hieros_repro.train", "-m", *SHORT, *arguments, "sweep.dir=sweep"],
        cwd=folder, env=environment(**changes), capture_output=True, text=True, timeout=600,
    )  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return {seed: run(folder / str(seed), f"seed={seed}", *MORTAL) for seed in (1, 20)}


def assert_equals_alone(folder, alone):
    for seed, expected in alone.items():
        assert_equal(expected, folder / "sweep" / f"seed-{seed}")


# -- On this machine -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_under_submitit_on_this_machine_equal_runs_alone(tmp_path, alone):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    done = sweep(tmp_path, "seed=1,20", *MORTAL, "hydra/launcher=submitit_local")
    assert done.returncode == 0, done.stderr
    assert "2 of 2 finished" in done.stdout
    assert_equals_alone(tmp_path, alone)


@pytest.mark.slow
@pytest.mark.skipif(RAY is None, reason="no ray here, and HIEROS_RAY_PYTHON names no interpreter that has it")
def test_runs_under_ray_equal_runs_alone(tmp_path, alone):
    done = sweep(tmp_path, "seed=1,20", *MORTAL, "hydra/launcher=ray", python=str(RAY))
    assert done.returncode == 0, done.stderr
    assert_equals_alone(tmp_path, alone)


# -- On a cluster --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slurm(tmp_path_factory, alone):
    """A sweep on a Slurm whose jobs are told their end once: (its folder, the cluster's, the process)."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    folder, state = tmp_path_factory.mktemp("slurm"), tmp_path_factory.mktemp("cluster")
    found = cluster.install(state)
    limits = {"DIE_AT": "333", "DIE_BY": str(int(signal.SIGUSR2))}
    done = sweep(
        folder, "seed=1,20", *MORTAL, "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=90",
        "hydra.launcher.partition=short", **found, **limits,
    )  # fmt: skip
    return folder, state, done


@pytest.mark.slow
def test_slurm_jobs_that_are_told_their_end_are_queued_again_and_equal_runs_alone(slurm, alone):
    folder, state, done = slurm
    assert done.returncode == 0, done.stderr
    assert (state / "starts").read_text().split() == ["1000_0", "1000_0", "1000_1", "1000_1"]
    assert sorted(path.name for path in state.glob("requeued-*")) == ["requeued-1000_0-0", "requeued-1000_1-0"]
    assert [facts(folder / "sweep" / f"seed-{seed}")["restarts"] for seed in (1, 20)] == [1, 1]
    assert_equals_alone(folder, alone)
    assert "2 of 2 finished" in done.stdout


@pytest.mark.slow
def test_what_slurm_is_given_says_what_a_job_needs_and_when_to_tell_it_its_end(slurm):
    _, state, _ = slurm
    script = (state / "1000.sh").read_text()
    flags = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", script, re.MULTILINE))
    assert flags["cpus-per-task"] == "1"
    assert flags["time"] == "90"
    assert flags["partition"] == "short"
    assert flags["signal"] == "USR2@120"
    assert flags["open-mode"] == "append"
    assert flags["array"] == "0-1%2"
    assert flags["requeue"] in ("", "True")
    assert "gpus-per-node" not in flags


# -- How many at once ----------------------------------------------------------------------------------------------------


def node(launcher="basic", sweeper="hydra._internal.core_plugins.basic_sweeper.BasicSweeper", n_jobs=1, **options):
    return {"launcher": options, "sweeper": {"_target_": sweeper, "max_batch_size": None, "n_jobs": n_jobs}}


CPUS = Room(threads=2, cores=8, wanted_devices=0, devices=[])
GPUS = Room(threads=2, cores=8, wanted_devices=1, devices=["0", "1"])


@pytest.mark.parametrize(
    ("threads", "cores", "each", "devices", "jobs"),
    [(1, 4, 0, 0, 4), (3, 8, 0, 0, 2), (8, 4, 0, 0, 1), (1, 8, 1, 3, 3), (4, 8, 1, 3, 2), (1, 8, 2, 3, 1), (1, 8, 2, 1, 1)],
)
def test_as_many_jobs_as_cores_and_devices_allow(threads, cores, each, devices, jobs):
    assert Room(threads, cores, each, [str(n) for n in range(devices)]).jobs == jobs


@pytest.mark.parametrize(("room", "wanted", "jobs"), [(CPUS, 3, 3), (CPUS, 9, 4), (CPUS, -1, 4), (GPUS, 4, 2), (GPUS, 1, 1)])
def test_parallel_jobs_of_joblib_fit(room, wanted, jobs):
    found = fit("joblib", [f"hydra.launcher.n_jobs={wanted}"], room, node(n_jobs=wanted) | {"launcher": {"n_jobs": wanted}})
    assert found.parallel == jobs
    assert found.overrides == ([] if wanted == jobs else [f"hydra.launcher.n_jobs={jobs}"])
    assert found.devices == room.devices


def test_a_job_that_takes_more_devices_than_there_are_is_refused():
    room = Room(threads=1, cores=8, wanted_devices=3, devices=["0", "1"])
    with pytest.raises(UserError, match=r"hardware.ranks=3: a job takes so many devices, and 2 are visible"):
        fit("joblib", [], room, node(n_jobs=2))


def test_submitit_on_this_machine_is_given_no_more_jobs_at_once_than_fit():
    found = fit("submitit_local", [], GPUS, node())
    assert found.parallel == 2
    assert found.overrides == [
        "hydra.sweeper.max_batch_size=2",
        f"hydra.launcher.timeout_min={YEAR}",
        "hydra.launcher.gpus_per_node=2",
    ]


def test_a_searchs_batch_is_part_of_the_search_and_never_lowered():
    optuna = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"
    assert fit("submitit_local", [], CPUS, node(sweeper=optuna, n_jobs=4)).parallel == 4
    with pytest.raises(UserError, match=r"hydra.sweeper.n_jobs=5: .* 4 fit"):
        fit("submitit_local", [], CPUS, node(sweeper=optuna, n_jobs=5))


def test_a_slurm_job_asks_for_its_threads_and_devices(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    options = {"timeout_min": 60, "signal_delay_s": 120, "array_parallelism": 256}
    found = fit("submitit_slurm", ["hydra.launcher.max_num_timeout=3"], GPUS, node(**options)).overrides
    assert set(found) == {
        "hydra.launcher.cpus_per_task=2",
        "hydra.launcher.gpus_per_node=1",
        "++hydra.launcher.additional_parameters.requeue=true",
    }
    assert (
        "hydra.launcher.gpus_per_node=1" not in fit("submitit_slurm", ["hydra.launcher.gres=gpu:1"], GPUS, node(**options))[0]
    )


def test_without_slurm_there_is_one_clear_line(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UserError, match="there is no srun here"):
        fit("submitit_slurm", [], CPUS, node())


def test_ray_gets_the_cores_and_every_job_its_threads():
    told = fit("ray", [], CPUS, node(ray={"init": {"address": None}})).overrides
    assert told == [
        "++hydra.launcher.ray.remote.num_cpus=2",
        "++hydra.launcher.ray.init.num_cpus=8",
        "++hydra.launcher.ray.init.include_dashboard=false",
    ]
    more = fit("ray", [], CPUS, node(ray={"init": {"address": None, "num_cpus": 99}})).overrides
    assert "++hydra.launcher.ray.init.num_cpus=8" in more
    elsewhere = fit("ray", [], GPUS, node(ray={"init": {"address": "auto"}})).overrides
    assert elsewhere == ["++hydra.launcher.ray.remote.num_cpus=2", "++hydra.launcher.ray.remote.num_gpus=1"]


@pytest.mark.parametrize(("name", "extra"), [("ray", "ray"), ("submitit_slurm", "slurm"), ("joblib", "sweep")])
def test_a_launcher_that_is_not_installed_is_named_with_its_extra(name, extra):
    with pytest.raises(ConfigError, match=rf"hieros-repro\[{extra}\]"):
        launch.missing("hydra/launcher", name, ["basic"])
