import json
import math

import pytest
from scipy import stats

from hieros_repro.findings import archive
from hieros_repro.findings.finding import find
from hieros_repro.findings.sides import compare
from hieros_repro.records import UserError
from tests.findings.folders import run

METRIC = "eval/score"
HIEROS, DIRECTOR = [200.0, 180.0, 220.0, 210.0, 190.0], [100.0, 90.0, 130.0]


@pytest.fixture
def runs(tmp_path):
    """Two agents with five and three seeds; of the second a seed failed, one was killed, one's score is not a number."""
    for seed, score in enumerate(HIEROS):
        run(tmp_path / f"hieros-{seed}", seed, score)
    other = {"agent__name": "director"}
    for seed, score in enumerate(DIRECTOR):
        run(tmp_path / f"other-{seed}", seed, score, **other)
    error = {"kind": "Diverged", "text": "step 7"}
    run(tmp_path / "other-3", 3, status="failed", error=error, **other)
    run(tmp_path / "other-4", 4, status="running", **other)
    run(tmp_path / "other-5", 5, math.nan, **other)
    return tmp_path


def test_groups_are_described_over_their_seeds(runs):
    first, second = find(archive.read([runs]), METRIC).rows
    assert (first.name, second.name) == ("hieros", "director")
    assert first.values == dict(enumerate(HIEROS)) and second.values == dict(enumerate(DIRECTOR))
    assert (first.described.n, first.described.mean, first.described.median) == (5, 200.0, 200.0)
    low, high = stats.t.interval(0.95, 4, 200.0, stats.sem(HIEROS))
    assert (first.described.low, first.described.high) == pytest.approx((low, high))


def test_a_seed_without_a_value_is_named_with_the_reason(runs):
    finding = find(archive.read([runs]), METRIC)
    assert finding.rows[1].absent == {3: "failed: Diverged: step 7", 4: "interrupted", 5: "eval/score is nan"}
    told = "\n".join(finding.warnings)
    assert "director: 3 of 6 seeds have no value: seed 3 (failed: Diverged: step 7), seed 4 (interrupted)" in told
    assert "director: 3 seeds only; the 95 % t-interval is 4.30 standard errors on each side" in told
    assert "hieros:" not in told


def test_every_pair_is_tested_and_corrected_for_their_number(runs):
    for seed, score in enumerate([150.0, 160.0, 140.0]):
        run(runs / f"third-{seed}", seed, score, agent__name="dreamer")
    pairs = find(archive.read([runs]), METRIC).pairs
    assert [(p.first, p.second) for p in pairs] == [("hieros", "director"), ("hieros", "dreamer"), ("director", "dreamer")]
    ps = [stats.ttest_ind(a, b, equal_var=False).pvalue for a, b in
          [(HIEROS, DIRECTOR), (HIEROS, [150, 160, 140]), (DIRECTOR, [150, 160, 140])]]  # fmt: skip
    assert [p.contrast.welch.p for p in pairs] == pytest.approx(ps)
    order = sorted(range(3), key=ps.__getitem__)
    assert [pairs[i].adjusted for i in order[:1]] == pytest.approx([3 * ps[order[0]]])


def test_groups_in_different_tasks_are_no_pair(tmp_path):
    for task in ("three", "four"):
        for seed in (1, 2):
            run(tmp_path / f"{task}-{seed}", seed, 1.0 * seed, env__task=task)
    assert find(archive.read([tmp_path]), METRIC).pairs == []


def test_repeated_runs_say_whether_they_came_to_the_same(tmp_path):
    for name, seed, digest in [("a", 1, "x"), ("b", 1, "x"), ("c", 2, "x"), ("d", 2, "y"), ("e", 3, "x")]:
        run(tmp_path / name, seed, 5.0, digest=digest, account={"started": name})
    run(tmp_path / "copy", 3, 5.0, digest="x", account={"started": "e"})
    finding = find(archive.read([tmp_path]), METRIC)
    assert finding.rows[0].repeated == {1: True, 2: False} and len(finding.rows[0].values) == 3
    assert any("repeated runs of seed 2 did not come to the same parameters" in text for text in finding.warnings)


