import json

import pytest

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.evaluate import evaluate
from hieros_repro.run import checkpoint
from tests.runs import compose, facts, run
from tests.worlds import world


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("finished") / "run")


def evaluated(finished, out, *overrides):
    score = evaluate(compose(f"run={finished}", f"out={out}", "video=false", *overrides, name="evaluate"))
    return score, json.loads((out / "evaluation.json").read_text())


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_numbers_are_those_of_the_runs_own_final_evaluation(finished, tmp_path):
    score, told = evaluated(finished, tmp_path, "episodes=3")
    results = facts(finished)["results"]
    assert score == results["eval/score"] and told["scores"] == results["scores"] and told["step"] == results["step"]
    assert {name: told[name] for name in results if name.startswith("eval/")} == {
        name: value for name, value in results.items() if name.startswith("eval/")
    }


def test_the_run_folder_stays_as_it_is_byte_for_byte(finished, tmp_path):
    before = contents(finished)
    evaluated(finished, tmp_path / "out", "episodes=4", "greedy=false")
    assert contents(finished) == before


def test_the_best_checkpoint_repeats_its_scheduled_evaluation(finished, tmp_path):
    manifest = checkpoint.manifest(finished / "checkpoints" / "best")
    score, told = evaluated(finished, tmp_path, "checkpoint=best", "episodes=2")
    assert (score, told["step"]) == (manifest["score"], manifest["step"])


def test_drawn_actions_score_otherwise_than_greedy_ones(finished, tmp_path):
    greedy, drawn = (evaluated(finished, tmp_path / g, "episodes=5", f"greedy={g}")[1] for g in ("true", "false"))
    assert greedy["scores"] != drawn["scores"] and (greedy["greedy"], drawn["greedy"]) == (True, False)


def test_it_prints_the_score_and_where_the_numbers_are(finished, tmp_path, capsys):
    score, _ = evaluated(finished, tmp_path, "episodes=3")
    said = capsys.readouterr().out
    assert f": {score:.2f} +- " in said and "over 3 episodes" in said and str(tmp_path / "evaluation.json") in said


def test_a_video_is_one_episode_more(tmp_path):
    folder = run(tmp_path / "run", *world("Clock"), "run.steps=60", "run.eval_every=0")
    evaluate(compose(f"run={folder}", f"out={tmp_path / 'out'}", "episodes=1", "video_format=gif", name="evaluate"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"evaluation.json", "episode.gif"}


def test_evaluating_elsewhere_does_not_depend_on_what_was_evaluated_before(finished, tmp_path):
    first = evaluated(finished, tmp_path / "a", "episodes=4")[1]
    evaluated(finished, tmp_path / "b", "episodes=7", "greedy=false")
    assert digest_tree(evaluated(finished, tmp_path / "c", "episodes=4")[1]["scores"]) == digest_tree(first["scores"])
