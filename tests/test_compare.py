import json
import shutil
import sys

import pytest
import torch
import yaml

from hieros_repro import compare as verb
from hieros_repro.agent.ppo import PPO
from hieros_repro.determinism.keys import Key
from hieros_repro.findings.record import Record
from hieros_repro.log import jsonl
from hieros_repro.proof.difference import compare
from hieros_repro.records import UserError
from hieros_repro.replay.rollout import Rollout
from tests.findings.folders import run as written
from tests.runs import facts, run

FAULTY = 5  # the update before or in which a fault is planted; the ledger numbers updates by how many are done


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return run(tmp_path_factory.mktemp("honest") / "run")


def entry_of(folder, update):
    """The step of the ledger's entry of an update."""
    return next(line["step"] for line in jsonl.read(folder / "ledger.jsonl") if line["update"] == update)


def first_difference(honest, faulty):
    """What `compare` says: step, update, component, the whole account."""
    equal, text = compare(honest, faulty)
    assert not equal
    line = next(line for line in text.splitlines() if line.startswith("first difference: "))
    words = line.replace(",", "").replace("(", "").replace(")", "").replace(";", "").split()
    return int(words[5]), int(words[7]), words[2], text


# -- Equal ---------------------------------------------------------------------------------------------------------------


def test_equal_runs_are_equal_with_everything_compared(honest, tmp_path):
    equal, text = compare(honest, run(tmp_path / "again"))
    lines, rows = (len(list(jsonl.read(honest / name))) for name in ("ledger.jsonl", "metrics.jsonl"))
    assert equal and f"equal: {lines} digests and {rows} metrics rows at common steps" in text
    assert facts(honest)["digests"]["parameters"] in text and "differs" not in text


def test_runs_looked_at_otherwise_are_equal_at_their_common_steps(honest, tmp_path):
    other = run(
        tmp_path / "other", "run.log_every=150", "run.eval_every=300", "run.fingerprint_every=170", "run.final_episodes=0"
    )
    equal, text = compare(honest, other)
    assert equal and "configuration differs: run.log_every = 100 in A, 150 in B" in text


