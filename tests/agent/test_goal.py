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


def goals(width: int = 6, codes: int = 3, classes: int = 4, layers: int = 1, kl=FIXED, aim: float = 0.5, **changes) -> Goals:
    values = {
        "units": 8, "code_units": 8, "scale": 1.0, "output": "linear", "draw": "sampled", "told": "state", "states": "plain",
        "novelty": "matching", "error": "sum", "reward": "plain", "learn_from": "replay",
    } | changes  # fmt: skip
    made = Goals(width, STYLE, codes=codes, classes=classes, layers=layers, kl=kl, kl_aim=aim, **values)
    fill(made, Key(4)("init"))
    return made


@torch.no_grad()
def by_hand(kl=FIXED, **changes) -> Goals:
    """States (a, b): a code of two classes with log-odds a ln 3; it means (2, 0) or (0, 6)."""
    made = goals(2, 1, 2, 0, kl, **changes)
    made.encoder_out.weight.copy_(torch.tensor([[HALF, 0.0], [0.0, 0.0]]))
    made.decoder_out.weight.copy_(torch.tensor([[2.0, 0.0], [0.0, 6.0]]))
    return made


def normal(*shape: int) -> torch.Tensor:
    return torch.from_numpy(Key(0)("data", "x").normal(shape))


def drawn(*numbers: float) -> dict[str, torch.Tensor]:
    """The same uniforms for learning and for novelty."""
    uniform = torch.tensor(numbers).unsqueeze(-1)
    return {"learn": uniform, "novelty": uniform}


def losses(made: Goals | NoGoals, states: torch.Tensor, noise: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return made.losses(states, noise)[0]


def test_codes_by_hand():
    found = by_hand().encode(torch.tensor([[0.0, 5.0], [1.0, 5.0], [-1.0, 5.0]])).exp()
    assert found.flatten().tolist() == pytest.approx([0.5, 0.5, 0.75, 0.25, 0.25, 0.75])
    assert by_hand().decode(torch.tensor([[1.0, 0.0], [0.0, 1.0]])).tolist() == [[2.0, 0.0], [0.0, 6.0]]


def test_losses_by_hand():
    # p = (3/4, 1/4): 0.7 draws the first class, 0.8 the second; the states are (1, 1): errors 1 + 1 and 1 + 25
    # KL to uniform = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812, weighted by 1/2
    found = losses(by_hand(), torch.ones(2, 2), drawn(0.7, 0.8))
    assert found["subgoal_error"].item() == pytest.approx((2 + 26) / 2)
    assert found["subgoal_kl"].item() == pytest.approx(0.5 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)))
    assert set(found) == {"subgoal_error", "subgoal_kl"}


def test_novelty_is_the_mean_over_dimensions_by_hand():
    found = by_hand().novelty(torch.ones(3, 2), drawn(0.7, 0.8, 0.0), None)
    assert found.tolist() == pytest.approx([1.0, 13.0, 1.0])


def test_an_adaptive_weight_moves_once_per_learning_and_never_by_novelty():
    made = by_hand(STEERED)  # the KL of 0.13 lies below 0.5 / 1.1: less weight
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    for times in (1, 2):
        assert losses(made, torch.ones(2, 2), drawn(0.7, 0.8))["subgoal_kl"].item() == pytest.approx(expected / 1.1**times)
    made.novelty(torch.ones(2, 2), drawn(0.7, 0.8), None)
    assert made.kl.weight.item() == pytest.approx(1 / 1.21)


def test_the_kl_of_certain_codes_is_the_greatest():
    made = goals(2, 8, 8, 0, aim=1.0)
    with torch.no_grad():
        made.encoder_out.bias.view(8, 8)[:, 3] = 50.0
    found = losses(made, torch.zeros(1, 2), {"learn": torch.full((1, 8), 0.5)})
    assert found["subgoal_kl"].item() == pytest.approx(8 * math.log(8))  # 16.64 nats


def test_the_gradient_of_the_error_passes_through_the_draw_to_the_encoder():
    made = by_hand()
    losses(made, torch.ones(1, 2), drawn(0.7))["subgoal_error"].backward()
    # d error / d code = 2 (rebuilt - s) W = 2 ((1, -1) W) = (2 * 1 * 2, 2 * -1 * 6) = (4, -12); of the softmax p (g - p.g):
    # p.g = 3/4 4 - 1/4 12 = 0, so (3/4 4, 1/4 -12) = (3, -3) for the logits, which is the gradient of the bias
    assert made.encoder_out.bias.grad.tolist() == pytest.approx([3.0, -3.0], abs=1e-5)


