"""What a report says of runs: one, a comparison, a sweep in which things went wrong."""

import json
import re

import pytest

from hieros_repro.findings import archive, expected, results, story
from hieros_repro.findings.finding import find
from hieros_repro.findings.page import Commands, Drawing, Film, Folded, Listing, Paragraph, Table, texts
from tests.findings.folders import run
from tests.runs import ROOT

AGENTS = {"hieros": (180.0, 190.0, 185.0, 195.0, 200.0), "ppo": (50.0, 60.0, 55.0, 65.0, 58.0)}
AGAIN = {"started": "2026-02-01T00:00:00+00:00"}
ERROR = {"kind": "Diverged", "text": "step 7: no longer <finite>"}


def told(paths, metric="eval/score", **options):
    """Section -> all its text, and the page."""
    records = archive.read(paths)
    page = story.compose(find(records, metric, options.pop("margin", None)), records, **options)
    return {section.title: "\n".join(map(text, section.blocks)) for section in page.sections}, page


def text(block):
    match block:
        case Paragraph() | Drawing() | Film():
            return getattr(block, "text", None) or block.caption
        case Listing():
            return "\n".join(block.items)
        case Commands():
            return "\n".join(block.lines)
        case Table():
            return "\n".join(" | ".join(row) for row in [list(block.header), *texts(block)]) + "\n" + block.caption
        case Folded():
            return "\n".join([block.title, *map(text, block.blocks)])
    return "\n".join(f"{item.met} {item.demand}: {item.fact}" for item in block.items)


@pytest.fixture
def agents(tmp_path):
    for name, scores in AGENTS.items():
        for seed, score in enumerate(scores, start=1):
            run(
                tmp_path / f"{name}-{seed}",
                seed,
                score,
                agent__name=name,
                typed=[f"agent={name}", "env=pinpad"],
                digest=f"{name}{seed}",
            )
    return tmp_path


@pytest.fixture
def broken(tmp_path):
    """Two depths; one run failed, one was killed, one has not begun, one came to no number."""
    sweep, jobs = tmp_path / "hieros_depth-123", {}
    for depth, seed in [(d, s) for d in (1, 2) for s in (1, 2, 3)] + [(2, 4)]:
        name = f"depth-{depth}_seed-{seed}"
        jobs[name] = ["env=pinpad", f"agent.max_hierarchy={depth}", f"seed={seed}"]
        state = {(2, 1): {"status": "failed", "error": ERROR}, (2, 2): {"status": "running"}}.get((depth, seed), {})
        score = None if state else float("nan") if (depth, seed) == (1, 3) else 100.0 * depth + seed
        if (depth, seed) != (2, 4):
            run(sweep / name, seed, score, agent__max_hierarchy=depth, typed=jobs[name][:2], **state)
    facts = {"metric": "eval/score", "command": "-m env=pinpad agent.max_hierarchy=1,2 seed=1,2,3", "jobs": jobs}
    (sweep / "sweep.json").write_text(json.dumps(facts))
    return sweep


def test_one_run_says_that_it_says_little(tmp_path):
    sections, page = told([run(tmp_path / "a", 7, 12.5)])
    assert page.title == "hieros on pinpad-three" and page.question == "What eval/score does this run reach?"
    assert "single seed, which says nothing about others" in sections["Answer"]
    assert "None a repetition is bit-equal" in sections["Reproducibility checklist"]
    assert "False at least 3 seeds a group" in sections["Reproducibility checklist"]
    assert f"verify run={tmp_path / 'a'}" in sections["Determinism"]


def test_the_better_of_two_is_named_with_its_numbers(agents):
    sections, page = told([agents])
    assert page.title == "2 configurations on pinpad-three"
    assert "hieros is better than ppo" in sections["Answer"] and "190" in sections["Answer"]
    assert re.search(r"hieros \| 5 \| 190\.00 \| 7\.906 \| \[180\.18, 199\.82\] \| 190\.00", sections["Results"])
    assert "agent.name | hieros | ppo" in sections["What differs"]
    assert "seed=1,2,3,4,5" in sections["How to repeat it"] and "git checkout " + "c" * 40 in sections["How to repeat it"]
    assert "Every run finished with a value." in sections["Failures"]


def test_curves_are_summed_up(agents):
    sections, _ = told([agents])
    # a quarter of the score at each of four evaluations, 250 steps apart: (1 + 2 (2 + 3) + 4) / 4 / 6 of 190
    assert "hieros | 118.75 | " in sections["Learning curves"]
    assert "steps to 95 | steps to 171" in sections["Learning curves"]
    assert "500 (5 of 5) | 1,000 (5 of 5)" in sections["Learning curves"]  # at 500 steps three have half of 190, at 750 all


