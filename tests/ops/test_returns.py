import pytest
import torch

from hieros_repro.determinism.keys import Key
from hieros_repro.ops.returns import generalised_advantage, lambda_return, replay_return

NEVER = torch.zeros(4, 1, dtype=torch.bool)


def flags(*rows: int, ticks: int = 4) -> torch.Tensor:
    found = torch.zeros(ticks, 1, dtype=torch.bool)
    found[list(rows)] = True
    return found


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values).unsqueeze(1)


REWARD, VALUE = column(1.0, 2.0, 3.0, 4.0), column(0.5, 1.0, 1.5, 2.0, 2.5)

# discount 0.5, trace 0.5. delta without flags:
# 1 + 0.5 - 0.5 = 1;  2 + 0.75 - 1 = 1.75;  3 + 1 - 1.5 = 2.5;  4 + 1.25 - 2 = 3.25
# A_3 = 3.25;  A_2 = 2.5 + 0.25 * 3.25 = 3.3125;  A_1 = 1.75 + 0.25 * 3.3125 = 2.578125;  A_0 = 1 + 0.25 * 2.578125 = 1.64453125
OPEN = column(1.64453125, 2.578125, 3.3125, 3.25)
# Row 1 is terminal: delta_1 = 2 - 1 = 1, and the chain is cut: A_1 = 1;  A_0 = 1 + 0.25
TERMINAL = column(1.25, 1.0, 3.3125, 3.25)
# Row 1 is a time-out: delta_1 still bootstraps, the chain is cut: A_1 = 1.75;  A_0 = 1 + 0.25 * 1.75
TIMEOUT = column(1.4375, 1.75, 3.3125, 3.25)


@pytest.mark.parametrize(
    ("is_terminal", "is_last", "expected"),
    [(NEVER, NEVER, OPEN), (flags(1), flags(1), TERMINAL), (NEVER, flags(1), TIMEOUT)],
    ids=["neither", "terminal", "time-out"],
)
def test_advantages_are_those_computed_by_hand(is_terminal, is_last, expected):
    assert torch.equal(generalised_advantage(REWARD, VALUE, is_terminal, is_last, 0.5, 0.5), expected)


def test_environments_do_not_touch_each_other():
    side_by_side = generalised_advantage(
        REWARD.expand(4, 3).clone(),
        VALUE.expand(5, 3).clone(),
        torch.cat([NEVER, flags(1), NEVER], 1),
        torch.cat([NEVER, flags(1), flags(1)], 1),
        0.5,
        0.5,
    )
    assert torch.equal(side_by_side, torch.cat([OPEN, TERMINAL, TIMEOUT], 1))


def drawn(ticks: int, envs: int) -> tuple[torch.Tensor, ...]:
    key = Key(0)("data", "returns")
    reward, value = (torch.from_numpy(key(name).normal((ticks + extra, envs))) for name, extra in (("reward", 0), ("value", 1)))
    is_last = torch.from_numpy(key("last").uniform((ticks, envs))) < 0.2
    return reward, value, is_last & torch.from_numpy(key("terminal").uniform((ticks, envs)) < 0.5), is_last


def test_without_a_trace_they_are_one_step_temporal_differences():
    reward, value, is_terminal, is_last = drawn(20, 5)
    expected = reward + 0.9 * value[1:] * ~is_terminal - value[:-1]
    assert torch.allclose(generalised_advantage(reward, value, is_terminal, is_last, 0.9, 0.0), expected, atol=1e-6)


def test_with_a_full_trace_they_are_monte_carlo_returns_less_the_value():
    reward, value, is_terminal, is_last = drawn(20, 5)
    found = generalised_advantage(reward, value, is_terminal, is_last, 0.9, 1.0)
    for env in range(5):
        for start in range(20):
            total, weight = 0.0, 1.0
            for t in range(start, 20):
                total += weight * reward[t, env].item()
                weight *= 0.9
                if is_last[t, env] or t == 19:
                    total += 0.0 if is_terminal[t, env] else weight * value[t + 1, env].item()
                    break
            assert found[start, env].item() == pytest.approx(total - value[start, env].item(), abs=1e-5)


def test_a_terminal_rows_next_value_may_be_anything():
    value = VALUE.clone()
    value[2] = 1e30
    found = generalised_advantage(REWARD, value, flags(1), flags(1), 0.5, 0.5)
    assert torch.equal(found[:2], TERMINAL[:2])


# Lambda-returns

# discounts 0.5, 0, 0.5, 1; trace 0.5; values as above. R_4 = v_4 = 2.5
# R_3 = 4 + 1 * (0.5 * 2.5 + 0.5 * 2.5) = 6.5;  R_2 = 3 + 0.5 * (0.5 * 2 + 0.5 * 6.5) = 5.125
# R_1 = 2, nothing counts behind a discount of 0;  R_0 = 1 + 0.5 * (0.5 * 1 + 0.5 * 2) = 1.75
DISCOUNT = column(0.5, 0.0, 0.5, 1.0)


def test_lambda_returns_are_those_computed_by_hand():
    assert torch.equal(lambda_return(REWARD, VALUE, DISCOUNT, 0.5), column(1.75, 2.0, 5.125, 6.5))