def test_runs_with_nothing_in_common_are_not_called_equal(honest, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(honest, tmp_path / name)
        for file in ("ledger.jsonl", "metrics.jsonl"):
            (tmp_path / name / file).write_text("")
        account = facts(tmp_path / name)
        (tmp_path / name / "run.json").write_text(json.dumps({**account, "digests": {}}))
    with pytest.raises(UserError, match="nothing could be compared: the runs have no common steps in ledger or metrics"):
        compare(tmp_path / "a", tmp_path / "b")


def test_runs_that_nobody_looked_at_are_held_against_each_other_by_their_final_parameters(honest, tmp_path):
    shutil.copytree(honest, tmp_path / "copy")
    for file in ("ledger.jsonl", "metrics.jsonl"):
        (tmp_path / "copy" / file).write_text("")
    equal, text = compare(honest, tmp_path / "copy")
    final = facts(honest)["digests"]["parameters"]
    assert equal and f"equal: final parameters {final}; only these were compared: the runs have no common steps" in text


# -- Planted faults ------------------------------------------------------------------------------------------------------


def test_one_bit_of_one_weight_is_found(honest, tmp_path, monkeypatch):
    learn_noise = PPO.learn_noise

    def flip(self, key, batches):
        if key == Key(42)("learn", FAULTY):
            with torch.no_grad():
                self.parameters()["critic.weight"].view(torch.int32)[0, 3] ^= 1
        return learn_noise(self, key, batches)

    monkeypatch.setattr(PPO, "learn_noise", flip)
    step, update, component, text = first_difference(honest, run(tmp_path / "run"))
    assert (step, update, component) == (entry_of(honest, FAULTY + 1), FAULTY + 1, "weights")
    assert text.count("\n  critic.weight\n") == 1 and "\n  actor" not in text and "towers" not in text
    assert f"everything agrees up to step {entry_of(honest, FAULTY)}" in text
    assert "elements differ, first [0, " in text and "a parameter changed outside learning" in text


def test_two_swapped_rows_of_a_batch_are_found(honest, tmp_path, monkeypatch):
    choose = Rollout.choose

    def swap(self, key, request):
        choice = choose(self, key, request)
        if key == Key(42)("replay", FAULTY, "rollout"):
            batch = choice.gather()
            batch["obs"] = {name: array[[0, 2, 1, *range(3, len(array))]] for name, array in batch["obs"].items()}
        return choice

    monkeypatch.setattr(Rollout, "choose", swap)
    step, update, component, text = first_difference(honest, run(tmp_path / "run"))
    assert (step, update, component) == (entry_of(honest, FAULTY + 1), FAULTY + 1, "batch")
    assert "\n  rollout.obs.vector\n" in text and "rollout.action" not in text


def test_one_environment_that_starts_elsewhere_is_found(honest, tmp_path, monkeypatch):
    from hieros_repro import build

    seeds = build.training_seeds

    def reseeded(key, seed, mode):
        original = seeds(key, seed, mode)
        return lambda env, episode: original(env, episode) + (1 if (env, episode) == (1, 3) else 0)

    monkeypatch.setattr(build, "training_seeds", reseeded)
    step, _, component, text = first_difference(honest, run(tmp_path / "run"))
    ended = [row["step"] for row in jsonl.read(honest / "episodes.jsonl") if row["env"] == 1][2]  # episodes count from 0
    steps = sorted({line["step"] for line in jsonl.read(honest / "ledger.jsonl")})
    assert component == "observation" and step == min(s for s in steps if s > ended)
    assert "\n  vector\n" in text and "look at their seeds" in text


def test_a_reward_paid_otherwise_is_found_where_it_was_paid(honest, tmp_path, monkeypatch):
    from hieros_repro.env.vector import Vector

    step_of, ticks = Vector.step, []

    def overpaid(self, action):
        row = step_of(self, action)
        if self.num_envs == 2 and row.obs["vector"].shape[0] == 2:
            ticks.append(1)
            if len(ticks) == 50:
                row.reward[1] += 0.5
        return row

    monkeypatch.setattr(Vector, "step", overpaid)
    _, _, component, text = first_difference(honest, run(tmp_path / "run", "run.eval_every=0"))
    assert component == "observation" and "\n  step.reward\n" in text and "\n  vector\n" not in text


def test_another_learning_rate_is_found_where_it_acts_and_explained(honest, tmp_path):
    faulty = run(tmp_path / "run", "agent.learning_rate=0.001")
    step, update, component, text = first_difference(honest, faulty)
    assert (step, update, component) == (entry_of(honest, 1), 1, "parameters")
    assert "configuration differs: agent.learning_rate = 0.0003 in A, 0.001 in B" in text
    assert "same gradients, other parameters" in text and "nothing was compared before" in text


LAST, MIDDLE = 32 * (FAULTY + 1) - 1, 32 * FAULTY + 7  # ticks of a rollout


@pytest.mark.parametrize("tick", [LAST, MIDDLE])
def test_one_changed_action_is_found_before_what_it_led_to(honest, tmp_path, monkeypatch, tick):
    act, calls = PPO.act, []

    def other(self, now, carry, noise, greedy=False):
        action, carry, rows = act(self, now, carry, noise, greedy)
        if not greedy:
            calls.append(1)
            if len(calls) == tick + 1:
                action[0] = 1 - action[0]  # the same array is remembered
        return action, carry, rows

    monkeypatch.setattr(PPO, "act", other)
    step, update, component, text = first_difference(honest, run(tmp_path / "run"))
    assert (step, update) == (entry_of(honest, FAULTY + 1), FAULTY + 1)
    assert component == "action" and f"everything agrees up to step {entry_of(honest, FAULTY)}" in text


def test_other_noise_is_found(honest, tmp_path, monkeypatch):
    learn_noise = PPO.learn_noise

    def other(self, key, batches):
        noise = learn_noise(self, key, batches)
        if key == Key(42)("learn", FAULTY):
            noise["order"][0, [0, 1]] = noise["order"][0, [1, 0]]
        return noise

    monkeypatch.setattr(PPO, "learn_noise", other)
    step, update, component, text = first_difference(honest, run(tmp_path / "run"))
    assert (step, update, component) == (entry_of(honest, FAULTY + 1), FAULTY + 1, "noise") and "\n  order\n" in text


def test_another_loss_coefficient_is_found_in_the_losses(honest, tmp_path):
    step, update, component, text = first_difference(honest, run(tmp_path / "run", "agent.value_coefficient=0.25"))
    assert (step, update, component) == (entry_of(honest, 1), 1, "losses")
    assert "configuration differs: agent.value_coefficient = 0.5 in A, 0.25 in B" in text
    assert "\n  loss\n" in text and "\n  value_loss\n" not in text


def test_another_loss_is_found_in_the_losses(honest, tmp_path, monkeypatch):
    loss = PPO._value_loss
    monkeypatch.setattr(PPO, "_value_loss", lambda self, value, batch: loss(self, value, batch) * 1.5)
    step, update, component, text = first_difference(honest, run(tmp_path / "run"))
    assert (step, update, component) == (entry_of(honest, 1), 1, "losses")
    assert "\n  value_loss\n" in text and "\n  policy_loss\n" not in text


def test_another_seed_is_found_from_the_start(honest, tmp_path):
    _, update, component, text = first_difference(honest, run(tmp_path / "run", "seed=43"))
    assert (update, component) == (1, "weights") and "configuration differs: seed = 42 in A, 43 in B" in text


def test_rows_that_differ_under_equal_ledgers_are_found(honest, tmp_path):
    shutil.copytree(honest, tmp_path / "copy")
    rows = list(jsonl.read(honest / "metrics.jsonl"))
    rows[3]["updates"] = 77
    (tmp_path / "copy" / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    equal, text = compare(honest, tmp_path / "copy")
    assert not equal and f"step {rows[3]['step']}: updates = " in text and "77 in B" in text


def test_final_parameters_that_differ_under_equal_logs_are_found(honest, tmp_path):
    shutil.copytree(honest, tmp_path / "copy")
    (tmp_path / "copy" / "run.json").write_text(json.dumps({**facts(honest), "digests": {"parameters": "0" * 16}}))
    equal, text = compare(honest, tmp_path / "copy")
    assert not equal and f"final parameters differ: {facts(honest)['digests']['parameters']} in A, {'0' * 16} in B" in text


def test_other_numerics_and_other_code_are_pointed_out(honest, tmp_path):
    shutil.copytree(honest, tmp_path / "copy")
    account = facts(honest)
    account["numerics"]["packages"]["torch"] = "1.0"
    account["code"]["sources"] = "f" * 40
    (tmp_path / "copy" / "run.json").write_text(json.dumps(account))
    equal, text = compare(honest, tmp_path / "copy")
    assert equal and "numerics differ, so the bits need not be equal: packages.torch = " in text and "'1.0' in B" in text
    assert "code differs: " in text and "sources ffffffffff in B" in text


# -- As a command --------------------------------------------------------------------------------------------------------


def main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["hieros-compare", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        verb.main()
    return end.value.code


def test_a_folder_that_is_not_there_and_one_that_is_a_sweep_are_told_apart(honest, tmp_path, monkeypatch, capsys):
    (tmp_path / "seed-12").mkdir()
    (tmp_path / "seed-12" / "sweep.json").write_text("{}")
    assert main(monkeypatch, tmp_path / "sed-12", honest) == 2
    assert f"error: {tmp_path / 'sed-12'}: there is no such folder; did you mean seed-12?" in capsys.readouterr().err
    assert main(monkeypatch, honest, tmp_path / "seed-12") == 2
    assert "it is a sweep, not a run; groups of runs are compared with `--` between them: A -- B" in capsys.readouterr().err


def test_the_exit_code_says_equal_different_or_not_comparable(honest, tmp_path, monkeypatch, capsys):
    assert main(monkeypatch, honest, honest) == 0
    shutil.copytree(honest, tmp_path / "copy")
    (tmp_path / "copy" / "run.json").write_text(json.dumps({**facts(honest), "digests": {"parameters": "0"}}))
    assert main(monkeypatch, honest, tmp_path / "copy") == 1
    assert main(monkeypatch, honest, tmp_path) == 2
    assert f"error: {tmp_path}: not a run folder" in capsys.readouterr().err
    assert main(monkeypatch, honest) == 2
    assert "two run folders are compared, 1 were given" in capsys.readouterr().err


def finished(folder, **results):
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"status": "finished", "results": results}))
    return folder


