import pytest

from hieros_repro.determinism.keys import Key
from hieros_repro.findings import across, archive
from hieros_repro.findings.finding import find
from hieros_repro.findings.page import texts
from tests.findings.folders import run

KEY = Key(0)("stats", "test")


def played(folder, *, normalised):
    """Two agents in two tasks, three seeds each; a is 10 better in both."""
    for agent, task, seed in [(a, t, s) for a in ("a", "b") for t in ("three", "four") for s in (1, 2, 3)]:
        score = {"three": 100.0, "four": 1000.0}[task] + seed + (10 if agent == "a" else 0)
        where = run(
            folder / f"{agent}-{task}-{seed}",
            seed,
            score,
            agent__name=agent,
            env__task=task,
            typed=[f"agent={agent}", f"env.task={task}"],
        )
        if normalised:
            path = where / "run.json"
            path.write_text(
                path.read_text().replace('"eval/episodes"', f'"eval/human_normalised": {score / 2000}, "eval/episodes"')
            )
    return find(archive.read([folder]), "eval/score")


def test_one_task_is_not_across_tasks(tmp_path):
    run(tmp_path / "a", 1, 1.0)
    assert across.section(find(archive.read([tmp_path]), "eval/score"), KEY) is None


def test_without_a_common_scale_ranks_are_compared(tmp_path):
    section = across.section(played(tmp_path / "runs", normalised=False), KEY)
    means, told, ranks = section.blocks
    assert texts(means) == [["pinpad-four", "1012.00", "1002.00"], ["pinpad-three", "112.00", "102.00"]]
    assert "no common scale" in told.text
    assert [(row[0], row[1]) for row in texts(ranks)] == [("a", "1.000"), ("b", "2.000")]


def test_on_a_common_scale_tasks_are_taken_together(tmp_path):
    section = across.section(played(tmp_path / "runs", normalised=True), KEY)
    overall = section.blocks[1]
    assert [row[:2] for row in overall.rows] == [["a", 2], ["b", 2]]
    assert overall.rows[0][4] == pytest.approx((112 + 1012) / 2 / 2000)
    assert overall.rows[0][8] == pytest.approx(1 - (112 + 1012) / 2 / 2000)  # below 1 everywhere
    assert section.blocks[2].rows[0][:2] == ["a over b", 1.0]


def test_who_was_run_once_is_not_compared_across_tasks(tmp_path):
    run(tmp_path / "1", 1, 1.0, agent__name="a", env__task="three")
    run(tmp_path / "2", 1, 1.0, agent__name="b", env__task="four")
    section = across.section(find(archive.read([tmp_path]), "eval/score"), KEY)
    assert "nothing can be said across tasks" in section.blocks[0].text
