import csv
import json
import re
import shlex
import shutil
import signal

import pytest
from omegaconf import OmegaConf

from hieros_repro.command import composer, hydras, jobs_of
from hieros_repro.determinism.settings import WORKSPACE
from hieros_repro.records import Stopped, UserError
from hieros_repro.sweep import job, layout
from hieros_repro.sweep.board import Board
from hieros_repro.train import train
from tests.envs import Mortal, Unlucky, chosen
from tests.runs import SHORT, compose, facts, process, run, unequal_files

UNLUCKY = chosen(Unlucky)


def swept(folder, *arguments, **environment):
    """A sweep in a process of its own, in folder/sweep."""
    given = [a.partition("=")[0] for a in arguments]
    default = [o for o in SHORT if o.partition("=")[0] not in given]
    return process("train", "-m", *default, *arguments, "sweep.dir=sweep", cwd=folder, **environment)


def summary(folder):
    return json.loads((folder / "sweep" / "summary.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return {seed: run(folder / str(seed), f"seed={seed}", *UNLUCKY) for seed in (1, 2)}


@pytest.fixture(scope="module")
def unlucky(tmp_path_factory):
    """A sweep whose middle seed fails: (folder, the process that ran it)."""
    folder = tmp_path_factory.mktemp("unlucky")
    done = swept(folder, "seed=1,70,2", *UNLUCKY, UNLUCKY="70")
    shutil.copytree(folder / "sweep", folder / "copy")
    return folder, done


@pytest.fixture(scope="module")
def rerun(unlucky):
    """The same command twice more, now that nothing fails, the second time asked to try what failed:
    (folder, processes, what the runs said before)."""
    folder, _ = unlucky
    before = {seed: facts(folder / "sweep" / f"seed-{seed}") for seed in (1, 2, 70)}
    first_summary = summary(folder), (folder / "sweep" / "summary.md").read_text()
    left = swept(folder, "seed=1,70,2", *UNLUCKY)
    retried = swept(folder, "seed=1,70,2", *UNLUCKY, "sweep.retry_failed=true")
    return folder, (left, retried), before, first_summary


# -- Jobs ----------------------------------------------------------------------------------------------------------------


def test_runs_of_a_sweep_equal_runs_alone(alone, unlucky):
    folder, _ = unlucky
    assert [unequal_files(alone[seed], folder / "sweep" / f"seed-{seed}") for seed in (1, 2)] == [[], []]


@pytest.mark.slow
def test_runs_of_a_parallel_sweep_equal_runs_alone(tmp_path, alone):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    done = swept(tmp_path, "seed=1,2", *UNLUCKY, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.returncode == 0, done.stderr
    assert [unequal_files(alone[seed], tmp_path / "sweep" / f"seed-{seed}") for seed in (1, 2)] == [[], []]
    assert summary(tmp_path)["groups"]["all"]["n"] == 2


def test_a_seed_that_fails_loses_none_of_the_others_and_fails_the_sweep(unlucky):
    folder, done = unlucky
    assert done.returncode == 1
    statuses = {path.name: facts(path)["status"] for path in (folder / "sweep").glob("seed-*")}
    assert statuses == {"seed-1": "finished", "seed-70": "failed", "seed-2": "finished"}
    assert "run: seed-1, seed-70, seed-2" in done.stdout
    assert "2 of 3 finished, 1 failed" in done.stdout
    assert "failed: seed-70: OverflowError: the pole broke under seed 70" in done.stderr
    assert "error: 1 of 3 runs failed" in done.stderr
    assert "Error executing job" not in done.stderr


def test_the_summary_lists_what_failed_with_its_error_and_the_command_to_rerun_it(rerun):
    folder, _, _, (first, page) = rerun
    (failed,) = [r for r in first["runs"] if r["status"] != "finished"]
    assert (failed["seed"], failed["status"], failed["value"]) == (70, "failed", None)
    assert failed["error"] == "OverflowError: the pole broke under seed 70"
    words = shlex.split(failed["rerun"])
    assert words[:3] == ["python", "-m", "hieros_repro.train"]
    assert {"seed=70", f"run.dir={folder / 'sweep' / 'seed-70'}", "resume=auto"} <= set(words)
    assert failed["rerun"] in page
    assert failed["error"] in page
    assert first["groups"]["all"]["seeds"] == [1, 2]


def test_running_a_sweep_again_leaves_what_failed_alone_and_says_how_to_try_it(rerun):
    _, (done, _), _, _ = rerun
    assert done.returncode == 1
    assert "skip (finished): seed-1, seed-2" in done.stdout
    assert "skip (failed): seed-70  (run them again with sweep.retry_failed=true)" in done.stdout
    told = "failed before (OverflowError: the pole broke under seed 70); run it again with sweep.retry_failed=true"
    assert told in done.stdout
    assert f"failed: seed-70: {told}" in done.stderr


def test_running_a_sweep_again_skips_what_is_finished_and_runs_what_failed_if_asked(rerun):
    folder, (_, done), before, _ = rerun
    assert done.returncode == 0, done.stderr
    assert "resume: seed-70" in done.stdout
    assert done.stdout.count("finished before, with the same configuration, code and numerics") == 2
    for seed in (1, 2):
        assert facts(folder / "sweep" / f"seed-{seed}") == before[seed]
    assert facts(folder / "sweep" / "seed-70")["status"] == "finished"
    assert summary(folder)["groups"]["all"]["n"] == 3


def test_the_summary_has_the_seeds_statistics(rerun):
    folder, *_ = rerun
    scores = [facts(folder / "sweep" / f"seed-{seed}")["results"]["eval/score"] for seed in (1, 70, 2)]
    group = summary(folder)["groups"]["all"]
    assert group["mean"] == pytest.approx(sum(scores) / 3)
    assert (group["min"], group["max"], group["median"]) == (min(scores), max(scores), sorted(scores)[1])
    rows = list(csv.DictReader((folder / "sweep" / "summary.csv").open()))
    assert [(row["group"], row["n"], row["seeds"]) for row in rows] == [("all", "3", "1 2 70")]
    assert (folder / "sweep" / "summary.png").read_bytes().startswith(b"\x89PNG")


def test_a_failed_seed_goes_on_by_the_command_that_the_summary_names(unlucky, tmp_path, monkeypatch):
    folder, _ = unlucky
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
    first = json.loads((folder / "copy" / "summary.json").read_text())
    (failed,) = [r for r in first["runs"] if r["status"] == "failed"]
    copied = failed["rerun"].replace(str(folder / "sweep"), str(folder / "copy"))
    words = shlex.split(copied)[3:]
    train(compose(*words), words)
    assert facts(folder / "copy" / "seed-70")["status"] == "finished"


@pytest.mark.slow
def test_a_stopped_job_ends_the_sweep_and_the_same_command_completes_it(tmp_path, alone):
    arguments = ["seed=1,2", *chosen(Mortal)]
    stopped = swept(tmp_path, *arguments, DIE_AT="333", DIE_BY=str(int(signal.SIGTERM)))
    assert stopped.returncode == 75, stopped.stderr
    assert {r["folder"]: r["status"] for r in summary(tmp_path)["runs"]} == {"seed-1": "stopped", "seed-2": "pending"}
    assert swept(tmp_path, *arguments).returncode == 0
    assert [unequal_files(alone[seed], tmp_path / "sweep" / f"seed-{seed}") for seed in (1, 2)] == [[], []]


@pytest.mark.slow
def test_two_axes_make_groups_and_no_setting_leaks_from_job_to_job(tmp_path, alone):
    done = swept(tmp_path, "determinism=warn,strict", "seed=1,2", *UNLUCKY)
    assert done.returncode == 0, done.stderr
    found = summary(tmp_path)
    assert {name: row["seeds"] for name, row in found["groups"].items()} == {
        "determinism=warn": [1, 2],
        "determinism=strict": [1, 2],
    }
    warn_only = {r["folder"]: facts(tmp_path / "sweep" / r["folder"])["numerics"]["warn_only"] for r in found["runs"]}
    assert warn_only == {
        "determinism-warn_seed-1": True,
        "determinism-warn_seed-2": True,
        "determinism-strict_seed-1": False,
        "determinism-strict_seed-2": False,
    }
    assert unequal_files(alone[1], tmp_path / "sweep" / "determinism-strict_seed-1") == []


def test_a_single_run_is_no_job_of_a_sweep_whatever_sweep_dir_says(tmp_path):
    done = process("train", *SHORT, "run.dir=run", "sweep.dir=elsewhere", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_sweep_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "sweep").write_text("in the way")
    with pytest.raises(UserError, match=r"sweep.dir=.*/sweep/a: cannot be written \(Not a directory\)"):
        laid_out("seed=1,2", f"sweep.dir={tmp_path}/sweep/a")


# -- A job that need not run ---------------------------------------------------------------------------------------------


def member(folder, *overrides):
    """What Hydra would call for one job, here and now."""
    typed = [*SHORT, *overrides]
    (folder / "sweep.json").write_text(
        json.dumps({"command": "", "metric": "eval/score", "axes": ["seed"], "jobs": {"seed-1": typed}})
    )
    return job.member(compose(*typed, f"++sweep.dir={folder}", "++sweep.axes=[seed]"), typed, train)


def test_a_job_that_finished_with_other_code_is_not_skipped_but_named(tmp_path):
    score = member(tmp_path, "seed=1")
    assert score == facts(tmp_path / "seed-1")["results"]["eval/score"] == member(tmp_path, "seed=1")
    told = facts(tmp_path / "seed-1")
    told["code"]["sources"] = "something else"
    told["numerics"]["threads"] = 8
    (tmp_path / "seed-1" / "run.json").write_text(json.dumps(told))
    assert member(tmp_path, "seed=1") is None
    (outcome, text) = Board(tmp_path).notes()["seed-1"]
    assert outcome == "failed"
    assert f"{tmp_path / 'seed-1'}: finished before, but not under the same conditions" in text
    assert "the code has changed" in text
    assert "numerics threads: 8, now 1" in text


def test_a_job_that_finished_with_another_configuration_is_not_skipped_but_named(tmp_path):
    member(tmp_path, "seed=1")
    assert member(tmp_path, "seed=1", "agent.clip=0.3") is None
    assert "agent.clip: 0.2 in the run, 0.3 now" in Board(tmp_path).notes()["seed-1"].text


def test_what_is_declared_of_the_metric_may_change_when_its_runs_are_there(tmp_path):
    member(tmp_path, "seed=1")
    assert member(tmp_path, "seed=1", "sweep.margin=10", "sweep.cv_tolerance=0.1") is not None
    assert Board(tmp_path).notes()["seed-1"].outcome == "skipped"


def test_what_goes_wrong_before_a_job_runs_is_its_own_failure(tmp_path, capsys):
    member(tmp_path, "seed=1")
    told = facts(tmp_path / "seed-1")
    del told["numerics"]
    (tmp_path / "seed-1" / "run.json").write_text(json.dumps(told))
    assert member(tmp_path, "seed=1") is None
    assert Board(tmp_path).notes()["seed-1"] == ("failed", "KeyError: 'numerics'")


def test_a_summary_that_cannot_be_written_hides_no_jobs_fate(tmp_path, monkeypatch, capsys):
    def refresh(folder):
        raise OSError("the disk is full")

    monkeypatch.setattr("hieros_repro.sweep.summary.refresh", refresh)
    assert member(tmp_path, "seed=1") is not None
    monkeypatch.setattr(Mortal, "taken", 0)
    monkeypatch.setenv("DIE_AT", "33")
    monkeypatch.setenv("DIE_BY", str(int(signal.SIGTERM)))
    with pytest.raises(Stopped):
        member(tmp_path, "seed=2", *chosen(Mortal))
    told = capsys.readouterr().err
    assert told.count(f"error: the summary of {tmp_path} could not be written: OSError: the disk is full") == 2


def test_once_the_word_to_stop_is_given_no_job_starts(tmp_path):
    Board(tmp_path).stop()
    assert member(tmp_path, "seed=1") is None
    assert not (tmp_path / "seed-1").exists()


def test_a_job_under_way_stops_when_the_word_is_given_and_goes_on_when_it_is_taken_back(tmp_path, monkeypatch):
    """The word comes from another process, here from the environment at its 333rd step."""
    monkeypatch.setattr(Mortal, "taken", 0)
    monkeypatch.setattr("tests.envs.os.kill", lambda *ignored: Board(tmp_path).stop())
    monkeypatch.setenv("DIE_AT", "333")
    monkeypatch.setenv("DIE_BY", "0")
    with pytest.raises(Stopped):
        member(tmp_path, "seed=1", *chosen(Mortal))
    assert Board(tmp_path).notes()["seed-1"].outcome == "stopped"
    assert facts(tmp_path / "seed-1")["status"] == "stopped"
    Board(tmp_path).clear()
    assert member(tmp_path, "seed=1", *chosen(Mortal)) is not None
    run(tmp_path / "alone", "seed=1", *chosen(Mortal))
    assert unequal_files(tmp_path / "alone", tmp_path / "seed-1") == []


def test_a_sweep_names_the_folders_of_its_runs(tmp_path):
    done = swept(tmp_path, "seed=1,2", "run.dir=mine")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "run.dir: a sweep names the folders of its runs" in done.stderr


def test_a_wrong_value_for_a_launcher_is_one_clear_line(tmp_path):
    done = swept(tmp_path, "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=abc")
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "hydra.launcher.n_jobs=abc" in done.stderr
    assert "'abc' of type 'str' could not be converted to Integer" in done.stderr
    assert "Traceback" not in done.stderr


# -- Names and notes -----------------------------------------------------------------------------------------------------


def laid_out(*typed):
    with composer() as composed:
        jobs, parsed = jobs_of("train", list(typed), multirun=True)
        config = composed(config_name="train", overrides=jobs[0])
        node = hydras("train", list(typed), [])
    return layout.lay_out(layout.Asked(list(typed), parsed, jobs, [OmegaConf.to_container(config, resolve=True)], node))


def test_a_sweeps_folder_follows_from_what_was_asked_seeds_aside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, _ = laid_out("seed=1,2", "agent.clip=0.1")
    assert first.parent == tmp_path / "outputs" / "sweeps"
    assert re.fullmatch(r"cartpole-v1-ppo-[0-9a-f]{8}", first.name)
    assert laid_out("seed=3,4,5", "agent.clip=0.1", "log=quiet", "hydra/launcher=joblib")[0] == first
    assert laid_out("seed=1,2", "agent.clip=0.3")[0] != first
    assert laid_out("seed=1,2", "sweep.name=my sweep")[0].name.startswith("my-sweep-")


def test_a_job_is_grouped_by_the_axes_of_the_start_that_it_came_from(tmp_path):
    folder, _ = laid_out("agent=ppo,random", "seed=100", f"sweep.dir={tmp_path / 'sweep'}")
    laid_out("agent=ppo", "seed=100,200", f"sweep.dir={tmp_path / 'sweep'}")
    assert Board(folder).facts()["job_axes"] == {
        "agent-ppo": ["agent"], "agent-random": ["agent"], "seed-100": ["seed"], "seed-200": ["seed"],
    }  # fmt: skip


def test_a_jobs_folder_says_its_values_and_never_its_number():
    assert layout.job_name(["agent.clip=0.1", "run.steps=5", "seed=3"], ["seed", "agent.clip"]) == "seed-3_agent.clip-0.1"


def test_a_folders_name_stays_within_what_file_systems_take():
    names = {layout.job_name([f"{'a' * 150}=1", f"b={'2' * n}"], ["a" * 150, "b"]) for n in (100, 101)}
    assert len(names) == 2
    assert {len(name) for name in names} == {layout.LONGEST + 7}


def test_values_that_look_alike_in_a_name_stay_apart():
    names = {layout.job_name([f"agent.hidden={v}"], ["agent.hidden"]) for v in ("[6,4]", "[6 4]", "[6;4]")}
    assert len(names) == 3
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


@pytest.mark.parametrize(
    ("typed", "close"),
    [
        (["seed=42,123,456"], None),
        (["seed=42,43"], (42, 43)),
        (["seed=9,1"], None),
        (["seed=8,1"], (1, 8)),
        (["seed=42,43", "determinism.env_seeds=keyed"], None),
        (["seed=1,4", "env.num_envs=2"], None),
    ],
)
def test_seeds_closer_than_the_environments_are_pointed_out(tmp_path, monkeypatch, capsys, typed, close):
    monkeypatch.chdir(tmp_path)
    laid_out(*typed)
    said = capsys.readouterr().out
    assert ("closer than" in said) == (close is not None)
    assert close is None or f"seeds {close[0]} and {close[1]} are closer than the 8 environments" in said


@pytest.mark.parametrize(("wanted", "threads", "told"), [(2, 1, []), (8, 1, [4]), (-1, 1, [4]), (2, 3, [1]), (1, 3, [])])
def test_parallel_jobs_are_lowered_to_the_cores_and_threads_never(tmp_path, monkeypatch, wanted, threads, told):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    asked = ["seed=100,200", "hydra/launcher=joblib", f"hydra.launcher.n_jobs={wanted}", f"hardware.threads={threads}"]
    found = [o for o in laid_out(*asked)[1] if o.startswith(("hydra.launcher", "hardware"))]
    assert found == [f"hydra.launcher.n_jobs={n}" for n in told]
