import json

from hieros_repro.findings import record
from tests.findings.folders import configured, run


def test_a_record_says_what_the_run_is_and_what_it_came_to(tmp_path):
    folder = run(tmp_path / "a", 7, 12.0, typed=["agent=hieros", "env=pinpad"], scores=[11.0, 13.0])
    found = record.read(folder)
    assert (found.status, found.seed, found.scores, found.error) == ("finished", 7, [11.0, 13.0], None)
    assert found.typed == ["agent=hieros", "env=pinpad"]  # without the seed and the folder
    assert found.facts["env"] == "pinpad" and found.facts["task"] == "pinpad-three" and found.facts["agent"] == "hieros"
    assert found.facts["env.length"] == 2000 and found.facts["eval/score"] == 12.0 and found.facts["cpu"] == "a CPU"
    assert found.curve("eval/score") == [(250, 3.0), (500, 6.0), (750, 9.0), (1000, 12.0)]


def test_a_registered_id_is_an_environment_of_its_own(tmp_path):
    target = "hieros_repro.env.gymnasium.Gymnasium"
    found = record.read(run(tmp_path / "a", 7, 12.0, env___target_=target, env__id="Acrobot-v1", env__task=None))
    assert found.facts["env"] == found.facts["task"] == "acrobot-v1"


def test_only_a_finished_run_has_a_final_value(tmp_path):
    assert record.read(run(tmp_path / "a", 7, 12.0)).value("eval/score") == 12.0
    assert record.read(run(tmp_path / "b", 7, 12.0, status="failed")).value("eval/score") is None


def test_a_killed_run_is_not_believed_to_be_running(tmp_path):
    assert record.read(run(tmp_path / "a", 7, status="running")).status == "interrupted"


def test_a_failed_run_says_why(tmp_path):
    error = {"kind": "Diverged", "text": "step 7: no longer finite"}
    assert record.read(run(tmp_path / "a", 7, status="failed", error=error)).error == "Diverged: step 7: no longer finite"


def test_a_folder_that_holds_nothing_is_pending(tmp_path):
    found = record.read(tmp_path / "nothing")
    assert (found.status, found.seed, found.group, found.evaluations) == ("pending", None, "", [])


def test_what_a_run_is_does_not_depend_on_its_seed_its_folder_or_what_is_looked_at():
    same = [configured(1), configured(2), configured(1, run__dir="elsewhere"), configured(1, log__terminal="panel")]
    assert len({record.identity(config) for config in same}) == 1
    others = [configured(1, env__length=1000), configured(1, agent__max_hierarchy=2), configured(1, run__steps=5)]
    assert len({record.identity(config) for config in [same[0], *others]}) == 4


def test_a_last_evaluation_cut_short_is_left_out(tmp_path):
    path = run(tmp_path / "a", 7, 12.0) / "metrics.jsonl"
    with path.open("a") as file:
        file.write(json.dumps({"step": 2000, "eval/score": 1.0})[:-3])
    assert [row["step"] for row in record.evaluations(path)] == [250, 500, 750, 1000]


def test_the_last_row_of_timing_is_the_cost(tmp_path):
    folder = run(tmp_path / "a", 7, 12.0)
    assert record.costs(folder) == {}
    (folder / "timing.jsonl").write_text('{"step": 1, "steps_per_second": 3.0}\n{"step": 2, "steps_per_second": 5.0}\n')
    assert record.costs(folder)["steps_per_second"] == 5.0
