import copy

import pytest
import torch
from torch import Tensor, nn

from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.recording import Recorded
from hieros_repro.nn.ema import Slow, contiguous
from hieros_repro.nn.init import fill
from hieros_repro.nn.mlp import Towers
from hieros_repro.nn.optimiser import Group, GroupedAdam

CONFIG = {"betas": (0.9, 0.999), "eps": 1e-8, "max_grad_norm": None, "weight_decay": 0.0, "agc": None, "warmup": 0}


class Pair(nn.Module):
    """Two numbers and a third in a parameter of its own, and a buffer."""

    steps: Tensor

    def __init__(self, *numbers: float):
        super().__init__()
        self.first = nn.Parameter(torch.tensor(numbers[:2]))
        self.second = nn.Parameter(torch.tensor(numbers[2]))
        self.register_buffer("steps", torch.tensor(7.0))

    def forward(self, x: Tensor) -> Tensor:
        return (self.first * x).sum() + self.second

    def set(self, *numbers: float) -> None:
        self.load_state_dict({"first": torch.tensor(numbers[:2]), "second": torch.tensor(numbers[2])}, strict=False)


def laid(module: nn.Module) -> GroupedAdam:
    """The module amid other parameters, in an optimiser's vector."""
    others = [nn.Parameter(torch.full((3,), float(number))) for number in range(2)]
    named = dict(module.named_parameters())
    groups = {"a": {"w": others[0]}, "b": named, "c": {"w": others[1]}}
    return GroupedAdam({name: Group(tensors, 1.0) for name, tensors in groups.items()}, **CONFIG)


def placed(contiguously: bool, *numbers: float) -> Pair:
    module = Pair(*numbers)
    if contiguously:
        laid(module)
    assert (contiguous(list(module.parameters())) is not None) == contiguously
    return module


def numbers(slow: Slow) -> list[float]:
    return [*slow.module.first.tolist(), slow.module.second.item()]


@pytest.mark.parametrize("contiguously", [False, True])
def test_a_slow_copy_follows_by_the_mix(contiguously):
    fast = placed(contiguously, 0.0, 8.0, -4.0)
    slow = Slow(fast)
    fast.set(4.0, 0.0, 4.0)
    assert numbers(slow) == [0.0, 8.0, -4.0]
    slow.follow(torch.tensor(0.25))
    assert numbers(slow) == [1.0, 6.0, -2.0]  # 0 + 4/4, 8 - 8/4, -4 + 8/4
    slow.follow(torch.tensor(0.75))
    assert numbers(slow) == [3.25, 1.5, 2.5]  # 1 + 3/4 3, 6 - 3/4 6, -2 + 3/4 6
    assert [*fast.first.tolist(), fast.second.item()] == [4.0, 0.0, 4.0]


@pytest.mark.parametrize("contiguously", [False, True])
def test_both_ends_of_the_mix_are_exact(contiguously):
    fast = placed(contiguously, 1e8, -1e-8, 0.1)
    slow = Slow(fast)
    fast.set(1e-8, 3e7, 0.3)  # so far apart that 1 (fast - slow) + slow would not be fast
    slow.follow(torch.tensor(0.0))
    assert torch.equal(slow.flat.values, torch.tensor([1e8, -1e-8, 0.1]))
    slow.follow(torch.tensor(1.0))
    assert torch.equal(slow.flat.values, torch.tensor([1e-8, 3e7, 0.3]))


def test_a_large_copy_is_exact_at_both_ends_too():
    module = Towers(2, 67, [101, 33], "silu")
    fill(module, Key(0)("init"))
    laid(module)
    slow = Slow(module)
    before = slow.flat.values.clone()
    fill(module, Key(1)("init"))
    slow.follow(torch.tensor(0.0))
    assert torch.equal(slow.flat.values, before)
    slow.follow(torch.tensor(1.0))
    assert all(torch.equal(a, b) for a, b in zip(slow.module.parameters(), module.parameters(), strict=True))
    assert not torch.equal(slow.flat.values, before)


