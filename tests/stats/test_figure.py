import numpy as np
import pytest
from PIL import Image

from hieros_repro.stats import figure
from hieros_repro.stats.figure import sweep_figure

CURVES = {"lr=1": {"1": [(0, 1.0), (10, 2.0), (20, 5.0)], "2": [(0, 3.0), (10, 4.0)]}, "lr=2": {"1": [(0, 9.0)]}}


def test_a_figure_is_a_picture_with_something_in_it_and_equal_data_give_equal_bytes(tmp_path):
    finals = {"lr=1": {"1": 5.0, "2": 4.0}, "lr=2": {"1": 9.0}}
    for name in ("a.png", "b.png"):
        sweep_figure(tmp_path / name, "eval/score", CURVES, finals)
    with Image.open(tmp_path / "a.png") as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[1] > 1000 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50
    for half in np.split(pixels[:, : pixels.shape[1] // 2 * 2], 2, axis=1):
        assert (half.min(-1) < 128).any()
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b.png"}


@pytest.mark.parametrize("curves, finals", [({}, {"all": {"1": 3.0}}), ({"all": {"1": [(0, 1.0)]}}, {}), ({"all": {}}, {})])
def test_half_a_sweep_can_be_drawn(tmp_path, curves, finals):
    sweep_figure(tmp_path / "a.png", "eval/score", curves, finals)
    assert (tmp_path / "a.png").stat().st_size > 5_000


def test_the_labels_of_the_best_and_the_worst_seed_lie_apart():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    figure._strip(axes, "eval/score", {"near": {"1": 5.0, "2": 5.1, "3": 5.2}, "equal": {"1": 5.0, "2": 5.0}})
    assert [(text.get_text(), text.get_va()) for text in axes.texts] == [
        ("seed 1", "top"),
        ("seed 3", "bottom"),
        ("seed 1", "center"),
    ]
