"""Encoders: what comes out, how many numbers they hold, and what of an observation they look at."""

import math

import pytest
import torch
from torch import nn

from hieros_repro.hardware.recording import Recorded
from hieros_repro.records import Space, UserError
from hieros_repro.world.encoder import Encoder
from tests.world.observations import CODECS, DIRECTOR, DREAMER, SIZES, count, filled, normal, observed, view

MIXED = {"speed": Space("vector", (3,)), "near": view(16), "map": Space("vector", (2, 2)), "far": view(32, 1)}


def encoder(observation, kind="strided", padding="same", style=DIRECTOR, symlog_vectors=True, **sizes) -> Encoder:
    made = Encoder(observation, style, kind=kind, padding=padding, symlog_vectors=symlog_vectors, **{**SIZES, **sizes})
    return filled(made)


def test_the_encoder_of_director_has_as_many_numbers():
    made = encoder({"image": view(64)}, padding="valid", depth=64)
    assert (made.outputs, count(made)) == (2048, 2_757_504)


def test_the_encoder_of_the_newest_dreamer():
    made = encoder({"image": view(64)}, "pooled", style=DREAMER, depth=4)
    assert made.outputs == 4 * 4 * 16
    # channels 3 -> 8 -> 12 -> 16 -> 16: 25 weights for each pair, a bias and a scale for each channel that comes out
    assert count(made) == 25 * (3 * 8 + 8 * 12 + 12 * 16 + 16 * 16) + 2 * (8 + 12 + 16 + 16)


@pytest.mark.parametrize(("kind", "padding", "side"), CODECS)
@pytest.mark.parametrize("style", [DIRECTOR, DREAMER])
def test_every_parameter_of_every_codec_learns(kind, padding, side, style):
    observation = {"image": view(side), "speed": Space("vector", (3,))}
    made = encoder(observation, kind, padding, style)
    y = made(observed(observation, 5))
    assert y.shape == (5, made.outputs) and y.dtype == torch.float32
    assert made.outputs - 6 == {("strided", "valid"): 2 * 2 * 32, ("pooled", "same"): 4 * 4 * 16}.get(
        (kind, padding), 4 * 4 * {64: 32, 16: 8}[side]
    )
    grads = torch.autograd.grad((y * normal(*y.shape)).sum(), list(made.parameters()))
    assert all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in grads)


def test_images_come_first_then_everything_else():
    made, obs = encoder(MIXED), observed(MIXED, 5)
    vectors = torch.cat([obs["speed"], obs["map"].flatten(1)], -1)
    vectors = vectors.sign() * (1 + vectors.abs()).log()
    parts = [made.images["near"](obs["near"]), made.images["far"](obs["far"]), made.mlp(vectors)]
    assert made.outputs == 4 * 4 * 8 + 4 * 4 * 16 + 6
    assert torch.allclose(made({name: obs[name] for name in reversed(obs)}), torch.cat(parts, -1), atol=1e-6)


def test_vectors_may_be_taken_as_they_are():
    observation = {"speed": Space("vector", (3,))}
    made, obs = encoder(observation, symlog_vectors=False, layers=0), observed(observation, 5)
    assert made.outputs == 3 and torch.equal(made(obs), obs["speed"])


@pytest.mark.parametrize(
    ("kind", "padding", "black", "white"),
    [("strided", "same", -0.5, 0.5), ("strided", "valid", 0.0, 1.0), ("pooled", "same", -0.5, 0.5)],
)
def test_bytes_are_scaled_as_in_the_original(kind, padding, black, white):
    """Seen through a first kernel that picks one pixel, without norms and activations."""
    made = encoder({"image": view(64, 1)}, kind, padding)
    image = made.images["image"]
    image.convolutions, image.norms = image.convolutions[:1], nn.ModuleList([nn.Identity()])
    image.activation = nn.Identity()
    weight = image.convolutions[0].weight.data.zero_()
    weight[:, :, 2, 2] = 1.0
    for byte, value in ((0, black), (255, white)):
        y = made({"image": torch.full((1, 64, 64, 1), byte, dtype=torch.uint8)})
        assert y.unique().tolist() == [value]


def test_a_strided_layer_is_convolution_then_norm_then_activation():
    made = encoder({"image": view(8, 1)}, depth=2)
    image = made.images["image"]
    weight = image.convolutions[0].weight.data.zero_()
    weight[0, 0, 1, 1], weight[1, 0, 1, 1] = 2.0, -2.0  # the pixel at (2i, 2j), twice and negative
    y = made({"image": torch.full((1, 8, 8, 1), 255, dtype=torch.uint8)}).view(4, 4, 2)
    unit = 1 / math.sqrt(1.001)  # channels (1, -1): mean 0, variance 1
    assert torch.allclose(y, torch.tensor([unit, math.exp(-unit) - 1]).expand(4, 4, 2))


def test_a_pooled_layer_is_convolution_then_maximum_then_norm_then_activation():
    made = encoder({"image": view(8, 1)}, "pooled", style=DREAMER, depth=1)
    weight = made.images["image"].convolutions[0].weight.data.zero_()
    weight[:, 0, 2, 2] = torch.tensor([1.0, -1.0, 3.0, 0.0])
    pixels = torch.zeros(1, 8, 8, 1, dtype=torch.uint8)
    pixels[0, ::2, 1::2] = 255  # one of every four is white: 1/2, the others are -1/2
    y = made({"image": pixels}).view(4, 4, 4)
    top = torch.tensor([0.5, 0.5, 1.5, 0.0])  # the negative channel's largest is that of a black pixel
    normal = top / math.sqrt((0.25 + 0.25 + 2.25) / 4 + 1e-4)
    assert torch.allclose(y, (normal / (1 + (-normal).exp())).expand(4, 4, 4), atol=1e-6)


def test_an_image_of_another_size_is_refused_when_the_encoder_is_built():
    for kind, padding, side in (("strided", "valid", 32), ("strided", "same", 84), ("pooled", "same", 48)):
        with pytest.raises(UserError, match=f"'image' are {side}x{side}"):
            encoder({"image": view(side)}, kind, padding)


@pytest.mark.parametrize(("kind", "padding", "side"), CODECS)
def test_it_can_be_recorded_with_its_gradients(kind, padding, side):
    observation = {"image": view(side), "speed": Space("vector", (3,))}
    made = encoder(observation, kind, padding, DREAMER)

    def run(obs):
        y = made(obs)
        return y, torch.autograd.grad(y.square().sum(), list(made.parameters()))

    obs = observed(observation, 3)
    held = [*made.parameters(), *made.buffers()]
    recorded = Recorded(run, held)
    recorded(obs)
    (y, grads), (expected, expected_grads) = recorded(obs), run(obs)
    assert torch.equal(y, expected) and all(map(torch.equal, grads, expected_grads))


def test_half_precision():
    made, obs = encoder(MIXED), observed(MIXED, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = made(obs)
    assert torch.allclose(y.float(), made(obs), atol=0.15)
