import pytest

from hieros_repro.ops.schedule import linear


@pytest.mark.parametrize(("step", "value"), [(0, 4.0), (25, 3.5), (50, 3.0), (100, 2.0), (101, 2.0), (10**9, 2.0)])
def test_a_line_goes_from_start_to_end_and_stays(step, value):
    assert linear(4.0, 2.0, horizon=100)(step) == value


@pytest.mark.parametrize(("step", "value"), [(0, 0.0), (5, 0.5 * 3.9), (10, 3.8), (50, 3.0), (200, 2.0)])
def test_warming_up_multiplies_by_the_share_of_the_warm_up(step, value):
    assert linear(4.0, 2.0, horizon=100, warmup=10)(step) == pytest.approx(value)


def test_a_warm_up_longer_than_the_horizon_goes_on_after_it():
    assert linear(1.0, 1.0, horizon=10, warmup=100)(50) == 0.5
