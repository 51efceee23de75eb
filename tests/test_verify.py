import json
import re
import shutil
import tempfile
from types import SimpleNamespace

import pytest

from hieros_repro import verify
from hieros_repro.check import check
from hieros_repro.proof import claims
from hieros_repro.records import ConfigError, UserError
from hieros_repro.run import checkpoint
from tests.envs import Unrepeatable, chosen
from tests.runs import compose, facts, process, run, short

PLAIN = {"kills": 1, "verify_steps": 100, "seed": 42}


@pytest.fixture(autouse=True)
def bench_here(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Not to be touched."""
    return run(tmp_path_factory.mktemp("original") / "run")


@pytest.fixture
def whole(tmp_path, original):
    return shutil.copytree(original, tmp_path / "run")


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


def rewritten(whole, number, **changes):
    """One row of metrics with other values."""
    path = whole / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[number - 1] |= changes
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def row_with(whole, name, nth=0):
    """The number of a row that has a metric, and what it is there."""
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    return [(number, row[name]) for number, row in enumerate(rows, start=1) if name in row][nth]


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("ppo/clip_fraction", 1.2, "between 0 and 1"),
        ("ppo/clip_fraction", -0.1, "between 0 and 1"),
        ("ppo/entropy", -0.5, "at least 0"),
        ("ppo/explained_variance", 1.5, "at most 1"),
        ("ppo/grad_norm", -1.0, "at least 0"),
    ],
)
def test_a_metric_outside_its_range_is_named_with_what_is_allowed(whole, name, value, allowed):
    number, _ = row_with(whole, name)
    rewritten(whole, number, **{name: value})
    assert f"{whole / 'metrics.jsonl'}, line {number}: {name} is {value}; it must be {allowed}" in broken(whole)


def test_rounding_is_no_reason(whole):
    number, _ = row_with(whole, "ppo/approx_kl")
    rewritten(whole, number, **{"ppo/approx_kl": -1e-7})
    assert "intact" in complete(whole)


def test_updates_that_go_back_are_named(whole):
    number, before = row_with(whole, "updates", -1)
    rewritten(whole, number, updates=1)
    assert f"line {number}: updates 1 after " in broken(whole) and before > 1


def test_a_lost_episode_is_missed(whole):
    path = whole / "episodes.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[1:]))
    number, count = row_with(whole, "episode/count")
    assert f"line {number}: episode/count is {count}, but episodes.jsonl lists {count - 1} since the row before" in broken(
        whole
    )


def test_an_episode_that_scored_otherwise_is_seen(whole):
    path = whole / "episodes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["return"] += 10
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "but those in episodes.jsonl have a mean of" in broken(whole)


def test_a_score_outside_its_episodes_is_named(whole):
    number, score = row_with(whole, "eval/score")
    rewritten(whole, number, **{"eval/score_max": score - 5.0})
    assert f"line {number}: eval/score is {score}, episodes" in broken(whole)


def test_results_that_are_not_the_mean_of_their_scores_are_named(whole):
    told = facts(whole)
    told["results"]["scores"][0] += 3
    (whole / "run.json").write_text(json.dumps(told))
    assert "is not the mean" in broken(whole)


def test_every_run_of_a_sweep_is_looked_at(whole, tmp_path):
    sweep = tmp_path / "sweep"
    shutil.copytree(whole, sweep / "seed-1")
    (sweep / "sweep.json").write_text(json.dumps({"jobs": {"seed-1": ["seed=1"]}}))
    assert "2 checkpoints intact" in complete(sweep)
    (sweep / "sweep.json").write_text(json.dumps({"jobs": {"seed-1": ["seed=1"], "seed-2": ["seed=2"]}}))
    account = broken(sweep)
    assert f"{sweep / 'seed-2'}: there is no run in it" in account and "seed-1" not in account
    bench = claims.Bench(sweep, [], PLAIN)
    assert set(claims.missing(bench)) == set(claims.CLAIMS) - {"complete"}


def test_a_failed_run_is_not_complete(whole):
    (whole / "run.json").write_text(json.dumps(facts(whole) | {"status": "failed"}))
    assert "the run is failed, not finished" in broken(whole)


def test_a_folder_without_a_run_cannot_be_verified(tmp_path):
    with pytest.raises(UserError, match=r"not a run folder \(it has no config.yaml\)"):
        claims.Bench(tmp_path, [], PLAIN)


# -- The command -------------------------------------------------------------------------------------------------------


def test_a_broken_claim_about_a_run_is_seen_and_said_where(tmp_path):
    loose = "determinism.resume=episode_boundary"  # else no run would start
    folder = tmp_path / "run"
    assert process("train", *short(folder, *chosen(Unrepeatable), "run.steps=150", loose), cwd=tmp_path).returncode == 0
    done = process("verify", "claim=same_seed", f"run={folder}", "verify_steps=null", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("  claim same_seed: Two fresh processes")
    assert re.search(r"same_seed +BROKEN +first difference: observation at step \d+ \(update \d+\)", done.stdout)
    assert "reward" in done.stdout
    assert len(re.findall(r"digest [0-9a-f]{16}", done.stdout)) >= 2
    kept = re.search(r"the runs are kept in (\S+)", done.stdout)
    assert kept
    assert (tmp_path / kept[1] / "again" / "ledger.jsonl").exists()


@pytest.mark.slow
def test_an_environment_that_does_not_come_back_breaks_every_claim(tmp_path):
    done = process("verify", "claim=same_seed", *chosen(Unrepeatable), "verify_steps=150", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "\n  run baseline: 150 steps\n" in done.stderr  # said before it is tried
    assert re.search(
        r"same_seed +BROKEN +env: Unrepeatable CartPole-v1 does not come back exactly, so exact resume is", done.stdout
    )
    assert "two equally seeded copies side by side differ at step" in done.stdout


def test_an_incomplete_run_is_said_and_nothing_is_kept_that_there_is_not(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": {"seed-2": ["seed=2"]}}))
    done = process("verify", "claim=complete", f"run={tmp_path}", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 1, done.stderr
    assert "BROKEN" in done.stdout and "are kept in" not in done.stdout
    assert not list(tmp_path.glob("hieros-verify-*"))


def test_complete_needs_a_run_and_says_so(tmp_path):
    done = process("verify", "claim=complete", cwd=tmp_path, TMPDIR=str(tmp_path))
    assert done.returncode == 2
    assert "error: claim=complete looks at a run: add run=<run>" in done.stderr


def test_a_claim_that_cannot_be_looked_at_takes_nothing_back(monkeypatch, capsys):
    def breaks(bench):
        raise claims.Broken("here")

    def refuses(bench):
        raise UserError("no room")

    monkeypatch.setattr(claims, "CLAIMS", {"same_seed": breaks, "resume": refuses})
    broken = []
    with pytest.raises(UserError, match="no room"):
        verify.judge(claims.Bench(None, [], PLAIN), ["same_seed", "resume"], broken)
    assert broken == ["same_seed"] and "same_seed   BROKEN  here" in capsys.readouterr().out


def test_a_claim_that_says_nothing_here_is_refused_with_the_reason(tmp_path, monkeypatch):
    here = SimpleNamespace(overrides=SimpleNamespace(task=["agent=random"]), runtime=SimpleNamespace(config_sources=[]))
    monkeypatch.setattr(verify.HydraConfig, "get", lambda: here)
    with pytest.raises(UserError, match="claim=workers: this agent's replay gathers nothing in the background"):
        verify.job(compose("claim=workers", "agent=random", name="verify"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("replay", "reasons"), [({"workers": None}, ["complete"]), ({}, ["workers", "complete"])])
def test_only_replays_that_have_workers_are_claimed_not_to_depend_on_them(replay, reasons):
    bench = claims.Bench(None, [], {**PLAIN, "replay": replay})
    assert list(claims.missing(bench)) == reasons


def test_an_unknown_claim_lists_the_known_ones():
    with pytest.raises(ConfigError) as caught:
        check(compose("claim=same_sed", name="verify"), verify.PAGE)
    assert "claim: 'same_sed' is not allowed; it must be one of same_seed, resume, observers" in str(caught.value)
    assert "did you mean same_seed?" in str(caught.value)


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
    typed = ("claim=all", f"run={folder}", "verify_steps=null")
    done = process("verify", *typed, cwd=tmp_path, TMPDIR=str(tmp_path), seconds=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r" held ", done.stdout)) == len(claims.CLAIMS) - 1  # but for workers, of which there are none
