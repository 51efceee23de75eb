import pytest
import torch
from torch import nn
from torch.nn import functional

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.init import fill
from hieros_repro.nn.mlp import ACTIVATIONS, Constant, Linear, Towers

REFERENCES = {"tanh": nn.Tanh, "relu": nn.ReLU, "silu": nn.SiLU, "elu": nn.ELU}
X = torch.from_numpy(Key(0)("data", "x").normal((6, 5)))


def towers(activation: str = "tanh", hidden: tuple[int, ...] = (8, 3)) -> Towers:
    made = Towers(3, 5, hidden, activation)
    fill(made, Key(1)("init"))
    return made


def alone(made: Towers, index: int, activation: str) -> nn.Sequential:
    """One tower as torch would have it."""
    layers: list[nn.Module] = []
    for side in made.layers:
        layer = nn.Linear(*side.weight.shape[1:])
        layer.weight.data, layer.bias.data = side.weight[index].T.clone(), side.bias[index, 0].clone()
        layers += [layer, REFERENCES[activation]()]
    return nn.Sequential(*layers)


def test_there_is_a_reference_for_every_activation():
    assert set(ACTIVATIONS) == set(REFERENCES)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_towers_side_by_side_are_separate_networks(activation):
    made = towers(activation)
    for index, found in enumerate(made(X)):
        assert torch.allclose(found, alone(made, index, activation)(X), atol=1e-6)


def test_gradients_of_towers_are_those_of_separate_networks():
    made = towers()
    with torch.no_grad():
        for side in made.layers:
            side.bias.add_(0.1)
    sum((index + 1) * y.square().sum() for index, y in enumerate(made(X))).backward()
    for index in range(3):
        separate = alone(made, index, "tanh")
        ((index + 1) * separate(X).square().sum()).backward()
        for side, layer in zip(made.layers, [separate[0], separate[2]], strict=True):
            assert torch.allclose(side.weight.grad[index].T, layer.weight.grad, atol=1e-5)
            assert torch.allclose(side.bias.grad[index, 0], layer.bias.grad, atol=1e-5)


def test_towers_share_no_values():
    first, second, _ = towers().layers[0].weight
    assert not torch.equal(first, second)


def test_a_member_alone_computes_what_it_computes_among_the_others():
    made = towers()
    for index in range(3):
        assert torch.allclose(made.member(index, X), made(X)[index], atol=1e-6)


@pytest.mark.parametrize("count", [3, 5000])  # below and above the size from which the logistic function is used
def test_tanh_and_its_gradient_are_those_of_torch(count):
    x = torch.linspace(-12, 12, count, requires_grad=True)
    twin = x.detach().clone().requires_grad_()
    ours, theirs = ACTIVATIONS["tanh"](x), torch.tanh(twin)
    (ours * 3).sum().backward(), (theirs * 3).sum().backward()
    assert torch.allclose(ours, theirs, atol=3e-7) and torch.allclose(x.grad, twin.grad, atol=2e-6)


def test_a_tower_without_layers_shows_what_it_is_given():
    assert all(torch.equal(y, X) for y in towers(hidden=())(X))


def test_a_linear_layer_is_that_of_torch():
    layer = Linear(5, 3, gain=2.0)
    fill(layer, Key(2)("init"))
    assert torch.equal(layer(X), functional.linear(X, layer.weight, layer.bias))
    assert layer.bias.tolist() == [0.0, 0.0, 0.0]
    assert torch.allclose(layer.weight @ layer.weight.T, 4 * torch.eye(3), atol=1e-5)


def test_a_constant_starts_at_its_value():
    layer = Constant(3, -0.5)
    fill(layer, Key(2)("init"))
    assert layer.value.tolist() == [-0.5, -0.5, -0.5]
