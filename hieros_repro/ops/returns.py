"""Advantages and returns, written as reverse loops in a fixed order."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def generalised_advantage(
    reward: Float[Tensor, "T E"],
    value: Float[Tensor, "T+1 E"],
    is_terminal: Bool[Tensor, "T E"],
    is_last: Bool[Tensor, "T E"],
    discount: float,
    trace: float,
) -> Float[Tensor, "T E"]:
    """Generalised advantage estimation (Schulman et al. 2016).

        delta_t = r_t + gamma (1 - terminal_t) v_{t+1} - v_t
        A_t     = delta_t + gamma lambda (1 - last_t) A_{t+1},      A_T = 0

    Reward and flags at index t belong to the transition from row t to row t+1, and v_{t+1} values row t+1: a time-out is last
    but not terminal, so it bootstraps from the value of the observation it ended in. The chain is cut at every last row.
    """
    delta = reward + discount * torch.where(is_terminal, 0.0, value[1:]) - value[:-1]
    decay = discount * trace * (~is_last).to(delta.dtype)
    carry, advantages = torch.zeros_like(delta[0]), []
    for delta_t, decay_t in zip(reversed(delta.unbind(0)), reversed(decay.unbind(0)), strict=True):
        carry = torch.addcmul(delta_t, decay_t, carry)
        advantages.append(carry)
    return torch.stack(advantages[::-1])
