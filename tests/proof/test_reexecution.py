import json
import re
import shutil
from types import SimpleNamespace

import pytest
from scipy import stats

from hieros_repro.proof.reexecution import Broken, Seen, Tail, _statistically, expected, follow, listed
from hieros_repro.records import UserError
from tests.envs import Unrepeatable, chosen
from tests.runs import SHORT_HIEROS, facts, process, short

LONG = ("run.steps=8000", "run.checkpoint_every=0", "run.eval_every=0", "run.final_episodes=0")


def made(folder, *overrides):
    """A run as a user makes it: the variables of its process are part of its numerics."""
    done = process("train", *short(folder, *overrides), cwd=folder.parent)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return made(tmp_path_factory.mktemp("whole") / "run")


def verified(run_folder, tmp_path, *arguments):
    (tmp_path / "here").mkdir(exist_ok=True)
    done = process("verify", f"run={run_folder}", *arguments, cwd=tmp_path, TMPDIR=str(tmp_path / "here"))
    return done, sorted(path.name for path in (tmp_path / "here").iterdir())


def altered(whole, folder, **changes):
    shutil.copytree(whole, folder)
    account = facts(folder)
    for path, value in changes.items():
        node, (*parents, last) = account, path.split("__")
        for name in parents:
            node = node[name]
        node[last] = value
    (folder / "run.json").write_text(json.dumps(account))
    return folder


# -- Real processes --------------------------------------------------------------------------------------------------------


