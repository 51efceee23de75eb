import math

import numpy as np
import pytest
import torch
from torch import distributions

from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.recording import Recorded
from hieros_repro.ops.action import Bounded, Codes, actions, one_hot_mode, one_hot_sample, straight_through, unimix
from hieros_repro.records import Space

KEY = Key(0)("data", "action")
LAST = 1 - 2**-24  # the greatest uniform there is
SIZES = (3, 1, 5)


def normal(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(KEY(name).normal(shape))


def uniform(name: str, *shape: int) -> torch.Tensor:
    return torch.from_numpy(KEY(name).uniform(shape))


def logs(*probabilities: float) -> torch.Tensor:
    """Log-probabilities of one group, (1, C)."""
    return torch.tensor([probabilities]).log()


# Mixing with the uniform distribution


def test_probabilities_are_mixed_with_equal_ones():
    # 0.9 * (1/2, 1/4, 1/8, 1/8) + 0.1 / 4
    expected = torch.tensor([[0.475, 0.25, 0.1375, 0.1375]])
    assert torch.allclose(unimix(logs(0.5, 0.25, 0.125, 0.125) + 7, 0.1).exp(), expected)


def test_without_a_mix_only_the_norm_changes():
    assert torch.allclose(unimix(logs(0.5, 0.25, 0.25) + 7, 0.0), logs(0.5, 0.25, 0.25), atol=1e-6)
    assert torch.equal(unimix(torch.tensor([[0.0, -300.0]]), 0.0), torch.tensor([[0.0, -300.0]]))


def test_no_class_is_less_probable_than_its_share_of_the_mix():
    assert torch.allclose(unimix(torch.tensor([[0.0, -1e4]]), 0.01).exp(), torch.tensor([[0.995, 0.005]]))


def test_the_mix_weakens_the_gradient():
    # d log p_0 / d l_0 = (1 - mix) s_0 (1 - s_0) / p_0 with s = (3/4, 1/4), p_0 = 0.8 * 3/4 + 0.2 / 2 = 0.7
    logits = logs(0.75, 0.25).requires_grad_()
    unimix(logits, 0.2)[0, 0].backward()
    slope = 0.8 * 0.75 * 0.25 / 0.7
    assert torch.allclose(logits.grad, torch.tensor([[slope, -slope]]))


def test_half_precision_logits_are_mixed_in_float32():
    logits = normal("half", 6, 2, 5).bfloat16()
    for mix in (0.0, 0.01):
        found = unimix(logits, mix)
        assert found.dtype == torch.float32 and torch.equal(found, unimix(logits.float(), mix))


# Drawing


@pytest.mark.parametrize(
    ("u", "expected"),
    [(0.0, 0), (0.25 - 2**-23, 0), (0.25, 1), (0.75 - 2**-23, 1), (0.75, 2), (0.875 - 2**-23, 2), (0.875, 3), (LAST, 3)],
)
def test_a_class_begins_where_its_slice_begins(u, expected):
    found = one_hot_sample(logs(0.25, 0.5, 0.125, 0.125), torch.tensor([u]))
    assert found.tolist() == [[float(c == expected) for c in range(4)]]


@pytest.mark.parametrize("classes", [2, 5, 8, 32, 100])
def test_a_grid_of_uniforms_draws_every_class_as_often_as_it_is_probable(classes):
    p = normal(f"p{classes}", classes).double().softmax(-1)
    points = 4096
    grid = ((torch.arange(points) + 0.5) / points).unsqueeze(-1)
    found = one_hot_sample(p.log().float().expand(points, 1, classes), grid)
    assert torch.equal(found.sum((-2, -1)), torch.ones(points))
    assert (found.sum((0, 1)) - points * p).abs().max() < 1.01  # a slice holds one point more or less than its length says


@pytest.mark.parametrize("classes", [1, 2, 3, 8, 17, 32, 255])
def test_exactly_one_class_is_drawn_at_both_ends(classes):
    log_prob = (5 * normal(f"end{classes}", 500, 2, classes)).log_softmax(-1)
    for u in (0.0, 2**-24, 0.5, LAST):
        found = one_hot_sample(log_prob, torch.full((500, 2), u))
        assert torch.equal(found.sum(-1), torch.ones(500, 2)) and torch.equal(found.amax(-1), torch.ones(500, 2))


@pytest.mark.parametrize("u", [0.0, 0.4, LAST])
def test_a_class_without_probability_is_never_drawn(u):
    # leading, inner and trailing ones; thirds and sixths, which no float holds, in between
    probabilities = torch.tensor([0.0, 1 / 3, 0.0, 1 / 6, 1 / 6, 1 / 3, 0.0, 0.0]).expand(1, 8)
    found = one_hot_sample(probabilities.log(), torch.tensor([u]))
    assert (found * probabilities).sum() > 0


def test_rounding_below_one_draws_the_last_possible_class():
    # 0.9 in all: what is drawn is a fraction of the total
    found = one_hot_sample(logs(0.3, 0.6, 0.0), torch.tensor([LAST]))
    assert found.tolist() == [[0.0, 1.0, 0.0]]


def test_a_sample_depends_on_nothing_beside_it():
    log_prob, u = normal("alone", 64, 4, 32).log_softmax(-1), uniform("alone", 64, 4)
    together = one_hot_sample(log_prob, u)
    assert all(torch.equal(one_hot_sample(log_prob[i], u[i]), together[i]) for i in range(64))


def test_under_autocast_the_same_is_drawn():
    logits, u = normal("cast", 64, 4, 32), uniform("cast", 64, 4)
    expected = straight_through(unimix(logits, 0.01), u)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = straight_through(unimix(logits, 0.01), u)
    assert torch.equal(found, expected)


def test_the_mode_is_the_most_probable_class():
    log_prob = torch.cat([logs(0.2, 0.5, 0.3), logs(0.6, 0.2, 0.2)])
    assert one_hot_mode(log_prob).tolist() == [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]


def test_straight_through_is_the_sample_with_the_gradient_of_the_probabilities():
    logits, u, weight = normal("st", 7, 3, 5).requires_grad_(), uniform("st", 7, 3), normal("weight", 7, 3, 5)
    found = straight_through(logits.log_softmax(-1), u)
    assert torch.equal(found, one_hot_sample(logits.log_softmax(-1), u))
    (found * weight).sum().backward()
    p = logits.detach().softmax(-1)
    assert torch.allclose(logits.grad, p * (weight - (p * weight).sum(-1, keepdim=True)), atol=1e-6)


def test_straight_through_by_hand():
    # p = (3/4, 1/4); d p_0 / d l = (3/16, -3/16)
    logits = logs(0.75, 0.25).requires_grad_()
    found = straight_through(unimix(logits, 0.0), torch.tensor([0.8]))
    assert found.tolist() == [[0.0, 1.0]]
    found[0, 0].backward()
    assert torch.allclose(logits.grad, torch.tensor([[3 / 16, -3 / 16]]))


def test_samples_and_modes_have_no_gradient():
    log_prob = normal("none", 3, 2, 4).requires_grad_().log_softmax(-1)
    assert not one_hot_sample(log_prob, uniform("none", 3, 2)).requires_grad
    assert not one_hot_mode(log_prob).requires_grad


# Codes


def test_codes_have_a_column_for_every_class_of_the_largest_group():
    codes = Codes(SIZES, 0.01)
    assert (codes.width, codes.size, codes.groups) == (15, 15, 3)
    assert codes.max_entropy == [math.log(3), 0.0, math.log(5)] and codes.min_entropy == [0.0, 0.0, 0.0]
    assert codes.noise(KEY("noise"), (4, 2)).shape == (4, 2, 3)


@pytest.mark.parametrize("mix", [0.0, 0.1])
def test_columns_beyond_a_groups_size_have_no_probability(mix):
    params = normal("params", 4, 15)
    p = Codes(SIZES, mix).log_probs(params).exp()
    logits = params.unflatten(-1, (3, 5))
    for group, n in enumerate(SIZES):
        expected = (1 - mix) * logits[:, group, :n].softmax(-1) + mix / n
        assert torch.allclose(p[:, group, :n], expected, atol=1e-6) and (p[:, group, n:] == 0).all()


@pytest.mark.parametrize("mix", [0.0, 0.1])
@pytest.mark.parametrize("u", [0.0, 0.5, LAST])
def test_columns_beyond_a_groups_size_are_never_drawn(mix, u):
    codes = Codes(SIZES, mix)
    params = 3 * normal("many", 2000, 15)
    params[:, [3, 4, 6, 7, 8, 9]] = 50.0  # what the network says of them does not matter
    for vector in (codes.sample(params, torch.full((2000, 3), u)), codes.mode(params)):
        chosen = vector.unflatten(-1, (3, 5))
        assert torch.equal(chosen.sum(-1), torch.ones(2000, 3))
        assert all((chosen[:, group, n:] == 0).all() for group, n in enumerate(SIZES))


@pytest.mark.parametrize("mix", [0.0, 0.1])
@pytest.mark.parametrize("sizes", [SIZES, (4, 4)], ids=["ragged", "even"])
@pytest.mark.parametrize("batch", [(), (6,), (2, 3, 4)])
def test_codes_are_the_categoricals_of_torch(sizes, mix, batch):
    codes = Codes(sizes, mix)
    params = normal("torch", *batch, codes.width)
    vector = codes.sample(params, torch.from_numpy(codes.noise(KEY("u"), batch)))
    logits, chosen = params.unflatten(-1, (len(sizes), -1)), vector.unflatten(-1, (len(sizes), -1)).argmax(-1)
    parts = [distributions.Categorical((1 - mix) * logits[..., g, :n].softmax(-1) + mix / n) for g, n in enumerate(sizes)]
    assert vector.shape == params.shape and vector.dtype == torch.float32
    assert torch.allclose(
        codes.log_prob(params, vector), sum(p.log_prob(chosen[..., g]) for g, p in enumerate(parts)), atol=1e-5
    )
    assert torch.allclose(codes.entropy(params), torch.stack([p.entropy() for p in parts], -1), atol=1e-5)


def test_codes_by_hand():
    # groups (3/4, 1/4) and (1/2, 1/2), half of each mixed with 1/2: (5/8, 3/8) and (1/2, 1/2)
    codes, params = Codes((2, 2), 0.5), torch.tensor([[3.0, 1.0, 1.0, 1.0]]).log()
    found = codes.log_prob(params, torch.tensor([[0.0, 1.0, 1.0, 0.0]]))
    assert torch.allclose(found, torch.tensor([math.log(3 / 8) + math.log(1 / 2)]))
    first = -(5 / 8 * math.log(5 / 8) + 3 / 8 * math.log(3 / 8))
    assert torch.allclose(codes.entropy(params), torch.tensor([[first, math.log(2)]]))


def test_the_greatest_entropy_is_that_of_equal_logits():
    codes = Codes(SIZES, 0.1)
    assert torch.allclose(codes.entropy(torch.zeros(1, 15)), torch.tensor([codes.max_entropy]), atol=1e-6)


@pytest.mark.parametrize("mix", [0.0, 0.1])
def test_gradients_are_finite_and_none_reaches_columns_that_do_not_exist(mix):
    codes = Codes(SIZES, mix)
    params = torch.cat([normal("g", 3, 15), 1e4 * normal("g", 3, 15)]).requires_grad_()
    vector = codes.mode(params)
    (codes.log_prob(params, vector).sum() + codes.entropy(params).sum()).backward()
    gradient = params.grad.unflatten(-1, (3, 5))
    assert gradient.isfinite().all()
    assert all((gradient[:, group, n:] == 0).all() for group, n in enumerate(SIZES))
    assert (gradient[:3, 0, :3] != 0).all()


# Bounded


def bounded(low: tuple[float, ...] = (-1.0, -1.0), high: tuple[float, ...] = (1.0, 1.0)) -> Bounded:
    return Bounded(2, 0.1, 1.0, 2.0, low, high)


# means tanh 0 and tanh 1; deviations 0.1 + 0.9 sigmoid(0) = 0.55 and, with sigmoid(ln 3) = 3/4, 0.775
PARAMS = torch.tensor([[0.0, 1.0, -2.0, math.log(3) - 2.0]])
MEAN, STD = torch.tensor([[0.0, math.tanh(1.0)]]), torch.tensor([[0.55, 0.775]])


def test_a_bounded_sample_is_mean_plus_deviation_times_noise_and_may_lie_beyond():
    found = bounded().sample(PARAMS, torch.tensor([[2.0, -1.0]]))
    assert torch.allclose(found, torch.tensor([[1.1, math.tanh(1.0) - 0.775]]))
    assert torch.allclose(bounded().mode(PARAMS), MEAN)


def test_bounded_log_probabilities_and_entropies_are_those_of_torch():
    theirs, vector = distributions.Independent(distributions.Normal(MEAN, STD), 1), torch.tensor([[1.3, -0.2]])
    assert torch.allclose(bounded().log_prob(PARAMS, vector), theirs.log_prob(vector))
    assert torch.allclose(bounded().entropy(PARAMS), theirs.entropy().unsqueeze(-1))


def test_bounded_entropies_lie_between_those_of_the_least_and_the_greatest_deviation():
    constant = math.log(2 * math.pi * math.e)  # two dimensions of half of it each
    assert bounded().min_entropy == pytest.approx([2 * math.log(0.1) + constant])
    assert bounded().max_entropy == pytest.approx([constant])
    for spread, bound in ((-50.0, bounded().min_entropy), (50.0, bounded().max_entropy)):
        assert torch.allclose(bounded().entropy(torch.tensor([[0.0, 0.0, spread, spread]])), torch.tensor([bound]))


def test_a_bounded_sample_passes_gradients_to_means_and_deviations():
    params = PARAMS.clone().requires_grad_()
    bounded().sample(params, torch.tensor([[2.0, -1.0]])).sum().backward()
    # 1 - tanh^2;  0.9 s (1 - s) noise with s = 1/2 and 3/4
    expected = torch.tensor([[1.0, 1 - math.tanh(1.0) ** 2, 0.9 * 0.25 * 2, -0.9 * 0.1875]])
    assert torch.allclose(params.grad, expected)


def test_bounded_noise_is_normal_and_of_the_vectors_size():
    noise = bounded().noise(KEY("normal"), (1000, 3))
    assert noise.shape == (1000, 3, 2) and noise.min() < -1 and abs(float(noise.std()) - 1) < 0.05


def test_vectors_are_clipped_and_stretched_to_finite_bounds():
    kind = bounded((0.0, -3.0), (10.0, 1.0))  # centres 5 and -1, halves 5 and 2
    found = kind.to_env(torch.tensor([[-1.0, 1.0], [0.5, -0.25], [7.0, -7.0]]))
    assert found.tolist() == [[0.0, 1.0], [7.5, -1.5], [10.0, -3.0]]
    assert kind.from_env(found).tolist() == [[-1.0, 1.0], [0.5, -0.25], [1.0, -1.0]]


def test_without_bounds_vectors_are_as_they_are_between_minus_one_and_one():
    kind = bounded((-math.inf, 0.0), (math.inf, 10.0))
    found = kind.to_env(torch.tensor([[0.3, 0.0], [-2.0, 0.0]]))
    assert torch.equal(found, torch.tensor([[0.3, 5.0], [-1.0, 5.0]]))


def test_rounding_never_leaves_the_bounds():
    low = tuple(np.float32(KEY("low").normal((500,))).tolist())
    high = tuple(float(np.float32(a + b)) for a, b in zip(low, KEY("span").uniform((500,)).tolist(), strict=True))
    kind = Bounded(500, 0.1, 1.0, 2.0, low, high)
    for end, bound in ((-1.0, low), (1.0, high)):
        found = kind.to_env(torch.full((500,), end))
        assert (found >= torch.tensor(low)).all() and (found <= torch.tensor(high)).all()
        assert torch.allclose(found, torch.tensor(bound), atol=1e-6)


def test_a_dimension_without_room_is_the_middle():
    kind = bounded((2.0, -1.0), (2.0, 1.0))
    assert kind.to_env(torch.tensor([[0.7, 0.7]])).tolist() == [[2.0, pytest.approx(0.7)]]
    assert kind.from_env(torch.tensor([[2.0, 0.5]])).tolist() == [[0.0, 0.5]]


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-0.1, 1.0), (1.0, 0.5)])
def test_deviations_that_are_none_are_refused(low, high):
    with pytest.raises(ValueError, match="low_std"):
        Bounded(1, low, high, 0.0, (-1.0,), (1.0,))


