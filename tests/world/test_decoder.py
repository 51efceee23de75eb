"""Decoders: what they predict, how wrong they say it was, and that they mirror what the originals have."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hieros_repro.hardware.recording import Recorded
from hieros_repro.records import Space, UserError
from hieros_repro.world.decoder import Decoder
from tests.world.observations import CODECS, DIRECTOR, DREAMER, SIZES, count, filled, normal, observed, view

DETER, STOCH = 8, 5
SHOWN = {"image": view(16), "speed": Space("vector", (3,)), "map": Space("vector", (2, 2))}


def decoder(observation, kind="strided", padding="same", style=DIRECTOR, deter=DETER, stoch=STOCH, **other) -> Decoder:
    options = {"sigmoid": False, "image_scale": 1.0, "groups": 2, "symlog_vectors": True, **SIZES, **other}
    return filled(Decoder(observation, deter, stoch, style, kind=kind, padding=padding, **options))


def state(batch: int = 5) -> tuple[Tensor, Tensor]:
    return normal(batch, DETER, name="deter"), normal(batch, STOCH, name="stoch")


def test_the_decoder_of_director_has_as_many_numbers():
    assert count(decoder({"image": view(64)}, padding="valid", depth=64, deter=1024, stoch=1024)) == 14_229_123


def test_the_decoder_of_the_newest_dreamer():
    """64x64, depth 4: channels 16 -> 16 -> 12 -> 8 -> 3 by kernels of 25, after a map of 4x4x16 from both halves."""
    made = decoder({"image": view(64)}, "pooled", style=DREAMER)
    of_deter = 2 * 4 * 128 + 256
    of_stoch = STOCH * 12 + 12 + 12 + 12 * 256 + 256
    kernels = 25 * (16 * 16 + 16 * 12 + 12 * 8 + 8 * 3)
    biases_and_scales = (16 + 12 + 8 + 3) + (16 + 16 + 12 + 8)
    assert count(made) == of_deter + of_stoch + kernels + biases_and_scales


def test_the_small_decoder_mirrors_the_small_encoder():
    """16x16, depth 16: 13 -> 4x4x32 -> 8x8x16 -> 16x16x3."""
    made = decoder({"image": view(16)}, depth=16)
    assert count(made) == 13 * 512 + 512 + 32 * 16 * 16 + 2 * 16 + 16 * 3 * 16 + 3


@pytest.mark.parametrize(("kind", "padding", "side"), CODECS)
@pytest.mark.parametrize("style", [DIRECTOR, DREAMER])
def test_every_parameter_of_every_codec_learns_and_so_does_the_state(kind, padding, side, style):
    observation = {"image": view(side, 1), "speed": Space("vector", (3,))}
    made = decoder(observation, kind, padding, style)
    deter, stoch = (x.requires_grad_() for x in state())
    predictions = made(deter, stoch)
    assert {name: tuple(y.shape) for name, y in predictions.items()} == {"image": (5, side, side, 1), "speed": (5, 3)}
    losses = made.loss(predictions, observed(observation, 5))
    assert {name: tuple(loss.shape) for name, loss in losses.items()} == {"image": (5,), "speed": (5,)}
    grads = torch.autograd.grad(sum(loss.sum() for loss in losses.values()), [deter, stoch, *made.parameters()])
    assert all(grad.isfinite().all() and grad.abs().sum() > 0 for grad in grads)


def test_an_output_without_a_sigmoid_starts_in_the_middle_of_its_range():
    zero = {"deter": torch.zeros(1, DETER), "stoch": torch.zeros(1, STOCH)}
    for sigmoid in (False, True):
        made = decoder({"image": view(16)}, sigmoid=sigmoid)
        assert made(**zero)["image"].unique().tolist() == [0.5]
        made.images["image"].last.bias.data.fill_(2.0)
        expected = 1 / (1 + math.exp(-2)) if sigmoid else 2.5
        assert made(**zero)["image"].unique().tolist() == [pytest.approx(expected)]


def test_the_loss_of_an_image_is_the_sum_of_its_squared_errors():
    made = decoder({"image": view(16)}, image_scale=16.0)
    bytes_ = torch.zeros(2, 16, 16, 3, dtype=torch.uint8)
    bytes_[1, 0, 0] = 255
    predictions = {"image": torch.zeros(2, 16, 16, 3)}
    predictions["image"][0, 3, 4, 1] = 0.5
    # one of 768 is wrong by 1/2; three are wrong by 1
    assert made.loss(predictions, {"image": bytes_})["image"].tolist() == [16 * 0.25, 16 * 3.0]


@pytest.mark.parametrize("symlog_vectors", [True, False])
def test_the_loss_of_a_vector_is_that_of_its_symlog(symlog_vectors):
    made = decoder({"map": Space("vector", (2, 1))}, symlog_vectors=symlog_vectors)
    x = torch.tensor([[[math.e - 1], [1 - math.e**2]]])  # their symlogs are 1 and -2
    expected = (0.5 - 1) ** 2 + (0 + 2) ** 2 if symlog_vectors else (0.5 - math.e + 1) ** 2 + (1 - math.e**2) ** 2
    loss = made.loss({"map": torch.tensor([[0.5, 0.0]])}, {"map": x})["map"]
    assert loss.tolist() == [pytest.approx(expected, rel=1e-5)]


def test_vectors_are_parts_of_one_output():
    made, (deter, stoch) = decoder(SHOWN), state()
    y = made.head(made.mlp(torch.cat([deter, stoch], -1)))
    predictions = made(deter, stoch)
    assert list(predictions) == ["image", "speed", "map"]
    assert torch.equal(predictions["speed"], y[:, :3]) and torch.equal(predictions["map"], y[:, 3:])


def test_pictures_are_bytes_cut_at_black_and_white():
    made = decoder(SHOWN)
    prediction = torch.tensor([-0.3, 0.0, 0.1, 0.5, 1.0, 1.7]).view(1, 2, 1, 3)
    pictures = made.pictures({"image": prediction, "speed": torch.zeros(1, 3), "map": torch.zeros(1, 4)})
    assert list(pictures) == ["image"] and pictures["image"].shape == (1, 2, 1, 3)
    assert pictures["image"].dtype == torch.uint8
    assert pictures["image"].flatten().tolist() == [0, 0, 26, 128, 255, 255]  # 25.5 and 127.5 go to the even neighbour


def test_a_prediction_that_is_right_is_the_picture_it_was_made_from():
    made, image = decoder(SHOWN), observed(SHOWN, 3)["image"]
    assert torch.equal(made.picture(image / 255.0), image)


def test_the_images_of_director_by_the_operations_of_torch():
    made, (deter, stoch) = decoder({"image": view(64)}, padding="valid"), state(2)
    image = made.images["image"]
    x = torch.cat([deter, stoch], -1)[:, :, None, None]
    for layer in image.layers:
        x = functional.conv_transpose2d(x, layer.weight, stride=2).permute(0, 2, 3, 1)
        x = functional.elu(functional.layer_norm(x, x.shape[-1:], eps=1e-3)).permute(0, 3, 1, 2)
    x = functional.conv_transpose2d(x, image.last.weight, image.last.bias, stride=2).permute(0, 2, 3, 1)
    assert torch.allclose(image(deter, stoch), x, atol=1e-5)


def test_the_images_of_the_newest_dreamer_by_the_operations_of_torch():
    made, (deter, stoch) = decoder({"image": view(16)}, "pooled", style=DREAMER), state(2)
    image = made.images["image"]

    def norm(x: Tensor) -> Tensor:
        return functional.silu(functional.rms_norm(x, x.shape[-1:], eps=1e-4))

    blocks = image.of_deter(deter).view(2, 2, 4, 4, 8)  # the groups fill 8 of the 16 channels each
    x = torch.cat([blocks[:, 0], blocks[:, 1]], -1) + image.of_stoch(stoch).view(2, 4, 4, 16)
    for layer in (*image.layers, image.last):
        x = functional.interpolate(norm(x).permute(0, 3, 1, 2), scale_factor=2, mode="nearest")
        x = functional.conv2d(x, layer.weight, layer.bias, padding=2).permute(0, 2, 3, 1)
    assert torch.allclose(image(deter, stoch), x, atol=1e-5)


def test_the_strided_images_by_the_operations_of_torch():
    made, (deter, stoch) = decoder({"image": view(16)}), state(2)
    image = made.images["image"]
    x = functional.linear(torch.cat([deter, stoch], -1), image.first.weight).view(2, 4, 4, 8).permute(0, 3, 1, 2)
    for layer in image.layers:
        x = functional.conv_transpose2d(x, layer.weight, stride=2, padding=1).permute(0, 2, 3, 1)
        x = functional.elu(functional.layer_norm(x, x.shape[-1:], eps=1e-3)).permute(0, 3, 1, 2)
    x = functional.conv_transpose2d(x, image.last.weight, image.last.bias, stride=2, padding=1)
    assert torch.allclose(image(deter, stoch), x.permute(0, 2, 3, 1), atol=1e-5)


def test_blocks_that_cannot_fill_the_channels_alike_are_refused():
    with pytest.raises(UserError, match=r"12 channels .* depth 3.* by 8 blocks"):
        decoder({"image": view(16)}, "pooled", depth=3, groups=8)


def test_an_image_of_another_size_is_refused_when_the_decoder_is_built():
    for kind, padding, side in (("strided", "valid", 32), ("strided", "same", 84), ("pooled", "same", 48)):
        with pytest.raises(UserError, match=f"'image' are {side}x{side}"):
            decoder({"image": view(side)}, kind, padding)


@pytest.mark.parametrize(("kind", "padding", "side"), CODECS)
def test_it_can_be_recorded_with_its_gradients(kind, padding, side):
    observation = {"image": view(side), "speed": Space("vector", (3,))}
    made = decoder(observation, kind, padding, DREAMER)

    def run(deter, stoch, obs):
        losses = made.loss(made(deter, stoch), obs)
        return losses, torch.autograd.grad(sum(loss.sum() for loss in losses.values()), list(made.parameters()))

    given = (*state(3), observed(observation, 3))
    recorded = Recorded(run, [*made.parameters(), *made.buffers()])
    recorded(*given)
    (losses, grads), (expected, expected_grads) = recorded(*given), run(*given)
    assert all(torch.equal(losses[name], expected[name]) for name in expected)
    assert all(map(torch.equal, grads, expected_grads))


@pytest.mark.parametrize("kind", ["strided", "pooled"])
def test_predictions_are_in_full_precision_even_if_the_layers_are_not(kind):
    made = decoder(SHOWN, kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        short = made(*state())
    for name, y in made(*state()).items():
        assert short[name].dtype == torch.float32 and torch.allclose(short[name], y, atol=0.15)
