import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from hieros_repro.check import check_node
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.recording import Recorded
from hieros_repro.nn.optimiser import Adam, Flat, Group, Grouped, GroupedAdam, LaProp, LossScale
from hieros_repro.records import Fault

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


# Groups: worked by hand. Both averages decay by half, so that after gradients 5 and 1
#   mean = (5 + 2 1) / 4,  corrected by 1 - 1/4: (5 + 2 1) / 3 = 7/3;     square: sqrt((25 + 2 1) / 3) = 3

PLAIN = {"betas": (0.5, 0.5), "eps": 1e-12, "max_grad_norm": None, "weight_decay": 0.0, "agc": None, "warmup": 0}
KINDS = [GroupedAdam, LaProp]


def vector(*numbers: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(numbers, dtype=torch.float64))


def single(kind: type[Grouped], *numbers: float, **config: object) -> Grouped:
    return kind({"g": Group({"w": vector(*numbers)}, 1.0)}, **PLAIN | config)


def steps(optimiser: Grouped, rate: float, *gradients: list[float]) -> list[list[float]]:
    """The norms of each step."""
    grads = [torch.tensor(gradient, dtype=torch.float64) for gradient in gradients]
    return [optimiser.move(grad, optimiser.pace(rate)).tolist() for grad in grads]


def near(*numbers: float, rel: float = 1e-9) -> object:
    return pytest.approx(list(numbers), rel=rel)


def test_two_steps_of_adam_by_hand():
    optimiser = single(GroupedAdam, 1.0, 2.0, 3.0)
    steps(optimiser, 0.3, [5.0, 1.0, 0.0], [1.0, -11.0, 0.0])
    # first the signs; then (5 + 2) / 3 / 3 = 7/9, and (1 - 22) / 3 / sqrt((1 + 242) / 3) = -7/9
    assert optimiser.flat.values.tolist() == near(1 - 0.3 * (1 + 7 / 9), 2 - 0.3 * (1 - 7 / 9), 3)
    assert optimiser.mean.tolist() == near(7 / 4, -21 / 4, 0)
    assert optimiser.square.tolist() == near(27 / 4, 243 / 4, 0)


def test_two_steps_of_laprop_by_hand():
    optimiser = single(LaProp, 1.0, 2.0, 3.0, eps=1e-20)
    steps(optimiser, 0.3, [5.0, 1.0, 0.0], [1.0, -11.0, 0.0])
    # u is the sign, then 1/3 and -11/9; directions (1 + 2/3) / 3 = 5/9 and (1 - 22/9) / 3 = -13/27
    assert optimiser.flat.values.tolist() == near(1 - 0.3 * (1 + 5 / 9), 2 - 0.3 * (1 - 13 / 27), 3)
    assert optimiser.mean.tolist() == near(1 / 4 + 1 / 6, 1 / 4 - 11 / 18, 0)
    assert optimiser.square.tolist() == near(27 / 4, 243 / 4, 0)


def test_eps_is_added_to_the_corrected_root():
    adam, laprop = single(GroupedAdam, 0.0, eps=1.0), single(LaProp, 0.0, eps=1.0)
    for optimiser in (adam, laprop):
        steps(optimiser, 1.0, [5.0], [1.0])
    assert adam.flat.values.tolist() == near(-(5 / 6 + 7 / 3 / 4))  # 5 / (5 + 1), then 7/3 / (3 + 1)
    assert laprop.flat.values.tolist() == near(-(5 / 6 + (5 / 6 + 2 * 1 / 4) / 3))  # u is 5/6, then 1 / (3 + 1)


def test_laprop_normalises_the_smallest_gradients_in_single_precision():
    weight = nn.Parameter(torch.zeros(2))
    optimiser = LaProp({"g": Group({"w": weight}, 1.0)}, **PLAIN | {"betas": (0.9, 0.999), "eps": 1e-20})
    optimiser.move(torch.tensor([1e-15, 0.0]), optimiser.pace(1.0))
    assert weight.tolist() == near(-1 / (1 + 1e-5), 0, rel=1e-6)  # g / (g + eps)


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_moves_at_its_own_rate(kind):
    groups = {"a": Group({"v": vector(1.0), "w": vector(1.0)}, 1.0), "b": Group({"w": vector(1.0)}, 0.5)}
    optimiser = kind(groups | {"c": Group({"w": vector(1.0)}, 0.0)}, **PLAIN)
    steps(optimiser, 0.25, [3.0, -4.0, 7.0, 1.0])
    assert optimiser.flat.values.tolist() == near(0.75, 1.25, 0.875, 1.0)


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_warms_up_in_proportion_to_the_steps(kind):
    optimiser, sizes = single(kind, 0.0, warmup=4), []
    for _ in range(6):
        before = optimiser.flat.values.item()
        steps(optimiser, 0.4, [2.0])
        sizes.append(before - optimiser.flat.values.item())
    assert sizes == near(0.1, 0.2, 0.3, 0.4, 0.4, 0.4)


