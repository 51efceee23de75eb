import errno
import importlib.metadata
import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from hieros_repro.command import choices
from hieros_repro.records import Damaged, UserError
from hieros_repro.run import checkpoint, recorder
from hieros_repro.train import train
from tests.runs import SHORT_DQN, compose, facts, run, stopped


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("finished") / "run")


def test_the_account_of_a_finished_run_is_complete(finished):
    told = facts(finished)
    assert told["status"] == "finished" and told["seed"] == 42 and told["error"] is None and told["parent"] is None
    assert told["restarts"] == 0 and told["wall_seconds"] > 0 and told["started"] <= told["ended"]
    assert set(told["results"]) >= {"step", "updates", "eval/score", "eval/score_std", "eval/episodes", "scores"}
    assert len(told["results"]["scores"]) == 3 == told["results"]["eval/episodes"]
    assert told["results"]["eval/score"] == pytest.approx(sum(told["results"]["scores"]) / 3)
    assert {"commit", "branch", "changed", "sources"} <= set(told["code"]) and len(told["digests"]["parameters"]) == 16
    assert told["numerics"]["packages"]["torch"] == told["packages"]["torch"] == importlib.metadata.version("torch")
    assert told["machine"]["cores"] >= 1 and told["nondeterministic_operations"] == []
    assert told["spaces"]["action"]["sizes"] == [2] and told["spaces"]["observation"]["vector"]["shape"] == [4]


def test_the_account_counts_the_parameters(finished):
    towers = 2 * (4 * 16 + 16 + 16 * 16 + 16)
    assert facts(finished)["parameters"] == towers + (16 * 2 + 2) + (16 + 1)


def test_the_folder_has_what_was_asked_and_what_it_came_to(finished):
    asked, config = (yaml.safe_load((finished / name).read_text()) for name in ("overrides.yaml", "config.yaml"))
    assert "run.steps=600" in asked and f"run.dir={finished}" in asked
    assert config["run"]["steps"] == config["run"]["horizon"] == 600 and config["agent"]["hidden"] == [16, 16]
    expected = {"config.yaml", "overrides.yaml", "run.json", "code.patch", "checkpoints", "console.log"}
    assert expected | {f"{name}.jsonl" for name in ("metrics", "timing", "episodes", "ledger")} <= {
        p.name for p in finished.iterdir()
    }


def test_a_failed_run_says_what_went_wrong_and_how_to_go_on(tmp_path, monkeypatch):
    from hieros_repro.agent.ppo import PPO

    learn = PPO.learn

    def broken(self, batches, noise, step):
        if step > 300:
            raise ZeroDivisionError("what a pity")
        return learn(self, batches, noise, step)

    monkeypatch.setattr(PPO, "learn", broken)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "run")
    told, said = facts(tmp_path / "run"), (tmp_path / "run" / "console.log").read_text()
    assert (
        told["status"] == "failed" and told["error"]["kind"] == "ZeroDivisionError" and told["error"]["text"] == "what a pity"
    )
    assert "in broken" in told["error"]["traceback"]
    assert f"resume={tmp_path / 'run'}" in said and f"step {checkpoint.steps(tmp_path / 'run' / 'checkpoints')[-1]}" in said


