import importlib.util

import numpy as np
import pytest
from PIL import Image

from hieros_repro.log.video import write_video

FRAMES = [np.full((32, 48, 3), 20 * i, np.uint8) for i in range(7)]


def test_a_gif_has_every_frame(tmp_path):
    path = write_video(tmp_path / "deep" / "film", FRAMES, 20, "gif")
    with Image.open(path) as image:
        assert path.name == "film.gif" and image.n_frames == 7 and image.size == (48, 32)
        assert image.info["duration"] == 50
        shades = []
        for number in range(7):
            image.seek(number)
            shades.append(image.convert("RGB").getpixel((5, 5))[0])
    assert shades == pytest.approx([20 * i for i in range(7)], abs=2)


@pytest.mark.skipif(not importlib.util.find_spec("imageio_ffmpeg"), reason="needs the extra [video]")
def test_an_mp4_has_every_frame(tmp_path):
    import imageio.v2 as imageio

    path = write_video(tmp_path / "film", FRAMES, 20, "mp4")
    with imageio.get_reader(path) as reader:
        frames = [np.asarray(frame) for frame in reader]
        assert reader.get_meta_data()["fps"] == 20
    assert path.name == "film.mp4" and len(frames) == 7 and frames[0].shape == (32, 48, 3)
    assert [float(frame.mean()) for frame in frames] == pytest.approx([20 * i for i in range(7)], abs=6)


@pytest.mark.parametrize("installed, suffix", [(None, ".gif"), (True, ".mp4")])
def test_auto_is_mp4_where_the_extra_is_installed(tmp_path, monkeypatch, installed, suffix):
    from hieros_repro.log import video

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: installed)
    monkeypatch.setattr(video, "_write_mp4", lambda path, frames, fps: path.write_bytes(b""))
    assert write_video(tmp_path / "film", FRAMES, 20).suffix == suffix


def test_a_name_with_a_step_keeps_it_and_nothing_half_written_stays(tmp_path):
    assert write_video(tmp_path / "episode-step_300", FRAMES, 20, "gif").name == "episode-step_300.gif"
    assert [path.name for path in tmp_path.iterdir()] == ["episode-step_300.gif"]