@pytest.mark.parametrize("kind", KINDS)
def test_only_matrices_decay_and_with_the_rate_of_their_group_and_of_the_step(kind):
    matrix, other = nn.Parameter(torch.full((1, 2), 2.0)), nn.Parameter(torch.full((2, 1, 1), 2.0))
    groups = {
        "a": Group({"w": matrix, "b": nn.Parameter(torch.full((2,), 2.0)), "s": nn.Parameter(torch.tensor(2.0))}, 1.0),
        "b": Group({"w": other}, 0.5),
    }
    optimiser = kind(groups, **PLAIN | {"weight_decay": 0.5, "warmup": 2})
    still = torch.zeros(7)
    optimiser.move(still, optimiser.pace(0.8))
    assert matrix.tolist() == [near(1.6, 1.6, rel=1e-6)]  # 2 (1 - 0.8 1/2 0.5)
    assert other.flatten().tolist() == near(1.8, 1.8, rel=1e-6)  # 2 (1 - 0.8 1/2 0.5 0.5)
    assert [*groups["a"].parameters["b"].tolist(), groups["a"].parameters["s"].item()] == [2.0] * 3
    optimiser.move(still, optimiser.pace(0.8))
    assert matrix.tolist() == [near(0.96, 0.96, rel=1e-6)]  # 1.6 (1 - 0.8 0.5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_matrix_decays_before_it_moves(kind):
    weight = nn.Parameter(torch.full((1, 1), 2.0, dtype=torch.float64))
    optimiser = kind({"g": Group({"w": weight}, 1.0)}, **PLAIN | {"weight_decay": 0.5})
    steps(optimiser, 0.4, [3.0])
    assert weight.item() == pytest.approx(2 * (1 - 0.4 * 0.5) - 0.4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_group_is_clipped_by_its_own_norm(kind):
    groups = {"a": Group({"v": vector(0.0), "w": vector(0.0)}, 1.0), "b": Group({"w": vector(0.0)}, 1.0)}
    optimiser = kind(groups, **PLAIN | {"max_grad_norm": 2.5, "eps": 1.0})  # g / (|g| + 1) shows the size
    assert steps(optimiser, 1.0, [3.0, -4.0, 2.0]) == [near(5, 2)]
    assert optimiser.flat.values.tolist() == near(-1.5 / 2.5, 2 / 3, -2 / 3, rel=1e-6)
    assert optimiser.square.tolist() == near(1.5**2 / 2, 2**2 / 2, 2**2 / 2, rel=1e-6)


def agc_groups() -> dict[str, Group]:
    tensors = {"long": vector(3.0, 4.0), "short": vector(0.0), "fine": vector(6.0, 8.0)}
    return {"a": Group(tensors, 1.0), "b": Group({"w": vector(2.0)}, 1.0)}


# Limits of half the weights' norms: 2.5; 0.5 0.001 where there is less; 5; 1.
AGC_GRADIENT = [0.0, 10.0, 0.25, 1.5, -2.0, 0.75]
AGC_CLIPPED = [0.0, 2.5, 0.0005, 1.5, -2.0, 0.75]
AGC_NORM = (100 + 0.0625 + 6.25) ** 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_adaptive_clipping_looks_at_every_tensor(kind):
    optimiser = kind(agc_groups(), **PLAIN | {"agc": 0.5, "eps": 1.0})
    before = optimiser.flat.values.clone()
    assert steps(optimiser, 1.0, AGC_GRADIENT) == [near(AGC_NORM, 0.75)]
    assert (before - optimiser.flat.values).tolist() == near(*(g / (abs(g) + 1) for g in AGC_CLIPPED))
    assert optimiser.square.tolist() == near(*(g * g / 2 for g in AGC_CLIPPED))


@pytest.mark.parametrize("kind", KINDS)
def test_groups_are_clipped_after_their_tensors(kind):
    optimiser = kind(agc_groups(), **PLAIN | {"agc": 0.5, "max_grad_norm": 1.25})
    left = (2.5**2 + 0.0005**2 + 2.5**2) ** 0.5  # of group a; group b is short enough
    assert steps(optimiser, 1.0, AGC_GRADIENT) == [near(AGC_NORM, 0.75)]
    expected = [g * 1.25 / left for g in AGC_CLIPPED[:5]] + [0.75]
    assert optimiser.square.tolist() == near(*(g * g / 2 for g in expected), rel=3e-6)


def test_fifty_steps_of_groups_are_those_of_torch():
    ours, theirs = parameters(), parameters()
    groups = {"first": Group({"a": ours["a"], "b": ours["b"]}, 1.0), "second": Group({"c": ours["c"]}, 0.1)}
    config = {"betas": (0.9, 0.95), "eps": 1e-5, "max_grad_norm": 1.0, "weight_decay": 0.1, "agc": None, "warmup": 10}
    optimiser = GroupedAdam(groups, **config)
    decays, rates = {"a": 0.1, "b": 0.0, "c": 0.0}, {"a": 1.0, "b": 1.0, "c": 0.1}
    kinds = [{"params": [theirs[name]], "weight_decay": decays[name]} for name in SHAPES]
    reference = torch.optim.AdamW(kinds, betas=(0.9, 0.95), eps=1e-5)
    for step in range(50):
        give(theirs, step)
        gradient = torch.cat([p.grad.reshape(-1) for p in theirs.values()])
        for name, group in zip(SHAPES, reference.param_groups, strict=True):
            group["lr"] = 0.1 * rates[name] * min((step + 1) / 10, 1)
        nn.utils.clip_grad_norm_([theirs["a"], theirs["b"]], 1.0), nn.utils.clip_grad_norm_([theirs["c"]], 1.0)
        reference.step()
        optimiser.move(gradient, optimiser.pace(0.1))
    for name in SHAPES:
        assert torch.allclose(ours[name], theirs[name], rtol=1e-10, atol=1e-12)


# Groups: what is around a step

FULL = {"betas": (0.9, 0.999), "eps": 1e-6, "max_grad_norm": 1.0, "weight_decay": 0.01, "agc": 0.3, "warmup": 3}
VARIANTS = [{}, {"agc": None}, {"max_grad_norm": None}, {"agc": None, "max_grad_norm": None, "weight_decay": 0.0}]


def two_groups(dtype: torch.dtype = torch.float32) -> dict[str, Group]:
    drawn = parameters(dtype)
    return {"first": Group({"a": drawn["a"], "b": drawn["b"]}, 1.0), "second": Group({"c": drawn["c"]}, 0.5)}


def loss_of(optimiser: Grouped, size: Tensor) -> Tensor:
    """Of all parameters but one."""
    one, two = optimiser.parameters["first.a"], optimiser.parameters["second.c"]
    return size * ((one @ one.T).tanh().sum() + two.exp())


def test_a_gradient_lies_group_after_group_and_is_zero_where_nothing_was_used():
    optimiser = GroupedAdam(two_groups(), **FULL)
    assert list(optimiser.parameters) == ["first.a", "first.b", "second.c"]
    gradient = optimiser.gradient((optimiser.parameters["first.a"] * 2).sum() + optimiser.parameters["second.c"] * 3)
    assert gradient.tolist() == [2.0] * 12 + [0.0] * 5 + [3.0]
    pieces = optimiser.named(gradient)
    assert {name: tuple(piece.shape) for name, piece in pieces.items()} == {"first.a": (4, 3), "first.b": (5,), "second.c": ()}
    assert pieces["second.c"].item() == 3.0


def test_parameters_of_groups_become_views_of_one_vector():
    groups = two_groups()
    optimiser = LaProp(groups, **FULL)
    optimiser.flat.values.copy_(torch.arange(18.0))
    assert groups["first"].parameters["b"].tolist() == [12.0, 13.0, 14.0, 15.0, 16.0]
    assert groups["second"].parameters["c"].item() == 17.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_recorded_step_of_groups_gives_the_same_bits(kind, variant):
    plain, fast = (kind(two_groups(), **FULL | variant) for _ in range(2))

    def update(optimiser: Grouped) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
        def step(size: Tensor, pace: Tensor) -> tuple[Tensor, Tensor]:
            with torch.enable_grad():
                gradient = optimiser.gradient(loss_of(optimiser, size))
            return gradient, optimiser.move(gradient, pace)

        return step

    recorded = Recorded(update(fast), fast.held())
    for number in range(6):
        size, rate = torch.tensor([0.01, 3.0][number % 2]), 0.1 / (1 + number)
        expected = update(plain)(size, plain.pace(rate))
        found = recorded(size, fast.pace(rate))
        assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))
    assert torch.equal(plain.flat.values, fast.flat.values)
    assert torch.equal(plain.mean, fast.mean) and torch.equal(plain.square, fast.square)


