"""The log of a run and what it shows: lines, panel, TensorBoard, Weights & Biases."""

import contextlib
import os
import pty
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from hieros_repro.log import jsonl
from hieros_repro.log.base import Log, Options, Silent, meaning, plain_number
from hieros_repro.log.terminal import Lines, Panel, clock, terminal
from hieros_repro.records import Episode, Hint
from tests.runs import run

CONFIG = {"run": {"steps": 1000}}
EVALUATION = {"step": 500, "eval/score": 7.25, "eval/score_std": 1.5, "eval/episodes": 4}
TIMING = {
    "step": 250,
    "steps_per_second": 125.0,
    "seconds_left": 6.0,
    "share/act": 0.75,
    "share/env": 0.2,
    "share/log": 0.001,
    "memory_mb": 1.0,
}


def options(**changes):
    plain = {"terminal": "quiet", "tensorboard": False, "wandb": "disabled", "wandb_project": "p", "wandb_entity": None}
    return Options(**plain | {"wandb_name": None, "wandb_prefix": "", "video_format": "gif"} | changes)


@pytest.fixture
def log(tmp_path):
    log = Log(tmp_path, options(), CONFIG, {})
    yield log
    log.close()


# -- The files -----------------------------------------------------------------------------------------------------------


def test_tensors_become_plain_numbers(log):
    log.metrics({"step": 3, "a": torch.tensor(0.5), "b": np.float32(0.25), "c": 7})
    assert list(jsonl.read(log.folder / "metrics.jsonl")) == [{"step": 3, "a": 0.5, "b": 0.25, "c": 7}]
    assert type(plain_number(torch.tensor(3))) is int


def test_every_kind_of_row_goes_into_its_file(log):
    log.episodes(40, [Episode(1, 12, 3.5)])
    log.ledger({"step": 40, "digest": "x"})
    log.timing(TIMING)
    assert list(jsonl.read(log.folder / "episodes.jsonl")) == [{"step": 40, "env": 1, "length": 12, "return": 3.5}]
    assert list(jsonl.read(log.folder / "ledger.jsonl")) == [{"step": 40, "digest": "x"}]
    assert list(jsonl.read(log.folder / "timing.jsonl")) == [TIMING]


def test_loading_cuts_every_file_back(log):
    def write(step):
        log.metrics({"step": step})
        log.episodes(step, [Episode(0, 1, 1.0)])
        log.ledger({"step": step})
        log.timing({**TIMING, "step": step})

    write(1)
    state = log.state()
    write(2)
    log.load(state)
    write(3)
    for name in ("metrics", "timing", "episodes", "ledger"):
        assert [row["step"] for row in jsonl.read(log.folder / f"{name}.jsonl")] == [1, 3]
    log.load(None)
    assert all((log.folder / f"{name}.jsonl").read_bytes() == b"" for name in state)


def test_sinks_that_want_it_are_shown_the_history_that_still_holds(log):
    class Remembers(Silent):
        wants_history = True

        def __init__(self):
            self.steps = []

        def metrics(self, row):
            self.steps.append(row["step"])

    log.metrics({"step": 1})
    state = log.state()
    log.metrics({"step": 2})
    sink = Remembers()
    log.sinks.append(sink)
    log.load(state)
    log.metrics({"step": 5})
    assert sink.steps == [1, 5]


# -- The terminal --------------------------------------------------------------------------------------------------------


def test_lines_say_progress_score_speed_and_what_is_left(tmp_path, capsys):
    lines = Lines(tmp_path, 1000)
    lines.timing(TIMING)
    lines.metrics({"step": 250, "episode/score": 12.34, "episode/count": 3})
    lines.metrics(EVALUATION)
    lines.say("hello")
    lines.close()
    said = capsys.readouterr().out.splitlines()
    assert said[0] == " 25.0%  step       250  score 12.3 (3 episodes)  125 steps/s, 00:00:06 left"
    assert said[1] == " 50.0%  step       500  evaluation 7.2 +- 1.5 over 4 episodes"
    assert said[2] == "hello" and (tmp_path / "console.log").read_text().splitlines() == said