# Spaces

SPACES = {
    "discrete": (Space("discrete", (), sizes=(4,)), Codes, 4, 4, 1),
    "one-hot": (Space("onehot", (4,), sizes=(4,)), Codes, 4, 4, 1),
    "multidiscrete": (Space("multidiscrete", (3,), sizes=SIZES), Codes, 15, 15, 3),
    "table": (Space("multidiscrete", (2, 2), sizes=(2, 3, 2, 3)), Codes, 12, 12, 4),
    "continuous": (Space("continuous", (2, 3), low=(-2.0,) * 6, high=(1.0,) * 5 + (4.0,)), Bounded, 12, 6, 1),
    "number": (Space("continuous", (), low=(-1.0,), high=(1.0,)), Bounded, 2, 1, 1),
}
every_space = pytest.mark.parametrize("case", SPACES)


def made(case: str) -> Codes | Bounded:
    return actions(SPACES[case][0], 0.01, 0.1, 1.0, 2.0)


@every_space
def test_an_action_space_has_its_vectors(case):
    _, kind, width, size, groups = SPACES[case]
    found = made(case)
    assert (type(found), found.width, found.size, found.groups) == (kind, width, size, groups)
    assert len(found.max_entropy) == len(found.min_entropy) == groups


@every_space
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_actions_of_the_environment_come_back_from_their_vectors(case, batch):
    space, ours = SPACES[case][0], made(case)
    action = torch.from_numpy(np.asarray(space.draw(KEY("draw").uniform((max(1, math.prod(batch)), *space.shape)))))
    action = action.reshape((*batch, *space.shape))
    vector = ours.from_env(action)
    assert vector.shape == (*batch, ours.size) and vector.dtype == torch.float32
    back = ours.to_env(vector)
    assert back.shape == action.shape and back.numpy().dtype == space.dtype
    assert torch.allclose(back.double(), action.double(), atol=1e-6)


