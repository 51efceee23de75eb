import math

import numpy as np
import pytest
import torch
from torch import nn

from hieros_repro.agent.scale import Deviation, Percentiles, Unscaled
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.recording import Recorded


def normal(*shape: int, name: str = "x") -> torch.Tensor:
    return torch.from_numpy(Key(0)("data", name).normal(shape))


def told(scale: nn.Module, values: list[float]) -> tuple[float, float]:
    offset, size = scale(torch.tensor(values))
    assert offset.shape == size.shape == ()
    return offset.item(), size.item()


def test_unscaled_changes_nothing():
    assert told(Unscaled(), [3.0, -7.0]) == (0.0, 1.0)


def test_a_deviation_by_hand():
    scale = Deviation(decay=0.5, floor=0.01)
    # m = 1/2 2 = 1, q = 1/2 (1 + 9)/2 = 2.5, rest = 1/2: mean 2, mean of squares 5
    assert told(scale, [1.0, 3.0]) == pytest.approx((2.0, 1.0))
    # m = (1 + 4)/2 = 2.5, q = (2.5 + 16)/2 = 9.25, rest = 1/4: mean 10/3, mean of squares 37/3, variance 37/3 - 100/9 = 11/9
    assert told(scale, [4.0, 4.0]) == pytest.approx((10 / 3, math.sqrt(11) / 3))


def test_a_deviation_has_a_floor():
    assert told(Deviation(decay=0.9, floor=0.25), [0.5, 0.5]) == pytest.approx((0.5, 0.25))


def test_a_deviation_is_that_of_what_it_sees_from_the_first_call_on():
    scale, values = Deviation(decay=0.99, floor=0.01), 5 * normal(4, 50) + 2
    for _ in range(3):
        offset, size = scale(values)
        assert offset.item() == pytest.approx(values.mean().item(), rel=1e-4)
        assert size.item() == pytest.approx(values.std(correction=0).item(), rel=1e-3)


@pytest.mark.parametrize("shape", [(11,), (3, 7), (1, 2), (5, 1), (1,)])
def test_percentiles_are_those_of_numpy(shape):
    values = normal(*shape)
    low, high = np.quantile(values.numpy(), [0.05, 0.95])
    offset, size = Percentiles(decay=0.0, lower=0.05, upper=0.95, floor=1e-6)(values)
    assert offset.item() == pytest.approx(low, abs=1e-6)
    assert size.item() == pytest.approx(max(high - low, 1e-6), abs=1e-6)


def test_a_range_by_hand():
    scale = Percentiles(decay=0.75, lower=0.25, upper=0.875, floor=0.1)
    # of 0, 1, 2, 4: place 3/4 is 0.75, place 21/8 is 2 + 5/8 (4 - 2) = 3.25; a quarter of each
    assert told(scale, [4.0, 0.0, 2.0, 1.0]) == pytest.approx((0.1875, 0.8125 - 0.1875))
    # of 1, 1, 1, 1: low 3/4 0.1875 + 1/4 = 0.390625, high 3/4 0.8125 + 1/4 = 0.859375
    assert told(scale, [1.0, 1.0, 1.0, 1.0]) == pytest.approx((0.390625, 0.46875))


def test_a_small_range_stays_small():
    assert told(Percentiles(decay=0.0, lower=0.05, upper=0.95, floor=1.0), [0.0, 0.5]) == pytest.approx((0.025, 1.0))


def test_what_a_range_gave_stays():
    scale = Percentiles(decay=0.0, lower=0.0, upper=1.0, floor=1.0)
    offset, _ = scale(torch.tensor([3.0, 5.0]))
    scale(torch.tensor([7.0, 8.0]))
    assert offset.item() == 3.0


SCALES = [lambda: Deviation(decay=0.9, floor=0.01), lambda: Percentiles(decay=0.9, lower=0.05, upper=0.95, floor=0.01)]


@pytest.mark.parametrize("make", SCALES)
def test_a_recorded_scale_moves_alike_and_is_a_part_of_the_state(make):
    scale, other = make(), make()
    recorded = Recorded(other.forward, list(other.buffers()))
    for update in range(3):
        values = normal(4, 5, name=f"x{update}")
        for one, two in zip(scale(values), recorded(values), strict=True):
            assert torch.equal(one, two)
    again = make()
    again.load_state_dict(other.state_dict())
    assert all(torch.equal(*pair) for pair in zip(again(values), scale(values), strict=True))


def test_a_small_deviation_of_large_values_is_not_lost():
    scale = Deviation(decay=0.999, floor=0.01)
    for _ in range(100):
        _, size = scale(torch.tensor([999.0, 1001.0]))
    assert size == pytest.approx(1.0, rel=1e-4)