@pytest.fixture
def sweep(tmp_path):
    """Three finished seeds with scores 470, 480, 490, two of which converged; a failed and a pending one."""
    folder = tmp_path / "sweep"
    for seed, (score, step) in enumerate([(470.0, 1000), (480.0, None), (490.0, 3000)]):
        finished(folder / f"seed-{seed}", **{"eval/score": score, "convergence_step": step})
    (folder / "seed-3").mkdir()
    (folder / "seed-3" / "run.json").write_text(json.dumps({"status": "failed", "results": {"eval/score": 0.0}}))
    jobs = {f"seed-{seed}": [f"seed={seed}"] for seed in range(5)}
    (folder / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    return folder


def hold(tmp_path, monkeypatch, runs, *arguments, **wanted):
    (tmp_path / "references.yaml").write_text(yaml.safe_dump({"expected": wanted, "sources": {"the paper": {"score": 475}}}))
    return main(monkeypatch, runs, "--expected", tmp_path / "references.yaml", *arguments)


@pytest.mark.parametrize(
    "expectation, met",
    [
        ({"value": 500, "tolerance": 0.04}, True),  # the mean is 480: exactly 4 % below
        ({"value": 500, "tolerance": 0.03}, False),
        ({"value": 440, "tolerance": 0.05}, False),  # too good is not as expected either
        ({"value": 440}, True),  # 10 % where nothing is said
        ({"at_least": 480}, True),
        ({"at_least": 481}, False),
        ({"at_most": 479}, False),
        ({"at_least": 470, "at_most": 490}, True),
    ],
)
def test_results_are_held_against_references(sweep, tmp_path, monkeypatch, capsys, expectation, met):
    assert hold(tmp_path, monkeypatch, sweep, **{"eval/score": expectation}) == (0 if met else 1)
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if "eval/score" in line)
    assert ("NOT MET" in row) != met and "| 3 | 480.00 | 10.00 |" in row
    assert "[455.16, 504.84]" in row  # 480 +- 4.302653 * 10 / sqrt(3)
    assert "3 finished run(s)" in said and "the paper: score 475" in said