def test_a_slow_copy_follows_every_step_of_the_optimiser():
    fast = Pair(1.0, 2.0, 3.0)
    optimiser = laid(fast)
    slow = Slow(fast)
    gradient = optimiser.gradient(fast(torch.tensor([5.0, -5.0])))
    optimiser.move(gradient, optimiser.pace(0.5))
    slow.follow(torch.tensor(1.0))
    assert numbers(slow) == pytest.approx([0.5, 2.5, 2.5])
    assert numbers(slow) == [*fast.first.tolist(), fast.second.item()]


def test_no_gradient_reaches_a_slow_copy():
    fast = Pair(1.0, 2.0, 3.0)
    slow = Slow(fast)
    assert not any(p.requires_grad for p in slow.module.parameters())
    assert all(p.requires_grad for p in fast.parameters())
    assert not slow.module(torch.ones(2)).requires_grad


def test_a_slow_copy_keeps_its_own_buffers():
    fast = Pair(1.0, 2.0, 3.0)
    slow = Slow(fast)
    fast.steps.fill_(9.0)
    slow.follow(torch.tensor(1.0))
    assert slow.module.steps.item() == 7.0


@pytest.mark.parametrize("contiguously", [False, True])
def test_following_on_a_recording_gives_the_same_bits(contiguously):
    pairs = [placed(contiguously, 0.3, 0.1, -4.0) for _ in range(2)]
    plain, fast = map(Slow, pairs)

    def step(x: Tensor, mix: Tensor) -> Tensor:
        fast.follow(mix)
        return fast.module(x) * fast.module.steps

    recorded = Recorded(step, fast.held())
    for number, mix in enumerate((0.02, 0.0, 0.7, 1.0, 0.02)):
        for pair in pairs:
            pair.set(0.1 * number, 1 / (number + 1), 3.0**number)
        plain.follow(torch.tensor(mix))
        found = recorded(torch.tensor([2.0, 3.0]), torch.tensor(mix))
        assert torch.equal(plain.flat.values, fast.flat.values)
        assert torch.equal(found, plain.module(torch.tensor([2.0, 3.0])) * 7)


def test_a_restored_copy_is_where_it_was():
    fast = Pair(1.0, 2.0, 3.0)
    slow, other = Slow(fast), Slow(Pair(0.0, 0.0, 0.0))
    fast.set(5.0, 5.0, 5.0)
    slow.follow(torch.tensor(0.5))
    state = slow.state()
    before = copy.deepcopy(state)
    slow.follow(torch.tensor(0.5))
    assert all(torch.equal(state[name], before[name]) for name in before)  # a saved state is a copy
    other.load(state)
    assert numbers(other) == [3.0, 3.5, 4.0]
    assert other.flat.values.tolist() == [3.0, 3.5, 4.0]  # and the vector is still what the parameters view


def test_a_copy_made_before_the_optimiser_is_refused_where_its_vector_is_stale():
    fast = placed(True, 1.0, 2.0, 3.0)
    slow = Slow(fast)
    laid(fast)  # anew
    with pytest.raises(ValueError, match="after the optimiser"):
        slow.held()


# One vector


def test_pieces_side_by_side_are_one_vector():
    vector = torch.arange(10.0)
    found = contiguous([vector[2:4], vector[4:8].view(2, 2), vector[8]])
    assert found is not None and found.tolist() == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    vector[5] = -1.0
    assert found[3] == -1.0  # a view


@pytest.mark.parametrize(
    "pieces",
    [
        lambda v: [v[0:2], v[3:5]],  # a gap
        lambda v: [v[2:4], v[0:2]],  # another order
        lambda v: [v[0:2], v[1:3]],  # one over the other
        lambda v: [v[0:4].view(2, 2).T, v[4:6]],  # not row by row
        lambda v: [v[0:6:3], v[2:4]],  # with holes
        lambda v: [v[0:2], torch.arange(10.0)[2:4]],  # of another vector
    ],
    ids=["gap", "order", "overlap", "transposed", "holes", "other"],
)
def test_other_pieces_are_not(pieces):
    assert contiguous(pieces(torch.arange(10.0))) is None