def test_a_run_whose_checkpoints_cannot_fit_is_refused_before_it_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "free_gb", lambda path: 0.0)
    with pytest.raises(
        UserError,
        match=rf"run.dir={tmp_path / 'run'}: 4 checkpoints and the replay need about .* GB and 0.0 GB are free; lower",
    ):
        run(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_full_disk_is_said_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    write_text = type(tmp_path).write_text

    def full(path, text, *rest, **others):
        if path.name == "manifest.json" and '"name": "step_30' in text:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_text(path, text, *rest, **others)

    monkeypatch.setattr(type(tmp_path), "write_text", full)
    with pytest.raises(UserError, match=r"checkpoints: the disk is full, so the checkpoint of step 30\d was not kept"):
        run(tmp_path / "run")
    folder = tmp_path / "run" / "checkpoints"
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert checkpoint.newest(folder, pytest.fail) == checkpoint.steps(folder)[-1] < 300
    assert facts(tmp_path / "run")["status"] == "failed"


def test_another_error_of_the_disk_is_not_called_full(tmp_path, monkeypatch):
    def broken(*arguments):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(checkpoint, "save", broken)
    with pytest.raises(OSError, match="Input/output error"):
        run(tmp_path / "run")


def test_the_size_of_a_tree_is_that_of_its_arrays():
    tensors = [torch.zeros(4, dtype=torch.float64), torch.zeros(5, dtype=torch.uint8)]
    assert recorder.size({"a": np.zeros((2, 3), np.float32), "b": tensors}) == 24 + 32 + 5
    assert recorder.size((1, 2.0, "x")) == 24 and recorder.size({}) == 0


def test_the_account_is_readable_json_without_numbers_that_json_lacks(finished):
    json.loads((finished / "run.json").read_text(), parse_constant=pytest.fail)


# -- Runs that go on ---------------------------------------------------------------------------------------------------


def test_what_a_run_has_written_itself_takes_no_room_again(tmp_path, monkeypatch):
    """Four checkpoints of a MiB each: a run that starts needs all of it, one that goes on only the rest."""
    monkeypatch.setattr(recorder, "size", lambda tree: 2**20)
    monkeypatch.setattr(recorder, "free_gb", lambda path: (4 * 2**20 - 1) / 2**30)
    with pytest.raises(UserError, match="4 checkpoints and the replay need about"):
        run(tmp_path / "refused")
    monkeypatch.setattr(recorder, "free_gb", lambda path: 1.0)
    folder = stopped(tmp_path / "run", 200)
    written = sum(path.stat().st_size for path in (folder / "checkpoints").rglob("*") if path.is_file())
    assert written > 10_000
    monkeypatch.setattr(recorder, "free_gb", lambda path: (4 * 2**20 - 2 * written) / 2**30)
    with pytest.raises(UserError, match="4 checkpoints and the replay need about"):
        run(folder, "resume=auto")
    monkeypatch.setattr(recorder, "free_gb", lambda path: (4 * 2**20 - written) / 2**30)
    assert facts(run(folder, "resume=auto"))["status"] == "finished"


def damage(folder):
    """Takes a byte off the last file that the newest checkpoint names."""
    newest = folder / "checkpoints" / f"step_{checkpoint.steps(folder / 'checkpoints')[-1]}"
    path = folder / "replay" / "windows" / checkpoint.replay_files(newest)["windows"][-1].name
    path.write_bytes(path.read_bytes()[:-1])


def go_on(folder, *overrides):
    """As the program does it where nothing else is typed."""
    typed = [f"resume={folder}", f"run.dir={folder}", *overrides]
    train(compose(*choices(typed), *typed), typed)
    return facts(folder)["status"]


def test_to_go_on_without_damaged_files_is_agreed_to_once(tmp_path, swift):
    folder = stopped(tmp_path / "run", 100, "run.keep_last=1", usual=SHORT_DQN)
    for more in ("run.steps=700", "run.steps=800"):
        damage(folder)
        with pytest.raises(Damaged):
            go_on(folder, more)
        assert go_on(folder, more, "replay.recover=true") == "finished"
        assert yaml.safe_load((folder / "config.yaml").read_text())["replay"]["recover"] is False


@pytest.mark.parametrize("missing", ["overrides.yaml", "code.patch", "run.json"])
def test_a_refused_run_lacks_again_what_it_lacked_and_one_that_goes_on_has_it(tmp_path, swift, missing):
    folder = stopped(tmp_path / "run", 100, usual=SHORT_DQN)
    (folder / missing).unlink()
    foreign = folder / "replay" / "windows" / "notes.txt"
    foreign.write_text("mine")
    account = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in recorder.ACCOUNT}
    assert set(recorder.ACCOUNT) - set(account) == {missing}
    with pytest.raises(Damaged, match=f"{foreign}: not part of this replay"):
        run(folder, "resume=auto", "run.steps=900", usual=SHORT_DQN)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in recorder.ACCOUNT} == account
    foreign.unlink()
    assert facts(run(folder, "resume=auto", usual=SHORT_DQN))["status"] == "finished"
    assert set(recorder.ACCOUNT) <= {path.name for path in folder.iterdir()}


def test_a_run_whose_logs_cannot_be_opened_when_it_is_to_go_on_is_as_it_was(tmp_path, swift, monkeypatch):
    folder = stopped(tmp_path / "run", 100, usual=SHORT_DQN)
    account = {path.name: path.read_bytes() for path in folder.iterdir() if path.name in recorder.ACCOUNT}

    def refuses(*_):
        raise RuntimeError("nobody has logged in")

    monkeypatch.setattr("hieros_repro.log.base.Log.__init__", refuses)
    with pytest.raises(RuntimeError, match="nobody has logged in"):
        run(folder, "resume=auto", "run.steps=900", usual=SHORT_DQN)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name in recorder.ACCOUNT} == account


def test_a_run_that_is_begun_anew_says_once_what_was_typed_for_it(tmp_path):
    typed = stopped(tmp_path / "run", 20, "run.checkpoint_every=0")
    for path in (typed / "checkpoints").iterdir():
        shutil.rmtree(path)
    run(typed, "run.checkpoint_every=0", "resume=auto")
    keys = [override.partition("=")[0] for override in yaml.safe_load((typed / "overrides.yaml").read_text())]
    assert len(keys) == len(set(keys)) > 5
    assert recorder.once(["agent=ppo", "agent.clip=0.1", "seed=1", "agent=ppo", "+agent.clip=0.3", "seed=1"]) == [
        "agent=ppo", "+agent.clip=0.3", "seed=1",
    ]  # fmt: skip
    assert recorder.once(["a={x: 1}", "a={y: 2}", "~b", "b=1"]) == ["a={x: 1}", "a={y: 2}", "~b", "b=1"]