@every_space
def test_samples_are_actions_of_the_space(case):
    space, ours = SPACES[case][0], made(case)
    params = normal(case, 50, ours.width)
    vector = ours.sample(params, torch.from_numpy(ours.noise(KEY(case), (50,))))
    action = ours.to_env(vector)
    assert action.shape == (50, *space.shape) and action.numpy().dtype == space.dtype
    assert ours.log_prob(params, vector).shape == (50,) and ours.entropy(params).shape == (50, ours.groups)
    if space.kind == "continuous":
        assert (action >= torch.tensor(space.low).reshape(space.shape)).all()
        assert (action <= torch.tensor(space.high).reshape(space.shape)).all()
    else:
        assert torch.equal(ours.from_env(action), vector)


def test_integers_stand_for_classes():
    assert made("discrete").to_env(torch.tensor([[0.0, 0.0, 1.0, 0.0]])).tolist() == [2]
    vector = made("multidiscrete").from_env(torch.tensor([[2, 0, 4]]))
    assert vector.tolist() == [[0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]


def test_the_hyperparameters_arrive():
    codes, normals = made("discrete"), made("number")
    assert codes.log_probs(torch.tensor([0.0, -1e4, -1e4, -1e4])).exp()[0, 1].item() == pytest.approx(0.01 / 4)
    assert normals.mean_and_std(torch.tensor([0.0, -2.0]))[1].item() == pytest.approx(0.55)


def test_a_space_that_is_no_action_space_is_refused():
    with pytest.raises(ValueError, match="'image'"):
        actions(Space("image", (8, 8, 3)), 0.01, 0.1, 1.0, 0.0)


# In an update


@every_space
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_everything_can_be_recorded(case, precision):
    """Nothing is read back into Python and no constant comes from outside; half precision stays outside of the numbers."""
    ours = made(case)

    def update(params, noise, action):
        with torch.enable_grad():
            vector = ours.sample(params, noise).detach()
            value = ours.log_prob(params, vector).sum() + ours.entropy(params).sum() + ours.from_env(action).sum()
            gradient = torch.autograd.grad(value, params)[0]
        return [vector, ours.mode(params), ours.to_env(vector), value.detach(), gradient]

    params = normal(case, 20, ours.width).to(precision).requires_grad_()
    noise = torch.from_numpy(ours.noise(KEY(case), (20,)))
    action = torch.from_numpy(SPACES[case][0].draw(KEY("draw").uniform((20, *SPACES[case][0].shape))))
    recorded = Recorded(update)
    recorded(params, noise, action)
    other = (params.detach() * -2).requires_grad_(), noise.flip(0), action.flip(0)
    for found, expected in zip(recorded(*other), update(*other), strict=True):
        assert torch.equal(found, expected)
    assert expected.dtype == precision


def test_drawing_with_a_straight_gradient_can_be_recorded():
    def update(logits, u):
        with torch.enable_grad():
            found = straight_through(unimix(logits, 0.01), u)
            return [found.detach(), torch.autograd.grad((found * u.unsqueeze(-1)).sum(), logits)[0]]

    recorded, logits, u = Recorded(update), normal("rec", 4, 3, 8).requires_grad_(), uniform("rec", 4, 3)
    recorded(logits, u)
    other = (logits.detach() * -2).requires_grad_(), u.flip(0)
    assert all(torch.equal(a, b) for a, b in zip(recorded(*other), update(*other), strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_same_classes_are_drawn_on_cuda():
    log_prob, u = normal("cuda", 256, 32, 32).log_softmax(-1), uniform("cuda", 256, 32)
    found = one_hot_sample(log_prob.cuda(), u.cuda()).cpu()
    assert (found != one_hot_sample(log_prob, u)).any(-1).float().mean() < 1e-3  # exponentials differ in their last bits
    assert torch.equal(found.sum(-1), torch.ones(256, 32))
