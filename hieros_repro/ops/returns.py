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


def lambda_return(
    reward: Float[Tensor, "T M"], value: Float[Tensor, "T+1 M"], discount: Float[Tensor, "T M"], trace: float
) -> Float[Tensor, "T M"]:
    """Lambda-returns of trajectories in which every step has its own discount d, which includes gamma and the continuation.

        R_t = r_t + d_t [ (1 - lambda) v_{t+1} + lambda R_{t+1} ],      R_T = v_T

    Reward and discount at index t belong to the step from state t to state t+1.
    """
    ahead = reward + discount * (1.0 - trace) * value[1:]
    return _backwards(ahead, discount * trace, value[-1])


def replay_return(
    reward: Float[Tensor, "T B"],
    is_last: Bool[Tensor, "T B"],
    is_terminal: Bool[Tensor, "T B"],
    boot: Float[Tensor, "T B"],
    discount: float,
    trace: float,
) -> Float[Tensor, "T-1 B"]:
    """Lambda-returns of replayed rows, whose reward and flags came with them; boot_t is what the state of row t is worth.

        G_t    = r_{t+1} + live_{t+1} [ (1 - c_{t+1}) boot_{t+1} + c_{t+1} G_{t+1} ],      G_{T-1} = boot_{T-1}
        live_t = gamma (1 - terminal_t),      c_t = lambda (1 - last_t)

    The returns of all rows but the last one. That of an episode's last row belongs to the next episode: it means nothing.
    """
    reward, boot = reward[1:], boot[1:]
    chained = trace * (~is_last[1:]).to(reward.dtype)
    live = discount * (~is_terminal[1:]).to(reward.dtype)
    ahead = reward + torch.where(is_terminal[1:], 0.0, live * (1.0 - chained) * boot)
    return _backwards(ahead, live * chained, boot[-1])


def _backwards(ahead: Float[Tensor, "T M"], decay: Float[Tensor, "T M"], carry: Float[Tensor, "M"]) -> Float[Tensor, "T M"]:
    """x_t = ahead_t + decay_t x_{t+1}, from x_T = carry."""
    found = []
    for ahead_t, decay_t in zip(reversed(ahead.unbind(0)), reversed(decay.unbind(0)), strict=True):
        carry = torch.addcmul(ahead_t, decay_t, carry)
        found.append(carry)
    return torch.stack(found[::-1])
