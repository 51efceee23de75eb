"""Which images world models take, and how wide their convolutions are."""

import pytest

from hieros_repro.records import Space, UserError
from hieros_repro.world.image import doubled, halvings, of_director, widened


def image(height: int, width: int) -> Space:
    return Space("image", (height, width, 3))


@pytest.mark.parametrize(("side", "count"), [(8, 1), (16, 2), (32, 3), (64, 4), (128, 5)])
def test_images_are_halved_until_their_side_is_4(side, count):
    assert halvings("view", image(side, side)) == count


@pytest.mark.parametrize(("height", "width"), [(64, 32), (32, 64), (84, 84), (4, 4), (2, 2), (24, 24), (65, 65)])
def test_other_images_are_refused_with_their_size_and_what_is_allowed(height, width):
    with pytest.raises(UserError, match=rf"'view' are {height}x{width}: .* side of 4 \* 2\^n .*env\.resize"):
        halvings("view", image(height, width))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 32), (128, 128)])
def test_the_layers_of_director_take_one_size_only(height, width):
    with pytest.raises(UserError, match=rf"'view' are {height}x{width}: padding=valid takes 64x64 only"):
        of_director("view", image(height, width))


def test_channels():
    assert (doubled(16, 2), doubled(64, 4)) == ([16, 32], [64, 128, 256, 512])
    assert [widened(2, count) for count in (1, 2, 3, 4, 5)] == [[8], [8, 8], [6, 8, 8], [4, 6, 8, 8], [4, 4, 6, 8, 8]]
