import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from hieros_repro import announce, build
from hieros_repro.check import check
from hieros_repro.command import composer
from hieros_repro.resume import Start
from tests.runs import SHORT_DIRECTOR, compose, run

RESULTS = {"step": 600, "eval/score": 12.34, "eval/score_std": 1.5, "eval/episodes": 3}


def changed(*overrides):
    with composer() as composed:
        return announce.non_default(check(composed(config_name="train", overrides=list(overrides))), list(overrides))


def test_values_that_are_not_the_groups_defaults_are_listed():
    found = changed("agent.epochs=3", "seed=7", "run.dir=somewhere")
    assert found == {"agent.epochs": (10, 3), "seed": (42, 7)}


def test_choosing_a_group_changes_no_value_of_it():
    assert changed("agent=random") == {} == changed("log=quiet")


def test_an_experiments_values_are_listed():
    assert "run.steps" in changed("experiment=smoke")


def test_without_hydra_nothing_is_listed():
    assert announce.non_default(check(compose("agent.epochs=3")), ["agent.epochs=3"]) == {}


def test_the_end_says_the_score_and_what_to_do_next():
    said = announce.end(Path("outputs/x"), RESULTS)
    assert "final score 12.3 +- 1.5 over 3 greedy episodes" in said
    for command in ("evaluate run=outputs/x", "verify claim=same_seed run=outputs/x", "train resume=outputs/x run.steps=1200"):
        assert f"python -m hieros_repro.{command}" in said
    assert "converged" not in said


def test_the_end_says_how_every_level_did_last(tmp_path):
    rows = [{"step": 1, "Subactor-0/entropy": 9.0}, {"step": 2, "Subactor-0/entropy": 0.5}, {"step": 3, "eval/score": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert announce.end(tmp_path, RESULTS).startswith("level       entropy\nSubactor-0      0.5\nfinal score")


def test_the_end_names_levels_that_have_not_learned(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "Subactor-0/entropy": 9.0}) + "\n")
    assert "\nSubactor-1: no update yet (" in announce.end(tmp_path, RESULTS, {"agent": {"max_hierarchy": 2}})
    assert "no update" not in announce.end(tmp_path, RESULTS, {"agent": {"max_hierarchy": 1}})
    assert "no update" not in announce.end(tmp_path, RESULTS, {"agent": {}})


@pytest.mark.parametrize("reached, words", [(4000, "converged   at step 4,000"), (None, "converged   not within this run")])
def test_the_end_says_whether_the_target_was_reached(reached, words):
    assert words in announce.end(Path("x"), {**RESULTS, "convergence_step": reached})


def test_a_run_that_is_finished_says_how_to_extend_it():
    start = Start(Path("x"), {}, None, None, True, {"results": RESULTS})
    said = announce.nothing_to_do(start)
    assert (
        "finished already, nothing is left to do; run.steps=<more than 600> extends it" in said and "final score 12.3" in said
    )


@pytest.mark.parametrize(
    "precision, compiled, words", [("fp32", "null", "fp32, eager"), ("bf16", "default", "bf16, compiled (default)")]
)
def test_the_facts_say_what_the_promise_rests_on(precision, compiled, words):
    plain = check(compose(f"hardware.precision={precision}", f"hardware.compile={compiled}"))
    facts = announce.facts(plain, build.construct(plain["hardware"]))
    assert facts["rests on"].endswith(words) and "torch 2." in facts["rests on"] and "1 thread(s)" in facts["rests on"]
    assert facts["promise"]


def test_the_start_says_the_folder_the_parameters_and_the_promise(tmp_path):
    said = (run(tmp_path / "run", "run.steps=70", "run.final_episodes=0") / "console.log").read_text()
    assert f"run folder  {tmp_path / 'run'}" in said and "parameters  755\n" in said and "promise     " in said
    assert "size        nano\n" in said and "\nmemory      " in said


def test_the_start_says_the_parameters_of_every_part(tmp_path):
    brief = ("run.steps=16", "run.final_episodes=0", "run.checkpoint_every=0")
    said = (run(tmp_path / "run", *brief, usual=SHORT_DIRECTOR) / "console.log").read_text()
    line = re.search(
        r"^parameters +([\d,]+): world ([\d,]+), goals ([\d,]+), worker ([\d,]+), manager ([\d,]+)$", said, re.MULTILINE
    )
    total, *parts = (int(number.replace(",", "")) for number in line.groups())
    assert total == sum(parts) and min(parts) > 0
    assert "\ncollecting  60 steps first (replay.min_size), then learning\n" in said


@pytest.mark.parametrize(
    ("replay", "first"),
    [
        (None, 0),
        ({"length": 32}, 0),
        ({"min_size": 60, "dataset": None, "dataset_share": 1.0}, 60),
        ({"min_size": 60, "dataset": "data", "dataset_share": 0.5}, 60),
        ({"min_size": 60, "dataset": "data", "dataset_share": 1.0}, 0),
    ],
)
def test_what_is_collected_before_learning_is_told_where_an_agent_waits_for_it(replay, first):
    assert announce._collected_first({"replay": replay}) == first


@pytest.mark.parametrize(
    "typed, name",
    [
        ((), "nano"),
        (("size=12m",), "12m"),
        (("size=cpu",), "nano"),
        (("experiment=pinpad_gpu",), "small"),
        (("experiment=director_paper",), "paper"),
        (("size.deter=99",), "none of those in conf/size"),
    ],
)
def test_a_size_is_named_by_its_values(typed, name):
    assert announce.size_name(dict(compose(*typed).size)) == name


def test_memory_is_told_part_by_part(monkeypatch):
    """2^20 steps of 3 numbers of 4 bytes, an action of 8 and 7 of reward and flags; on an accelerator 1 MiB of networks and
    twice that of moving averages; the program is the largest it has been, with networks if they are on the host."""
    replay = SimpleNamespace(room=lambda steps: steps * (3 * 4 + 8 + 7))
    agent = SimpleNamespace(parameters=lambda: {"a": torch.zeros(2**18)})  # no state, which would be copies
    monkeypatch.setattr(announce, "peak_memory_mb", lambda: 100.0)

    def said(device):
        parts = SimpleNamespace(replays={"one": replay, "two": replay}, agent=agent, hardware=SimpleNamespace(device=device))
        return announce._memory(SimpleNamespace(plan=SimpleNamespace(steps=2**20), parts=parts))

    assert said("cpu") == "154 MB besides what updates compute: the program 100 MB, replay at the end 54 MB"
    assert said("cuda") == said("cpu") + "; on cuda networks and optimiser 3 MB"
    assert announce._amount(3 * 2**29) == "1.5 GB"


def test_a_precision_that_the_cpu_is_slow_in_is_pointed_out_once(tmp_path, monkeypatch):
    monkeypatch.setattr("hieros_repro.determinism.numerics.fast_bf16", lambda: False)
    brief = ("run.steps=70", "run.final_episodes=0")
    for precision, count in (("bf16", 1), ("fp32", 0)):
        said = (run(tmp_path / precision, *brief, f"hardware.precision={precision}") / "console.log").read_text()
        assert said.count("warning     hardware.precision=bf16: this CPU has no bfloat16 arithmetic") == count
