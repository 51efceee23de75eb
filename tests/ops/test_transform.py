import math

import pytest
import torch

from hieros_repro.determinism.keys import Key
from hieros_repro.ops.transform import symexp, symexp_bins, symlog, two_hot, two_hot_loss, two_hot_mean

# Four bins with gaps of 2, 3 and 5.
BINS = torch.tensor([-2.0, 0.0, 3.0, 8.0])


def test_symlog_is_the_logarithm_of_one_more_on_both_sides():
    x = torch.tensor([-(math.e - 1), -1.0, 0.0, 1.0, math.e**2 - 1])
    assert torch.allclose(symlog(x), torch.tensor([-1.0, -math.log(2), 0.0, math.log(2), 2.0]), rtol=1e-6)


def test_symexp_undoes_symlog():
    x = torch.from_numpy(Key(0)("data", "symlog").normal((1000,))) * 100
    assert torch.allclose(symexp(symlog(x)), x, rtol=1e-5)
    assert torch.allclose(symexp(torch.tensor([-1.0, 0.0, 2.0])), torch.tensor([1 - math.e, 0.0, math.e**2 - 1]), rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "slopes"),
    [(symlog, [1 / 3, 1.0, 1.0, 1 / 3]), (symexp, [math.e**2, 1.0, 1.0, math.e**2])],
)
def test_slopes_are_symmetric_and_one_at_zero(function, slopes):
    x = torch.tensor([-2.0, -0.0, 0.0, 2.0], requires_grad=True)
    function(x).sum().backward()
    assert torch.allclose(x.grad, torch.tensor(slopes), rtol=1e-6)


# Bins


def test_five_bins_are_those_computed_by_hand():
    # symexp of -2, -1, 0, 1, 2
    expected = torch.tensor([1 - math.e**2, 1 - math.e, 0.0, math.e - 1, math.e**2 - 1])
    assert torch.allclose(symexp_bins(5, 2.0), expected, rtol=1e-6)


def test_four_bins_are_those_computed_by_hand():
    # symexp of -3, -1, 1, 3
    expected = torch.tensor([1 - math.e**3, 1 - math.e, math.e - 1, math.e**3 - 1])
    assert torch.allclose(symexp_bins(4, 3.0), expected, rtol=1e-6)


@pytest.mark.parametrize("count", [2, 3, 40, 41, 255])
def test_bins_ascend_and_mirror_exactly(count):
    bins = symexp_bins(count)
    assert bins.shape == (count,) and bins.dtype == torch.float32
    assert (bins[1:] > bins[:-1]).all() and torch.equal(bins, -bins.flip(0))
    assert bins[-1].item() == pytest.approx(math.expm1(20.0), rel=1e-6)
    assert (bins == 0).sum() == count % 2


def test_255_bins_have_zero_in_the_middle():
    bins = symexp_bins(255)
    assert (bins[:127] < 0).all() and bins[127] == 0 and (bins[128:] > 0).all()


def test_one_bin_is_refused():
    with pytest.raises(ValueError, match="at least 2 bins, not 1"):
        symexp_bins(1)


# Two-hot


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (-2.0, [1.0, 0.0, 0.0, 0.0]),
        (-1.5, [0.75, 0.25, 0.0, 0.0]),
        (0.0, [0.0, 1.0, 0.0, 0.0]),
        (1.5, [0.0, 0.5, 0.5, 0.0]),
        (3.0, [0.0, 0.0, 1.0, 0.0]),
        (6.75, [0.0, 0.0, 0.25, 0.75]),
        (8.0, [0.0, 0.0, 0.0, 1.0]),
        (-1e9, [1.0, 0.0, 0.0, 0.0]),
        (1e9, [0.0, 0.0, 0.0, 1.0]),
    ],
)
def test_weights_are_linear_between_neighbours_and_clipped_at_the_ends(target, expected):
    assert torch.equal(two_hot(torch.tensor([target]), BINS), torch.tensor([expected]))


def test_every_bin_is_its_own_weight():
    bins = symexp_bins(255)
    assert torch.equal(two_hot(bins, bins), torch.eye(255))


