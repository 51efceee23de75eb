import pytest
import torch

from hieros_repro.hardware.recording import Recorded
from hieros_repro.nn.control import Weight

STEERED = {"adaptive": True, "start": 1.0, "low": 0.5, "high": 1.25}


def steered(count: int = 1, rising: bool = True, **changes: float) -> Weight:
    return Weight(2.0, count, rising, **STEERED | changes)


@pytest.mark.parametrize(
    ("measured", "rising", "lowering"),
    [
        (2.21, 1.1, 1 / 1.1),  # above 1.1 * 2 = 2.2
        (2.19, 1.0, 1.0),
        (2.0, 1.0, 1.0),
        (1.83, 1.0, 1.0),
        (1.81, 1 / 1.1, 1.1),  # below 2 / 1.1 = 1.8182
    ],
)
def test_a_weight_moves_by_ten_per_cent_where_the_quantity_leaves_its_band(measured, rising, lowering):
    for direction, expected in ((True, rising), (False, lowering)):
        weight = steered(rising=direction)
        assert weight(torch.tensor([measured])).tolist() == pytest.approx([expected])
        assert weight.weight.tolist() == pytest.approx([expected])


def test_every_quantity_has_a_weight_of_its_own():
    assert steered(3)(torch.tensor([3.0, 2.0, 1.0])).tolist() == pytest.approx([1.1, 1.0, 1 / 1.1])


def test_steps_multiply_and_end_at_the_bounds():
    up, down = torch.tensor([9.0]), torch.tensor([0.0])
    weight = steered()
    assert [weight(up).item() for _ in range(4)] == pytest.approx([1.1, 1.21, 1.25, 1.25])
    # 1.25 / 1.1 = 1.13636, / 1.1 = 1.03306, ... ten steps down are a factor of 2.59: beyond the bound
    assert [weight(down).item() for _ in range(2)] == pytest.approx([1.136364, 1.033058])
    for _ in range(8):
        found = weight(down)
    assert found.item() == 0.5


def test_eight_steps_double():
    weight = steered(high=100.0)
    found = [weight(torch.tensor([9.0])).item() for _ in range(8)]
    assert found[6] < 2.0 < found[7] == pytest.approx(2.1435888)  # 1.1^7 = 1.949, 1.1^8 = 2.144


@pytest.mark.parametrize("measured", [0.0, 2.0, 100.0])
def test_a_fixed_weight_is_its_aim_whatever_is_measured(measured):
    weight = Weight(0.25, 2, **STEERED | {"adaptive": False})
    for _ in range(3):
        assert weight(torch.full((2,), measured)).tolist() == [0.25, 0.25]


def test_a_fixed_weight_can_be_set_and_stays_there():
    weight, other = Weight(0.25, 2, **STEERED | {"adaptive": False}), Weight(0.25, 2, **STEERED | {"adaptive": False})
    before = weight(torch.zeros(2))
    weight.set(3e-4)
    for _ in range(2):
        assert weight(torch.full((2,), 9.0)).tolist() == pytest.approx([3e-4, 3e-4])
    assert before.tolist() == [0.25, 0.25]
    other.load_state_dict(weight.state_dict())
    assert torch.equal(other(torch.zeros(2)), weight(torch.zeros(2)))


def test_what_is_steered_cannot_be_set():
    weight = steered()
    weight.set(0.7)
    assert weight.weight.tolist() == [1.0]


def test_a_recorded_weight_is_what_it_was_set_to():
    weight = Weight(0.25, **STEERED | {"adaptive": False})
    recorded = Recorded(weight.forward, [weight.weight])
    for value in (0.25, 0.5, 0.125):
        weight.set(value)
        assert recorded(torch.zeros(1)).tolist() == [value]


def test_a_weight_has_no_gradient_and_what_it_gave_stays():
    weight, measured = steered(), torch.tensor([3.0], requires_grad=True)
    first = weight(measured)
    assert not first.requires_grad
    weight(measured)
    assert first.tolist() == pytest.approx([1.1])


def test_weights_are_a_part_of_a_modules_state():
    weight, other = steered(), steered()
    weight(torch.tensor([3.0]))
    other.load_state_dict(weight.state_dict())
    assert torch.equal(other(torch.tensor([3.0])), weight(torch.tensor([3.0])))
    assert other.weight.item() == pytest.approx(1.21)


def test_a_recorded_weight_moves_alike():
    weight, other = steered(2), steered(2)
    recorded = Recorded(other.forward, [other.weight])
    for measured in ([3.0, 1.0], [2.0, 1.0], [0.1, 3.0]):
        assert torch.equal(recorded(torch.tensor(measured)), weight(torch.tensor(measured)))