def test_a_seed_that_was_repeated_is_told_apart_from_seeds_that_differ(agents):
    run(agents / "again", 1, 180.0, agent__name="hieros", typed=["agent=hieros", "env=pinpad"], digest="hieros1", account=AGAIN)
    determinism = told([agents])[0]["Determinism"]
    assert "Bit-equal: 1 seed(s) were run more than once" in determinism and "hieros seed 1" in determinism
    assert "hieros: eval/score varies by 7.906" in determinism and "To see it" not in determinism
    run(
        agents / "other",
        2,
        190.0,
        agent__name="hieros",
        typed=["agent=hieros", "env=pinpad"],
        digest="something else",
        account=AGAIN,
    )
    sections, _ = told([agents])
    assert "NOT bit-equal: hieros seed 2" in sections["Determinism"]
    assert "False a repetition is bit-equal: 1 of 2" in sections["Reproducibility checklist"]


def test_nothing_that_is_missing_is_dropped(broken):
    sections, page = told([broken])
    assert page.question.startswith("Does Hieros' hierarchy help?")  # from multirun_scripts/hieros_depth.sh
    assert "4 finished" in page.subtitle and "1 failed" in page.subtitle and "1 pending" in page.subtitle
    for reason in ("seed 3: eval/score is nan", "failed: Diverged: step 7: no longer <finite>", "interrupted", "pending"):
        assert reason in sections["Results"], reason
    failures = sections["Failures"]
    assert f"resume={broken / 'depth-2_seed-1'}" in failures and "step 7" in failures
    assert f"env=pinpad agent.max_hierarchy=2 seed=4 run.dir={broken / 'depth-2_seed-4'}" in failures
    assert "max_hierarchy=1, seed 3: eval/score is nan" in failures
    assert "-m env=pinpad agent.max_hierarchy=1,2 seed=1,2,3" in sections["How to repeat it"]
    assert "max_hierarchy=2 reached eval/score 203.00 with a single seed" in sections["Answer"]
    assert "a mean eval/score of 101.50 over 2 seeds" in sections["Answer"] and "cannot be compared" in sections["Answer"]


def test_a_margin_is_passed_on(agents):
    assert "(none was given: --margin, or sweep.margin" in told([agents])[0]["Comparisons"]
    assert "within the margin (7)" in told([agents], margin=7.0)[0]["Comparisons"]


def test_what_is_asked_for_wins(agents):
    _, page = told([agents], title="T", question="Q?")
    assert (page.title, page.question) == ("T", "Q?")


def test_expectations_are_held_against_the_runs(tmp_path, agents):
    reference = tmp_path / "expected.yaml"
    reference.write_text("expected: {eval/score: {at_least: 500}}\n")
    sections, _ = told([agents / "ppo-1"], reference=reference)
    assert "at least 500" in sections["Results"] and "NOT MET" in sections["Results"]
    assert "False expected results with tolerances: 0 of 1" in sections["Reproducibility checklist"]


def test_each_group_is_held_against_the_file_of_its_experiment(tmp_path):
    experiment = "experiment=cartpole_baseline"
    wanted = expected.read(ROOT / "references" / "cartpole_baseline.yaml").config
    preset = {key.replace(".", "__", 1): value for key, value in wanted.items() if "." in key} | {
        "agent__name": wanted["agent"]
    }
    run(tmp_path / "a", 1, 500.0, typed=[experiment, "log=quiet"], **preset)
    run(tmp_path / "d", 1, 500.0, typed=[experiment], **{**preset, "agent__value_scale": 1.0})
    run(tmp_path / "b", 1, 100.0, typed=[experiment, "agent.max_hierarchy=2"], agent__max_hierarchy=2)
    run(tmp_path / "c", 1, 300.0, agent__max_hierarchy=1)
    sections, _ = told([tmp_path])
    held = [line for line in sections["Results"].splitlines() if "at least 490.0" in line]
    assert (
        len(held) == 1 and held[0].endswith("| met") and "Held against references/cartpole_baseline.yaml" in sections["Results"]
    )
    told_apart = "the file is about another configuration (agent.value_scale = 100.0 in the file, 1.0 in 1 of 1 run(s))"
    assert told_apart in sections["Results"]
    assert "it cannot be told: other overrides were typed (agent.max_hierarchy=2)" in sections["Results"]


def test_a_sweeps_question_is_asked_of_all_its_runs_only(broken):
    own = "Does Hieros' hierarchy help?"
    assert not told([broken], narrowed=True)[1].question.startswith(own)
    assert not told([broken / "depth-1_seed-1", broken / "depth-2_seed-3"])[1].question.startswith(own)
    other = run(broken.parent / "other", 9, 1.0)
    assert not told([broken, other])[1].question.startswith(own)


