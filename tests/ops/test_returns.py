import pytest
import torch

from hieros_repro.determinism.keys import Key
from hieros_repro.ops.returns import generalised_advantage

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
