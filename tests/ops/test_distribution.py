import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import distributions

from hieros_repro.determinism.keys import Key
from hieros_repro.ops.distribution import Categorical, Categoricals, Gaussian, OneHot, family, inverse_cdf
from hieros_repro.records import Space

KEY = Key(0)("data", "distribution")
SIZES = (3, 1, 4)


def normal(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(KEY(name).normal(shape))


def integers(name: str, high: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(KEY(name).integers(high, shape))


class Joint:
    """Independent categoricals, said with torch.distributions."""

    def __init__(self, params: torch.Tensor):
        self.parts = [distributions.Categorical(logits=part) for part in params.split(SIZES, -1)]

    def log_prob(self, action: torch.Tensor) -> torch.Tensor:
        return sum(part.log_prob(action[..., i]) for i, part in enumerate(self.parts))

    def entropy(self) -> torch.Tensor:
        return sum(part.entropy() for part in self.parts)

    @property
    def mode(self) -> torch.Tensor:
        return torch.stack([part.mode for part in self.parts], -1)


def gaussian(params: torch.Tensor) -> distributions.Distribution:
    mean, log_std = params.chunk(2, -1)
    return distributions.Independent(distributions.Normal(mean, log_std.exp()), 1)


CASES = {
    "categorical": (
        Categorical(5),
        lambda p: distributions.Categorical(logits=p),
        normal("c", 6, 7, 5),
        integers("ca", 5, 6, 7),
    ),
    "many classes": (Categorical(40), lambda p: distributions.Categorical(logits=p), normal("m", 9, 40), integers("ma", 40, 9)),
    "one-hot": (
        OneHot(5),
        lambda p: distributions.OneHotCategorical(logits=p),
        normal("c", 6, 7, 5),
        torch.nn.functional.one_hot(integers("ca", 5, 6, 7), 5).float(),
    ),
    "categoricals": (
        Categoricals(SIZES),
        Joint,
        normal("j", 6, 8),
        torch.stack([integers("j", n, 6) for n in SIZES], -1),
    ),
    "gaussian": (Gaussian(3), gaussian, normal("g", 6, 7, 6), normal("ga", 6, 7, 3)),
}
every_family = pytest.mark.parametrize("case", CASES)


@every_family
def test_log_probabilities_are_those_of_torch(case):
    ours, theirs, params, action = CASES[case]
    assert torch.allclose(ours.log_prob(params, action), theirs(params).log_prob(action), atol=1e-5)


@every_family
def test_entropies_are_those_of_torch(case):
    ours, theirs, params, _ = CASES[case]
    assert torch.allclose(ours.entropy(params), theirs(params).entropy(), atol=1e-5)


@every_family
def test_modes_are_those_of_torch(case):
    ours, theirs, params, _ = CASES[case]
    assert torch.equal(ours.mode(params), theirs(params).mode)


@every_family
@pytest.mark.parametrize("quantity", ["log_prob", "entropy"])
def test_gradients_are_those_of_torch(case, quantity):
    ours, theirs, params, action = CASES[case]
    found, expected = params.clone().requires_grad_(), params.clone().requires_grad_()
    arguments = (action,) if quantity == "log_prob" else ()
    getattr(ours, quantity)(found, *arguments).sum().backward()
    getattr(theirs(expected), quantity)(*arguments).sum().backward()
    assert torch.allclose(found.grad, torch.zeros_like(params) if expected.grad is None else expected.grad, atol=1e-5)


@every_family
def test_samples_have_the_shape_of_actions_and_a_finite_log_probability(case):
    ours, _, params, action = CASES[case]
    noise = torch.from_numpy(ours.noise(KEY("noise"), tuple(params.shape[:-1])))
    sample = ours.sample(params, noise)
    assert (sample.shape, sample.dtype) == (action.shape, action.dtype)
    assert ours.log_prob(params, sample).isfinite().all()


def test_a_gaussian_sample_is_mean_plus_deviation_times_noise():
    params = torch.tensor([[1.0, -2.0, math.log(0.5), math.log(3.0)]])
    assert torch.allclose(Gaussian(2).sample(params, torch.tensor([[2.0, -1.0]])), torch.tensor([[2.0, -5.0]]))


@pytest.mark.parametrize("classes", [2, 5, 30])
def test_sampled_classes_have_the_probabilities_of_their_logits(classes):
    logits = normal(f"f{classes}", classes)
    params = logits.expand(60_000, classes)
    found = Categorical(classes).sample(params, torch.from_numpy(Key(5)("act", classes).uniform((60_000,))))
    expected = logits.double().softmax(-1).numpy() * 60_000
    assert stats.chisquare(np.bincount(found, minlength=classes), expected).pvalue > 0.01


def test_parts_of_a_multidiscrete_action_are_independent():
    params = torch.tensor([0.0, math.log(3.0), 0.0, math.log(3.0)]).expand(40_000, 4)
    ours = Categoricals((2, 2))
    found = ours.sample(params, torch.from_numpy(ours.noise(Key(5)("act", 0), (40_000,))))
    counts = np.bincount((2 * found[:, 0] + found[:, 1]).numpy(), minlength=4)
    assert stats.chisquare(counts, np.array([1, 3, 3, 9]) / 16 * 40_000).pvalue > 0.01


def test_half_precision_parameters_are_computed_in_float32():
    ours, theirs, params, action = CASES["categorical"]
    found = ours.log_prob(params.bfloat16(), action)
    assert found.dtype == torch.float32
    assert torch.allclose(found, theirs(params.bfloat16().float()).log_prob(action), atol=1e-5)


# Inverse CDF

LAST = 1 - 2**-24


def wide(logits: torch.Tensor, classes: int) -> torch.Tensor:
    """The same distribution with impossible classes behind, so that the code for many classes is taken."""
    return torch.cat([logits, logits.new_full((*logits.shape[:-1], classes - logits.shape[-1]), -torch.inf)], -1)


@pytest.mark.parametrize("classes", [4, 20], ids=["few", "many"])
@pytest.mark.parametrize(
    ("uniform", "expected"),
    [(0.0, 0), (0.25 - 2**-24, 0), (0.25, 1), (0.5 - 2**-24, 1), (0.5, 2), (0.75, 3), (LAST, 3)],
)
def test_a_class_begins_where_its_slice_begins(uniform, expected, classes):
    logits = wide(torch.zeros(1, 4), classes)
    assert inverse_cdf(logits, torch.tensor([uniform])).item() == expected


@pytest.mark.parametrize("classes", [3, 20], ids=["few", "many"])
@pytest.mark.parametrize(("uniform", "expected"), [(0.0, 1), (0.4999, 1), (0.5, 2), (LAST, 2)])
def test_a_class_without_probability_is_never_drawn(uniform, expected, classes):
    logits = torch.tensor([[-torch.inf, 0.0, 0.0]])  # the first two edges are equal: both 0, then both 1/2
    assert inverse_cdf(wide(logits, classes), torch.tensor([uniform])).item() == expected


@pytest.mark.parametrize("classes", [1, 2, 3, 7, 16, 17, 64])
def test_no_class_beyond_the_last_is_ever_drawn(classes):
    logits = normal(f"edge{classes}", 500, classes) * 5
    for uniform in (0.0, LAST):
        found = inverse_cdf(logits, torch.full((500,), uniform))
        assert 0 <= found.min() <= found.max() < classes


def test_both_ways_of_summing_agree():
    logits, uniform = normal("both", 5000, 16), torch.from_numpy(KEY("both").uniform((5000,)))
    assert (inverse_cdf(logits, uniform) == inverse_cdf(wide(logits, 17), uniform)).float().mean() > 0.9999


def test_a_certain_class_is_always_drawn():
    logits = torch.tensor([0.0, 0.0, 200.0, 0.0]).expand(3, 4)
    assert inverse_cdf(logits, torch.tensor([0.0, 0.5, LAST])).tolist() == [2, 2, 2]


# Families


@pytest.mark.parametrize(
    ("space", "kind", "width", "scales"),
    [
        (Space("discrete", (), sizes=(4,)), Categorical, 4, 0),
        (Space("onehot", (4,), sizes=(4,)), OneHot, 4, 0),
        (Space("multidiscrete", (3,), sizes=SIZES), Categoricals, 8, 0),
        (Space("continuous", (2, 3), low=(-1,) * 6, high=(1,) * 6), Gaussian, 6, 6),
    ],
)
def test_an_action_space_has_its_family(space, kind, width, scales):
    found = family(space)
    assert (type(found), found.width, found.scales) == (kind, width, scales)


def test_a_space_that_is_no_action_space_is_refused():
    with pytest.raises(ValueError, match="'image'"):
        family(Space("image", (8, 8, 3)))


def test_one_hot_samples_are_the_categorical_ones_as_vectors():
    params, noise = normal("c", 6, 7, 5), torch.from_numpy(Key(0)("data", "u").uniform((6, 7)))
    sample = OneHot(5).sample(params, noise)
    assert sample.dtype == torch.float32 and torch.equal(sample.argmax(-1), Categorical(5).sample(params, noise))
    assert torch.equal(sample.sum(-1), torch.ones(6, 7)) and torch.equal(sample.amax(-1), torch.ones(6, 7))