def test_runs_of_two_commits_are_repeated_one_after_the_other(tmp_path):
    for seed, commit in ((1, "a" * 40), (2, "b" * 40), (3, "b" * 40)):
        code = {"commit": commit, "changed": False, "sources": commit}
        run(tmp_path / str(seed), seed, 1.0, typed=["env=pinpad"], account={"code": code})
    lines = told([tmp_path])[0]["How to repeat it"].splitlines()
    found = [line for line in lines if line.startswith(("git", "python")) and "compare" not in line]
    assert found == [
        f"git checkout {'a' * 40}", "python -m hieros_repro.train env=pinpad seed=1",
        f"git checkout {'b' * 40}", "python -m hieros_repro.train -m env=pinpad seed=2,3",
    ]  # fmt: skip


def test_a_folder_of_configurations_is_named_again(broken):
    facts = json.loads((broken / "sweep.json").read_text())
    (broken / "sweep.json").write_text(json.dumps(facts | {"flags": ["--config-dir", "/my conf"]}))
    sections, _ = told([broken])
    assert "train --config-dir '/my conf' -m env=pinpad agent.max_hierarchy=1 seed=1,2,3" in sections["How to repeat it"]
    assert f"train --config-dir '/my conf' resume={broken / 'depth-2_seed-1'}" in sections["Failures"]


def test_less_is_better_of_the_step_at_which_something_was_reached(tmp_path):
    for name, steps in (("slow", (900, 910, 920)), ("fast", (100, 110, 120))):
        for seed, step in enumerate(steps):
            results = {"eval/score": 1.0, "convergence_step": step, "step": 1000}
            typed = [f"agent={name}"]
            run(tmp_path / f"{name}-{seed}", seed, 1.0, agent__name=name, typed=typed, account={"results": results})
    sections, page = told([tmp_path], "convergence_step")
    assert "fast is better than slow" in sections["Answer"] and "the lowest convergence_step" in page.question
    assert re.search(r"(slow against fast \| 0\.000|fast against slow \| 1\.000)", sections["Comparisons"])


def test_areas_are_over_the_steps_that_all_curves_cover(tmp_path):
    long, short = run(tmp_path / "long", 1, 100.0), run(tmp_path / "short", 1, 100.0, agent__max_hierarchy=2)
    lines = [{"step": step, "eval/score": score} for step, score in ((250, 0.0), (500, 100.0))]
    (short / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert long.exists()
    curves = told([tmp_path])[0]["Learning curves"]
    assert "pinpad-three: 250 to 500" in curves and "half and 90 % of the highest group mean" in curves
    assert sorted(re.findall(r"\| (\d+\.\d+) \| - \|", curves)) == ["37.50", "50.00"]  # (25 + 50) / 2 and (0 + 100) / 2


def test_a_single_evaluation_is_no_curve(agents):
    for folder in agents.iterdir():
        (folder / "metrics.jsonl").write_text(json.dumps({"step": 1000, "eval/score": 1.0 + len(folder.name)}) + "\n")
    assert "a single evaluation, so no curve" in told([agents])[0]["Learning curves"]


def test_what_cannot_be_read_does_not_end_the_report(tmp_path):
    folder = run(tmp_path / "a", 1, 5.0)
    (folder / "timing.jsonl").write_text("no json\n")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1100, "eval/score": null}\n{"step": 1200, "Subactor-0/kl": NaN}\n')
    sections, _ = told([tmp_path])
    assert "nan" in sections["Levels"] and "steps to 2.5" in sections["Learning curves"]


def test_numerics_that_differ_are_shown(agents):
    path = agents / "ppo-2" / "run.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"numerics": {**facts["numerics"], "threads": 2}}))
    sections, _ = told([agents])
    assert "threads | 1 | 2 | 1" in sections["Provenance"]
    assert "False equal numerics: 2 different" in sections["Reproducibility checklist"]


def test_uncommitted_changes_are_shown(agents):
    for seed in (1, 2):
        path = agents / f"ppo-{seed}" / "run.json"
        facts = json.loads(path.read_text())
        path.write_text(json.dumps(facts | {"code": {**facts["code"], "changed": True}}))
        (agents / f"ppo-{seed}" / "code.patch").write_text("--- a\n+++ b\n-old\n+new\n")
    sections, _ = told([agents])
    assert "uncommitted changes of 2 run(s): 4 lines" in sections["Provenance"] and "+new" in sections["Provenance"]
    assert (
        "False code committed, without changes: 2 of 10 runs had uncommitted changes (2 lines"
        in sections["Reproducibility checklist"]
    )
    assert "git apply" in sections["How to repeat it"]


def test_the_table_of_a_paper_has_seven_columns_with_the_numbers_of_the_full_one(agents):
    found = find(archive.read([agents]), "eval/score")
    table = results.paper_table(found)
    assert table.header == ("group", "n", "mean ± std", "95 % interval", "IQM", "median", "range")
    assert table.rows[0] == ["hieros", 5, "190.0 ± 7.9", "[180.2, 199.8]", "190.0", "190.0", "180.0 to 200.0"]
    assert len(results.result_table(found).header) == 17
