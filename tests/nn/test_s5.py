"""State-space layers: their first values, their discrete time, and that steps and sequences say the same."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.block import Style
from hieros_repro.nn.init import fill
from hieros_repro.nn.s5 import Blocks, StateSpaces, dropping, legs

STYLE = Style("layer", "silu", "glorot")


def normal(*shape: int, name: str = "x") -> Tensor:
    return torch.from_numpy(Key(0)("data", name).normal(shape))


def spaces(layers: int = 2, model: int = 256, state: int = 128, blocks: int = 4) -> StateSpaces:
    made = StateSpaces(layers, model, state, blocks)
    fill(made, Key(4)("init"))
    return made


def blocks(**changes: object) -> Blocks:
    settings = {"kind": "double", "forwards": 0, "dropout": 0.0, **changes}
    made = Blocks(2, 6, 8, 2, STYLE, **settings)  # type: ignore[arg-type]
    fill(made, Key(4)("init"))
    return made


# -- First values --------------------------------------------------------------------------------------------------------


def test_two_eigenvalues_by_hand():
    # S + 1/2 = [[0, q0 q1], [q0 q1 - p0 p1, 0]] = [[0, s], [-s, 0]] with s = sqrt(3) / 2: eigenvalues +-is
    values, vectors = legs(2)
    np.testing.assert_allclose(values, [-0.5 - 0.5j * 3**0.5, -0.5 + 0.5j * 3**0.5], atol=1e-14)
    np.testing.assert_allclose(vectors, np.array([[1, 1], [-1j, 1j]]) / 2**0.5, atol=1e-14)


def test_thirty_two_eigenvalues_are_those_published():
    values, vectors = legs(32)
    np.testing.assert_allclose(values.real, -0.5, atol=1e-12)
    assert values.imag.min() == pytest.approx(-325.426, abs=1e-3) and values.imag.max() == pytest.approx(325.426, abs=1e-3)
    assert (np.diff(values.imag) > 0).all()
    n = np.arange(32)
    a = -np.tril(np.sqrt(np.outer(2 * n + 1, 2 * n + 1)), -1) - np.diag(n + 1.0)
    s = a + np.sqrt(np.outer(n + 0.5, n + 0.5))
    np.testing.assert_allclose(vectors @ np.diag(values) @ vectors.conj().T, s, atol=1e-10)
    assert (np.abs(vectors[0].imag) < 1e-15).all() and (vectors[0].real > 0).all()


def test_first_values_have_the_sizes_published():
    made = spaces()
    assert made.input.std().item() == pytest.approx(0.0484, rel=0.01)
    assert made.output.std().item() == pytest.approx(0.0043, rel=0.02)
    assert 0 <= made.past.min() < 0.02 and 0.98 < made.past.max() < 1
    step = made.log_step.exp()
    assert 1e-3 <= step.min() < 1.2e-3 and 0.09 < step.max() <= 0.1
    assert made.log_step.mean().item() == pytest.approx(math.log(1e-2), abs=0.2)
    rate, past, log_step = made.vectors()
    assert torch.equal(rate[0], rate[1]) and torch.equal(rate[0, :32], rate[0, 96:])
    assert (rate.shape, past.shape, log_step.shape) == ((2, 128), (2, 256), (2, 128)) and not torch.equal(*past)
    assert not torch.equal(made.input[0], made.input[1])


def test_real_inputs_see_real_matrices_at_first():
    """In the basis of the eigenvectors; V B is real again."""
    inward = torch.view_as_complex(spaces(1).input[0].detach()).to(torch.complex128).numpy().reshape(4, 32, 256)
    assert np.abs((legs(32)[1] @ inward).imag).max() < 1e-7


def test_what_is_drawn_is_cut_before_the_basis_changes():
    """Any other basis mixes the numbers, and some come to more than two deviations."""
    made, basis = spaces(1), legs(32)[1]
    inward = torch.view_as_complex(made.input[0].detach()).to(torch.complex128).numpy().reshape(4, 32, 256)
    outward = torch.view_as_complex(made.output[0].detach()).to(torch.complex128).numpy().conj().reshape(256, 4, 32)
    drawn, read = basis @ inward, outward @ basis.conj().T
    assert 1.9 < np.abs(drawn.real).max() * 128**0.5 / 0.8796 < 2.001
    for one in (read.real, read.imag):
        assert 1.9 < np.abs(one).max() * (128 * 256) ** 0.5 / 0.8796 < 2.001


def test_first_values_of_a_layer_depend_on_its_number_alone():
    assert torch.equal(spaces(3).input[:2], spaces(2).input)


def test_only_matrices_have_several_axes():
    """Optimisers let those decay."""
    assert {name for name, p in spaces().named_parameters() if p.ndim > 1} == {"input", "output"}


def test_what_does_not_divide_is_an_error():
    with pytest.raises(AssertionError, match="30 states do not divide into 4 blocks"):
        StateSpaces(1, 4, 30, 4)


# -- Discrete time -------------------------------------------------------------------------------------------------------


def test_a_step_of_discrete_time_is_held_continuous_time():
    # dx/dt = r x + b u with u held for a time s: x = e^(rs) x_0 + (e^(rs) - 1) / r b u, here by 20,000 Euler steps
    made = spaces(1, 3, 4, 1).double()
    layer, u, start = made.discrete()[0], normal(3).double(), torch.view_as_complex(normal(4, 2).double())
    rate, step = made.vectors()[0][0].detach(), made.log_step.detach().exp() / 20_000
    enters = torch.view_as_complex(made.input.detach())[0] @ u.to(torch.complex128)
    x = start
    for _ in range(20_000):
        x = x + step * (rate * x + enters)
    found = (layer.decay * start + torch.view_as_complex(functional.linear(u, layer.inward).unflatten(-1, (4, 2)))).detach()
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


def test_what_leaves_is_the_real_part_and_what_passes_by():
    made = spaces(1, 3, 4, 1)
    states, u = torch.view_as_complex(normal(5, 4, 2)), normal(5, 3)
    output = torch.view_as_complex(made.output)[0].conj()
    expected = (states @ output.T).real + made.past * u
    torch.testing.assert_close(made.discrete()[0].leave(states, u), expected)


def test_layers_side_by_side_are_layers_of_their_own():
    made = spaces(2, 3, 4, 2)
    for i, layer in enumerate(made.discrete()):
        rate, step = made.vectors()[0][i], made.vectors()[2][i].exp()
        torch.testing.assert_close(layer.decay, torch.exp(rate * step))
        inward = ((torch.exp(rate * step) - 1) / rate).unsqueeze(-1) * torch.view_as_complex(made.input[i])
        u = normal(5, 3)
        torch.testing.assert_close(layer.enter(u), u.to(torch.complex64) @ inward.T)


def test_every_parameter_of_a_layer_learns():
    made = spaces(2, 3, 4, 2)
    total = torch.zeros(())
    for layer in made.discrete():
        u = normal(5, 3)
        total = total + layer.leave(layer.enter(u) + layer.decay, u).square().sum()
    for grad in torch.autograd.grad(total, list(made.parameters())):
        assert all(part.any() for part in grad.view(2, -1))


# -- Blocks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["loop", "parallel"])
@pytest.mark.parametrize(("double", "tolerance"), [(False, 1e-5), (True, 1e-10)])
def test_a_sequence_is_its_steps(form, double, tolerance):
    made, steps, batch = blocks(forwards=0 if double else 1), 12, 3
    v, start = normal(steps, batch, 6), torch.view_as_complex(normal(batch, 4, 8, 2))
    if double:
        made.norms, made.ends = (nn.ModuleList(nn.Tanh() for _ in norms) for norms in (made.norms, made.ends))  # float64 too
        made, v, start = made.double(), v.double(), start.to(torch.complex128)
    reset = torch.zeros(steps, batch, dtype=torch.bool)
    reset[0, 0] = reset[5, 1] = reset[11, 2] = True
    out, states = made.sequence(v, reset, start, None, form)
    step, now = made.stepping(), start
    for t in range(steps):
        y, parts = step(v[t], now.masked_fill(reset[t, :, None, None], 0.0), None)
        now = torch.stack(parts, -2)
        torch.testing.assert_close(y, out[t], rtol=tolerance, atol=tolerance)
        torch.testing.assert_close(now, torch.stack([x[t] for x in states], -2), rtol=tolerance, atol=tolerance)


def test_a_double_block_is_its_equations():
    made = Blocks(1, 6, 8, 2, STYLE, kind="double", forwards=0, dropout=0.0)
    fill(made, Key(4)("init"))
    v, start = normal(5, 6), torch.zeros(5, 2, 8, dtype=torch.complex64)
    x = v
    for layer, norm, mixer in zip(made.spaces.discrete(), made.norms, made.mixers, strict=True):
        u = functional.layer_norm(x, (6,), eps=1e-3)
        assert torch.equal(norm(x), u)
        x = x + functional.gelu(layer.leave(layer.enter(u), u) @ mixer.weight.T)
    torch.testing.assert_close(made.stepping()(v, start, None)[0], x + functional.layer_norm(x, (6,), eps=1e-3))


def test_single_blocks_have_one_layer_and_dense_layers_close_them():
    made = blocks(kind="single", forwards=2)
    assert (len(made.norms), len(made.mixers), len(made.ends), len(made.denses)) == (2, 2, 2, 4)
    assert made.shape == (2, 8) and made.spaces.vectors()[0].shape == (2, 8)
    v, start = normal(5, 6), torch.zeros(5, 2, 8, dtype=torch.complex64)
    x = v
    for i, layer in enumerate(made.spaces.discrete()):
        u = made.norms[i](x)
        x = x + functional.gelu(made.mixers[i](layer.leave(layer.enter(u), u)))
        x = x + made.denses[2 * i + 1](made.denses[2 * i](made.ends[i](x)))
    torch.testing.assert_close(made.stepping()(v, start, None)[0], x)


def test_dropping_by_hand():
    drop = dropping(0.2, torch.tensor([[[0.1, 0.2], [0.9, 0.0]]]))
    assert drop(torch.ones(1, 2)).tolist() == [[0.0, 1.25]]
    assert drop(torch.ones(1, 2)).tolist() == [[1.25, 0.0]]
    x = torch.ones(1, 2)
    assert dropping(0.0, torch.zeros(1, 1, 2))(x) is x and dropping(0.2, None)(x) is x


def test_a_block_consumes_all_its_noise():
    made = blocks(forwards=1, dropout=0.5)
    assert made.noise == (2 * (2 + 1), 6)
    v, start = normal(5, 6), torch.zeros(5, 4, 8, dtype=torch.complex64)
    plain = made.stepping()(v, start, None)[0]
    for i in range(6):
        uniform = torch.full((5, 6, 6), 0.75)
        one = made.stepping()(v, start, uniform)[0]
        uniform[:, i] = 0.25
        assert not torch.equal(made.stepping()(v, start, uniform)[0], one) and not torch.equal(one, plain)
