"""Blocks of world models: first values, norms and convolutions against numbers worked out by hand and against torch's own."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.block import (
    MLP,
    RMS,
    Affine,
    BlockAffine,
    Convolution,
    Dense,
    Doubling,
    Norm,
    Style,
    Transposed,
    halved,
    halved_in_order,
    initial,
    rms_norm,
)
from hieros_repro.nn.init import fill
from hieros_repro.records import UserError

DIRECTOR = Style("layer", "elu", "glorot")
DREAMER = Style("rms", "silu", "fan_in")
STYLES = [DIRECTOR, DREAMER]
KEY = Key(4)("init")


def normal(*shape: int, name: str = "x") -> Tensor:
    return torch.from_numpy(Key(0)("data", name).normal(shape))


def filled(module: nn.Module, seed: int = 4) -> nn.Module:
    fill(module, Key(seed)("init"))
    return module


def every_layer() -> nn.ModuleDict:
    kernel = {"stride": 2, "padding": 1, "bias": True}
    return nn.ModuleDict(
        {
            "affine": Affine(3, 4, DREAMER),
            "block": BlockAffine(6, 4, 2, DREAMER),
            "norm": Norm(4, DIRECTOR),
            "convolution": Convolution(2, 3, 4, DIRECTOR, **kernel),
            "transposed": Transposed(2, 3, 4, DIRECTOR, **kernel),
            "doubling": Doubling(2, 3, DIRECTOR, bias=True),
        }
    )


# -- First values ------------------------------------------------------------------------------------------------------


def test_glorot_is_uniform_with_the_mean_of_the_fans():
    drawn = initial(KEY, (100, 1000), (6, 2), DIRECTOR, 1.0)
    limit = math.sqrt(3 / 4)  # 0.866; as Glorot has it: sqrt(6 / (6 + 2))
    assert 0.999 * limit < drawn.max() <= limit and -limit <= drawn.min() < -0.999 * limit
    assert drawn.var().item() == pytest.approx(1 / 4, rel=0.01)
    assert abs(drawn.mean().item()) < 0.005


def test_scale_multiplies_the_variance_of_glorot_and_the_deviation_of_fan_in():
    for style, factor in ((DIRECTOR, math.sqrt(0.25)), (DREAMER, 0.25)):
        whole, part = (initial(KEY, (50, 50), (6, 2), style, scale) for scale in (1.0, 0.25))
        assert torch.allclose(part, factor * whole, rtol=1e-6)


def test_fan_in_is_a_normal_cut_at_two_deviations():
    drawn = initial(KEY, (100, 1000), (16, 3), DREAMER, 1.0)
    limit = 2 * 1.1368 / 4  # 0.5684
    assert 0.999 * limit < drawn.max() <= limit and -limit <= drawn.min() < -0.999 * limit
    assert drawn.std().item() == pytest.approx(1 / 4, rel=0.01)  # which is what the 1.1368 is for
    assert abs(drawn.mean().item()) < 0.003
    # P(|n| < 1 | |n| < 2) = 0.6827 / 0.9545
    assert (drawn.abs() < limit / 2).float().mean().item() == pytest.approx(0.6827 / 0.9545, abs=0.01)


@pytest.mark.parametrize(
    ("layer", "fans"),
    [
        (Affine(60, 40, DIRECTOR), 50),
        (BlockAffine(60, 40, 2, DIRECTOR), 50),  # as one map of everything
        (Convolution(6, 10, 4, DIRECTOR, stride=2, padding=1, bias=False), 8 * 16),
        (Transposed(6, 10, 4, DIRECTOR, stride=2, padding=1, bias=False), 8 * 16),
        (Doubling(6, 10, DIRECTOR, bias=False), 8 * 25),
    ],
)
def test_every_layer_knows_its_fans(layer, fans):
    largest = filled(layer).weight.abs().max().item()
    assert 0.98 * math.sqrt(3 / fans) < largest <= math.sqrt(3 / fans)


@pytest.mark.parametrize(
    ("layer", "fan_in"),
    [
        (Affine(60, 40, DREAMER), 60),
        (BlockAffine(60, 40, 2, DREAMER), 60),
        (Convolution(6, 10, 5, DREAMER, stride=1, padding=2, bias=True), 6 * 25),
        (Doubling(6, 10, DREAMER, bias=True), 6 * 25),
    ],
)
def test_every_layer_knows_what_comes_in(layer, fan_in):
    largest, limit = filled(layer).weight.abs().max().item(), 2 * 1.1368 / math.sqrt(fan_in)
    assert 0.9 * limit < largest <= limit


@pytest.mark.parametrize("style", STYLES)
def test_a_layer_of_scale_0_gives_zeros_whatever_comes(style):
    layer = filled(Affine(5, 3, style, scale=0.0))
    assert torch.equal(layer(normal(7, 5)), torch.zeros(7, 3))


def test_first_values_are_a_function_of_the_key():
    first, again, other = (dict(filled(every_layer(), seed).named_parameters()) for seed in (4, 4, 5))
    assert all(torch.equal(first[name], value) for name, value in again.items())
    drawn = [name for name in first if name.endswith("weight")]
    assert len(drawn) == 5 and not any(torch.equal(first[name], other[name]) for name in drawn)
    assert all(torch.equal(first[name], torch.zeros_like(value)) for name, value in first.items() if "bias" in name)


# -- Vectors -----------------------------------------------------------------------------------------------------------


def test_an_affine_map_by_hand():
    layer = Affine(2, 2, DIRECTOR)
    layer.weight.data, layer.bias.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.5, -0.5])
    assert layer(torch.tensor([[[1.0, -1.0]]])).tolist() == [[[-0.5, -1.5]]]


def blocks() -> BlockAffine:
    layer = BlockAffine(4, 2, 2, DIRECTOR)
    layer.weight.data = torch.tensor([[[1.0], [10.0]], [[100.0], [1000.0]]])
    layer.bias.data = torch.tensor([0.5, 0.25])
    return layer


def test_blocks_see_their_own_slice_only():
    x = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert blocks()(x.view(1, 1, 4)).tolist() == [[[21.5, 4300.25]]]
    assert blocks().grouped(torch.stack([x, 2 * x])).tolist() == [[[21.5], [42.5]], [[4300.25], [8600.25]]]


def test_gradients_of_blocks():
    layer, x = blocks(), torch.tensor([[1.0, 2.0, 3.0, 4.0]], requires_grad=True)
    (layer(x) * torch.tensor([1.0, 2.0])).sum().backward()
    assert x.grad.tolist() == [[1.0, 10.0, 200.0, 2000.0]]
    assert layer.weight.grad.tolist() == [[[1.0], [2.0]], [[6.0], [8.0]]]
    assert layer.bias.grad.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 4), (4, 5)])
def test_blocks_that_do_not_fit_are_refused(inputs, outputs):
    with pytest.raises(UserError, match=f"{inputs} inputs and {outputs} outputs cannot be split in 2 groups"):
        BlockAffine(inputs, outputs, 2, DIRECTOR)


def test_a_layer_norm_by_hand():
    norm = filled(Norm(2, DIRECTOR))
    unit = 1 / math.sqrt(1.001)  # (1, 3) has mean 2 and variance 1
    assert norm(torch.tensor([[1.0, 3.0]])).tolist() == [pytest.approx([-unit, unit])]
    norm.scale.data, norm.offset.data = torch.tensor([2.0, 1.0]), torch.tensor([0.0, 5.0])
    assert norm(torch.tensor([[1.0, 3.0]])).tolist() == [pytest.approx([-2 * unit, 5 + unit])]


def test_an_rms_norm_by_hand():
    norm = filled(Norm(2, DREAMER))
    unit = 1 / math.sqrt(12.5 + 1e-4)  # (9 + 16) / 2
    assert norm(torch.tensor([[3.0, 4.0]])).tolist() == [pytest.approx([3 * unit, 4 * unit])]
    norm.scale.data = torch.tensor([1.0, -2.0])
    assert norm(torch.tensor([3.0, 4.0])).tolist() == pytest.approx([3 * unit, -8 * unit])
    assert norm.offset is None


def test_gradients_of_the_rms_norm_are_those_of_its_differences():
    x, weight = normal(3, 2, 5).double().requires_grad_(), normal(5, name="w").double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x, weight: RMS.apply(x, weight, 1e-2), (x, weight))


def test_the_rms_norm_is_that_of_torch():
    x, weight = normal(3, 2, 5), normal(5, name="w")
    assert torch.allclose(rms_norm(x, weight), functional.rms_norm(x, (5,), weight, 1e-4), atol=1e-6)


@pytest.mark.parametrize("style", STYLES)
def test_a_norm_of_short_floats_is_taken_in_long_ones(style):
    norm, x = filled(Norm(64, style)), 100 + normal(4, 64)
    short = norm(x.bfloat16())
    assert short.dtype == torch.bfloat16
    assert torch.equal(short, norm(x.bfloat16().float()).bfloat16())


def test_a_dense_block_is_affine_then_norm_then_activation():
    block = filled(Dense(2, 2, DIRECTOR))
    block.affine.weight.data = torch.eye(2)
    unit = 1 / math.sqrt(1.001)
    assert block(torch.tensor([[1.0, 3.0]])).tolist() == [pytest.approx([math.exp(-unit) - 1, unit])]


def test_only_a_norm_without_an_offset_leaves_the_bias():
    names = [[name for name, _ in Dense(2, 3, style).named_parameters()] for style in STYLES]
    assert names == [["affine.weight", "norm.scale", "norm.offset"], ["affine.weight", "affine.bias", "norm.scale"]]


@pytest.mark.parametrize("style", STYLES)
def test_an_mlp_is_its_blocks_in_turn(style):
    mlp, x = filled(MLP(5, 2, 7, style)), normal(3, 5)
    assert mlp.outputs == 7
    assert torch.equal(mlp(x), mlp.blocks[1](mlp.blocks[0](x)))
    assert [tuple(block.affine.weight.shape) for block in mlp.blocks] == [(7, 5), (7, 7)]


def test_an_mlp_without_layers_gives_what_it_gets():
    mlp, x = MLP(5, 0, 7, DIRECTOR), normal(3, 5)
    assert mlp.outputs == 5 and mlp(x) is x


# -- Images ------------------------------------------------------------------------------------------------------------


def upright(x: Tensor) -> Tensor:
    """(N, H, W, C) as torch has it."""
    return x.permute(0, 3, 1, 2).contiguous()


def gradients(y: Tensor, *wanted: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((y * normal(*y.shape, name="g")).sum(), wanted)


def same(found: Tensor, expected: Tensor) -> bool:
    return torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_convolution_by_hand():
    layer = Convolution(1, 1, 2, DIRECTOR, stride=2, padding=0, bias=True)
    layer.weight.data, layer.bias.data = torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]]), torch.tensor([0.5])
    image = torch.arange(16.0).view(1, 4, 4, 1)  # 0 1 2 3 / 4 5 6 7 / ...
    assert layer(image).flatten().tolist() == [5410.5, 7632.5, 14298.5, 16520.5]


def test_a_convolution_is_that_of_torch():
    layer, x = filled(Convolution(3, 5, 4, DIRECTOR, stride=2, padding=1, bias=True)), normal(2, 8, 8, 3)
    layer.bias.data = normal(5)
    expected = functional.conv2d(upright(x), layer.weight, layer.bias, stride=2, padding=1)
    assert layer(x).shape == (2, 4, 4, 5) and same(upright(layer(x)), expected)


def test_a_convolution_of_images_leaves_the_channels_together():
    """Then a norm over the channels copies nothing."""
    layer = filled(Convolution(3, 5, 4, DIRECTOR, stride=2, padding=1, bias=False))
    assert layer(normal(2, 8, 8, 3)).is_contiguous()


def test_a_transposed_convolution_by_hand():
    layer = Transposed(1, 1, 2, DIRECTOR, stride=2, padding=0, bias=True)
    layer.weight.data, layer.bias.data = torch.tensor([[[[1.0, 10.0], [100.0, 1000.0]]]]), torch.tensor([0.5])
    spread = layer(torch.tensor([2.0, 3.0]).view(1, 1, 2, 1)).view(2, 4)
    assert spread.tolist() == [[2.5, 20.5, 3.5, 30.5], [200.5, 2000.5, 300.5, 3000.5]]


@pytest.mark.parametrize(("side", "padding"), [(1, 0), (1, 1), (3, 1), (3, 0)])
def test_a_transposed_convolution_is_that_of_torch_from_one_pixel_too(side, padding):
    layer = filled(Transposed(3, 5, 4, DIRECTOR, stride=2, padding=padding, bias=True))
    layer.bias.data = normal(5)
    x = normal(2, side, side, 3).requires_grad_()
    expected = functional.conv_transpose2d(x.permute(0, 3, 1, 2), layer.weight, layer.bias, stride=2, padding=padding)
    found, expected = layer(x), expected.permute(0, 2, 3, 1)
    assert same(found, expected)
    wanted = (x, layer.weight, layer.bias)
    assert all(map(same, gradients(found, *wanted), gradients(expected, *wanted)))


def test_doubling_is_nearest_upsampling_and_a_5x5_convolution():
    layer = filled(Doubling(3, 5, DREAMER, bias=True))
    layer.bias.data = normal(5)
    x = normal(2, 4, 3, 3).requires_grad_()
    large = functional.interpolate(x.permute(0, 3, 1, 2), scale_factor=2, mode="nearest")
    expected = functional.conv2d(large, layer.weight, layer.bias, padding=2).permute(0, 2, 3, 1)
    found = layer(x)
    assert found.shape == (2, 8, 6, 5) and same(found, expected)
    wanted = (x, layer.weight, layer.bias)
    assert all(map(same, gradients(found, *wanted), gradients(expected, *wanted)))


def test_doubling_one_pixel_by_hand():
    layer = Doubling(1, 1, DREAMER, bias=False)
    layer.weight.data = torch.arange(25.0).view(1, 1, 5, 5)
    # Pixel (0, 0) of the four sees all of them below and right of the kernel's middle: w_22 + w_23 + w_32 + w_33.
    assert layer(torch.ones(1, 1, 1, 1)).flatten().tolist() == [
        12 + 13 + 17 + 18,
        11 + 12 + 16 + 17,
        7 + 8 + 12 + 13,
        6 + 7 + 11 + 12,
    ]


def test_halving_takes_the_largest_of_four():
    x = torch.tensor([[1.0, 2.0, 3.0, 9.0], [4.0, 0.0, 7.0, 5.0]]).view(1, 2, 4, 1).requires_grad_()
    for way in (halved, halved_in_order):
        y = way(x)
        assert y.flatten().tolist() == [4.0, 9.0]
        (gradient,) = torch.autograd.grad((y * torch.tensor([2.0, 3.0]).view(1, 1, 2, 1)).sum(), x)
        assert gradient.flatten().tolist() == [0, 0, 0, 3, 2, 0, 0, 0]


def test_both_ways_of_halving_agree():
    x = normal(2, 6, 4, 5).requires_grad_()
    one, other = halved(x), halved_in_order(x)
    assert torch.equal(one, other)
    assert torch.equal(*gradients(one, x), *gradients(other, x))


def test_where_four_are_equal_their_gradients_sum_to_that_of_the_maximum():
    for way in (halved, halved_in_order):
        x = torch.zeros(1, 2, 2, 1, requires_grad=True)
        way(x).sum().backward()
        assert x.grad.sum().item() == 1.0


# -- Half precision ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_blocks_work_in_half_precision_with_gradients_in_full(style):
    network = filled(nn.Sequential(Dense(6, 8, style), BlockAffine(8, 4, 2, style)))
    x = normal(5, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = network(x)
    assert y.dtype == torch.bfloat16 and torch.allclose(y.float(), network(x), atol=0.05)
    grads = torch.autograd.grad(y.float().square().sum(), list(network.parameters()))
    assert all(grad.dtype == torch.float32 and grad.abs().sum() > 0 for grad in grads)
