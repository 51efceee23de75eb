"""Diagonal linear recurrences over time that can begin anew anywhere.

    x_t = a_t x_{t-1} + b_t,      a_t = a (1 - reset_t),      x_{-1} = start

Where a row resets, what came before is dropped and the row's own input still enters: x_t = b_t. All numbers are complex.
`reset` may be None, for rows of which none does.
"""

from typing import Any, Literal

import torch
from jaxtyping import Bool, Complex
from torch import Tensor

Form = Literal["auto", "loop", "parallel"]


def scan(
    decay: Complex[Tensor, "P"],
    entering: Complex[Tensor, "T B P"],
    reset: Bool[Tensor, "T B"] | None,
    start: Complex[Tensor, "B P"],
    form: Form,
) -> Complex[Tensor, "T B P"]:
    """The states x_t. `loop`: one step after the other, T operations on B P numbers, as cheap as can be where operations are;
    `parallel`: 2 log2 T operations on all of them, for devices on which an operation costs its launch; `auto`: loop on a CPU,
    parallel elsewhere."""
    if form == "auto":
        form = "loop" if entering.device.type == "cpu" else "parallel"
    return _Scan.apply(decay, entering, reset, start, form)


class _Scan(torch.autograd.Function):
    """With L a function of all x_t, g_t = dL/dx_t alone and G_t with all that follows from x_t (torch's gradients of complex
    numbers are conjugates, so everything here is run on conj g and conj G):

    conj G_t = conj g_t + a_{t+1} conj G_{t+1},     dL/db = G,     dL/da = sum_t (1 - reset_t) G_t conj x_{t-1}
    """

    @staticmethod
    def forward(ctx: Any, decay: Tensor, entering: Tensor, reset: Tensor | None, start: Tensor, form: Form) -> Tensor:
        lasting = None if reset is None else (~reset).to(decay.real.dtype).unsqueeze(-1)
        factors = decay.expand(entering.shape).contiguous() if lasting is None else lasting * decay  # alike, for equal bits
        states = entering.clone()
        states[0].addcmul_(factors[0], start)
        states = _accumulated(factors, states, form)
        ctx.save_for_backward(factors, lasting, start, states)
        ctx.form = form
        return states

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, Tensor, None]:
        factors, lasting, start, states = ctx.saved_tensors
        turned = gradient.conj_physical()
        total = _accumulated_back(factors, turned, ctx.form)
        of_start = (factors[0] * total[0]).conj_physical()
        before = torch.cat([start.unsqueeze(0), states[:-1]])
        steps = torch.view_as_real(before.mul_(total)).flatten(0, 1).flatten(1)
        summed = steps.sum(0) if lasting is None else lasting.flatten() @ steps
        of_decay = torch.view_as_complex(summed.view(-1, 2)).conj_physical()
        return of_decay, total.conj_physical_(), None, of_start, None


def _accumulated(factors: Tensor, terms: Tensor, form: Form) -> Tensor:
    """x_t = factors_t x_{t-1} + terms_t from x_0 = terms_0. May change `terms`."""
    if form == "parallel":
        return _doubled(factors, terms)
    states = terms.unbind(0)
    for factor, before, state in zip(factors.unbind(0)[1:], states, states[1:], strict=False):
        state.addcmul_(factor, before)
    return terms


def _accumulated_back(factors: Tensor, terms: Tensor, form: Form) -> Tensor:
    """x_t = factors_{t+1} x_{t+1} + terms_t from the last on. May change `terms`."""
    if form == "parallel":
        ahead = torch.cat([factors[:1], factors[1:].flip(0)])
        return _doubled(ahead, terms.flip(0)).flip(0)
    states = terms.unbind(0)[::-1]
    for factor, after, state in zip(factors.unbind(0)[:0:-1], states, states[1:], strict=False):
        state.addcmul_(factor, after)
    return terms


def _doubled(factors: Tensor, states: Tensor) -> Tensor:
    """Every state takes in what the one 1, 2, 4, ... steps before it has taken in so far (Hillis & Steele 1986)."""
    reach = 1
    while reach < len(states):
        states = torch.cat([states[:reach], torch.addcmul(states[reach:], factors[reach:], states[:-reach])])
        if 2 * reach < len(states):
            factors = torch.cat([factors[:reach], factors[reach:] * factors[:-reach]])
        reach *= 2
    return states
