import numpy as np
import pytest

from hieros_repro.records import Space, Spaces

DISCRETE = Space("discrete", (), sizes=(4,))
MULTI = Space("multidiscrete", (2,), sizes=(2, 10))
CONTINUOUS = Space("continuous", (3,), low=(-2.0, 0.0, -np.inf), high=(2.0, 10.0, np.inf))
ONEHOT = Space("onehot", (3,), sizes=(3,))


@pytest.mark.parametrize(
    ("space", "uniform", "drawn"),
    [
        (DISCRETE, [0.0, 0.24, 0.25, 0.99], [0, 0, 1, 3]),
        (MULTI, [[0.0, 0.0], [0.49, 0.55], [0.5, 0.99]], [[0, 0], [0, 5], [1, 9]]),
        (CONTINUOUS, [[0.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.75, 0.25, 0.75]], [[-2, 0, -1], [0, 5, 0], [1, 2.5, 0.5]]),
        (ONEHOT, [[0.3, 0.9, 0.9], [0.5, 0.0, 0.0], [0.7, 0.0, 0.0]], [[1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    ],
    ids=lambda value: value.kind if isinstance(value, Space) else "",
)
def test_actions_are_drawn_as_computed_by_hand(space, uniform, drawn):
    found = space.draw(np.array(uniform, np.float32))
    assert found.tolist() == drawn
    assert found.dtype == space.dtype


@pytest.mark.parametrize("space", [DISCRETE, MULTI, CONTINUOUS, ONEHOT], ids=lambda space: space.kind)
def test_the_largest_uniform_stays_inside_the_space(space):
    found = space.draw(np.full((2, *space.shape), 1 - 2.0**-24, np.float32))
    assert found.shape == (2, *space.shape)
    if space.kind in ("discrete", "multidiscrete"):
        assert np.array_equal(found, np.broadcast_to(np.array(space.sizes).reshape(space.shape) - 1, found.shape))
    elif space.kind == "onehot":
        assert found.tolist() == [[0, 0, 1]] * 2
    else:
        assert (found <= [2, 10, 1]).all() and (found > [1.99, 9.99, 0.99]).all()


@pytest.mark.parametrize("action", [DISCRETE, MULTI, CONTINUOUS, ONEHOT], ids=lambda space: space.kind)
def test_spaces_come_back_from_plain_data(action):
    spaces = Spaces({"image": Space("image", (4, 5, 3)), "vector": Space("vector", (2,))}, action)
    assert Spaces.from_plain(spaces.plain()) == spaces
