"""hieros report, as a process: files that are there, and errors of one line."""

import csv
import re

import pytest
from PIL import Image

from hieros_repro.findings import pictures
from hieros_repro.report import main
from tests.findings.folders import run as folder
from tests.runs import process
from tests.runs import run as real_run


@pytest.fixture
def runs(tmp_path):
    for agent, base in (("hieros", 100.0), ("ppo", 50.0)):
        for seed in (1, 2, 3):
            folder(tmp_path / "outputs" / f"{agent}-{seed}", seed, base + seed, agent__name=agent, typed=[f"agent={agent}"])
    return tmp_path


def test_a_report_of_outputs_with_everything(runs):
    done = process("report", "--table", "a.csv", "--table", "b.tex", "--table", "c.md", "--question", "Who <wins>?", cwd=runs)
    assert done.returncode == 0, done.stderr
    assert "hieros" in done.stdout and "102.00" in done.stdout and "written: report.html" in done.stdout
    text = (runs / "report.html").read_text(encoding="utf8")
    assert "Who &lt;wins&gt;?" in text and "hieros is better than ppo" in text
    assert (runs / "report.pdf").read_bytes().startswith(b"%PDF")
    rows = list(csv.DictReader((runs / "a.csv").open()))
    assert [(row["group"], float(row["mean"])) for row in rows] == [("hieros", 102.0), ("ppo", 52.0)]
    assert r"\toprule" in (runs / "b.tex").read_text() and (runs / "c.md").read_text().startswith("| group")


def test_all_groups_are_drawn_in_one_picture(runs, monkeypatch, capsys):
    drawn = {}
    draw = pictures.sweep_figure

    def seen(path, metric, curves, finals, shared):
        drawn.update(curves=curves, finals=finals)
        draw(path, metric, curves, finals, shared)

    monkeypatch.setattr(pictures, "sweep_figure", seen)
    monkeypatch.chdir(runs)
    monkeypatch.setattr("sys.argv", ["hieros-report", "--no-pdf", "--figure", "deep/a.png"])
    main()
    assert "written: deep/a.png" in capsys.readouterr().out
    assert drawn["finals"] == {"hieros": {"1": 101.0, "2": 102.0, "3": 103.0}, "ppo": {"1": 51.0, "2": 52.0, "3": 53.0}}
    assert {name: {seed: len(curve) for seed, curve in of.items()} for name, of in drawn["curves"].items()} == {
        name: {"1": 4, "2": 4, "3": 4} for name in ("hieros", "ppo")
    }
    with Image.open("deep/a.png") as image:
        assert image.width > 1000 and len(image.convert("L").getcolors()) > 50
    assert [path.name for path in (runs / "deep").iterdir()] == ["a.png"]


def test_where_nothing_can_be_drawn_nothing_is_written(tmp_path, monkeypatch, capsys):
    folder(tmp_path / "outputs" / "a", 1, 5.0, status="failed", error={"kind": "ValueError", "text": "no"})
    (tmp_path / "outputs" / "a" / "metrics.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["hieros-report", "--no-pdf", "--figure", "deep/a.png"])
    with pytest.raises(SystemExit):
        main()
    assert "--figure deep/a.png: no run has a value or a curve of eval/score to draw" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} <= {"outputs"}


def test_half_a_character_in_an_error_is_written_as_a_question_mark(tmp_path, monkeypatch, capsys):
    error = {"kind": "ValueError", "text": "half \ud800 of a character"}
    folder(tmp_path / "outputs" / "a", 1, 5.0, status="failed", error=error)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["hieros-report"])
    main()
    assert "half ? of a character" in (tmp_path / "report.html").read_text(encoding="utf8") and capsys.readouterr().out


def test_equal_runs_give_equal_files_whatever_the_hash_seed(runs):
    for name, seed in (("a", "1"), ("b", "2")):
        assert process("report", "--out", f"{name}.html", cwd=runs, PYTHONHASHSEED=seed).returncode == 0
    for suffix in ("html", "pdf"):
        assert (runs / f"a.{suffix}").read_bytes() == (runs / f"b.{suffix}").read_bytes()


def test_a_real_run_is_reported(tmp_path):
    real_run(tmp_path / "run", "run.steps=300")
    done = process("report", "run", "--out", "deep/r.html", "--no-pdf", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["r.html"]
    assert re.search(r"ppo on cartpole-v1", (tmp_path / "deep" / "r.html").read_text(encoding="utf8"))


@pytest.mark.parametrize(
    "arguments, told",
    [
        (["nowhere"], "nowhere: there is no such folder"),
        (["--where", "agent=nobody"], "no run is meant by it; agent is one of hieros, ppo"),
        (["--where", ""], "it ends too early"),
        (["--metric", "agent"], "'agent' is no result of a run"),
        (["--metric", "run.steps"], "'run.steps' is no result of a run"),
        (["--where", "agnt=ppo"], "did you mean agent?"),
        (["--metric", "eval/scor"], "did you mean eval/score?"),
        (["--out", "report.docx"], "a report is an .html file"),
        (["--table", "a.xls"], "a table is one of .md, .tex, .csv"),
        (["--figure", "a.svg"], "a figure is a .png file"),
        (["--margin", "-1"], "it must be a positive number"),
        (["--expected", "none.yaml"], "none.yaml: no such references file"),
        (["--expected", "expectd.yaml"], "no such references file; did you mean expected.yaml?"),
    ],
)
def test_bad_input_ends_in_one_line(runs, arguments, told, monkeypatch, capsys):
    monkeypatch.chdir(runs)
    (runs / "expected.yaml").write_text("expected: {}")
    monkeypatch.setattr("sys.argv", ["hieros-report", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    errors = capsys.readouterr().err
    assert ended.value.code == 2 and told in errors and len(errors.splitlines()) == 1
    assert not (runs / "report.html").exists()
