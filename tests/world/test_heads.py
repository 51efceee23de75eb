import math

import pytest
import torch

from hieros_repro.determinism.keys import Key
from hieros_repro.world.heads import HEADS, Binary, Head, Symlog, TwoHot
from tests.world.observations import DIRECTOR, DREAMER, filled, normal

KINDS = [Symlog, TwoHot, Binary]


def head(kind: type[Head], layers: int = 2, scale: float = 1.0, style=DREAMER) -> Head:
    return filled(kind(5, layers, 6, style, scale))


def outputs(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers).unsqueeze(-1)


def test_heads_for_numbers_are_found_by_name():
    assert {"symlog": Symlog, "two_hot": TwoHot} == HEADS


@pytest.mark.parametrize("style", [DIRECTOR, DREAMER])
@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_leading_axes_come_along(kind, layers, style):
    one = head(kind, layers, style=style)
    states = normal(2, 3, 5)
    found = one(states)
    assert found.shape == (2, 3, kind.width) and found.dtype == torch.float32
    mean, loss = one.mean(found), one.loss(found, torch.rand(2, 3))
    assert mean.shape == loss.shape == (2, 3)
    alone = one(states[1, 2])
    torch.testing.assert_close(one.mean(alone), mean[1, 2])
    torch.testing.assert_close(one.loss(alone, torch.tensor(0.0)), one.loss(found, torch.zeros(2, 3))[1, 2])


@pytest.mark.parametrize("kind", KINDS)
def test_under_autocast_outputs_are_float32(kind):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(kind)(normal(2, 5)).dtype == torch.float32


def test_symlog_by_hand():
    one = head(Symlog)
    # symexp 1 = e - 1, symexp -2 = -(e^2 - 1)
    assert one.mean(outputs(0.0, 1.0, -2.0)).tolist() == pytest.approx([0.0, math.e - 1, 1 - math.e**2])
    # symlog(e - 1) = 1, symlog(-3) = -ln 4
    targets = torch.tensor([math.e - 1, math.e - 1, -3.0])
    assert one.loss(outputs(1.0, 3.0, 0.0), targets).tolist() == pytest.approx([0.0, 4.0, math.log(4) ** 2], abs=1e-6)


def test_two_hot_by_hand():
    one = head(TwoHot)
    uniform = torch.zeros(1, 255)
    assert one.mean(uniform).tolist() == [0.0]  # exactly
    assert one.loss(uniform, torch.tensor([3.0])).item() == pytest.approx(math.log(255))
    # bins 127, 128, 129 are 0, d and symexp(40/254), d = symexp(20/127) = 0.170575: halfway to d both have half the weight
    peaked = torch.full((1, 255), -1e4)
    peaked[0, 127], peaked[0, 128] = math.log(0.25), math.log(0.75)
    step = math.expm1(20 / 127)
    assert one.mean(peaked).item() == pytest.approx(0.75 * step)
    assert one.loss(peaked, torch.tensor([step / 2])).item() == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2)


def test_binary_by_hand():
    one = head(Binary)
    assert one.mean(outputs(0.0, math.log(3))).tolist() == pytest.approx([0.5, 0.75])
    # p = 3/4 against a probability of 1/4: -(1/4 ln 3/4 + 3/4 ln 1/4)
    expected = [-math.log(0.75), -math.log(0.25), -(math.log(0.75) + 3 * math.log(0.25)) / 4]
    assert one.loss(outputs(*[math.log(3)] * 3), torch.tensor([1.0, 0.0, 0.25])).tolist() == pytest.approx(expected)


def test_the_loss_of_a_probability_is_least_where_it_is_met():
    target, logit = torch.tensor(0.996996997), torch.tensor([5.8, 0.0], requires_grad=True)
    with torch.no_grad():
        logit[0] = torch.logit(target)
    loss = head(Binary).loss(logit.unsqueeze(-1), target.expand(2))
    (gradient,) = torch.autograd.grad(loss.sum(), logit)
    assert gradient[0].item() == pytest.approx(0.0, abs=1e-6) and gradient[1].item() < -0.4


@pytest.mark.parametrize("kind", KINDS)
def test_with_scale_zero_a_head_says_the_same_of_every_state(kind):
    found = head(kind, scale=0.0)(normal(4, 5))
    assert torch.equal(found, torch.zeros_like(found))


@pytest.mark.parametrize("kind", KINDS)
def test_the_scale_is_that_of_the_last_layer(kind):
    small, large = head(kind, scale=0.1), head(kind, scale=1.0)
    torch.testing.assert_close(small(normal(4, 5)), 0.1 * large(normal(4, 5)))  # fan_in: proportional


@pytest.mark.parametrize("name", HEADS)
def test_a_head_learns_numbers_of_any_size(name):
    one = head(HEADS[name], layers=0, scale=0.0)  # equal bins to both sides cancel while they fade
    states = torch.eye(5)
    targets = torch.tensor([-300.0, -1.0, 0.0, 0.5, 2000.0])
    optimiser = torch.optim.Adam(one.parameters(), 0.3)
    for _ in range(300):
        optimiser.zero_grad()
        one.loss(one(states), targets).sum().backward()
        optimiser.step()
    torch.testing.assert_close(one.mean(one(states)), targets, rtol=0.02, atol=0.05)


def test_targets_get_no_gradient_from_two_hot_and_states_do():
    one, states = head(TwoHot), normal(3, 5).requires_grad_()
    target = torch.from_numpy(Key(0)("data", "y").normal((3,))).requires_grad_()
    one.loss(one(states), target).sum().backward()
    assert target.grad is None or not target.grad.any()
    assert states.grad.abs().sum() > 0
