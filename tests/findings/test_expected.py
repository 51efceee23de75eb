import pytest
import yaml

from hieros_repro import compare
from hieros_repro.check import check
from hieros_repro.findings import archive, expected
from hieros_repro.findings.finding import find
from hieros_repro.findings.held import hold
from hieros_repro.findings.record import NOT_THE_RUN, flat, played
from hieros_repro.records import UserError
from tests.findings.folders import run
from tests.runs import ROOT, compose


@pytest.fixture
def runs(tmp_path):
    """Seeds with scores 470, 480, 490: a mean of 480 and a t-interval of [455.16, 504.84]. One failed."""
    for seed, score in enumerate([470.0, 480.0, 490.0]):
        run(tmp_path / "runs" / str(seed), seed, score)
    run(tmp_path / "runs" / "3", 3, 0.0, status="failed")
    return archive.read([tmp_path / "runs"])


def read(tmp_path, document):
    (tmp_path / "references.yaml").write_text(yaml.safe_dump(document))
    return expected.read(tmp_path / "references.yaml")


def verdicts(tmp_path, runs, tolerance=None, seeds=1, **wanted):
    return expected.judge(read(tmp_path, {"expected": wanted, "seeds": seeds}), runs, tolerance)


@pytest.mark.parametrize(
    "wanted, met",
    [
        ({"value": 500, "absolute": 20}, True),
        ({"value": 500, "absolute": 19}, False),
        ({"interval": [504, 600]}, True),
        ({"interval": [505, 600]}, False),
        ({"interval": [300, 455]}, False),
        ({"interval": [300, 456]}, True),
    ],
)
def test_a_mean_within_an_absolute_distance_or_an_interval_that_overlaps(tmp_path, runs, wanted, met):
    (verdict,) = verdicts(tmp_path, runs, **{"eval/score": wanted})
    assert verdict.met == met and verdict.word == ("met" if met else "NOT MET") and verdict.found.n == 3


def test_a_tolerance_on_the_command_line_wins_over_an_absolute_one(tmp_path, runs):
    assert not verdicts(tmp_path, runs, tolerance=0.01, **{"eval/score": {"value": 500, "absolute": 30}})[0].met


def test_so_many_seeds_must_have_finished(tmp_path, runs):
    assert [v.met for v in verdicts(tmp_path, runs, seeds=3, **{"eval/score": {"at_least": 0}})] == [True, True]
    assert [v.met for v in verdicts(tmp_path, runs, seeds=4, **{"eval/score": {"at_least": 0}})] == [True, False]


def test_a_repeated_seed_counts_once_and_the_share_is_of_all_seeds(tmp_path, runs):
    run(tmp_path / "runs" / "again", 0, 0.0)  # of seed 0 the first finished run counts
    runs = archive.read([tmp_path / "runs"])
    (verdict,) = verdicts(tmp_path, runs, **{"eval/score": {"at_least": 480, "share": 0.75}})
    assert verdict.met and verdict.found.n == 3  # 3 of 4 seeds, the fourth failed
    assert not verdicts(tmp_path, runs, **{"eval/score": {"at_least": 480, "share": 0.76}})[0].met


def test_what_no_run_reached_is_not_met_and_not_missing(tmp_path):
    for seed in range(5):
        run(tmp_path / "runs" / str(seed), seed, 1.0, account={"results": {"eval/score": 1.0, "convergence_step": None}})
    found = verdicts(tmp_path, archive.read([tmp_path / "runs"]), convergence_step={"at_most": 9}, never={"at_most": 9})
    assert [(verdict.word, verdict.met) for verdict in found] == [("NOT MET", False), ("missing", False)]
    assert found[0].wording == "at most 9; 0 of 5 reached it"


def test_what_is_not_finite_is_named_and_not_met(tmp_path, runs):
    run(tmp_path / "runs" / "4", 4, float("nan"))
    (verdict,) = verdicts(tmp_path, archive.read([tmp_path / "runs"]), **{"eval/score": {"at_least": 0}})
    assert (verdict.word, verdict.met) == ("not finite", False)