@pytest.mark.parametrize("kind", KINDS)
def test_restored_groups_continue_bit_by_bit(kind):
    one, other = kind(two_groups(), **FULL), kind(two_groups(), **FULL)

    def run(optimiser: Grouped, count: int) -> None:
        for _ in range(count):
            optimiser.move(optimiser.gradient(loss_of(optimiser, torch.tensor(1.0))), optimiser.pace(0.1))

    run(one, 2)
    state = copy.deepcopy(one.state())
    other.flat.values.copy_(one.flat.values)
    run(one, 3)  # still warming up at the first of them
    other.load(state)
    run(other, 3)
    assert torch.equal(one.flat.values, other.flat.values)
    assert all(torch.equal(one.state()[name], other.state()[name]) for name in ("mean", "square"))
    assert one.steps == other.steps == 5


@pytest.mark.parametrize("kind", KINDS)
def test_one_overflown_group_skips_the_step_of_all(kind):
    optimiser = kind(two_groups(), LossScale(start=8.0), **FULL)
    before = optimiser.flat.values.clone()
    gradient = torch.ones(18)
    gradient[3] = torch.inf
    assert optimiser.move(gradient, optimiser.pace(0.1)).tolist() == [0.0, 0.0]
    assert torch.equal(optimiser.flat.values, before)
    assert not optimiser.mean.any() and not optimiser.square.any()
    assert (optimiser.steps, optimiser.scale.value) == (0, 4.0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_scaled_loss_gives_the_step_of_an_unscaled_one(kind):
    plain, scaled = kind(two_groups(), **FULL), kind(two_groups(), LossScale(start=1024.0), **FULL)
    for _ in range(3):
        found = [o.move(o.gradient(loss_of(o, torch.tensor(1.0))), o.pace(0.1)) for o in (plain, scaled)]
        assert torch.equal(*found)
    assert torch.equal(plain.flat.values, scaled.flat.values)


@pytest.mark.parametrize("kind", KINDS)
def test_pace_is_data_of_single_precision(kind):
    optimiser = kind(two_groups(), **FULL)
    pace = optimiser.pace(0.1)
    assert (pace.dtype, pace.ndim, optimiser.steps) == (torch.float32, 1, 1)


def test_a_parameter_of_two_groups_is_refused():
    shared = vector(1.0)
    with pytest.raises(ValueError, match=r"b\.w and a\.v are one parameter"):
        GroupedAdam({"a": Group({"v": shared}, 1.0), "b": Group({"w": shared}, 1.0)}, **PLAIN)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({}, None),
        ({"betas": [0.9]}, "betas"),
        ({"betas": [0.9, 1.5]}, "betas"),
        ({"eps": 0.0}, "eps"),
        ({"agc": 0}, "agc"),
        ({"warmup": -1}, "warmup"),
        ({"scale": 2.0}, "scale"),
    ],
)
def test_a_configuration_is_checked(change, key):
    config = {"betas": [0.9, 0.999], "eps": 1e-20, "max_grad_norm": None, "weight_decay": 0.0, "agc": 0.3, "warmup": 1000}
    node = {"_target_": "hieros_repro.nn.optimiser.LaProp", "_partial_": True, **config, **change}
    faults: list[Fault] = []
    check_node("optimiser", node, ("hieros_repro",), faults)
    assert [fault.key for fault in faults] == ([] if key is None else [f"optimiser.{key}"])
