import json
import os
import subprocess
import sys

import numpy as np
import pytest
import yaml

from hieros_repro import dataset as verb
from hieros_repro import help
from hieros_repro.check import check
from hieros_repro.recording import PAGE, record
from hieros_repro.records import ConfigError, Failed, UserError
from hieros_repro.replay.dataset import Dataset
from tests.envs import PLUGIN
from tests.replay.recorded import written
from tests.runs import ROOT, command, compose, environment, facts, process, run

RANDOM = ("env=cartpole", "agent=random", "episodes=9", "seed=1", "env.num_envs=4")


def recorded(out, *overrides):
    typed = [f"out={out}", *overrides]
    return record(compose(*typed, name="dataset"), typed)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("known") / "random", *RANDOM)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def typed(monkeypatch, capsys):
    """The program in this process: exit code, output, errors."""

    def asked(*arguments):
        monkeypatch.setattr(sys, "argv", ["hieros-dataset", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            verb.main()
        return left.value.code, *capsys.readouterr()

    return asked


# -- record --------------------------------------------------------------------------------------------------------------


def test_the_same_configuration_and_seed_give_the_same_dataset(known, tmp_path):
    assert recorded(tmp_path / "again", *RANDOM).digest == known.digest
    assert recorded(tmp_path / "processes", *RANDOM, "env.processes=2").digest == known.digest
    assert recorded(tmp_path / "seed", *RANDOM[:3], "seed=2", "env.num_envs=4").digest != known.digest


def test_what_was_recorded_is_whole_and_says_where_it_came_from(known):
    known.verify()
    source = known.content["source"]
    assert (source["env"]["id"], source["agent"]["hold"], source["seed"], source["greedy"]) == ("CartPole-v1", 1, 1, False)
    assert known.count == 9 and all(e.terminal and e.score == e.length for e in known.episodes)
    assert {"created", "code", "machine", "packages", "hardware"} <= set(known.manifest["made"])


def test_episodes_begin_alike_however_many_environments_play(known, tmp_path):
    other = recorded(tmp_path / "other", *RANDOM[:4], "env.num_envs=2")
    assert [e.seed for e in other.episodes] == [e.seed for e in known.episodes]
    first = [[next(iter(rows["obs.vector"])).tolist() for rows in found.rows()] for found in (known, other)]
    assert first[0] == first[1] and other.digest != known.digest


def test_an_untrained_agent_can_be_recorded(tmp_path):
    found = recorded(tmp_path / "ppo", "agent=ppo", "episodes=2", "agent.hidden=[8]")
    assert found.content["source"]["agent"]["hidden"] == [8] and found.content["source"]["trained"] is None


def test_a_trained_policy_plays_in_the_environment_of_its_run(finished, tmp_path):
    found = recorded(tmp_path / "a", f"run={finished}", "episodes=3", "greedy=true", "env.num_envs=3")
    told = found.content["source"]["trained"]
    assert (told["step"], told["seed"]) == (facts(finished)["results"]["step"], 42)
    assert told["parameters"] == facts(finished)["digests"]["parameters"]
    assert found.manifest["made"]["run"] == str(finished) and found.content["source"]["env"]["num_envs"] == 3
    best = recorded(tmp_path / "b", f"run={finished}", "episodes=3", "greedy=true", "checkpoint=best", "env.num_envs=3")
    assert best.content["source"]["trained"]["parameters"] != told["parameters"]
    assert [e.seed for e in best.episodes] == [e.seed for e in found.episodes]


def test_a_run_brings_its_own_environment_and_agent(finished, tmp_path):
    for override in ("env=pinpad", "agent=random", "env.action_repeat=2", "hardware.threads=2"):
        with pytest.raises(UserError, match=rf"{override.partition('=')[0]}: with run= the run's own is used"):
            recorded(tmp_path / "new", f"run={finished}", override)
    assert not (tmp_path / "new").exists()


def test_an_occupied_place_is_refused_before_anything_is_played(known, monkeypatch):
    monkeypatch.setattr("hieros_repro.build.recipe", lambda node: pytest.fail("it was built"))
    with pytest.raises(UserError, match="there is something already"):
        recorded(known.path, *RANDOM)


def test_a_recording_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("hieros_repro.env.gymnasium.Gymnasium.step", lambda *a: ({"vector": np.zeros(4)}, np.nan, False, False))
    with pytest.raises(Failed, match="paid nan"):
        recorded(tmp_path / "new", *RANDOM, PLUGIN)
    assert list(tmp_path.iterdir()) == []


def test_the_page_composes_and_needs_a_place():
    assert check(compose("out=some/where", name="dataset"), PAGE)["episodes"] == 100
    with pytest.raises(ConfigError, match="out: a value is needed"):
        check(compose(name="dataset"), PAGE)


# -- verify, stats -------------------------------------------------------------------------------------------------------


def test_an_intact_dataset_is_told_with_its_version(typed, known):
    code, said, _ = typed("verify", known.path)
    assert code == 0 and f"intact, version {known.version}, 9 episodes" in said


def test_a_damaged_one_is_exit_code_1_and_its_file_is_named(typed, tmp_path):
    path = written(tmp_path / "known").path
    (path / "rows-000001.npz").write_bytes(b"?")
    code, said, _ = typed("verify", path)
    assert code == 1 and said.startswith(f"damaged: {path / 'rows-000001.npz'}: 1 bytes instead of")
    assert typed("stats", path)[0] == 2


def test_what_is_no_dataset_is_exit_code_2(typed, tmp_path):
    code, _, complaint = typed("verify", tmp_path / "nowhere")
    assert code == 2 and complaint == f"error: {tmp_path / 'nowhere'}: not a dataset (it has no manifest.json)\n"


def test_statistics_are_tables_for_people_and_json_for_programs(typed, known):
    said = typed("stats", known.path)[1]
    assert "| return" in said and "| obs.vector" in said and "! reward: constant, always 1" in said
    told = json.loads(typed("stats", known.path, "--json")[1])
    assert told["sha256"] == known.digest and told["return"]["max"] == max(e.score for e in known.episodes)


# -- split, folds --------------------------------------------------------------------------------------------------------


def test_a_split_is_kept_and_serves_by_name(typed, tmp_path):
    path = written(tmp_path / "known", [2] * 10).path
    shares = ("--train", 0.8, "--val", 0.1, "--test", 0.1)
    code, said, _ = typed("split", path, *shares, "--seed", 1)
    assert code == 0 and "train               8 episodes, 16 steps" in said and str(path / "splits.json") in said
    assert [len(list(Dataset.open(path).rows(part))) for part in ("train", "val", "test")] == [8, 1, 1]
    assert "was there already, the same" in typed("split", path, *shares, "--seed", 1)[1]
    code, _, complaint = typed("split", path, *shares, "--seed", 2)
    assert code == 2 and "--replace replaces them" in complaint
    assert typed("split", path, *shares, "--seed", 2, "--replace")[0] == 0
    assert "9 parts" not in typed("verify", path)[1] and "3 parts" in typed("verify", path)[1]
    assert typed("split", path, "--train", 0.5, "--val", 0.1, "--test", 0.1, "--seed", 1)[0] == 2


def test_a_split_of_a_dataset_that_was_made_anew_is_refused(typed, tmp_path):
    old, new = written(tmp_path / "old"), written(tmp_path / "new", (3, 1, 2, 5))
    typed("split", old.path, "--train", 0.5, "--val", 0.5, "--test", 0, "--seed", 1)
    (new.path / "splits.json").write_bytes((old.path / "splits.json").read_bytes())
    with pytest.raises(UserError, match=f"made for the dataset {old.version}, this is {new.version}: split it anew"):
        next(new.rows("train"))


def test_folds_are_kept_and_serve_by_name(typed, tmp_path):
    path = written(tmp_path / "known", [1] * 6).path
    code, said, _ = typed("folds", path, "--k", 3, "--repeats", 2, "--seed", 1)
    assert code == 0 and "fold-1/val          2 episodes" in said
    assert len(list(Dataset.open(path).rows("fold-6/val"))) == 2
    code, said, complaint = typed("stats", path, "--part", "fold-7/val")
    assert code == 2 and "no part 'fold-7/val'; there are fold-1/train" in complaint


# -- preprocess ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def pair(typed, tmp_path):
    """A dataset and what a pipeline made of it."""
    parent = written(tmp_path / "parent")
    (tmp_path / "steps.yaml").write_text("- select: {min_length: 2}\n- one_hot\n")
    code, said, _ = typed("preprocess", parent.path, "--out", tmp_path / "new", "--steps", tmp_path / "steps.yaml")
    assert code == 0 and "1 of 4 episodes were left out" in said
    return parent, Dataset.open(tmp_path / "new")


def test_a_pipeline_is_run_again_and_gives_the_same(typed, pair, tmp_path, monkeypatch):
    assert pair[1].content["pipeline"][0]["steps"] == [{"select": {"min_length": 2}}, {"one_hot": {}}]
    monkeypatch.chdir(tmp_path)
    code, said, _ = typed("preprocess", "--again", "new")
    assert code == 0 and f"the same again, version {pair[1].version}" in said
    assert {path.name for path in tmp_path.iterdir()} == {"parent", "new", "steps.yaml"}


def test_a_parent_that_moved_is_found_where_it_is_said_to_be(typed, pair, tmp_path):
    pair[0].path.rename(tmp_path / "moved")
    assert typed("preprocess", "--again", pair[1].path)[0] == 2
    assert typed("preprocess", "--again", pair[1].path, "--parent", tmp_path / "moved")[0] == 0


def test_another_parent_is_refused(typed, pair, tmp_path):
    other = written(tmp_path / "other", (3, 3))
    code, _, complaint = typed("preprocess", "--again", pair[1].path, "--parent", other.path)
    assert code == 2 and f"but {pair[1].path} was made from version {pair[0].version}" in complaint


def test_a_step_that_computes_otherwise_than_it_did_is_found(typed, pair, monkeypatch):
    from hieros_repro.replay.preprocess import OneHot

    right = OneHot.episode
    monkeypatch.setattr(OneHot, "episode", lambda *given: {**(found := right(*given)), "reward": found["reward"] * 2})
    code, said, _ = typed("preprocess", "--again", pair[1].path)
    assert code == 1 and "NOT the same" in said and "first difference: rows-000000.npz" in said


def test_a_dataset_that_was_recorded_cannot_be_made_again(typed, pair):
    code, _, complaint = typed("preprocess", "--again", pair[0].path)
    assert code == 2 and "it was not made by preprocess" in complaint


def test_every_fault_of_a_pipeline_is_named_at_once(tmp_path):
    path = tmp_path / "steps.yaml"
    wrong = [{"selct": {}}, {"sample": {"share": 1.5}}, {"clip_reward": {"low": "a", "hihg": 1}}, [1], {"drop": 3}]
    path.write_text(yaml.safe_dump(wrong))
    with pytest.raises(ConfigError) as caught:
        verb.pipeline(path)
    said = dict(caught.value.faults)
    assert said["step 1"].startswith("there is no step 'selct'") and said["step 1"].endswith("did you mean select?")
    assert said["step 2 sample.share"] == "1.5 is not allowed; it must be a number between 0 and 1"
    assert said["step 2 sample.seed"] == "missing; it must be an integer at least 0"
    assert said["step 3 clip_reward.hihg"] == "unknown key; did you mean high?"
    assert {"step 3 clip_reward.low", "step 3 clip_reward.high", "step 4", "step 5 drop"} <= set(said)


@pytest.mark.parametrize(
    ("text", "said"), [("a: b", "a list of steps"), ("[", "not YAML"), (None, "cannot be read"), ("", "list")]
)
def test_a_file_that_is_no_pipeline_is_refused(tmp_path, text, said):
    if text is not None:
        (tmp_path / "steps.yaml").write_text(text)
    with pytest.raises(UserError, match=said):
        verb.pipeline(tmp_path / "steps.yaml")


def test_what_is_missing_to_preprocess_is_named(typed, pair):
    code, _, complaint = typed("preprocess", pair[0].path)
    assert code == 2 and "missing: out, steps" in complaint


# -- Minari --------------------------------------------------------------------------------------------------------------


def test_a_dataset_goes_to_minari_and_comes_back_with_its_version(typed, known, tmp_path, monkeypatch):
    pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    code, said, _ = typed("export-minari", known.path, "--id", "cartpole/random-v0")
    assert code == 0 and str(tmp_path / "minari" / "cartpole" / "random-v0") in said
    code, said, _ = typed("import-minari", "cartpole/random-v0", "--out", tmp_path / "back")
    assert code == 0 and f"version {known.version}" in said
    assert typed("import-minari", "cartpole/random-v1", "--out", tmp_path / "none")[0] == 2


# -- As a program --------------------------------------------------------------------------------------------------------


def test_recording_and_verifying_as_programs(known, tmp_path):
    done = process("dataset", "record", "out=new", *RANDOM, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"version {known.version}, SHA-256 {known.digest}" in done.stdout
    assert os.listdir(tmp_path) == ["new"]
    path = tmp_path / "new" / "episodes.jsonl"
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    done = process("dataset", "verify", "new", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, "") and "damaged: new/episodes.jsonl" in done.stdout


@pytest.mark.slow
def test_a_recording_that_cannot_be_is_exit_code_2(tmp_path):
    done = process("dataset", "record", "out=new", "env=cartpol", "episodes=0", cwd=tmp_path)
    assert done.returncode == 2 and "did you mean cartpole?" in done.stderr and "episodes: 0 is not allowed" in done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "name", ["record", "verify", "stats", "split", "folds", "preprocess", "import-minari", "export-minari"]
)
def test_every_command_has_its_help(typed, name):
    code, said, _ = typed(name, "--help")
    assert code == 0 and len(said.splitlines()) > 5


def test_every_key_of_record_has_its_meaning():
    keys = list(help._keys(ROOT / "conf" / "dataset.yaml", ""))
    assert {key for key, *_ in keys} == set(PAGE.settings)
    assert [key for key, _, comment in keys if not comment] == []


def test_help_answers_without_importing_torch(tmp_path):
    asked = [sys.executable, "-X", "importtime", *command("dataset", "record", "--help")[1:]]
    done = subprocess.run(asked, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0 and "hydra" in imported and "  episodes = 100 " in done.stdout
    assert imported & {"torch", "gymnasium", "scipy", "minari"} == set()
