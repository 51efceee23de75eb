"""What sinks are told when a run has finished: what was chosen, and what it came to."""

import json
from types import SimpleNamespace

import pytest
import yaml

from hieros_repro.log.base import outcome
from hieros_repro.log.wandb import WandB
from tests.runs import facts, run, stopped

TYPED = [
    "agent=ppo",
    "seed=3",
    "+agent.extra=0.5",
    "agent.hidden=[16,16]",
    "run.dir=x",
    "log.tensorboard=true",
    "~gone",
    "agent.on=true",
]


def account(folder, **changes):
    plain = {"status": "finished", "seed": 3, "results": {"eval/score": 1.5, "convergence_step": None, "scores": [1.0, 2.0]}}
    (folder / "run.json").write_text(json.dumps(plain | changes))
    (folder / "overrides.yaml").write_text(yaml.safe_dump(TYPED))
    return folder


def test_chosen_is_what_was_typed_as_plain_values(tmp_path):
    chosen, results = outcome(account(tmp_path))
    assert chosen == {"agent": "ppo", "seed": 3, "agent.extra": 0.5, "agent.hidden": "[16,16]", "agent.on": True}
    assert results == {"eval/score": 1.5}


@pytest.mark.parametrize("status", ["running", "failed", "stopped"])
def test_only_a_finished_run_came_to_something(tmp_path, status):
    assert outcome(account(tmp_path, status=status)) is None


def test_a_folder_without_an_account_is_no_run(tmp_path):
    assert outcome(tmp_path) is None


def hparams(folder):
    """(chosen, metrics, ends) as the tab HParams reads them from the event files."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    content = found.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(content["_hparams_/session_start_info"])
    experiment = metadata.parse_experiment_plugin_data(content["_hparams_/experiment"])
    plain = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.hparams.items()}
    metrics = {info.name.tag: found.Scalars(info.name.tag) for info in experiment.metric_infos}
    return plain, metrics, "_hparams_/session_end_info" in content


def test_tensorboard_compares_runs_by_what_was_chosen(tmp_path):
    folder = run(tmp_path / "run", "log.tensorboard=true", "seed=7", "agent.learning_rate=0.002")
    chosen, metrics, ended = hparams(folder)
    assert (chosen["seed"], chosen["agent.learning_rate"], chosen["run.steps"]) == (7.0, 0.002, 600.0) and ended
    assert not any(key.startswith(("log", "run.dir")) for key in chosen)
    [score] = metrics["results/eval/score"]
    assert (
        score.value == pytest.approx(facts(folder)["results"]["eval/score"]) and score.step == facts(folder)["results"]["step"]
    )
    assert len(list((folder / "tensorboard").iterdir())) == 1  # no folder that is named by the clock


def test_a_run_that_was_stopped_and_continued_ends_like_another(tmp_path):
    whole = run(tmp_path / "whole", "log.tensorboard=true")
    broken = stopped(tmp_path / "broken", 20, "log.tensorboard=true")
    assert outcome(broken) is None
    run(tmp_path / "broken", f"resume={broken}", usual=())
    (chosen, metrics, _), (again, same, _) = hparams(whole), hparams(broken)
    assert chosen == again
    assert {tag: [e.value for e in events] for tag, events in metrics.items()} == {
        tag: [e.value for e in events] for tag, events in same.items()
    }


def test_weights_and_biases_gets_a_summary():
    told = {"config": {}, "summary": {}}
    sink = WandB.__new__(WandB)
    sink._run = SimpleNamespace(
        config=SimpleNamespace(update=lambda values, allow_val_change: told["config"].update(values)),
        summary=SimpleNamespace(update=told["summary"].update),
    )
    sink.end({"seed": 3}, {"eval/score": 1.5})
    assert told == {"config": {"chosen": {"seed": 3}}, "summary": {"results/eval/score": 1.5}}