def test_every_parameter_learns_and_the_states_given_may_be_constants():
    made, states = goals(), normal(5, 6)
    noise = {name: torch.from_numpy(value) for name, value in made.noise(Key(1)("learn"), 5, 2).items()}
    sum(losses(made, states, noise).values()).backward()
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
        sum(losses(made, states, noise).values()).backward()
        optimiser.step()
    rebuilt = made.decode(one_hot_mode(made.encode(states)).flatten(-2))
    assert (rebuilt - states).square().mean() < 0.05 < states.square().mean() / 10


def test_under_autocast_what_comes_out_is_float32():
    made = goals()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        code = made.encode(normal(5, 6))
        assert code.dtype == made.decode(code.flatten(-2)).dtype == torch.float32
        assert made.novelty(normal(5, 6), {"novelty": torch.full((5, 3), 0.5)}, None).dtype == torch.float32


def test_no_goals_are_nothing():
    none = NoGoals(6, STYLE)
    assert none.width == none.size == 0 and not list(none.parameters())
    assert none.noise(Key(1)("learn"), 5, 7) == {} == losses(none, normal(5, 6), {})
    states = normal(5, 6)
    assert torch.equal(none.space(states), states) and torch.equal(none.state(states), states)
    assert none.tell(normal(2, 3, 4)).shape == (2, 3, 0) and none.meaning(normal(2, 3, 0)).shape == (2, 3, 0)
    assert none.novelty(states, {}, None).tolist() == [0.0] * 5


# -- Other ways, by hand ---------------------------------------------------------------------------------------------------

CODES = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])  # the last one is none


def test_the_error_of_a_state_is_the_sum_or_the_mean_over_its_dimensions():
    # as above: 2 and 26, of two dimensions
    found = losses(by_hand(error="mean"), torch.ones(2, 2), drawn(0.7, 0.8))
    assert found["subgoal_error"].item() == pytest.approx((1 + 13) / 2)


def test_the_likeliest_code_needs_no_noise_and_has_the_same_gradient():
    # p = (3/4, 1/4): the first class for both states, though 0.8 would draw the second
    made = by_hand(draw="likeliest")
    assert made.noise(Key(1)("learn"), 5, 7) == {}
    assert losses(made, torch.ones(2, 2), {})["subgoal_error"].item() == pytest.approx(2)
    assert made.novelty(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), {}, None).tolist() == pytest.approx([1.0, (1 + 25) / 2])
    losses(made, torch.ones(1, 2), {})["subgoal_error"].backward()
    assert made.encoder_out.bias.grad.tolist() == pytest.approx([3.0, -3.0], abs=1e-5)


def test_policies_are_told_states_or_codes_and_both_mean_the_same():
    states, codes = by_hand(), by_hand(told="code")
    assert (states.width, states.size, codes.width, codes.size) == (2, 2, 2, 2)
    assert (goals().width, goals(told="code").width, goals().size) == (6, 12, 12)
    assert states.tell(CODES[:2]).tolist() == [[2, 0], [0, 6]] and torch.equal(codes.tell(CODES), CODES)
    for made in (states, codes):
        assert made.meaning(made.tell(CODES[:2])).tolist() == [[2, 0], [0, 6]]


@torch.no_grad()
def test_no_code_means_nothing_not_what_the_decoder_makes_of_zeros():
    made = by_hand(told="code")
    made.decoder_out.bias.copy_(torch.tensor([1.0, -1.0]))
    assert made.decode(CODES).tolist() == [[3, -1], [1, 5], [1, -1]]
    assert made.meaning(CODES).tolist() == [[3, -1], [1, 5], [0, 0]]


def test_states_may_be_spoken_of_by_their_symlog():
    # e^1 - 1 is 1 in the code's space: p = (3/4, 1/4) there; the code (1, 0) means the state (e^2 - 1, 0)
    made, e = by_hand(states="symlog"), math.e
    states = torch.tensor([[e - 1, e - 1], [1 - e, 0.0]])
    assert made.space(states).flatten().tolist() == pytest.approx([1, 1, -1, 0])
    torch.testing.assert_close(made.state(made.space(states)), states)
    assert made.encode(states).exp().flatten().tolist() == pytest.approx([0.75, 0.25, 0.25, 0.75])
    assert made.state(made.meaning(made.tell(CODES[:1]))).flatten().tolist() == pytest.approx([e**2 - 1, 0])
    plain = by_hand()
    assert torch.equal(plain.space(states), states) and torch.equal(plain.state(states), states)


