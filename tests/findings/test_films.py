import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from hieros_repro.findings import archive, films
from hieros_repro.findings.finding import find
from hieros_repro.findings.page import Film, Paragraph, texts
from hieros_repro.log.video import write_video
from tests.findings.folders import run

FRAMES = [np.full((16, 16, 3), 10 * n, np.uint8) for n in range(21)]


@pytest.mark.parametrize("form", ["gif", "mp4"])
def test_frames_are_taken_from_the_first_to_the_last(tmp_path, form):
    found = [
        np.asarray(Image.open(io.BytesIO(frame)))
        for frame in films.frames_of(write_video(tmp_path / "a-step_1", FRAMES, 10, form))
    ]
    assert [frame.shape for frame in found] == [(128, 128, 3)] * 7
    shades = [int(frame[64, 64, 0]) for frame in found]
    assert shades == pytest.approx([0, 30, 70, 100, 130, 170, 200], abs=8)


def test_fewer_frames_of_films_that_are_wide_or_short():
    assert films.places(21, 1.0) == [0, 3, 7, 10, 13, 17, 20]
    assert films.places(21, 5.0) == [0, 10, 20]
    assert films.places(2, 1.0) == [0, 1] and films.places(1, 1.0) == [0]


def test_best_median_and_worst_are_different_seeds():
    assert films.chosen({1: 5.0, 2: 9.0, 3: 7.0}) == {"best": 2, "median": 3, "worst": 1}
    assert films.chosen({1: 5.0, 2: 9.0}) == {"best": 2, "worst": 1}
    assert films.chosen({1: 5.0, 2: 9.0, 3: 7.0}, higher_is_better=False) == {"best": 1, "median": 3, "worst": 2}
    assert films.chosen({4: 5.0}) == {"only": 4} and films.chosen({}) == {}


def test_the_newest_film_is_that_of_the_latest_step(tmp_path):
    for name in ("episode-step_90.gif", "episode-step_1000.gif", "dream-step_200.mp4", "visits-step_5000.png", ".partial-x"):
        (tmp_path / name).write_bytes(b"")
    assert films.newest(tmp_path).name == "episode-step_1000.gif"
    assert films.newest(tmp_path / "absent") is None


def rows(folder):
    return find(archive.read([folder]), "eval/score").rows


def test_a_film_that_cannot_be_read_is_said_so(tmp_path, monkeypatch):
    write_video(run(tmp_path / "1", 1, 2.0) / "videos" / "episode-step_5", FRAMES, 10, "gif")
    assert isinstance(films.films(rows(tmp_path), "eval/score").blocks[0], Film)
    (tmp_path / "1" / "videos" / "episode-step_6.gif").write_bytes(b"no film")
    assert "cannot be shown" in films.films(rows(tmp_path), "eval/score").blocks[0].text
    (tmp_path / "1" / "videos" / "episode-step_7.mp4").write_bytes(b"no film")
    monkeypatch.setitem(sys.modules, "imageio.v2", None)
    told = films.films(rows(tmp_path), "eval/score").blocks[0]
    assert isinstance(told, Paragraph) and "imageio is not installed" in told.text


def test_levels_are_means_over_seeds_of_last_values(tmp_path):
    for seed in (1, 2):
        lines = [{"step": 5, "Subactor-0/kl": 90.0}, {"step": 6, "Subactor-0/kl": 1.0 * seed, "Subactor-1/kl": 4.0}]
        with (run(tmp_path / str(seed), seed, 1.0) / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
    table = films.levels(rows(tmp_path)).blocks[0]
    assert list(table.header) == ["level", "kl"] and texts(table) == [["0", "1.5"], ["1", "4"]]


def test_without_levels_there_is_no_table(tmp_path):
    run(tmp_path / "1", 1, 1.0)
    assert films.levels(rows(tmp_path)) is None


def test_a_level_that_diverged_is_shown_as_such(tmp_path):
    with (run(tmp_path / "1", 1, 1.0) / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5, "Subactor-0/kl": NaN, "Subactor-0/wm_loss": 2.0}\nno json\n')
    assert texts(films.levels(rows(tmp_path)).blocks[0]) == [["0", "2", "nan"]]


def test_of_a_repeated_seed_the_run_that_finished_is_shown(tmp_path):
    for name, status in (("1", "failed"), ("2", "finished")):
        write_video(run(tmp_path / name, 1, 2.0, status=status) / "videos" / f"of-{status}-step_5", FRAMES, 10, "gif")
    (film,) = films.films(rows(tmp_path), "eval/score").blocks
    assert "of-finished-step_5.gif" in film.caption
