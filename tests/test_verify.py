import json
import re
import tempfile

import pytest

from hieros_repro import claims
from hieros_repro.records import UserError
from hieros_repro.run import checkpoint
from tests.envs import Unrepeatable, chosen
from tests.runs import facts, process, run

PLAIN = {"kills": 1, "verify_steps": 100, "seed": 42}


@pytest.fixture(autouse=True)
def bench_here(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def whole(tmp_path):
    return run(tmp_path / "run")


def complete(folder):
    return claims.complete(claims.Bench(folder, [], PLAIN))


def broken(folder):
    with pytest.raises(claims.Broken) as caught:
        complete(folder)
    return str(caught.value)


# -- complete ----------------------------------------------------------------------------------------------------------


def test_a_whole_run_is_complete(whole):
    rows = len((whole / "metrics.jsonl").read_text().splitlines())
    assert complete(whole) == f"finished; 2 checkpoints intact, {rows} rows whole"


def test_a_deleted_checkpoint_file_is_named(whole):
    path = whole / "checkpoints" / f"step_{checkpoint.steps(whole / 'checkpoints')[0]}" / "agent.pt"
    path.unlink()
    assert f"{path}: missing" in broken(whole)


def test_a_changed_byte_of_the_best_parameters_is_named(whole):
    path = whole / "checkpoints" / "best" / "agent.pt"
    content = bytearray(path.read_bytes())
    content[100] ^= 255
    path.write_bytes(content)
    assert f"{path}: its SHA-256 is not the manifest's" in broken(whole)


@pytest.mark.parametrize("name", ["metrics", "episodes", "ledger", "timing"])
def test_a_cut_log_is_named(whole, name):
    path = whole / f"{name}.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    assert f"{path}: its last line is cut short" in broken(whole)


def test_a_lost_log_is_named(whole):
    (whole / "episodes.jsonl").unlink()
    assert f"{whole / 'episodes.jsonl'}: missing" in broken(whole)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ('{"step": 3, "x": 1.0}', ": step 3 after "),
        ('{"step": 9999, "x": NaN}', ": x is nan"),
        ('{"step": 9999, "x": -Infinity}', ": x is -inf"),
    ],
)
def test_rows_out_of_order_or_not_finite_are_named_with_their_line(whole, row, text):
    path = whole / "metrics.jsonl"
    number = len(path.read_text().splitlines()) + 1
    with path.open("a") as file:
        file.write(row + "\n")
    assert f"{path}, line {number}{text}" in broken(whole)


def test_a_score_that_is_not_the_last_rows_is_named(whole):
    told = facts(whole)
    told["results"]["eval/score"] = 12345.0
    (whole / "run.json").write_text(json.dumps(told))
    assert "its score 12345.0 is not the last row's" in broken(whole)


def test_a_failed_run_is_not_complete(whole):
    (whole / "run.json").write_text(json.dumps(facts(whole) | {"status": "failed"}))
    assert "the run is failed, not finished" in broken(whole)


def test_a_folder_without_a_run_cannot_be_verified(tmp_path):
    with pytest.raises(UserError, match=r"not a run folder \(it has no config.yaml\)"):
        claims.Bench(tmp_path, [], PLAIN)


# -- The command -------------------------------------------------------------------------------------------------------


def test_a_broken_claim_about_a_run_is_seen_and_said_where(tmp_path):
    loose = "determinism.resume=episode_boundary"  # else no run would start
    folder = run(tmp_path / "run", *chosen(Unrepeatable), "run.steps=150", loose)
    done = process("verify", "claim=same_seed", f"run={folder}", "verify_steps=null", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert re.search(r"same_seed +BROKEN +metrics.jsonl, episodes.jsonl, ledger.jsonl differ", done.stdout)
    assert re.search(r"first difference: (observation|batch) at step \d+ \(update \d+\)", done.stdout)
    assert "reward" in done.stdout
    assert len(re.findall(r"digest [0-9a-f]{16}", done.stdout)) >= 2
    kept = re.search(r"the runs are kept in (\S+)", done.stdout)
    assert kept
    assert facts(tmp_path / kept[1] / "baseline")["results"]["step"] == facts(folder)["results"]["step"]


def test_an_environment_that_does_not_come_back_breaks_every_claim(tmp_path):
    done = process("verify", "claim=same_seed", *chosen(Unrepeatable), "verify_steps=150", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert re.search(
        r"same_seed +BROKEN +env: Unrepeatable CartPole-v1 does not come back exactly, so exact resume is", done.stdout
    )
    assert "two equally seeded copies side by side differ at step" in done.stdout


def test_complete_needs_a_run_and_says_so(tmp_path):
    done = process("verify", "claim=complete", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 2
    assert "error: claim=complete looks at a run: add run=<run>" in done.stderr


def test_a_claim_that_says_nothing_here_is_refused_with_the_reason(tmp_path):
    done = process("verify", "claim=workers", "agent=random", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 2
    assert "error: claim=workers: this agent's replay gathers nothing in the background" in done.stderr


@pytest.mark.parametrize(("replay", "reasons"), [({"workers": None}, ["complete"]), ({}, ["workers", "complete"])])
def test_only_replays_that_have_workers_are_claimed_not_to_depend_on_them(replay, reasons):
    bench = claims.Bench(None, [], {**PLAIN, "replay": replay})
    assert list(claims.missing(bench)) == reasons


def test_an_unknown_claim_lists_the_known_ones(tmp_path):
    done = process("verify", "claim=same_sed", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 2
    assert "claim: 'same_sed' is not allowed; it must be one of same_seed, resume, observers" in done.stderr
    assert "did you mean same_seed?" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [["env=cartpole"], ["agent=dqn"], ["agent=random"], ["experiment=pendulum"], ["env=gymnasium", "env.id=Pendulum-v1"]],
    ids=" ".join,
)
def test_every_claim_holds(tmp_path, config):
    done = process("verify", *config, cwd=tmp_path, TMPDIR=str(tmp_path), seconds=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    held = [name for name in claims.CLAIMS if re.search(rf"^{name} +held", done.stdout, re.MULTILINE)]
    workers = ["workers"] if "agent=dqn" in config else []
    assert held == ["same_seed", "resume", "observers", *workers, "env_backend", "sweep", "hash_seed"]
    assert bool(workers) or re.search(r"^workers +- +this agent's replay gathers nothing in the background", done.stdout, re.M)


@pytest.mark.slow
def test_every_claim_holds_for_an_existing_run(tmp_path):
    folder = run(tmp_path / "run", "run.steps=1500")
    done = process("verify", f"run={folder}", "verify_steps=null", cwd=tmp_path, TMPDIR=str(tmp_path), seconds=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r" held ", done.stdout)) == len(claims.CLAIMS) - 1  # but for workers, of which there are none