def test_quiet_says_nothing_but_keeps_the_lines(tmp_path, capsys):
    lines = terminal("quiet", tmp_path, CONFIG, {})
    lines.say("hello")
    lines.close()
    assert capsys.readouterr().out == "" and (tmp_path / "console.log").read_text() == "hello\n"


@pytest.mark.parametrize("is_terminal, kind", [(True, Panel), (False, Lines)])
def test_auto_is_a_panel_on_a_terminal_and_lines_elsewhere(tmp_path, monkeypatch, is_terminal, kind):
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    sink = terminal("auto", tmp_path, CONFIG, {})
    sink.close()
    assert type(sink) is kind


def drained(controller):
    """All that was written to a terminal whose other end is closed: it comes in pieces, and then there is an error."""
    pieces = []
    with contextlib.suppress(OSError):
        while piece := os.read(controller, 1 << 20):
            pieces.append(piece)
    os.close(controller)
    return b"".join(pieces).decode()


def test_the_panel_draws_on_a_terminal(tmp_path, monkeypatch):
    controller, terminal_end = pty.openpty()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "100")
    with os.fdopen(terminal_end, "w") as screen:
        monkeypatch.setattr("sys.stdout", screen)
        panel = Panel(tmp_path, "my run", 1000, {"promise": "bits [strict]"})
        panel.timing(TIMING)
        panel.metrics({"step": 250, "episode/score": 12.34, "episode/count": 3})
        panel.metrics({**EVALUATION, "Subactor-0/entropy": 1.25, "Subactor-1/novelty_reward": 0.0625})
        panel.say("a note [in brackets]")
        panel.close()
    shown = drained(controller)
    for text in (
        "my run",
        "12.3",
        "7.2",
        "act 75%, env 20%",
        "bits [strict]",
        "a note [in brackets]",
        "125 steps/s",
        "Subactor-1",
        "0.0625",
    ):
        assert text in shown
    assert "log 0%" not in shown
    assert "a note [in brackets]" in (tmp_path / "console.log").read_text()


@pytest.mark.parametrize(
    "seconds, words",
    [(3600, "01:00:00"), (86_399, "23:59:59"), (129_600, "1.5 days"), (0, "00:00:00"), (None, "--:--")],
)
def test_time_left_is_said_as_people_do(seconds, words):
    assert clock(seconds) == words


def test_before_learning_began_nobody_knows_what_is_left(tmp_path, capsys):
    lines = Lines(tmp_path, 1000)
    lines.timing({name: value for name, value in TIMING.items() if name != "seconds_left"})
    lines.metrics({"step": 250})
    lines.close()
    assert capsys.readouterr().out == " 25.0%  step       250  125 steps/s, --:-- left\n"


@pytest.mark.parametrize("mode", ["lines", "panel"])
def test_a_metric_that_leaves_its_band_is_pointed_out_below_its_row(tmp_path, capsys, mode):
    log = Log(tmp_path, options(terminal=mode), CONFIG, {})
    log.watch([Hint("entropy", "it acts at random", high=0.98)])
    for step, updates, entropy in ((100, 100, 0.99), (600, 600, 0.99), (700, 700, 0.99), (800, 800, 0.99)):
        log.metrics({"step": step, "updates": updates, "entropy": entropy})
    log.close()
    said = (tmp_path / "console.log").read_text().splitlines()
    assert [line for line in said if "look" in line] == [said[3]] == ["look at entropy = 0.99, above 0.98: it acts at random"]
    assert "look at entropy = 0.99" in capsys.readouterr().out


def test_after_a_resume_what_is_known_to_be_ill_is_not_said_again(tmp_path):
    for step in (600, 700, 800):
        log = Log(tmp_path, options(), CONFIG, {})
        log.watch([Hint("entropy", "it acts at random", high=0.98)])
        log.load(log.state())
        log.metrics({"step": step, "updates": step, "entropy": 1.0})
        log.close()
    assert (tmp_path / "console.log").read_text().count("look at entropy") == 1


