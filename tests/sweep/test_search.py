import json
import signal

import pytest

from hieros_repro.command import composer, jobs_of
from hieros_repro.records import ConfigError, UserError
from hieros_repro.sweep import search
from tests.envs import Mortal, chosen
from tests.runs import SHORT, facts, process, unequal_files

pytest.importorskip("hydra_plugins.hydra_optuna_sweeper")
TINY = (*(o for o in SHORT if not o.startswith("run.steps")), "run.steps=200", "run.final_episodes=1")
SEARCH = ("experiment=cartpole_search", *TINY, "sweep.dir=sweep", *chosen(Mortal))


def found(folder):
    """The trials in the order in which they were chosen, and their scores."""
    jobs = json.loads((folder / "sweep" / "sweep.json").read_text())["jobs"]
    return {name: facts(folder / "sweep" / name)["results"]["eval/score"] for name in jobs}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    done = process("train", "-m", *SEARCH, "hydra.sweeper.n_trials=3", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_trials_have_folders_named_by_their_values_and_are_listed_best_first(whole):
    folder, done = whole
    scores = found(folder)
    assert len(scores) == 3
    assert all(name.startswith("agent.learning_rate-") and "_agent.clip-0." in name for name in scores)
    page = (folder / "sweep" / "search.md").read_text()
    order = [line.split("|")[-2].strip() for line in page.splitlines() if "agent.learning_rate-" in line]
    assert [scores[name] for name in order] == sorted(scores.values(), reverse=True)
    assert "# Trials, best first (maximize eval/score)" in page
    assert "search of 3 trials" in done.stdout
    assert "1 of 3 finished" in done.stdout


@pytest.mark.slow
def test_the_same_search_elsewhere_has_the_same_trials_also_when_it_was_stopped_and_goes_on(whole, tmp_path):
    folder, _ = whole
    stopped = process(
        "train", "-m", *SEARCH, "hydra.sweeper.n_trials=3", cwd=tmp_path, DIE_AT="420", DIE_BY=str(int(signal.SIGTERM))
    )
    assert stopped.returncode == 75, stopped.stderr
    again = process("train", "-m", *SEARCH, "hydra.sweeper.n_trials=3", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert found(tmp_path) == found(folder)
    assert [unequal_files(folder / "sweep" / name, tmp_path / "sweep" / name) for name in found(folder)] == [[], [], []]


def test_a_search_needs_m(tmp_path):
    done = process("train", "experiment=cartpole_search", cwd=tmp_path)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "hydra/sweeper=optuna: a search has many runs, which needs -m" in done.stderr


def examples(*typed):
    with composer():
        return jobs_of("train", ["hydra/sweeper=optuna", *typed], multirun=True)


def test_of_a_search_both_ends_of_every_value_are_checked_beforehand():
    jobs, parsed = examples(
        "agent.clip=interval(0.1, 0.3)", "agent.epochs=range(2, 9)", "agent.entropy=choice(0.1, 0.2)", "seed=3"
    )
    assert jobs == [
        ["agent.clip=0.1", "agent.epochs=2", "agent.entropy=0.1", "seed=3"],
        ["agent.clip=0.3", "agent.epochs=8", "agent.entropy=0.2", "seed=3"],
    ]
    assert [o.key_or_group for o in parsed if o.is_sweep_override()] == ["agent.clip", "agent.epochs", "agent.entropy"]


def test_a_value_that_is_typed_is_not_searched_for():
    with composer():
        jobs, parsed = jobs_of("train", ["experiment=cartpole_search", "agent.clip=0.15"], multirun=True)
    assert [o.key_or_group for o in parsed if o.is_sweep_override()] == ["agent.learning_rate", "agent.entropy"]
    assert all("agent.clip=0.15" in job for job in jobs)


def test_a_range_without_steps_needs_a_search():
    with composer(), pytest.raises(ConfigError, match="needs hydra/sweeper=optuna"):
        jobs_of("train", ["agent.clip=interval(0.1, 0.3)"], multirun=True)


def test_the_trials_without_a_score_or_with_one_that_is_no_number_come_last(tmp_path):
    jobs = {}
    for name, score in (("a", float("nan")), ("b", 1.0), ("c", 2.0), ("d", None)):
        jobs[name] = ["x=1", "y=2"] if name == "b" else ["x=1"]
        (tmp_path / name).mkdir()
        results = {} if score is None else {"eval/score": score}
        (tmp_path / name / "run.json").write_text(json.dumps({"status": "finished", "results": results}))
    facts = {"metric": "eval/score", "axes": ["x", "y"], "search": "maximize", "jobs": jobs}
    (tmp_path / "sweep.json").write_text(json.dumps(facts))
    order = [line.split("|")[-2].strip() for line in search.trials(tmp_path).splitlines()[2:] if line.startswith("|")]
    assert order == ["c", "b", "a", "d"]


def test_how_a_search_chooses_is_part_of_what_it_is_and_how_long_it_lasts_is_not():
    asked = ["hydra.sweeper.sampler.seed=1", "hydra.sweeper.direction=minimize", "hydra.sweeper.n_trials=9", "agent.clip=1"]
    assert [search.chooses(override) for override in asked] == [True, True, False, False]


OPTUNA = "hydra_plugins.hydra_optuna_sweeper.optuna_sweeper.OptunaSweeper"


def test_what_could_not_be_repeated_is_refused():
    with pytest.raises(UserError, match=r"hydra.sweeper.sampler.seed: null is not allowed"):
        search.refuse_unrepeatable({"sweeper": {"_target_": OPTUNA, "sampler": {"seed": None}}}, [])
    with pytest.raises(UserError, match=r"hydra.sweeper.storage: a search goes on from its run folders"):
        search.refuse_unrepeatable({"sweeper": {"_target_": OPTUNA, "sampler": {"seed": 0}, "storage": "sqlite:///x"}}, [])
    with pytest.raises(UserError, match="seed: a search takes one"):
        search.refuse_unrepeatable({"sweeper": {"_target_": OPTUNA, "sampler": {"seed": 0}}}, examples("seed=1,2")[1])
    search.refuse_unrepeatable({"sweeper": {"_target_": OPTUNA, "sampler": {}}}, [])