def test_errors_and_novelty_of_symlog_states_are_between_symlogs():
    # (1, 1) in that space is rebuilt as (2, 0) or (0, 6), as in the losses above
    made, states = by_hand(states="symlog"), torch.full((2, 2), math.e - 1)
    assert losses(made, states, drawn(0.7, 0.8))["subgoal_error"].item() == pytest.approx(14)
    assert made.novelty(states, drawn(0.7, 0.8), None).tolist() == pytest.approx([1.0, 13.0])


def test_mixed_novelty_compares_symlog_states_with_plain_ones():
    # (2 - 1.71828)^2 and (0 - 1.71828)^2; a state that is rebuilt without fault, (2, 0) in symlog, is novel all the same
    e = math.e
    mixed, matching = (by_hand(states="symlog", novelty=how) for how in ("mixed", "matching"))
    found = mixed.novelty(torch.full((1, 2), e - 1), drawn(0.7), None)
    assert found.item() == pytest.approx(((3 - e) ** 2 + (e - 1) ** 2) / 2)
    perfect = torch.tensor([[e**2 - 1, 0.0]])
    assert mixed.novelty(perfect, drawn(0.0), None).item() == pytest.approx((3 - e**2) ** 2 / 2)
    assert matching.novelty(perfect, drawn(0.0), None).item() == pytest.approx(0, abs=1e-6)
    # what is learned is the same
    same = [losses(made, perfect, drawn(0.0))["subgoal_error"].item() for made in (mixed, matching)]
    assert same == pytest.approx([0, 0], abs=1e-6)


@torch.no_grad()
def test_activated_outputs_are_normalised_and_hardly_negative():
    # 1 and 3 become -1 and 1, and elu makes e^-1 - 1 and 1 of these: a state of -5, -7 cannot be spoken of
    linear, activated = by_hand(), goals(2, 1, 2, 1, output="activated")
    linear.decoder_out.weight.copy_(torch.tensor([[-5.0, 0.0], [-7.0, 6.0]]))
    assert linear.decode(CODES[:2]).tolist() == [[-5, -7], [0, 6]]
    activated.decoder_out.affine.weight.copy_(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
    assert activated.decode(CODES[:1]).flatten().tolist() == pytest.approx([1 / math.e - 1, 1], abs=1e-3)
    activated.decoder_out.affine.weight.copy_(torch.tensor([[-5.0, 0.0], [-7.0, 6.0]]))
    assert activated.decode(CODES[:1]).flatten().tolist() == pytest.approx([1, 1 / math.e - 1], abs=1e-3)


def test_an_activated_output_is_the_last_of_the_layers():
    linear, activated = (goals(layers=3, output=how) for how in ("linear", "activated"))
    assert len(linear.encoder.blocks) == 3 and len(activated.encoder.blocks) == 2
    assert activated.encode(normal(5, 6)).shape == (5, 3, 4) and activated.decode(normal(5, 12)).shape == (5, 6)
    assert (activated.decode(normal(500, 12)) > -1.0).all() and (linear.decode(normal(500, 12)) < -1.0).any()


def test_encoder_and_decoder_have_widths_of_their_own():
    made = goals(layers=2, units=5, code_units=7)
    assert (made.encoder.outputs, made.decoder.outputs) == (7, 5)


def test_what_is_paid_is_what_was_measured_or_its_symlog_from_0_on():
    measured = torch.tensor([-2.0, 0.0, 1.0, math.e - 1])
    for made in (goals(), NoGoals(6, STYLE)):
        assert torch.equal(made.reward(measured), measured)
    assert goals(reward="symlog").reward(measured).tolist() == pytest.approx([0, 0, math.log(2), 1])


@pytest.mark.parametrize("changes", [{}, {"states": "symlog", "novelty": "mixed"}, {"error": "mean", "output": "activated"}])
def test_novelty_takes_over_how_the_likeliest_codes_rebuilt_the_same_states(changes):
    made, states = goals(draw="likeliest", **changes), normal(5, 6)
    rebuilt = made.losses(states, {})[1]
    assert rebuilt is not None and torch.equal(made.novelty(states, {}, rebuilt), made.novelty(states, {}, None))


def test_codes_that_were_drawn_to_learn_from_are_no_measure_of_novelty():
    assert goals().losses(normal(2, 6), {"learn": torch.full((2, 3), 0.5)})[1] is None
