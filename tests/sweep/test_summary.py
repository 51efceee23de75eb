import csv
import json

import pytest
from PIL import Image
from scipy import stats

from hieros_repro.findings import archive
from hieros_repro.sweep.board import Board
from hieros_repro.sweep.summary import refresh, table


def job(sweep, name, **account):
    """A run folder with no more than a summary reads."""
    (sweep / name).mkdir(parents=True)
    (sweep / name / "run.json").write_text(json.dumps(account))
    rows = [{"step": step, "eval/score": step / 10.0} for step in (100, 200)]
    (sweep / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def finished(sweep, name, seed, score, digest="d" * 16):
    job(sweep, name, status="finished", seed=seed, results={"eval/score": score}, digests={"parameters": digest})


@pytest.fixture
def sweep(tmp_path):
    """Two learning rates times three seeds; one failed, one was killed, one has not begun."""
    folder = tmp_path / "a sweep"
    finished(folder, "lr-1_seed-1", 1, 470.0, "a" * 16)
    finished(folder, "lr-1_seed-2", 2, 480.0)
    finished(folder, "lr-1_seed-3", 3, 490.0)
    finished(folder, "lr-2_seed-1", 1, 100.0)
    error = {"kind": "Diverged", "text": "step 7: no longer finite"}
    job(folder, "lr-2_seed-2", status="failed", seed=2, results={"eval/score": 0.0}, error=error)
    job(folder, "lr-2_seed-3", status="running", seed=3)
    members = [(lr, seed) for lr in (1, 2) for seed in (1, 2, 3)] + [(2, 4)]
    jobs = {f"lr-{lr}_seed-{s}": ["env=cartpole", f"agent.learning_rate={lr}", f"seed={s}"] for lr, s in members}
    facts = {"metric": "eval/score", "command": "-m seed=1,2,3", "axes": ["seed", "agent.learning_rate"], "jobs": jobs}
    (folder / "sweep.json").write_text(json.dumps(facts))
    return folder


def test_groups_are_the_swept_axes_without_the_seed(sweep):
    groups = refresh(sweep)["groups"]
    assert list(groups) == ["agent.learning_rate=1", "agent.learning_rate=2"]
    assert groups["agent.learning_rate=1"]["seeds"] == [1, 2, 3] and groups["agent.learning_rate=2"]["seeds"] == [1]


def test_a_sweep_over_seeds_alone_is_one_group(sweep):
    facts = json.loads((sweep / "sweep.json").read_text())
    jobs = {name: overrides for name, overrides in facts["jobs"].items() if name.startswith("lr-1")}
    (sweep / "sweep.json").write_text(json.dumps({**facts, "axes": ["seed"], "jobs": jobs}))
    assert list(refresh(sweep)["groups"]) == ["all"]


def test_jobs_of_several_starts_of_a_sweep_stay_apart(tmp_path):
    """First agent=ppo,random, then agent=random alone, then agent=ppo with another clip: each is what was typed for it."""
    jobs = {"agent-ppo_seed-1": ["agent=ppo", "seed=1"], "agent-random_seed-1": ["agent=random", "seed=1"],
            "seed-2": ["agent=random", "seed=2"], "seed-3": ["agent=ppo", "agent.clip=0.3", "seed=3"]}  # fmt: skip
    for number, name in enumerate(jobs):
        finished(tmp_path, name, int(name[-1]), float(number))
    axes = {name: ["agent", "seed"] if name.startswith("agent") else ["seed"] for name in jobs}
    facts = {"metric": "eval/score", "command": "-m", "axes": ["seed"], "jobs": jobs, "job_axes": axes}
    (tmp_path / "sweep.json").write_text(json.dumps(facts))
    found = {name: row["seeds"] for name, row in refresh(tmp_path)["groups"].items()}
    assert found == {"agent=ppo": [1], "agent=random": [1, 2], "all": [3]}
    jobs["seed-4"] = ["agent=dqn", "seed=4"]
    finished(tmp_path, "seed-4", 4, 4.0)
    (tmp_path / "sweep.json").write_text(json.dumps(facts))
    assert list(refresh(tmp_path)["groups"])[2:] == ["agent.clip=0.3 agent=ppo", "agent=dqn"]


def test_runs_of_other_code_are_not_averaged_without_a_word(tmp_path):
    for seed, sources in ((1, "a"), (2, "b")):
        account = {"status": "finished", "seed": seed, "results": {"eval/score": 1.0}, "code": {"sources": sources}}
        job(tmp_path, f"seed-{seed}", **account)
    jobs = {f"seed-{seed}": [f"seed={seed}"] for seed in (1, 2)}
    (tmp_path / "sweep.json").write_text(json.dumps({"metric": "eval/score", "command": "-m", "axes": ["seed"], "jobs": jobs}))
    refresh(tmp_path)
    told = "warning: all: its runs were made with different code"
    assert told in (tmp_path / "summary.md").read_text() and told in table(tmp_path)
    assert "different numerics" not in table(tmp_path)


def test_a_job_that_was_refused_before_it_began_is_listed_with_the_reason(sweep):
    Board(sweep).note("lr-2_seed-4", "failed", "agent.learning_rate: too much\nof it")
    refresh(sweep)
    assert "- lr-2_seed-4: pending - agent.learning_rate: too much of it" in (sweep / "summary.md").read_text()
    assert "pending: lr-2_seed-4  agent.learning_rate: too much of it" in table(sweep)
    told = {run.folder.rpartition("/")[2]: run.error for run in archive.read([sweep])}
    assert told["lr-2_seed-4"] == "agent.learning_rate: too much of it"  # so that reports say it, too


def test_an_evaluation_that_came_to_nothing_leaves_the_summary_whole(tmp_path):
    for seed, (first, second) in enumerate([("NaN", "3.0"), ("1.0", "null"), ("1.0", "2.0")]):
        finished(tmp_path, f"seed-{seed}", seed, 3.0)
        rows = [f'{{"step": {step}, "eval/score": {value}}}\n' for step, value in ((100, first), (200, second), (300, "5.0"))]
        (tmp_path / f"seed-{seed}" / "metrics.jsonl").write_text("".join(rows))
    jobs = {f"seed-{seed}": [f"seed={seed}"] for seed in range(3)}
    (tmp_path / "sweep.json").write_text(json.dumps({"metric": "eval/score", "command": "-m", "axes": ["seed"], "jobs": jobs}))
    assert refresh(tmp_path)["groups"]["all"]["n"] == 3
    assert (tmp_path / "summary.png").exists()


def test_the_numbers_are_over_the_finished_seeds(sweep):
    groups = refresh(sweep)["groups"]
    first = groups["agent.learning_rate=1"]
    half = 4.302652729911275 * 10 / 3**0.5
    assert (first["n"], first["mean"], first["std"], first["min"], first["max"]) == (3, 480.0, 10.0, 470.0, 490.0)
    assert (first["low"], first["high"]) == pytest.approx((480 - half, 480 + half))
    second = groups["agent.learning_rate=2"]
    assert (second["n"], second["mean"], second["std"], second["low"]) == (1, 100.0, None, None)


def test_a_group_without_a_finished_seed_has_no_numbers(sweep):
    facts = json.loads((sweep / "sweep.json").read_text())
    jobs = {name: overrides for name, overrides in facts["jobs"].items() if name in ("lr-2_seed-2", "lr-2_seed-4")}
    (sweep / "sweep.json").write_text(json.dumps({**facts, "jobs": jobs}))
    row = refresh(sweep)["groups"]["agent.learning_rate=2"]
    assert row["n"] == 0 and row["mean"] is None and row["seeds"] == []


def test_every_run_is_listed_with_a_status_that_can_be_believed(sweep):
    statuses = [run["status"] for run in refresh(sweep)["runs"]]
    assert statuses == ["finished"] * 4 + ["failed", "interrupted", "pending"]


def test_what_did_not_finish_is_listed_with_its_error_and_the_command_to_rerun_it(sweep):
    refresh(sweep)
    page = (sweep / "summary.md").read_text()
    unfinished = page.split("## Not finished")[1].split("## Runs")[0]
    assert "- lr-2_seed-2: failed - Diverged: step 7: no longer finite" in unfinished
    assert "- lr-2_seed-3: interrupted" in unfinished and "- lr-2_seed-4: pending" in unfinished
    typed = f"env=cartpole agent.learning_rate=2 seed=4 'run.dir={sweep / 'lr-2_seed-4'}' resume=auto"
    assert f"`python -m hieros_repro.train {typed}`" in unfinished and "lr-1" not in unfinished


def test_a_sweep_that_finished_lists_nothing_as_unfinished(tmp_path):
    finished(tmp_path, "seed-1", 1, 3.0)
    facts = {"metric": "eval/score", "command": "-m seed=1", "axes": ["seed"], "jobs": {"seed-1": ["seed=1"]}}
    (tmp_path / "sweep.json").write_text(json.dumps(facts))
    refresh(tmp_path)
    assert "Not finished" not in (tmp_path / "summary.md").read_text()


def test_the_same_numbers_are_in_every_file(sweep):
    summary = refresh(sweep)
    assert json.loads((sweep / "summary.json").read_text()) == summary
    rows = list(csv.DictReader((sweep / "summary.csv").open()))
    assert [(row["group"], row["n"], row["mean"], row["seeds"]) for row in rows] == [
        ("agent.learning_rate=1", "3", "480.00", "1 2 3"),
        ("agent.learning_rate=2", "1", "100.00", "1"),
    ]
    page = (sweep / "summary.md").read_text()
    assert "| agent.learning_rate=1 | 3 | 480.00 | 10.00 |" in page and "`python -m hieros_repro.train -m seed=1,2,3`" in page
    assert "a" * 16 in page
    with Image.open(sweep / "summary.png") as image:
        assert image.format == "PNG" and image.width > 1000


def test_a_summary_is_a_function_of_the_run_folders(sweep):
    refresh(sweep)
    before = {name: (sweep / name).read_bytes() for name in ("summary.json", "summary.csv", "summary.md", "summary.png")}
    refresh(sweep)
    assert {name: (sweep / name).read_bytes() for name in before} == before
    assert not list(sweep.glob(".partial*"))


def test_a_sweep_of_nothing_yet_has_a_summary(tmp_path):
    facts = {"metric": "eval/score", "command": "-m seed=1", "axes": ["seed"], "jobs": {"seed-1": ["seed=1"]}}
    (tmp_path / "sweep.json").write_text(json.dumps(facts))
    summary = refresh(tmp_path)
    assert summary["groups"]["all"]["n"] == 0 and summary["runs"][0]["status"] == "pending"
    assert not (tmp_path / "summary.png").exists()


def test_a_value_that_is_not_a_number_is_shown_and_counts_in_nothing(tmp_path):
    finished(tmp_path, "seed-1", 1, 3.0)
    finished(tmp_path, "seed-2", 2, float("nan"))
    jobs = {f"seed-{seed}": [f"seed={seed}"] for seed in (1, 2)}
    facts = {"metric": "eval/score", "command": "-m seed=1,2", "axes": ["seed"], "jobs": jobs}
    (tmp_path / "sweep.json").write_text(json.dumps(facts))
    summary = refresh(tmp_path)
    assert summary["groups"]["all"]["seeds"] == [1] and [run["value"] for run in summary["runs"]] == [3.0, "nan"]
    assert "| seed-2 | finished | nan " in (tmp_path / "summary.md").read_text()


@pytest.mark.parametrize("tolerance, verdict", [(0.05, "CV 0.0208, within 0.05"), (0.02, "CV 0.0208, above 0.02")])
def test_what_was_declared_of_the_metric_is_judged(sweep, tolerance, verdict):
    """470, 480 and 490: a deviation of 10 over a mean of 480."""
    facts = json.loads((sweep / "sweep.json").read_text())
    (sweep / "sweep.json").write_text(json.dumps({**facts, "cv_tolerance": tolerance}))
    summary = refresh(sweep)
    row = summary["groups"]["agent.learning_rate=1"]
    assert row["cv"] == pytest.approx(10 / 480) and row["cv_tolerance"] == tolerance and row["steady"] is (tolerance == 0.05)
    assert summary["groups"]["agent.learning_rate=2"]["steady"] is None
    for text in ((sweep / "summary.md").read_text(), table(sweep)):
        assert f"agent.learning_rate=1: {verdict} (sweep.cv_tolerance)" in text
        assert "agent.learning_rate=2: no CV to hold against" in text
    assert any("vary more than" in text for text in summary["warnings"]) is (tolerance == 0.02)


def test_groups_are_tested_for_equivalence_within_the_sweeps_margin(tmp_path):
    scores = {1: (470.0, 480.0, 490.0), 2: (471.0, 481.0, 491.0)}
    for rate, values in scores.items():
        for seed, score in enumerate(values):
            finished(tmp_path, f"lr-{rate}_seed-{seed}", seed, score)
    jobs = {f"lr-{rate}_seed-{s}": [f"agent.learning_rate={rate}", f"seed={s}"] for rate in scores for s in range(3)}
    facts = {"metric": "eval/score", "command": "-m", "axes": ["seed", "agent.learning_rate"], "jobs": jobs, "margin": 30.0}
    (tmp_path / "sweep.json").write_text(json.dumps(facts))
    (pair,) = refresh(tmp_path)["equivalence"]
    assert pair["p"] == pytest.approx(stats.t.sf((30 - 1) / (200 / 3) ** 0.5, 4)) and pair["margin"] == 30.0
    assert "agent.learning_rate=1 and agent.learning_rate=2: equivalent within 30 (sweep.margin; TOST p = 0.01" in table(
        tmp_path
    )
