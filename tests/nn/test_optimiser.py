import copy

import pytest
import torch
from torch import nn

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.optimiser import Adam, Flat, LossScale

SHAPES = {"a": (4, 3), "b": (5,), "c": ()}


def parameters(dtype: torch.dtype = torch.float64) -> dict[str, nn.Parameter]:
    drawn = {name: torch.from_numpy(Key(0)("data", name).normal(shape)) for name, shape in SHAPES.items()}
    return {name: nn.Parameter(value.to(dtype)) for name, value in drawn.items()}


def gradients(step: int) -> dict[str, torch.Tensor]:
    size = 3.0 if step % 3 else 0.01  # some are clipped, some are not
    return {name: size * torch.from_numpy(Key(1)("data", name, step).normal(shape)) for name, shape in SHAPES.items()}


def give(params: dict[str, nn.Parameter], step: int) -> None:
    for name, gradient in gradients(step).items():
        if params[name].grad is None:
            params[name].grad = torch.zeros_like(params[name])
        params[name].grad.copy_(gradient)


@pytest.mark.parametrize("max_norm", [None, 1.0])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("eps", [1e-8, 1e-5])
def test_fifty_steps_are_those_of_torch(max_norm, weight_decay, eps):
    ours, theirs = parameters(), parameters()
    optimiser = Adam(ours, betas=(0.9, 0.95), eps=eps, max_norm=max_norm, weight_decay=weight_decay)
    kind = torch.optim.AdamW if weight_decay else torch.optim.Adam
    reference = kind(theirs.values(), lr=0.1, betas=(0.9, 0.95), eps=eps, weight_decay=weight_decay)
    for step in range(50):
        rate = 0.1 / (1 + step)
        give(ours, step), give(theirs, step)
        reference.param_groups[0]["lr"] = rate
        if max_norm is not None:
            nn.utils.clip_grad_norm_(theirs.values(), max_norm)
        reference.step()
        optimiser.step(rate)
    for name in SHAPES:
        assert torch.allclose(ours[name], theirs[name], rtol=1e-10, atol=1e-12)


def test_the_norm_before_clipping_is_that_of_torch():
    ours, theirs = parameters(), parameters()
    optimiser = Adam(ours, max_norm=0.5)
    give(ours, 1), give(theirs, 1)
    assert torch.allclose(optimiser.step(0.1), nn.utils.clip_grad_norm_(theirs.values(), 0.5))


def test_the_first_step_moves_every_weight_by_the_learning_rate():
    params = {"w": nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))}
    optimiser = Adam(params)
    optimiser.backward((params["w"] * torch.tensor([5.0, -0.1, 0.0])).sum())
    optimiser.step(0.25)
    assert torch.allclose(params["w"], torch.tensor([0.75, -1.75, 3.0]))


def test_a_step_clears_what_has_accumulated():
    params = parameters()
    optimiser = Adam(params)
    give(params, 1)
    optimiser.step(0.1)
    assert all(not p.grad.any() for p in params.values())


def test_gradients_accumulate_until_the_step():
    params = {"w": nn.Parameter(torch.ones(2))}
    optimiser = Adam(params)
    for share in ([1.0, 2.0], [3.0, 4.0]):
        optimiser.backward((params["w"] * torch.tensor(share)).sum())
    assert optimiser.gradients()["w"].tolist() == [4.0, 6.0]
    assert optimiser.step(0.1).item() == pytest.approx(52**0.5)


def test_shown_gradients_are_a_copy():
    params = parameters()
    optimiser = Adam(params)
    give(params, 1)
    shown = optimiser.gradients()
    optimiser.step(0.1)
    assert all(torch.equal(shown[name], gradients(1)[name].double()) for name in SHAPES)


def test_a_restored_optimiser_continues_bit_by_bit():
    params = parameters(torch.float32)
    optimiser = Adam(params, max_norm=1.0)
    for step in range(5):
        give(params, step), optimiser.step(0.1)
    others = {name: nn.Parameter(p.detach().clone()) for name, p in params.items()}
    other = Adam(others, max_norm=1.0)
    other.load(copy.deepcopy(optimiser.state()))
    for step in range(5, 10):
        give(params, step), optimiser.step(0.1)
        give(others, step), other.step(0.1)
    assert all(torch.equal(params[name], others[name]) for name in SHAPES)


def test_a_saved_state_does_not_change_with_training():
    params = parameters()
    optimiser = Adam(params)
    give(params, 0), optimiser.step(0.1)
    state = optimiser.state()
    before = copy.deepcopy(state)
    give(params, 1), optimiser.step(0.1)
    assert torch.equal(state["mean"], before["mean"])
    assert torch.equal(state["square"], before["square"])
    assert state["steps"] == 1


# Flat


def test_parameters_become_views_of_one_vector():
    params = parameters()
    before = {name: p.detach().clone() for name, p in params.items()}
    flat = Flat(params)
    assert all(torch.equal(params[name], before[name]) for name in SHAPES)
    flat.values.zero_()
    assert all(not p.any() for p in params.values())


def test_gradients_are_written_into_one_vector():
    params = parameters()
    flat = Flat(params)
    sum((p * p).sum() for p in params.values()).backward()
    assert torch.allclose(flat.grads, 2 * flat.values)


def test_loading_a_state_dict_keeps_the_views():
    layer = nn.Linear(2, 3)
    flat = Flat(dict(layer.named_parameters()))
    layer.load_state_dict({"weight": torch.full((3, 2), 7.0), "bias": torch.full((3,), 8.0)})
    assert flat.values.tolist() == [7.0] * 6 + [8.0] * 3


# Loss scaling


def test_an_overflow_halves_the_scale():
    scale = LossScale(start=8.0)
    scale.update(finite=False)
    assert scale.value == 4.0


def test_the_scale_never_falls_below_one():
    scale = LossScale(start=2.0)
    for _ in range(5):
        scale.update(finite=False)
    assert scale.value == 1.0


def test_enough_good_steps_in_a_row_double_the_scale():
    scale = LossScale(start=8.0, patience=3)
    for finite in (True, True, False, True, True):
        scale.update(finite)
    assert scale.value == 4.0
    scale.update(True)
    assert (scale.value, scale.good) == (8.0, 0)


def test_an_overflown_step_moves_nothing_and_counts_as_no_step():
    params = parameters()
    before = {name: p.detach().clone() for name, p in params.items()}
    optimiser = Adam(params, scale=LossScale(start=8.0))
    give(params, 1)
    params["b"].grad[0] = torch.inf
    optimiser.step(0.1)
    assert all(torch.equal(params[name], before[name]) for name in SHAPES)
    assert (optimiser.steps, optimiser.scale.value) == (0, 4.0)
    assert not optimiser.flat.grads.any()


def test_scaled_gradients_give_the_step_of_unscaled_ones():
    plain, scaled = ({"w": nn.Parameter(torch.tensor([1.0, -2.0]))} for _ in range(2))
    for params, scale in ((plain, None), (scaled, LossScale(start=1024.0))):
        optimiser = Adam(params, max_norm=1.0, scale=scale)
        for _ in range(3):
            optimiser.backward(params["w"].square().sum())
            optimiser.step(0.1)
    assert torch.equal(plain["w"], scaled["w"])


def test_the_scale_is_part_of_the_state():
    optimiser = Adam(parameters(), scale=LossScale(start=8.0))
    optimiser.scale.update(finite=False)
    optimiser.scale.update(finite=True)
    other = Adam(parameters(), scale=LossScale(start=8.0))
    other.load(optimiser.state())
    assert (other.scale.value, other.scale.good) == (4.0, 1)
