import random

import numpy as np
import pytest
import torch
from torch import nn

from hieros_repro import seed_everything, verify_determinism
from hieros_repro.determinism import snapshot

BATCHES = [torch.full((4, 3), float(n)) for n in range(3)]


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2))


def draws() -> tuple:
    return random.random(), np.random.rand(), torch.rand(1).item()


@pytest.fixture
def shell(monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    return monkeypatch


def test_seeding_everything_returns_the_seed_of_this_rank(shell):
    assert seed_everything(40, rank=2) == 42


def test_seeding_everything_seeds_every_global_generator(shell):
    seed_everything(42)
    drawn = draws()
    random.seed(42), np.random.seed(42), torch.manual_seed(42)
    assert drawn == draws()


def test_seeding_everything_switches_strict_determinism_on(shell):
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True
    seed_everything(1)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark


def test_seeding_everything_says_what_to_export(shell):
    shell.delenv("PYTHONHASHSEED")
    with pytest.warns(UserWarning, match="start Python with PYTHONHASHSEED=0:"):
        seed_everything(1)


def test_seeding_everything_is_silent_where_all_is_exported(shell, recwarn):
    seed_everything(1)
    assert not recwarn.list


def test_a_deterministic_model_is_found_equal():
    verdict = verify_determinism(model(), BATCHES, steps=4)
    assert verdict.equal
    assert (verdict.step, verdict.tensor) == (None, None)
    assert verdict.message == "equal: 36 tensors over 4 steps"  # 4 steps of a loss, 4 gradients, 4 parameters


def test_dropout_is_deterministic_given_the_global_seed():
    assert verify_determinism(nn.Sequential(nn.Linear(3, 50), nn.Dropout(0.5)), BATCHES).equal


def test_a_model_with_memory_outside_itself_is_caught_at_the_step():
    calls = []

    def loss(net, batch):
        calls.append(None)
        return net(batch).square().mean() + (1e-3 if len(calls) == 7 else 0.0)  # call 7 is step 2 of the second training

    verdict = verify_determinism(model(), BATCHES, steps=4, loss=loss)
    assert not verdict.equal
    assert (verdict.step, verdict.tensor) == (2, "loss")
    assert "step 2: loss differs first, by at most 0.001" in verdict.message


def test_a_gradient_that_differs_is_named():
    calls = []

    def loss(net, batch):
        net[2].weight.register_hook(lambda grad: calls.append(None) or grad + 1e-6 * len(calls))
        return net(batch).square().mean()

    verdict = verify_determinism(model(), BATCHES, steps=1, loss=loss)
    assert (verdict.equal, verdict.step, verdict.tensor) == (False, 0, "gradient of 2.weight")


def test_a_model_that_draws_from_its_own_generator_is_caught():
    generator = np.random.default_rng(0)

    def loss(net, batch):
        return net(batch).mean() * generator.random()

    assert verify_determinism(model(), BATCHES, loss=loss).tensor == "loss"


def test_a_difference_of_the_last_bit_is_caught():
    calls = []

    def loss(net, batch):
        calls.append(None)
        value = net(batch).square().mean()
        return value if len(calls) == 1 else value + (torch.nextafter(value, torch.tensor(9.0)) - value).detach()

    assert verify_determinism(model(), BATCHES, steps=1, loss=loss).tensor == "loss"


def test_the_model_and_the_global_generators_are_left_as_they_were():
    net = model()
    before = {name: p.clone() for name, p in net.named_parameters()}
    snapshot.seed_global(9)
    expected = draws()
    snapshot.seed_global(9)
    verify_determinism(nn.Sequential(net, nn.Dropout(0.3)), BATCHES)
    assert draws() == expected
    assert all(torch.equal(p, before[name]) and p.grad is None for name, p in net.named_parameters())


@pytest.mark.parametrize("batch", [{"input": BATCHES[1]}, (BATCHES[1],)])
def test_a_batch_may_be_keyword_or_positional_arguments(batch):
    assert verify_determinism(nn.Linear(3, 2), [batch]).equal