def test_the_meaning_of_a_metric_is_that_of_its_name_or_of_one_with_what_varies():
    meanings = {"a/loss": "one", "a/<name>_loss": "any", "b-<i>/<name>/x": "two"}
    assert [meaning(name, meanings) for name in ("a/loss", "a/image_loss", "b-3/some/x")] == ["one", "any", "two"]
    assert [meaning(name, meanings) for name in ("a/_loss", "a/image/c_loss", "b-3/x", "xa/loss")] == [None] * 4


# -- TensorBoard ---------------------------------------------------------------------------------------------------------


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0})
    found.Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}, found


def test_tensorboard_has_every_metric(tmp_path):
    folder = run(tmp_path / "run", "log.tensorboard=true")
    found, _ = scalars(folder)
    expected = {}
    for row in jsonl.read(folder / "metrics.jsonl"):
        for name, value in row.items():
            expected.setdefault(name, []).append((row["step"], float(np.float32(value))))
    steps = expected.pop("step")
    assert steps and {
        name: sorted(values) for name, values in found.items() if not name.startswith(("timing/", "results/"))
    } == {name: sorted(values) for name, values in expected.items()}
    assert "timing/steps_per_second" in found


def test_after_a_resume_tensorboard_shows_no_undone_future(tmp_path):
    before = Log(tmp_path, options(tensorboard=True), CONFIG, {})
    before.metrics({"step": 1, "x": 1.0})
    state = before.state()
    before.metrics({"step": 2, "x": 2.0})
    before.close()
    after = Log(tmp_path, options(tensorboard=True), CONFIG, {})
    after.load(state)
    after.metrics({"step": 3, "x": 3.0})
    after.close()
    assert scalars(tmp_path)[0]["x"] == [(1, 1.0), (3, 3.0)]


def test_tensorboard_shows_a_film(tmp_path):
    log = Log(tmp_path, options(tensorboard=True), CONFIG, {})
    path = log.video(30, "episode", [np.full((16, 24, 3), 40 * i, np.uint8) for i in range(4)], 10)
    log.close()
    (event,) = scalars(tmp_path)[1].Images("episode")
    assert (event.step, event.width, event.height) == (30, 24, 16)
    assert event.encoded_image_string == path.read_bytes() and path == tmp_path / "videos" / "episode-step_30.gif"


def test_tensorboard_shows_a_picture(tmp_path):
    log = Log(tmp_path, options(tensorboard=True), CONFIG, {})
    image = np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3)
    [path] = log.pictures(30, {"visits": image})
    log.close()
    (event,) = scalars(tmp_path)[1].Images("visits")
    assert (event.step, event.width, event.height) == (30, 24, 16) and event.encoded_image_string == path.read_bytes()
    assert path == tmp_path / "videos" / "visits-step_30.png" and np.array_equal(np.asarray(Image.open(path)), image)


def test_tensorboard_shows_a_film_of_any_format(tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    log = Log(tmp_path, options(tensorboard=True, video_format="mp4"), CONFIG, {})
    path = log.video(30, "episode", [np.full((16, 24, 3), 40 * i, np.uint8) for i in range(4)], 10)
    log.close()
    (event,) = scalars(tmp_path)[1].Images("episode")
    assert path.suffix == ".mp4" and (event.step, event.width, event.height) == (30, 24, 16)
    with Image.open(BytesIO(event.encoded_image_string)) as film:
        assert film.format == "GIF" and film.n_frames == 4
        for i in range(4):
            film.seek(i)
            assert abs(int(np.asarray(film.convert("RGB")).mean()) - 40 * i) < 8 and film.info["duration"] == 100


# -- Weights & Biases ----------------------------------------------------------------------------------------------------


def test_an_offline_run_of_weights_and_biases_stays_in_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_SILENT", "true")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    (tmp_path / "run").mkdir()
    log = Log(tmp_path / "run", options(wandb="offline"), CONFIG, {})
    log.metrics({"step": 1, "x": 0.5})
    log.timing(TIMING)
    log.close()
    assert list((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert list(elsewhere.iterdir()) == []
