import math

import pytest
import torch
from torch import distributions

from hieros_repro.determinism.keys import Key
from hieros_repro.ops.divergence import kl, max_cosine


def normal(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(Key(0)("data", "divergence", name).normal(shape))


def test_the_divergence_is_summed_over_classes_and_groups():
    # group 1: 1/2 ln (1/2 / 1/4) + 1/2 ln (1/2 / 3/4) = 1/2 ln 2 + 1/2 ln 2/3;  group 2: 1/4 ln 1/2 + 3/4 ln 3/2
    p, q = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]), torch.tensor([[[0.25, 0.75], [0.5, 0.5]]])
    first, second = 0.5 * math.log(2) + 0.5 * math.log(2 / 3), 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)
    assert torch.allclose(kl(p.log(), q.log()), torch.tensor([first + second]), atol=1e-6)


def test_the_divergence_is_that_of_torch():
    p, q = normal("p", 5, 6, 4, 8).log_softmax(-1), normal("q", 5, 6, 4, 8).log_softmax(-1)
    theirs = distributions.kl_divergence(distributions.Categorical(logits=p), distributions.Categorical(logits=q)).sum(-1)
    assert torch.allclose(kl(p, q), theirs, atol=1e-5)
    assert torch.equal(kl(p, p), torch.zeros(5, 6))


def test_the_divergence_pulls_on_both_sides():
    # by the logits: p_c (ln p_c - ln q_c - KL) on the left, q_c - p_c on the right
    left, right = normal("l", 1, 1, 4).requires_grad_(), normal("r", 1, 1, 4).requires_grad_()
    log_p, log_q = left.log_softmax(-1), right.log_softmax(-1)
    found = kl(log_p, log_q)
    found.sum().backward()
    assert torch.allclose(left.grad, log_p.exp() * (log_p - log_q - found), atol=1e-6)
    assert torch.allclose(right.grad, log_q.exp() - log_p.exp(), atol=1e-6)


@pytest.mark.parametrize(
    ("goal", "state", "expected"),
    [
        ([3.0, 4.0], [3.0, 4.0], 1.0),
        ([3.0, 4.0], [-3.0, -4.0], -1.0),
        ([3.0, 4.0], [-4.0, 3.0], 0.0),
        ([3.0, 4.0], [6.0, 8.0], 0.5),  # (3, 4)/10 . (6, 8)/10 = (18 + 32)/100
        ([6.0, 8.0], [3.0, 4.0], 0.5),
        ([3.0, 4.0], [1.0, 0.0], 0.12),  # (3, 4)/5 . (1, 0)/5 = 3/25
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([0.0, 0.0], [1.0, 0.0], 0.0),
    ],
)
def test_the_cosine_is_measured_by_the_longer_of_both(goal, state, expected):
    assert max_cosine(torch.tensor([goal]), torch.tensor([state])).item() == pytest.approx(expected, abs=1e-6)


def test_the_cosine_of_nothing_has_a_finite_gradient():
    state = torch.zeros(2, 3, requires_grad=True)
    max_cosine(torch.zeros(2, 3), state).sum().backward()
    assert state.grad.isfinite().all()