def test_lambda_returns_without_a_trace_look_one_step_ahead():
    # 1 + 0.5 * 1;  2;  3 + 0.5 * 2;  4 + 1 * 2.5
    assert torch.equal(lambda_return(REWARD, VALUE, DISCOUNT, 0.0), column(1.5, 2.0, 4.0, 6.5))


def test_lambda_returns_with_a_full_trace_are_discounted_sums():
    ones, zeros = torch.ones(20, 1), torch.zeros(21, 1)
    # of rewards of 1 at a discount of 0.9: 1 + 0.9 + ... + 0.9^(19-t), a geometric sum
    expected = torch.tensor([(1 - 0.9 ** (20 - t)) / 0.1 for t in range(20)]).unsqueeze(1)
    assert torch.allclose(lambda_return(ones, zeros, 0.9 * ones, 1.0), expected)


def test_lambda_returns_are_advantages_plus_values():
    reward, value, *_ = drawn(20, 5)
    never = torch.zeros(20, 5, dtype=torch.bool)
    expected = generalised_advantage(reward, value, never, never, 0.9, 0.8) + value[:-1]
    assert torch.allclose(lambda_return(reward, value, torch.full((20, 5), 0.9), 0.8), expected, atol=1e-5)


def test_lambda_returns_pass_gradients_to_rewards_values_and_discounts():
    reward, value, discount = (x.clone().requires_grad_() for x in (REWARD, VALUE, DISCOUNT))
    lambda_return(reward, value, discount, 0.5)[0].sum().backward()
    # R_0 = r_0 + d_0 (0.5 v_1 + 0.5 R_1),  R_1 = r_1 + d_1 (0.5 v_2 + 0.5 R_2),  d_1 = 0
    assert reward.grad.flatten().tolist() == [1.0, 0.25, 0.0, 0.0]
    assert value.grad.flatten().tolist() == [0.0, 0.25, 0.0, 0.0, 0.0]
    assert discount.grad.flatten().tolist() == [1.5, 0.25 * (0.5 * 1.5 + 0.5 * 5.125), 0.0, 0.0]


# Returns of replayed rows

BOOT = column(10.0, 1.0, 2.0, 4.0)


@pytest.mark.parametrize(
    ("is_terminal", "is_last", "expected"),
    [
        # discount 0.5, trace 0.5; G_3 = 4;  G_2 = 4 + 0.5 * (0.5 * 4 + 0.5 * 4) = 6
        # G_1 = 3 + 0.5 * (0.5 * 2 + 0.5 * 6) = 5;  G_0 = 2 + 0.5 * (0.5 * 1 + 0.5 * 5) = 3.5
        (NEVER, NEVER, column(3.5, 5.0, 6.0)),
        # row 1 is terminal: its own reward is all there is, G_0 = 2
        (flags(1), flags(1), column(2.0, 5.0, 6.0)),
        # row 1 is a time-out: its state's worth counts whole, G_0 = 2 + 0.5 * 1
        (NEVER, flags(1), column(2.5, 5.0, 6.0)),
        # row 3 is a time-out, row 0 too: the flags of the first row are of no return here
        (NEVER, flags(0, 3), column(3.5, 5.0, 6.0)),
        # row 3 is terminal: G_2 = 4;  G_1 = 3 + 0.5 * (0.5 * 2 + 0.5 * 4) = 4.5;  G_0 = 2 + 0.5 * (0.5 + 0.5 * 4.5) = 3.375
        (flags(3), flags(3), column(3.375, 4.5, 4.0)),
    ],
    ids=["neither", "terminal", "time-out", "time-outs at the ends", "terminal at the end"],
)
def test_returns_of_replayed_rows_are_those_computed_by_hand(is_terminal, is_last, expected):
    assert torch.equal(replay_return(REWARD, is_last, is_terminal, BOOT, 0.5, 0.5), expected)


def test_what_a_terminal_row_is_worth_may_be_anything():
    boot = BOOT.clone()
    boot[1] = torch.inf
    assert replay_return(REWARD, flags(1), flags(1), boot, 0.5, 0.5)[0].item() == 2.0


def test_replayed_rows_do_not_touch_each_other():
    terminal, last = torch.cat([NEVER, flags(1), NEVER], 1), torch.cat([NEVER, flags(1), flags(1)], 1)
    found = replay_return(REWARD.expand(4, 3), last, terminal, BOOT.expand(4, 3), 0.5, 0.5)
    assert torch.equal(found, torch.cat([column(3.5, 5.0, 6.0), column(2.0, 5.0, 6.0), column(2.5, 5.0, 6.0)], 1))


def test_replayed_rows_without_ends_are_lambda_returns_one_row_on():
    reward, boot, *_ = drawn(20, 5)
    never, boot = torch.zeros(20, 5, dtype=torch.bool), boot[:20]
    expected = lambda_return(reward[1:], boot, torch.full((19, 5), 0.9), 0.8)
    assert torch.allclose(replay_return(reward, never, never, boot, 0.9, 0.8), expected, atol=1e-5)
