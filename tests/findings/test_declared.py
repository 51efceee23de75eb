"""sweep.margin and sweep.cv_tolerance: declared with the runs, held against what they came to."""

import json

import pytest
import yaml
from scipy import stats

from hieros_repro.findings import archive, declared
from hieros_repro.findings.declared import agreed, clash, declarations, steadiness
from hieros_repro.findings.finding import find
from hieros_repro.findings.record import identity
from hieros_repro.findings.sides import compare
from hieros_repro.records import UserError
from tests.findings.folders import run
from tests.findings.test_story import told

METRIC = "eval/score"
A, B = (190.0, 200.0, 210.0), (196.0, 201.0, 206.0)  # means 200 and 201, deviations 10 and 5, CV 0.05 and 0.0249


def declare(folder, metric=METRIC, **values):
    """Writes the group `sweep` into the configuration of a run."""
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**config, "sweep": {"metric": metric, "margin": None, "cv_tolerance": None, **values}}))


def side(folder, scores, metric=METRIC, name="hieros", **values):
    for seed, score in enumerate(scores):
        declare(run(folder / f"{name}-{seed}", seed, score, agent__name=name), metric, **values)
    return archive.read([folder])


def both(folder, first, second):
    return [*side(folder / "a", A, **first), *side(folder / "b", B, name="ppo", **second)]


def test_a_margin_is_taken_from_the_runs_configuration(tmp_path):
    found = find(both(tmp_path, {"margin": 25.0}, {"margin": 25.0}), METRIC)
    (pair,) = found.pairs
    e = (100 / 3 + 25 / 3) ** 0.5
    df = e**4 / ((100 / 3) ** 2 / 2 + (25 / 3) ** 2 / 2)
    assert pair.contrast.margin == 25.0 and found.margin is None
    assert pair.contrast.equivalence == pytest.approx(stats.t.sf((25 - 1) / e, df))


def test_the_command_line_wins(tmp_path):
    found = find(both(tmp_path, {"margin": 25.0}, {"margin": 30.0}), METRIC, margin=40.0)
    assert found.pairs[0].contrast.margin == 40.0 and not any("sweep.margin" in text for text in found.warnings)


def test_who_declares_nothing_contradicts_nobody(tmp_path):
    assert find(both(tmp_path, {"margin": 25.0}, {}), METRIC).pairs[0].contrast.margin == 25.0


def test_margins_that_disagree_are_said_and_none_is_chosen(tmp_path):
    records = both(tmp_path, {"margin": 25.0}, {"margin": 30.0})
    found = find(records, METRIC)
    assert found.pairs[0].contrast.margin is None and found.pairs[0].contrast.equivalence is None
    assert any("sweep.margin is 25 and 30 in its runs" in text for text in found.warnings)
    with pytest.raises(UserError, match=r"sweep.margin is 25 and 30 .*A says 25; B says 30.*--margin"):
        compare(records[:3], records[3:], METRIC, None)
    assert "not shown" in compare(records[:3], records[3:], METRIC, 2.0)[1]


def test_a_declaration_says_nothing_of_another_metric(tmp_path):
    records = both(tmp_path, {"margin": 25.0, "metric": "eval/length"}, {"cv_tolerance": 0.1, "metric": "eval/length"})
    found = find(records, METRIC)
    assert found.pairs[0].contrast.margin is None and [row.tolerance for row in found.rows] == [None, None]


def test_what_a_sweep_was_told_later_wins_over_its_runs(tmp_path):
    side(tmp_path, A, margin=25.0, cv_tolerance=0.01)
    jobs = {f"hieros-{seed}": [f"seed={seed}"] for seed in range(3)}
    facts = {"metric": METRIC, "command": "-m", "axes": ["seed"], "jobs": jobs, "margin": None, "cv_tolerance": 0.2}
    (tmp_path / "sweep.json").write_text(json.dumps(facts))
    (row,) = find(archive.read([tmp_path]), METRIC).rows
    assert row.tolerances == (0.2,) and row.margins == (25.0,)


def test_declarations_are_no_part_of_what_a_run_is(tmp_path):
    before = yaml.safe_load((run(tmp_path / "a", 1, 1.0) / "config.yaml").read_text())
    declare(tmp_path / "a", margin=3.0, cv_tolerance=0.1)
    assert identity(yaml.safe_load((tmp_path / "a" / "config.yaml").read_text())) == identity(before)


@pytest.mark.parametrize(
    "tolerance, steady, words", [(0.05, True, "CV 0.05, within 0.05"), (0.04, False, "CV 0.05, above 0.04")]
)
def test_seeds_are_held_against_their_tolerance(tmp_path, tolerance, steady, words):
    (row,) = find(side(tmp_path, A, cv_tolerance=tolerance), METRIC).rows
    assert row.cv == pytest.approx(10 / 200) and row.steady is steady and steadiness(row.cv, row.tolerance) == words
    sections, _ = told([tmp_path])
    assert words.partition(", ")[2] in sections["Results"]
    assert (
        f"{steady} seeds vary within a declared tolerance: hieros on pinpad-three: {words}"
        in (sections["Reproducibility checklist"])
    )
    assert ("vary more than sweep.cv_tolerance" in sections["Results"]) is not steady


def test_tolerances_that_disagree_are_said_and_none_is_chosen(tmp_path):
    side(tmp_path, A, cv_tolerance=0.05)
    declare(tmp_path / "hieros-2", cv_tolerance=0.1)
    (row,) = find(archive.read([tmp_path]), METRIC).rows
    assert row.tolerance is None and row.steady is None and row.tolerances == (0.05, 0.1)
    sections, _ = told([tmp_path])
    assert "sweep.cv_tolerance is 0.05 and 0.1 in its runs: its spread is held against none" in sections["Results"]
    assert "None seeds vary within a declared tolerance" in sections["Reproducibility checklist"]


def test_a_comparison_tests_what_the_runs_declare(tmp_path):
    records = both(tmp_path, {"margin": 25.0, "cv_tolerance": 0.04}, {"margin": 25.0})
    same, text = compare(records[:3], records[3:], METRIC, None)
    assert same and "equivalent within a margin of 25" in text
    assert "spread of A over its seeds" in text and "CV 0.05, above 0.04 (sweep.cv_tolerance)" in text
    same, text = compare(records[:3], records[3:], METRIC, 3.0)
    assert not same and "within a margin of 3 (--margin) was not shown: exit code 1" in text


def test_words():
    assert agreed(()) is None and agreed((1.0, 1.0)) == 1.0 and agreed((1.0, 2.0)) is None
    assert clash("margin", (2.0,)) == "" and clash("margin", (2.0, 1.0)) == "sweep.margin is 1 and 2"
    assert steadiness(None, None) == "no CV" and steadiness(None, 0.1) == "no CV to hold against 0.1"
    assert declarations([]) == {} and declared.values([], "margin", METRIC, {}) == ()
