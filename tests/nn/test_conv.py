import pytest
import torch
from torch import nn

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.conv import Conv, ImageEncoder
from hieros_repro.nn.init import fill


def image(height: int, width: int, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(Key(0)("data", "image").integers(256, (2, height, width, channels))).to(torch.uint8)


def encoder(height: int, width: int, channels: int = 3, depth: int = 4) -> ImageEncoder:
    made = ImageEncoder((height, width, channels), depth)
    fill(made, Key(1)("init"))
    return made


@pytest.mark.parametrize(
    ("height", "width", "layers", "features"),
    [
        (8, 8, 1, 4 * 4 * 4),
        (9, 9, 1, 4 * 4 * 4),
        (15, 15, 1, 4 * 7 * 7),
        (16, 16, 2, 8 * 4 * 4),
        (64, 64, 4, 32 * 4 * 4),
        (84, 84, 4, 32 * 5 * 5),
        (64, 96, 4, 32 * 4 * 6),
        (33, 70, 3, 16 * 4 * 8),
    ],
)
def test_an_image_is_halved_until_its_shorter_side_is_4_to_7(height, width, layers, features):
    made = encoder(height, width)
    assert (len(made.convs), made.features) == (layers, features)
    assert made(image(height, width)).shape == (2, features)


@pytest.mark.parametrize(("height", "width"), [(7, 7), (64, 7), (1, 100)])
def test_an_image_that_is_too_small_is_refused(height, width):
    with pytest.raises(ValueError, match=f"{height}x{width} is too small to encode: 8x8 is the least"):
        ImageEncoder((height, width, 3), 4)


def test_bytes_are_brought_to_between_minus_and_plus_one_half():
    made = encoder(8, 8, channels=1, depth=1)
    with torch.no_grad():
        made.convs[0].weight.fill_(1 / 16)
    white = made(torch.full((1, 8, 8, 1), 255, dtype=torch.uint8)).view(4, 4)
    assert white[1, 1].item() == pytest.approx(0.5)  # 16 inner pixels of 1/2
    assert white[0, 0].item() == pytest.approx(0.5 * 9 / 16)  # 7 of 16 lie in the padding
    assert made(torch.zeros(1, 8, 8, 1, dtype=torch.uint8)).max().item() == 0.0  # all -1/2, cut by the ReLU


def test_a_layer_is_the_convolution_of_torch():
    ours, theirs = Conv(3, 5, gain=1.0), nn.Conv2d(3, 5, 4, stride=2, padding=1)
    fill(ours, Key(1)("init"))
    theirs.load_state_dict(ours.state_dict())
    x = torch.from_numpy(Key(0)("data", "x").normal((2, 3, 9, 12)))
    assert torch.equal(ours(x), theirs(x))


def test_kernels_are_orthogonal():
    layer = Conv(3, 5, gain=2.0)
    fill(layer, Key(1)("init"))
    flat = layer.weight.flatten(1)
    assert torch.allclose(flat @ flat.T, 4 * torch.eye(5), atol=1e-5)