def test_a_run_comes_out_again(whole, tmp_path):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    done, left = verified(whole, tmp_path, "verify_steps=null")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = sum(1 for _ in (whole / "ledger.jsonl").open())
    assert f"same_seed   held    it comes out again up to step 600: {lines} digests" in done.stdout
    assert f"final parameters {facts(whole)['digests']['parameters']}" in done.stdout
    assert "configuration, code, packages and numerics are as recorded" in done.stdout
    assert left == [] and before == {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    return made(tmp_path_factory.mktemp("long") / "run", *LONG)


@pytest.mark.slow
def test_it_is_followed_no_further_than_was_asked(long, tmp_path):
    done, left = verified(long, tmp_path, "verify_steps=200")
    assert done.returncode == 0, done.stdout + done.stderr
    step = int(re.search(r"comes out again up to step ([\d,]+)", done.stdout)[1].replace(",", ""))
    assert 200 <= step < 8000 and left == []


def test_the_first_other_digest_ends_it(long, tmp_path):
    """The ledger of a copy says that the batch of update 3 was another."""
    copy = tmp_path / "run"
    shutil.copytree(long, copy)
    lines = [json.loads(line) for line in (copy / "ledger.jsonl").open()]
    changed = next(line for line in lines if line["update"] == 3 and line["component"] == "batch")
    changed["digest"] = changed["tensors"]["rollout.action"]["digest"] = "0" * 16
    (copy / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done, (kept,) = verified(copy, tmp_path, "verify_steps=null")
    assert done.returncode == 1
    assert f"first difference: batch at step {changed['step']} (update 3); everything agrees up to step " in done.stdout
    assert f"rollout.action: digest {'0' * 16}" in done.stdout and "the runs are kept in" in done.stdout
    assert facts(tmp_path / "here" / kept / "again")["status"] == "running"  # it was ended before its end


@pytest.mark.slow
def test_an_environment_that_does_not_repeat_breaks_it(tmp_path):
    loose = made(tmp_path / "run", *chosen(Unrepeatable), "determinism.resume=episode_boundary")
    done, _ = verified(loose, tmp_path)
    assert done.returncode == 1 and "first difference: observation at step" in done.stdout


@pytest.mark.slow
def test_a_branch_is_executed_from_where_it_left_its_parent(whole, tmp_path):
    step = max(
        int(path.name.removeprefix("step_")) for path in (whole / "checkpoints").glob("step_*") if path.name != "step_600"
    )
    branch = tmp_path / "branch"
    done = process("train", f"resume={whole}@{step}", f"run.dir={branch}", "agent.value_coefficient=0.25", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done, left = verified(branch, tmp_path, "verify_steps=null")
    assert done.returncode == 0 and "comes out again up to step 600" in done.stdout and left == [], done.stdout


@pytest.mark.slow
def test_a_run_with_three_levels_comes_out_again(tmp_path):
    done = process("train", *SHORT_HIEROS, f"run.dir={tmp_path / 'run'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done, left = verified(tmp_path / "run", tmp_path)
    assert done.returncode == 0 and "comes out again up to step 360" in done.stdout and left == []


def test_other_numerics_are_listed_and_equal_bits_seen_all_the_same(whole, tmp_path):
    other = altered(whole, tmp_path / "run", numerics__packages__torch="1.0", code__sources="f" * 32)
    done, _ = verified(other, tmp_path, "verify_steps=null")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\| numerics.packages.torch +\| 1.0 +\|", done.stdout)
    assert re.search(r"\| code.sources +\| ffffffffff +\|", done.stdout)
    assert "equal bits cannot be expected" in done.stdout and "equal bit by bit all the same, up to step 600" in done.stdout


def test_what_cannot_be_executed_again_is_said_and_leaves_nothing(whole, tmp_path):
    lost = altered(whole, tmp_path / "run", parent={"run": str(tmp_path / "gone"), "checkpoint": 150, "changes": {}})
    done, left = verified(lost, tmp_path)
    assert done.returncode == 2 and "it branched off" in done.stderr and "which is not there any more" in done.stderr
    assert left == []
    done, left = verified(tmp_path / "gone", tmp_path)
    assert done.returncode == 2 and f"run={tmp_path / 'gone'}: there is no such folder" in done.stderr and left == []


# -- Parts ---------------------------------------------------------------------------------------------------------------


def test_lines_are_read_as_they_become_whole(tmp_path):
    tail = Tail(tmp_path / "a.jsonl")
    assert list(tail.read()) == []
    (tmp_path / "a.jsonl").write_text('{"x": 1}\n{"x"')
    assert list(tail.read()) == [{"x": 1}]
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(": 2}\n")
    assert list(tail.read()) == [{"x": 2}] and list(tail.read()) == []


def test_a_row_that_differs_waits_for_what_the_ledger_says_of_its_step(tmp_path):
    """The ledger's last entry has no other behind it yet, and the run goes on."""
    for name, digest in (("run", "1" * 16), ("here", "2" * 16)):
        (tmp_path / name).mkdir()
        line = {"step": 5, "update": 1, "entry": "update", "component": "batch", "digest": digest}
        (tmp_path / name / "ledger.jsonl").write_text(json.dumps(line | {"tensors": {"x": {"digest": digest}}}) + "\n")
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps({"step": 5, "loss": digest}) + "\n")
    seen = follow(tmp_path / "run", tmp_path / "here", SimpleNamespace(poll=lambda: None), None, stops=True)
    assert seen.parted[0].startswith("first difference: batch at step 5 (update 1)")


def test_the_interval_of_further_episodes_by_hand():
    """n = m = 3, s = 1: 4.302653 sqrt(2 / 3) = 3.513102."""
    low, high = expected(10.0, 1.0, 3, 3)
    assert (low, high) == pytest.approx((10 - 3.513102, 10 + 3.513102), abs=1e-5)
    assert expected(5.0, 0.0, 4, 2) == (5.0, 5.0)


def test_the_interval_is_that_of_the_t_test():
    """At its edge the pooled t statistic with the same spread in both would be just significant, for many episodes."""
    _, high = expected(0.0, 1.0, 10_000, 10_000)
    found = stats.ttest_ind_from_stats(0.0, 1.0, 10_000, high, 1.0, 10_000)
    assert found.pvalue == pytest.approx(0.05, abs=1e-4)


def evaluated(folder, *rows):
    folder.mkdir()
    text = "".join(json.dumps({"step": s, "eval/score": m, "eval/score_std": 1.0, "eval/episodes": 3}) + "\n" for s, m in rows)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def test_scores_decide_where_bits_cannot(tmp_path):
    a = evaluated(tmp_path / "a", (100, 10.0), (200, 20.0))
    seen = Seen(200, 3, 2, ["first difference: batch"])
    near, far = evaluated(tmp_path / "near", (100, 99.0), (200, 23.0)), evaluated(tmp_path / "far", (200, 24.0))
    assert "eval/score at step 200 is 23, expected 16.49 to 23.51 from 3 episodes" in _statistically(a, near, seen)
    with pytest.raises(Broken, match=r"eval/score at step 200 is 24, expected 16\.49 to 23\.51"):
        _statistically(a, far, seen)


def test_where_nothing_was_compared_nothing_is_called_equal(tmp_path):
    """Other numerics, no ledger and no metrics: final parameters decide, and without them nobody can."""
    told = {"numerics": {}, "code": {"sources": "s"}, "parameters": 3, "results": {"step": 9}}
    for name, digest in (("a", "d"), ("b", "d"), ("c", "e"), ("none", None)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text("{}")
        (tmp_path / name / "run.json").write_text(json.dumps(told | {"digests": {"parameters": digest}}))
    seen = Seen(0, 0, 0, [])
    assert "equal: final parameters d; only these were compared" in _statistically(tmp_path / "a", tmp_path / "b", seen)
    with pytest.raises(UserError, match="nothing could be compared"):
        _statistically(tmp_path / "a", tmp_path / "none", seen)
    with pytest.raises(UserError, match="final parameters differ: d in A, e in B\nand no evaluation"):
        _statistically(tmp_path / "a", tmp_path / "c", seen)


def test_only_what_differs_is_listed():
    then = {"code": {"commit": "a" * 40, "sources": "s"}, "machine": {"python": "3.11.1"}, "packages": {"numpy": "1", "x": "2"},
            "numerics": {"device": "cpu", "blas": "a"}}  # fmt: skip
    now = {**then, "packages": {"numpy": "3", "x": "2"}, "numerics": {"device": "cpu", "blas": "b"}}
    assert list(listed(then, now)) == [["packages.numpy", "1", "3"], ["numerics.blas", "a", "b"]]
