import numpy as np
import pytest

from hieros_repro.env.base import Env
from hieros_repro.env.vector import Vector
from hieros_repro.records import Space, Spaces
from tests.env.worlds import Remembered

IMAGE, PLACE = np.full((4, 5, 3), 7, np.uint8), np.array([1.5, 2.0], np.float32)


class Showing(Env):
    """Shows what it is told to, whatever its spaces say. Seed 1 shows what is right."""

    spaces = Spaces({"image": Space("image", (4, 5, 3)), "place": Space("vector", (2,))}, Space("discrete", (), sizes=(2,)))

    def __init__(self, **shown):
        self.shown = {name: value for name, value in shown.items() if value is not None}

    def reset(self, seed):
        return {"image": IMAGE, "place": PLACE} if seed == 1 else self.shown

    def step(self, action):
        return self.shown, 0.0, False, False


def first_row(**shown):
    make = lambda: Showing(**{"image": IMAGE, "place": PLACE} | shown)  # noqa: E731
    return Vector(make, lambda i, n: i + 1, num_envs=2, processes=0, worker_timeout=1.0).reset()


@pytest.mark.parametrize(
    ("shown", "message"),
    [
        ({"place": None}, "it shows image, its spaces say image, place"),
        ({"map": IMAGE}, "it shows image, map, place, its spaces say image, place"),
        ({"place": PLACE[:1]}, r"it shows place with shape \(1,\), its space says \(2,\)"),
        ({"place": PLACE[0]}, r"it shows place with shape \(\), its space says \(2,\)"),
        ({"image": IMAGE[:, :, :1]}, r"it shows image with shape \(4, 5, 1\), its space says \(4, 5, 3\)"),
        ({"image": IMAGE / np.float32(255)}, "it shows image as float32, its space says uint8"),
        ({"image": IMAGE.astype(np.int64)}, "it shows image as int64, its space says uint8"),
    ],
)
def test_what_is_not_as_the_spaces_say_is_refused_at_the_reset_and_named(shown, message):
    """Numpy would spread one value over many and cut fractions off."""
    with pytest.raises(ValueError, match=f"^{message}\nin environment 1$"):
        first_row(**shown)


@pytest.mark.parametrize("place", [[3, 4], np.array([3, 4]), np.array([3.0, 4.0], np.float64), np.array([3, 4], np.uint8)])
def test_numbers_of_another_precision_are_converted(place):
    row = first_row(place=place)
    assert row.obs["place"].dtype == np.float32 and row.obs["place"].tolist() == [[1.5, 2.0], [3.0, 4.0]]


def test_a_snapshot_of_nothing_is_refused_since_no_action_was_kept():
    class Absent(Remembered):
        def snapshot(self):
            return None if self.seed == 11 else super().snapshot()

    envs = Vector(lambda: Absent({}), lambda i, n: 10 + i, num_envs=2, processes=0, worker_timeout=1.0)
    envs.reset()
    with pytest.raises(ValueError, match=r"^Absent\.snapshot\(\) gave None, and its actions were not kept$"):
        envs.state()


def test_a_reset_that_answers_as_gymnasium_does_is_refused_by_what_it_gave():
    class Gymnastic(Showing):
        def reset(self, seed):
            return super().reset(1), {}

    with pytest.raises(ValueError, match=r"^reset\(\) gave a tuple, not observations by name\nin environment 0$"):
        Vector(Gymnastic, lambda i, n: i, num_envs=1, processes=0, worker_timeout=1.0).reset()