def test_weights_are_at_most_two_neighbours_sum_to_one_and_average_to_the_target():
    bins, target = symexp_bins(255), torch.from_numpy(Key(0)("data", "target").normal((20, 50))) * 1000
    weights = two_hot(target, bins)
    assert weights.shape == (20, 50, 255) and (weights >= 0).all()
    used = weights > 0
    assert (used.sum(-1) <= 2).all() and ((used[..., 1:] & used[..., :-1]).sum(-1) == used.sum(-1) - 1).all()
    assert torch.allclose(weights.sum(-1), torch.ones(20, 50), atol=1e-6)
    assert torch.allclose((weights * bins).sum(-1), target, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("count", [2, 40, 41, 255])
@pytest.mark.parametrize("logit", [0.0, 0.3])
def test_equal_logits_predict_exactly_zero(count, logit):
    assert torch.equal(two_hot_mean(torch.full((7, count), logit), symexp_bins(count)), torch.zeros(7))


def test_the_mean_is_the_weighted_sum_of_the_bins():
    # softmax of ln 1, ln 2, ln 3, ln 2: 1/8, 2/8, 3/8, 2/8; then -2/8 + 0 + 9/8 + 16/8 = 23/8
    logits = torch.tensor([[1.0, 2.0, 3.0, 2.0]]).log()
    assert torch.allclose(two_hot_mean(logits, BINS), torch.tensor([23 / 8]))
    # with three bins, 1/6, 2/6, 3/6: -5/6 + 2/6 * 1 + 3/6 * 4 = 9/6
    odd = torch.tensor([-5.0, 1.0, 4.0])
    assert torch.allclose(two_hot_mean(torch.tensor([[1.0, 2.0, 3.0]]).log(), odd), torch.tensor([1.5]))


@pytest.mark.parametrize("count", [40, 255])
def test_the_mean_over_pairs_is_off_by_rounding_alone(count):
    logits, bins = torch.from_numpy(Key(0)("data", "logits").normal((200, count))), symexp_bins(count)
    weighted = logits.double().softmax(-1) * bins
    assert ((two_hot_mean(logits, bins) - weighted.sum(-1)).abs() < 1e-6 * weighted.abs().sum(-1)).all()


def test_the_loss_is_the_cross_entropy_to_the_weights():
    # p = 1/8, 2/8, 3/8, 2/8; target 1.5 weighs bins 1 and 2 by 1/2: - 1/2 ln 2/8 - 1/2 ln 3/8; target 8: - ln 2/8
    logits = torch.tensor([1.0, 2.0, 3.0, 2.0]).log().expand(2, 4)
    expected = torch.tensor([-0.5 * math.log(2 / 8) - 0.5 * math.log(3 / 8), -math.log(2 / 8)])
    assert torch.allclose(two_hot_loss(logits, torch.tensor([1.5, 8.0]), BINS), expected)


def test_the_losss_gradient_is_probabilities_less_weights_and_leaves_the_target_alone():
    logits = torch.tensor([[1.0, 2.0, 3.0, 2.0]]).log().requires_grad_()
    target = torch.tensor([1.5], requires_grad=True)
    two_hot_loss(logits, target, BINS).sum().backward()
    assert torch.allclose(logits.grad, torch.tensor([[1 / 8, 2 / 8 - 1 / 2, 3 / 8 - 1 / 2, 2 / 8]]), atol=1e-6)
    assert target.grad is None


def test_half_precision_logits_are_computed_in_float32():
    logits = torch.from_numpy(Key(0)("data", "half").normal((6, 4))).bfloat16()
    target, wide = torch.linspace(-3, 9, 6), logits.float()
    assert torch.equal(two_hot_loss(logits, target, BINS), two_hot_loss(wide, target, BINS))
    assert torch.equal(two_hot_mean(logits, BINS), two_hot_mean(wide, BINS))


def test_on_a_cpu_the_loss_looks_at_two_bins_alone_and_is_that_of_all_weights_to_the_bit():
    bins, key = symexp_bins(255), Key(0)("data", "pair")
    edges = torch.cat([bins, bins.nextafter(torch.tensor(torch.inf)), bins.nextafter(torch.tensor(-torch.inf))])
    target = torch.cat([edges, torch.tensor([-1e30, 1e30, -0.0]), torch.from_numpy(key("target").normal((300,))) * 50])
    logits = torch.from_numpy(key("logits").normal((len(target), 255)))
    one, other = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    found, expected = two_hot_loss(one, target, bins), -(two_hot(target, bins) * other.log_softmax(-1)).sum(-1)
    assert torch.equal(found, expected)
    found.sum().backward()
    expected.sum().backward()
    assert torch.equal(one.grad, other.grad)
