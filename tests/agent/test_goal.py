import math
from functools import partial

import pytest
import torch

from hieros_repro.agent.goal import Goals, NoGoals
from hieros_repro.determinism.keys import Key
from hieros_repro.nn.block import Style
from hieros_repro.nn.control import Weight
from hieros_repro.nn.init import fill
from hieros_repro.ops.action import one_hot_mode

STYLE = Style("layer", "elu", "glorot")
FIXED = partial(Weight, adaptive=False, start=1.0, low=1e-5, high=1.0)
STEERED = partial(Weight, adaptive=True, start=1.0, low=1e-5, high=1.0)
HALF = math.log(3.0)  # log-odds of 3/4


def goals(width: int = 6, codes: int = 3, classes: int = 4, layers: int = 1, kl=FIXED, aim: float = 0.5) -> Goals:
    made = Goals(width, STYLE, codes=codes, classes=classes, layers=layers, units=8, scale=1.0, kl=kl, kl_aim=aim)
    fill(made, Key(4)("init"))
    return made


@torch.no_grad()
def by_hand(kl=FIXED) -> Goals:
    """States (a, b): a code of two classes with log-odds a ln 3; it means (2, 0) or (0, 6)."""
    made = goals(2, 1, 2, 0, kl)
    made.encoder_out.weight.copy_(torch.tensor([[HALF, 0.0], [0.0, 0.0]]))
    made.decoder_out.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 6.0]]))
    return made


def normal(*shape: int) -> torch.Tensor:
    return torch.from_numpy(Key(0)("data", "x").normal(shape))


def drawn(*numbers: float) -> dict[str, torch.Tensor]:
    """The same uniforms for learning and for novelty."""
    uniform = torch.tensor(numbers).unsqueeze(-1)
    return {"learn": uniform, "novelty": uniform}


def test_codes_by_hand():
    found = by_hand().encode(torch.tensor([[0.0, 5.0], [1.0, 5.0], [-1.0, 5.0]])).exp()
    assert found.flatten().tolist() == pytest.approx([0.5, 0.5, 0.75, 0.25, 0.25, 0.75])
    assert by_hand().decode(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist() == [[2.0, 0.0], [0.0, 6.0]]


def test_losses_by_hand():
    # p = (3/4, 1/4): 0.7 draws the first class, 0.8 the second; the states are (1, 1): errors 1 + 1 and 1 + 25
    # KL to uniform = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812, weighted by 1/2
    found = by_hand().losses(torch.ones(2, 2), drawn(0.7, 0.8))
    assert found["subgoal_error"].item() == pytest.approx((2 + 26) / 2)
    assert found["subgoal_kl"].item() == pytest.approx(0.5 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)))
    assert set(found) == {"subgoal_error", "subgoal_kl"}


def test_novelty_is_the_mean_over_dimensions_by_hand():
    found = by_hand().novelty(torch.ones(3, 2), drawn(0.7, 0.8, 0.0))
    assert found.tolist() == pytest.approx([1.0, 13.0, 1.0])


def test_an_adaptive_weight_moves_once_per_learning_and_never_by_novelty():
    made = by_hand(STEERED)  # the KL of 0.13 lies below 0.5 / 1.1: less weight
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    for times in (1, 2):
        assert made.losses(torch.ones(2, 2), drawn(0.7, 0.8))["subgoal_kl"].item() == pytest.approx(expected / 1.1**times)
    made.novelty(torch.ones(2, 2), drawn(0.7, 0.8))
    assert made.kl.weight.item() == pytest.approx(1 / 1.21)


def test_the_kl_of_certain_codes_is_the_greatest():
    made = goals(2, 8, 8, 0, aim=1.0)
    with torch.no_grad():
        made.encoder_out.bias.view(8, 8)[:, 3] = 50.0
    found = made.losses(torch.zeros(1, 2), {"learn": torch.full((1, 8), 0.5)})
    assert found["subgoal_kl"].item() == pytest.approx(8 * math.log(8))  # 16.64 nats


def test_the_gradient_of_the_error_passes_through_the_draw_to_the_encoder():
    made = by_hand()
    made.losses(torch.ones(1, 2), drawn(0.7))["subgoal_error"].backward()
    # d error / d code = 2 (rebuilt - s) W = 2 ((1, -1) W) = (2 * 1 * 2, 2 * -1 * 6) = (4, -12); of the softmax p (g - p.g):
    # p.g = 3/4 4 - 1/4 12 = 0, so (3/4 4, 1/4 -12) = (3, -3) for the logits, which is the gradient of the bias
    assert made.encoder_out.bias.grad.tolist() == pytest.approx([3.0, -3.0], abs=1e-5)


def test_every_parameter_learns_and_the_states_given_may_be_constants():
    made, states = goals(), normal(5, 6)
    noise = {name: torch.from_numpy(value) for name, value in made.noise(Key(1)("learn"), 5, 2).items()}
    sum(made.losses(states, noise).values()).backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in made.parameters())


def test_noise_is_one_number_per_code():
    found = goals().noise(Key(1)("learn"), 5, 7)
    assert {name: value.shape for name, value in found.items()} == {"learn": (5, 3), "novelty": (7, 3)}
    assert not (found["learn"] == found["novelty"][:5]).any()


def test_codes_are_actions_of_the_level_above():
    made = goals()
    acts = made.actions(0.01)
    code = acts.mode(normal(2, 5, acts.width))
    assert (acts.groups, acts.size, acts.unimix) == (3, 12, 0.01)
    assert made.decode(code).shape == (2, 5, 6)


def test_learning_rebuilds_a_few_states():
    made, states = goals(6, 3, 4, 1, partial(FIXED), 1e-3), normal(4, 6)
    optimiser = torch.optim.Adam(made.parameters(), 0.02)
    for update in range(300):
        optimiser.zero_grad()
        noise = {"learn": torch.from_numpy(Key(update)("learn").uniform((4, 3)))}
        sum(made.losses(states, noise).values()).backward()
        optimiser.step()
    rebuilt = made.decode(one_hot_mode(made.encode(states)).flatten(-2))
    assert (rebuilt - states).square().mean() < 0.05 < states.square().mean() / 10


def test_under_autocast_what_comes_out_is_float32():
    made = goals()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        code = made.encode(normal(5, 6))
        assert code.dtype == made.decode(code.flatten(-2)).dtype == torch.float32
        assert made.novelty(normal(5, 6), {"novelty": torch.full((5, 3), 0.5)}).dtype == torch.float32


def test_no_goals_are_nothing():
    none = NoGoals(6, STYLE)
    assert none.width == 0 and not list(none.parameters())
    assert none.noise(Key(1)("learn"), 5, 7) == {} == none.losses(normal(5, 6), {})