@pytest.mark.parametrize(
    "document, said",
    [
        ({"expect": {}}, "it has no `expected:`"),
        ({"expected": {"eval/score": {"atleast": 3}}}, "there is no condition 'atleast'; .*did you mean at_least"),
        ({"expected": {"eval/score": {"at_least": "many"}}}, "at_least = 'many'; it must be a number"),
        ({"expected": {"eval/score": {"interval": [1]}}}, r"interval = \[1\]; it must be two numbers \[low, high\]"),
        ({"expected": {"eval/score": {"tolerance": 0.1}}}, "a tolerance needs a value"),
        ({"expected": {"eval/score": 7}}, "7 is not a mapping of value, tolerance"),
        ({"expected": {}, "source": {}}, "there is no key 'source'; .*did you mean sources"),
        ({"expected": {}, "config": ["agent.clip"]}, "config: .* is not a mapping of keys"),
        ({"expected": {}, "config": {"agent": {"clip": 0.2}}}, "agent is a mapping; write its keys with dots: agent.clip"),
    ],
)
def test_a_file_with_what_nobody_would_read_is_refused(tmp_path, document, said):
    with pytest.raises(UserError, match=said):
        read(tmp_path, document)


def test_what_is_not_yaml_is_refused_by_name(tmp_path):
    (tmp_path / "references.yaml").write_text("expected: [")
    with pytest.raises(UserError, match=r"references\.yaml: not YAML"):
        expected.read(tmp_path / "references.yaml")


# -- Of which configuration --------------------------------------------------------------------------------------------


def test_runs_of_the_files_configuration_are_judged(tmp_path, runs):
    config = {"agent": "hieros", "env.length": 2000, "agent.max_hierarchy": 3, "run.steps": 1000}
    assert expected.differing(read(tmp_path, {"expected": {}, "config": config}), runs) == []


def test_what_is_otherwise_is_named_with_both_values(tmp_path, runs):
    run(tmp_path / "runs" / "other", 7, 1.0, agent__max_hierarchy=2)
    document = {"expected": {}, "config": {"agent.max_hierarchy": 3, "env.length": 500, "env.lenght": 500}}
    assert expected.differing(read(tmp_path, document), archive.read([tmp_path / "runs"])) == [
        "agent.max_hierarchy = 3 in the file, 2 in 1 of 5 run(s)",
        "env.lenght = 500 in the file; no run has that key; did you mean env.length?",
        "env.length = 500 in the file, 2000 in 5 of 5 run(s)",
    ]


def test_runs_of_another_configuration_are_not_judged(tmp_path, runs, capsys):
    path = tmp_path / "references.yaml"
    path.write_text(yaml.safe_dump({"expected": {"eval/score": {"at_least": 1}}, "config": {"env.length": 500}}))
    with pytest.raises(UserError, match=r"about another configuration.*\n  env\.length = 500 in the file, 2000 in 3 of 3"):
        compare.expected([tmp_path / "runs"], path, None)
    (held,) = hold(find(runs, "eval/score"), path)
    assert held.verdicts == [] and "env.length = 500 in the file, 2000 in 4 of 4" in held.why


@pytest.mark.parametrize("path", sorted((ROOT / "references").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_references_file_is_about_its_experiment(path):
    """Every key that the preset itself gives, with the value that it comes to."""
    composed = check(compose(f"experiment={path.stem}"))
    facts = dict(flat(composed)) | played(composed)
    config = expected.read(path).config
    preset = yaml.safe_load((ROOT / "conf" / "experiment" / path.name).read_text())
    own = [key for key, _ in flat({k: v for k, v in preset.items() if k != "defaults"}) if not key.startswith(NOT_THE_RUN)]
    assert set(own) <= set(config)
    assert {key: facts[key] for key in config} == config


@pytest.mark.parametrize(
    ("wanted", "found", "same"),
    [("1e-4", 1e-4, True), ("1e-4", 2e-4, False), (1, 1.0, True), (True, 1, False), (False, 0, False), (None, None, True),
     ([1, 2], [1, 2], True), ("relu", 0.5, False)],
)  # fmt: skip
def test_values_are_compared_as_they_were_meant(wanted, found, same):
    assert expected._same(wanted, found) is same
