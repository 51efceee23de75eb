import pytest
import torch
from torch import nn

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.conv import Conv
from hieros_repro.nn.init import fill, orthogonal
from hieros_repro.nn.mlp import Constant, Linear, Side

KEY = Key(3)("init")


def filled(module: nn.Module, seed: int = 3) -> dict[str, torch.Tensor]:
    fill(module, Key(seed)("init"))
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (7, 3), (3, 7), (1, 4), (4, 1)])
def test_the_fewer_of_rows_and_columns_are_orthonormal(rows, columns):
    matrix = orthogonal(KEY("w"), (rows, columns), gain=2.0)
    product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    assert matrix.shape == (rows, columns)
    assert torch.allclose(product, 4 * torch.eye(min(rows, columns)), atol=1e-5)


def test_orthogonal_matrices_prefer_no_direction():
    entries = torch.stack([orthogonal(KEY("w", n), (4, 4), 1.0) for n in range(2000)])
    assert entries.mean(0).abs().max() < 0.05  # a sign that is not drawn evenly would show here
    assert (entries.square().mean(0) - 0.25).abs().max() < 0.03


def test_a_value_depends_on_the_seed():
    module = nn.ModuleDict({"a": Linear(3, 4)})
    assert not torch.equal(filled(module, 3)["a.weight"], filled(module, 4)["a.weight"])


def test_a_value_depends_on_the_path():
    found = filled(nn.ModuleDict({"a": Linear(3, 4), "b": Linear(3, 4)}))
    assert not torch.equal(found["a.weight"], found["b.weight"])


def test_another_module_shifts_no_value():
    alone = filled(nn.ModuleDict({"b": Linear(3, 4), "d": Conv(2, 3, 1.0)}))
    among = filled(nn.ModuleDict({"a": Linear(9, 9), "b": Linear(3, 4), "c": Side(2, 3, 3, 1.0), "d": Conv(2, 3, 1.0)}))
    assert all(torch.equal(among[name], value) for name, value in alone.items())


def test_nothing_drawn_globally_changes_a_value():
    torch.manual_seed(0)
    first = filled(Linear(3, 4))
    torch.manual_seed(1), torch.rand(7)
    assert torch.equal(filled(Linear(3, 4))["weight"], first["weight"])


def test_building_draws_nothing():
    before = torch.get_rng_state()
    Linear(3, 4), Conv(3, 4, 1.0), Side(2, 3, 4, 1.0), Constant(3, 0.0)
    assert torch.equal(torch.get_rng_state(), before)


def test_filling_leaves_no_value_unset():
    found = filled(nn.ModuleDict({"l": Linear(3, 4), "c": Conv(2, 3, 1.0), "s": Side(2, 3, 4, 1.0), "k": Constant(2, 0.5)}))
    assert all(value.isfinite().all() for value in found.values())


def test_a_parameter_nobody_fills_is_an_error_with_its_name():
    module = nn.ModuleDict({"ours": Linear(3, 4), "theirs": nn.LayerNorm(4)})
    with pytest.raises(ValueError, match=r"no layer fills theirs\.weight, theirs\.bias"):
        fill(module, KEY)


def test_a_module_inside_a_layer_that_fills_only_its_own_is_an_error():
    layer = Linear(3, 4)
    layer.extra = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"extra\.weight, extra\.bias"):
        fill(layer, KEY)


def test_filled_parameters_still_take_gradients():
    layer = Linear(3, 4)
    fill(layer, KEY)
    layer(torch.ones(2, 3)).sum().backward()
    assert layer.weight.grad.tolist() == [[2.0] * 3] * 4
