"""Recurrences against a plain loop that torch differentiates, and by hand."""

import pytest
import torch
from torch import Tensor

from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.recording import Recorded
from hieros_repro.ops.scan import scan

FORMS = ["loop", "parallel"]
Given = tuple[Tensor, Tensor, Tensor, Tensor]


def given(steps: int, dtype: torch.dtype = torch.complex128, batch: int = 3, size: int = 4) -> Given:
    """Decays of a size around 0.9, inputs, resets of which some are at both ends, and a start."""

    def drawn(name: str, *shape: int) -> Tensor:
        return torch.view_as_complex(torch.from_numpy(Key(0)("data", name).normal((*shape, 2))).double())

    decay = drawn("decay", size)
    decay = decay / decay.abs() * torch.linspace(0.7, 1.0, size)
    reset = torch.from_numpy(Key(0)("data", "reset").uniform((steps, batch))) < 0.3
    reset[0, 0], reset[-1, 1], reset[:, 2] = True, True, False
    return decay.to(dtype), drawn("entering", steps, batch, size).to(dtype), reset, drawn("start", batch, size).to(dtype)


def plain(decay: Tensor, entering: Tensor, reset: Tensor, start: Tensor) -> Tensor:
    found = []
    for entering_t, reset_t in zip(entering, reset, strict=True):
        start = torch.where(reset_t.unsqueeze(-1), 0.0, decay * start) + entering_t
        found.append(start)
    return torch.stack(found)


@pytest.mark.parametrize("form", FORMS)
def test_a_recurrence_by_hand(form):
    # a = i/2 from 4: 1 + 2i, then 1 + i/2 (1 + 2i) = i/2, then a reset: 1, then 1 + i/2
    one = torch.ones(4, 1, 1, dtype=torch.complex64)
    reset = torch.tensor([False, False, True, False]).unsqueeze(-1)
    found = scan(torch.tensor([0.5j]), one, reset, 4 * one[0], form)
    assert found.flatten().tolist() == [1 + 2j, 0.5j, 1, 1 + 0.5j]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13, 64])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.complex128, 1e-12), (torch.complex64, 1e-5)])
def test_states_and_gradients_are_those_of_a_plain_loop(form, steps, dtype, tolerance):
    inputs = given(steps, dtype)
    learned = [x.clone().requires_grad_() for x in (inputs[0], inputs[1], inputs[3])]
    toward = torch.view_as_complex(torch.from_numpy(Key(0)("data", "toward").normal((*inputs[1].shape, 2))).double()).to(dtype)
    one = scan(learned[0], learned[1], inputs[2], learned[2], form)
    other = plain(learned[0], learned[1], inputs[2], learned[2])
    assert one.dtype == dtype
    torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
    grads = [torch.autograd.grad(x, learned, toward) for x in (one, other)]
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=30 * tolerance, atol=30 * tolerance)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_differences(form):
    decay, entering, reset, start = given(5, batch=3, size=2)
    learned = [x.clone().requires_grad_() for x in (decay, entering, start)]
    assert torch.autograd.gradcheck(lambda a, b, x: scan(a, b, reset, x, form), learned)


@pytest.mark.parametrize("form", FORMS)
def test_one_after_the_other_is_the_whole(form):
    decay, entering, reset, start = given(9)
    whole, found = scan(decay, entering, reset, start, form), []
    for t in range(9):
        start = scan(decay, entering[t : t + 1], reset[t : t + 1], start, form)[0]
        found.append(start)
    torch.testing.assert_close(torch.stack(found), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_reset_forgets_what_was_and_keeps_its_own_input(form):
    decay, entering, _, start = given(6)
    reset = torch.zeros(6, 3, dtype=torch.bool)
    reset[3] = True
    other = entering.clone()
    other[:3] = 1e6
    one, two = scan(decay, entering, reset, start, form), scan(decay, other, reset, 1e6 * start, form)
    assert torch.equal(one[3:], two[3:]) and torch.equal(one[3], entering[3])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 3, 4, 5, 12, 32, 100])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.complex128, 1e-12), (torch.complex64, 1e-5)])
def test_no_reset_at_all_need_not_be_said(form, size, dtype, tolerance):
    decay, entering, _, start = given(7, dtype, size=size)
    learned = [x.requires_grad_() for x in (decay, entering, start)]
    toward = torch.view_as_complex(torch.from_numpy(Key(0)("data", "toward").normal((7, 3, size, 2))).double()).to(dtype)
    never = torch.zeros(7, 3, dtype=torch.bool)
    said, unsaid = (scan(learned[0], learned[1], reset, learned[2], form) for reset in (never, None))
    assert torch.equal(said, unsaid)
    for one, other in zip(*(torch.autograd.grad(x, learned, toward) for x in (said, unsaid)), strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_given_is_left_as_it_was(form):
    inputs = given(7)
    kept = [x.clone() for x in inputs]
    learned = [x.requires_grad_() for x in (inputs[0], inputs[1], inputs[3])]
    toward = torch.ones_like(inputs[1])
    torch.autograd.grad(scan(*inputs, form), learned, toward)
    assert all(torch.equal(a, b) for a, b in zip(inputs, kept, strict=True)) and (toward == 1).all()


@pytest.mark.parametrize("form", FORMS)
def test_it_is_recorded_with_equal_bits(form):
    def gradients(decay: Tensor, entering: Tensor, reset: Tensor, start: Tensor) -> list[Tensor]:
        learned = [x.detach().requires_grad_() for x in (decay, entering, start)]
        states = scan(learned[0], learned[1], reset, learned[2], form)
        return [states.detach(), *torch.autograd.grad((states.real * states.imag).sum(), learned)]

    inputs = given(8, torch.complex64)
    recorded = Recorded(gradients)
    recorded(*inputs)
    others = (inputs[0] * 0.5, inputs[1] * 2, ~inputs[2], inputs[3] + 1)
    for found, expected in zip(recorded(*others), gradients(*others), strict=True):
        assert torch.equal(found, expected) and expected.abs().sum() > 0
