import contextlib
import ctypes
import gc
import os
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from hieros_repro.determinism.keys import Key
from hieros_repro.hardware import recording
from hieros_repro.hardware.recording import Recorded
from tests.runs import facts, run, unequal_files


class Pair(NamedTuple):
    obs: dict[str, Tensor]
    target: Tensor


def draw(*shape: int, name: str = "x") -> Tensor:
    return torch.from_numpy(Key(0)("data", name, *shape).normal(shape))


def pair(rows: int, name: str = "x") -> Pair:
    return Pair({"vector": draw(rows, 3, name=name)}, draw(rows, 2, name=name + "t"))


class Model:
    """One gradient step on a small network, in place."""

    def __init__(self) -> None:
        self.weight = torch.nn.Parameter(draw(2, 3, name="w"))
        self.calls = 0

    def step(self, batch: Pair, rate: Tensor) -> dict[str, Tensor | list[Tensor]]:
        self.calls += 1
        with torch.enable_grad():
            loss = functional.mse_loss(torch.tanh(functional.linear(batch.obs["vector"], self.weight)), batch.target)
            (gradient,) = torch.autograd.grad(loss, [self.weight])
        with torch.no_grad():
            self.weight.sub_(gradient * rate)
        return {"loss": loss, "more": [gradient, loss * 2]}


def test_a_recording_steps_as_the_function_does_bit_for_bit():
    plain, fast = Model(), Model()
    recorded = Recorded(fast.step, [fast.weight])
    for number in range(5):
        batch, rate = pair(4 + number % 2, f"x{number}"), torch.tensor(0.1 * (number + 1))
        expected, found = plain.step(batch, rate), recorded(batch, rate)
        assert torch.equal(plain.weight, fast.weight)
        assert torch.equal(expected["loss"], found["loss"]) and torch.equal(expected["more"][0], found["more"][0])
        assert not found["loss"].requires_grad and type(found["more"]) is list
    assert fast.calls == 2  # once for each signature


def test_the_first_call_changes_what_is_held_once():
    model, twin = Model(), Model()
    Recorded(model.step, [model.weight])(pair(4), torch.tensor(0.5))
    twin.step(pair(4), torch.tensor(0.5))
    assert torch.equal(model.weight, twin.weight)


def test_what_nothing_comes_of_is_left_out_and_changes_in_place_are_not(monkeypatch):
    total = torch.zeros(3)
    taken: list[str] = []
    of_use = recording._of_use

    def seen(notes, last):
        kept = of_use(notes, last)
        taken.extend(note[0].overloadpacket.__name__ for note in kept)
        return kept

    def add(x: Tensor) -> Tensor:
        x.exp().sin()  # of no use
        total[1:].view(-1).add_(x[1:].neg())
        return x.cos()

    monkeypatch.setattr(recording, "_of_use", seen)
    recorded, x = Recorded(add, [total]), draw(3)
    assert all(torch.equal(recorded(x), x.cos()) for _ in range(2))
    assert torch.equal(total[1:], -2 * x[1:]) and total[0] == 0
    assert {"neg", "add_", "cos", "view"} <= set(taken) and not {"exp", "sin"} & set(taken)


def resident():
    """Megabytes of this process, with nothing that is only waiting to be used again."""
    gc.collect()
    with contextlib.suppress(AttributeError):  # of other C libraries
        ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="only Linux says how much memory is resident")
def test_a_recording_that_is_no_longer_needed_is_gone():
    """So that a process may run one job after the other."""

    def long(x: Tensor) -> Tensor:
        for _ in range(2000):
            x = x.sin()
        return x

    Recorded(long)(draw(3))
    before = resident()
    for _ in range(10):
        Recorded(long)(draw(3))
    assert resident() < before + 15, "each is about 15 MB"


def test_another_shape_or_type_is_recorded_anew():
    seen = []
    recorded = Recorded(lambda x: (seen.append(x.dtype), x + 1)[1])
    for x in (torch.ones(2), torch.zeros(2), torch.ones(3), torch.ones(2, dtype=torch.float64)):
        assert torch.equal(recorded(x), x + 1)
    assert seen == [torch.float32, torch.float32, torch.float64]


@pytest.mark.parametrize(
    "function, said",
    [
        (lambda x: x * x.sum().item(), "reads a value back"),
        (lambda x: x + torch.rand(3), "noise is handed over as data"),
        (lambda x: torch.nn.functional.dropout(x, 0.5), "noise is handed over as data"),
    ],
)
def test_what_a_recording_could_not_repeat_is_refused(function, said):
    with pytest.raises(ValueError, match=said):
        Recorded(function)(torch.ones(3))


def test_a_tensor_that_was_not_handed_in_is_refused():
    hidden = torch.ones(3, 7)
    with pytest.raises(ValueError, match=r"read a tensor \[3, 7\] that is neither an argument nor held"):
        Recorded(lambda x: x @ hidden)(torch.ones(2, 3))
    assert torch.equal(Recorded(lambda x: x @ hidden, [hidden])(torch.ones(2, 3)), torch.full((2, 7), 3.0))


def test_a_recording_with_other_bits_is_refused(monkeypatch):
    honest = recording._as_it_is
    monkeypatch.setattr(recording, "_as_it_is", lambda graph, inputs: [t + 1e-3 for t in _listed(honest(graph, inputs))])
    with pytest.raises(RuntimeError, match="gives other bits"):
        Recorded(lambda x: torch.exp(x))(torch.ones(3))


def _listed(outputs: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    return [outputs] if isinstance(outputs, Tensor) else list(outputs)


@pytest.mark.parametrize(
    "overrides",
    [
        ("agent.entropy=0.01", "agent.value_clip=0.2", "agent.accumulate=2"),
        ("env=gymnasium", "env.id=Pendulum-v1", "env.normalise_observation=true", "agent.activation=silu"),
        ("hardware.precision=bf16",),
    ],
)
def test_a_recorded_run_and_an_eager_one_are_equal_byte_for_byte(tmp_path, overrides):
    recorded = run(tmp_path / "recorded", *overrides, "run.steps=300")
    eager = run(tmp_path / "eager", *overrides, "run.steps=300", "hardware.compile=null")
    assert unequal_files(recorded, eager) == []
    assert facts(recorded)["digests"] == facts(eager)["digests"]
    assert (facts(recorded)["numerics"]["compile"], facts(eager)["numerics"]["compile"]) == ("record", None)


def test_convolutions_and_their_gradients_are_recorded():
    """Of the first layer only the weight's gradient is wanted, of the second the input's too."""
    weights = [torch.nn.Parameter(draw(4, 3, 2, 2, name="c1")), torch.nn.Parameter(draw(5, 4, 2, 2, name="c2"))]
    bias = draw(5, name="b")

    def gradients(image: Tensor) -> list[Tensor]:
        with torch.enable_grad():
            seen = functional.conv2d(functional.conv2d(image, weights[0], stride=2).relu(), weights[1], bias, padding=1)
            return list(torch.autograd.grad(seen.square().mean(), weights))

    recorded = Recorded(gradients, [*weights, bias])
    recorded(draw(6, 3, 8, 8, name="before"))
    image = draw(6, 3, 8, 8, name="after")
    for found, expected in zip(recorded(image), gradients(image), strict=True):
        assert torch.equal(found, expected) and expected.abs().sum() > 0
