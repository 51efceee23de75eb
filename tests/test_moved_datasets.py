"""Runs that learned from a dataset which is no longer where it was."""

import shutil

import numpy as np
import pytest
import yaml

import hieros_repro
from hieros_repro.command import choices
from hieros_repro.evaluate import evaluate
from hieros_repro.recording import record
from hieros_repro.records import UserError
from hieros_repro.train import train
from tests.runs import SHORT_DQN, assert_equal, compose, facts, run, stopped

pytestmark = pytest.mark.usefixtures("swift")

WAYS = {"alone": ("run.collect=false", "replay.dataset_share=1.0"), "mixed": ("replay.dataset_share=0.5",)}


def recorded(out, seed=1):
    typed = [f"out={out}", "agent=random", "episodes=6", "env=cartpole", f"seed={seed}", "env.num_envs=4"]
    return record(compose(*typed, name="dataset"), typed).path


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("data") / "random")


@pytest.fixture(scope="module", params=WAYS)
def finished(request, tmp_path_factory, data):
    """A run whose dataset is gone."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(data, folder / "data")
    run(folder / "run", f"replay.dataset={folder / 'data'}", *WAYS[request.param], usual=SHORT_DQN)
    shutil.rmtree(folder / "data")
    return folder / "run"


@pytest.fixture(params=WAYS)
def halted(request, tmp_path, data):
    """A run in its middle, and what it would have come to."""
    overrides = (f"replay.dataset={shutil.copytree(data, tmp_path / 'data')}", *WAYS[request.param])
    whole = run(tmp_path / "whole", *overrides, usual=SHORT_DQN)
    return stopped(tmp_path / "run", 150, *overrides, usual=SHORT_DQN), whole


def go_on(folder, *overrides):
    """As the program does it where nothing else is typed."""
    typed = [f"resume={folder}", f"run.dir={folder}", *overrides]
    train(compose(*choices(typed), *typed), typed)
    return folder


# -- Looked at ---------------------------------------------------------------------------------------------------------


def test_a_finished_run_is_loaded_and_acts_without_its_dataset(finished):
    assert hieros_repro.load(finished).act(np.zeros(4, np.float32)) in (0, 1)


def test_a_finished_run_is_evaluated_without_its_dataset(finished, tmp_path):
    score = evaluate(compose(f"run={finished}", f"out={tmp_path}", "video=false", "episodes=3", name="evaluate"))
    assert score == facts(finished)["results"]["eval/score"]


def test_a_finished_run_has_nothing_to_do_without_its_dataset(finished, capsys):
    before = (finished / "run.json").read_bytes()
    go_on(finished)
    assert (finished / "run.json").read_bytes() == before and str(finished) in capsys.readouterr().out


# -- Gone on with ------------------------------------------------------------------------------------------------------


def test_a_run_goes_on_from_where_its_dataset_is_now(tmp_path, halted):
    folder, whole = halted
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"replay\.dataset={tmp_path / 'data'}: .*not a dataset"):
        go_on(folder)
    assert_equal(whole, go_on(folder, f"replay.dataset={tmp_path / 'elsewhere'}"))
    assert yaml.safe_load((folder / "config.yaml").read_text())["replay"]["dataset"] == str(tmp_path / "elsewhere")
    assert "bit_comparable" not in facts(folder)


def test_a_dataset_with_another_content_is_refused_and_the_run_goes_on_with_its_own(tmp_path, halted):
    folder, whole = halted
    with pytest.raises(UserError, match=f"replay.dataset={tmp_path / 'other'}: its digest is .*the checkpoint learned from"):
        go_on(folder, f"replay.dataset={recorded(tmp_path / 'other', seed=2)}")
    assert_equal(whole, go_on(folder, f"replay.dataset={tmp_path / 'data'}"))


def test_a_run_is_extended_from_where_its_dataset_is_now(tmp_path, finished, data):
    mine = shutil.copytree(finished, tmp_path / "run")
    longer = go_on(mine, f"replay.dataset={data}", "run.steps=700")
    assert facts(longer)["status"] == "finished" and facts(longer)["results"]["step"] >= 700


def test_a_place_named_from_one_folder_is_found_from_another(tmp_path, data, monkeypatch):
    monkeypatch.chdir(data.parent)
    folder = stopped(tmp_path / "run", 150, "replay.dataset=random", usual=SHORT_DQN)
    assert yaml.safe_load((folder / "config.yaml").read_text())["replay"]["dataset"] == str(data.resolve())
    whole = run(tmp_path / "whole", f"replay.dataset={data}", usual=SHORT_DQN)
    monkeypatch.chdir(tmp_path)
    assert_equal(whole, go_on(folder))
