import pytest
from scipy import stats

from hieros_repro.findings import archive
from hieros_repro.findings.sides import compare
from hieros_repro.records import UserError
from tests.findings.folders import run

METRIC = "eval/score"
A, B = [200.0, 210.0, 190.0, 205.0], [196.0, 207.0, 188.0, 206.0, 199.0]


def side(folder, scores, **changes):
    for seed, score in enumerate(scores):
        run(folder / str(seed), seed, score, **changes)
    return archive.read([folder])


def test_an_account_of_two_groups(tmp_path):
    same, text = compare(side(tmp_path / "a", A), side(tmp_path / "b", B, env__length=500), METRIC, None)
    expected = stats.ttest_ind(A, B, equal_var=False)
    low, high = expected.confidence_interval()
    assert same
    assert "configuration differs: env.length = 2000 in A, 500 in B" in text
    assert f"95 % interval [{low:.2f}, {high:.2f}]" in text and f"p = {expected.pvalue:.4f}" in text
    assert "4 of 4 seeds on both sides came to the same parameters, bit for bit" in text
    assert "verdict: A and B cannot be told apart" in text.splitlines()[-1]


def test_groups_far_apart_differ(tmp_path):
    same, text = compare(side(tmp_path / "a", A), side(tmp_path / "b", [b - 100 for b in B]), METRIC, None)
    assert not same and "A is better than B" in text


@pytest.mark.parametrize("margin, equivalent", [(30.0, True), (3.0, False)])
def test_with_a_margin_only_shown_equivalence_counts_as_the_same(tmp_path, margin, equivalent):
    same, text = compare(side(tmp_path / "a", A), side(tmp_path / "b", B), METRIC, margin)
    assert same == equivalent and ("equivalent within a margin" in text) == equivalent


def test_one_seed_a_side_can_be_told_apart_by_nothing(tmp_path):
    same, text = compare(side(tmp_path / "a", A[:1]), side(tmp_path / "b", B[:1]), METRIC, None)
    assert same and "a test needs two of each" in text


def test_a_side_without_a_value_is_refused(tmp_path):
    run(tmp_path / "b" / "0", 0, status="failed", error={"kind": "Diverged", "text": "step 7"})
    with pytest.raises(UserError, match=r"side B: no run has a value of eval/score \(seed 0 failed: Diverged: step 7\)"):
        compare(side(tmp_path / "a", A), archive.read([tmp_path / "b"]), METRIC, None)


def test_a_side_of_several_configurations_is_pointed_out(tmp_path):
    both = [*side(tmp_path / "a", A), *side(tmp_path / "c", A, env__length=500)]
    assert "side A holds runs of different configurations" in compare(both, side(tmp_path / "b", B), METRIC, None)[1]