def test_a_tolerance_on_the_command_line_wins(sweep, tmp_path, monkeypatch):
    wanted = {"eval/score": {"value": 500, "tolerance": 0.01}}
    assert hold(tmp_path, monkeypatch, sweep, **wanted) == 1
    assert hold(tmp_path, monkeypatch, sweep, "--tolerance", "0.05", **wanted) == 0


@pytest.mark.parametrize("share, code", [(0.4, 0), (0.5, 1)])
def test_a_share_says_how_many_of_the_seeds_asked_for_must_have_the_metric(sweep, tmp_path, monkeypatch, share, code):
    assert hold(tmp_path, monkeypatch, sweep, convergence_step={"at_most": 2000, "share": share}) == code  # 2 of 5


def test_a_metric_that_no_run_has_is_missing_and_not_met(sweep, tmp_path, monkeypatch, capsys):
    assert hold(tmp_path, monkeypatch, sweep, nothing={"at_least": 0}) == 1
    assert "missing" in capsys.readouterr().out


def test_without_a_finished_run_nothing_can_be_compared(tmp_path, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text('{"status": "failed"}')
    assert hold(tmp_path, monkeypatch, tmp_path / "run", **{"eval/score": {"at_least": 0}}) == 2
    assert "no finished run was found" in capsys.readouterr().err


def test_references_that_do_not_exist_are_refused_by_name(honest, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path / 'absent.yaml'}: no such references file"):
        verb.expected([honest], tmp_path / "absent.yaml", None)


def test_two_groups_of_runs_are_compared_over_their_seeds(tmp_path, monkeypatch, capsys):
    for name, scores in {"old": [470.0, 480.0, 490.0], "new": [120.0, 110.0, 130.0]}.items():
        for seed, score in enumerate(scores):
            written(tmp_path / name / str(seed), seed, score)
    old, new = tmp_path / "old", tmp_path / "new"
    assert main(monkeypatch, old, "--", new) == 1
    assert "A is better than B: 480 against 120" in capsys.readouterr().out
    assert main(monkeypatch, old, "--", old, "--margin", "30") == 0
    assert "equivalent within a margin of 30" in capsys.readouterr().out
    assert main(monkeypatch, "--margin", "30", old / "0", old / "1", "--", old / "2", old / "0") == 1
    told = capsys.readouterr().out
    assert "verdict: " in told
    assert told.endswith("equivalence within a margin of 30 (--margin) was not shown: exit code 1\n")


def test_runs_of_another_configuration_than_the_references_are_for_are_pointed_out():
    run = Record("a", "finished", 1, "", {}, ["experiment=cartpole_baseline", "log=quiet"], [], [])
    others = [run._replace(typed=[*run.typed, "agent.clip=0.3"]), run._replace(typed=["agent=ppo"])]
    assert list(verb.otherwise("cartpole_baseline", [run])) == list(verb.otherwise("references", others)) == []
    assert list(verb.otherwise("cartpole_baseline", [run, others[0], *others])) == [
        "note: 2 run(s) are not experiment=cartpole_baseline alone: agent.clip=0.3",
        "note: 1 run(s) are not experiment=cartpole_baseline alone: without experiment=cartpole_baseline agent=ppo",
    ]