@pytest.mark.parametrize("key, value, word", [("code", {"sources": "other"}, "code"), ("numerics", {"threads": 2}, "numerics")])
def test_runs_that_are_not_one_experiment_are_pointed_out(tmp_path, key, value, word):
    run(tmp_path / "a", 1, 5.0)
    run(tmp_path / "b", 2, 5.0, account={key: value})
    assert any(f"made with different {word}" in text for text in find(archive.read([tmp_path]), METRIC).warnings)


def test_seeds_that_spread_differently_over_episodes_are_seen(tmp_path):
    scores = [[1.0, 2.0, 3.0, 4.0], [1.0, 20.0, 30.0, 49.0], [5.0, 5.0, 5.0, 6.0]]
    for seed, episodes in enumerate(scores):
        run(tmp_path / str(seed), seed, 5.0, scores=episodes)
    expected = stats.levene(*scores, center="median")
    found = find(archive.read([tmp_path]), METRIC).rows[0].episodes
    assert (found.statistic, found.p) == pytest.approx((expected.statistic, expected.pvalue))


def test_one_seed_one_value_and_nothing_finished(tmp_path):
    run(tmp_path / "a" / "1", 1, 5.0)
    (row,) = find(archive.read([tmp_path / "a"]), METRIC).rows
    assert (row.described.n, row.described.std, row.described.low) == (1, None, None)
    run(tmp_path / "b" / "1", 1, status="running")
    (row,) = find(archive.read([tmp_path / "b"]), METRIC).rows
    assert row.described is None and row.absent == {1: "interrupted"}


def test_the_same_runs_give_the_same_numbers(runs):
    records = archive.read([runs])
    assert find(records, METRIC) == find(records, METRIC)


def test_a_metric_that_no_run_has_is_refused_with_the_nearest(runs):
    with pytest.raises(UserError, match=r"no run has a metric 'eval/scor'; did you mean eval/score\?"):
        find(archive.read([runs]), "eval/scor")
    with pytest.raises(UserError, match=r"'run.steps' is no result of a run; there are eval/"):
        find(archive.read([runs]), "run.steps")


def test_what_is_not_finite_is_no_point_of_a_curve(tmp_path):
    folder = run(tmp_path / "a", 1, 8.0)
    rows = [{"step": 1, "eval/score": math.nan}, {"step": 2, "eval/score": None}, {"step": 3, "eval/score": 8.0}]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert find(archive.read([tmp_path]), METRIC).rows[0].curves == {1: [(3, 8.0)]}


def test_of_steps_fewer_are_better(tmp_path):
    for agent, steps in {"hieros": (1000, 1010), "director": (9000, 9010)}.items():
        for seed, step in enumerate(steps):
            results = {"eval/score": 1.0, "convergence_step": step}
            run(tmp_path / f"{agent}{seed}", seed, 1.0, agent__name=agent, account={"results": results})
    sides = [[one for one in archive.read([tmp_path]) if one.facts["agent"] == agent] for agent in ("director", "hieros")]
    assert "B is better than A: 1005 against 9005" in compare(*sides, "convergence_step", None)[1]


def test_a_single_seed_has_no_interval_and_it_is_said(tmp_path):
    run(tmp_path / "a", 1, 5.0)
    assert find(archive.read([tmp_path]), METRIC).warnings == ["hieros on pinpad-three: 1 seed only; there is no interval"]


def test_of_many_groups_the_best_is_held_against_each_other(tmp_path):
    for width in range(25):
        for seed in (1, 2):
            run(tmp_path / f"{width}-{seed}", seed, abs(10.0 - width) + seed, env__length=width, typed=[f"env.length={width}"])
    pairs = find(archive.read([tmp_path]), METRIC).pairs
    assert len(pairs) == 24 and {pair.first for pair in pairs} == {"length=24"}
    assert len({pair.second for pair in pairs}) == 24
