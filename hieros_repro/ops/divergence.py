"""How far two distributions, or two states, are apart."""

import torch
from jaxtyping import Float
from torch import Tensor


def kl(log_p: Float[Tensor, "*B G C"], log_q: Float[Tensor, "*B G C"]) -> Float[Tensor, "*B"]:
    """KL(p || q) = sum_g sum_c p_gc (log p_gc - log q_gc) of G independent categoricals, from normalised log-probabilities."""
    log_p, log_q = log_p.float(), log_q.float()
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


def max_cosine(goal: Float[Tensor, "*B D"], state: Float[Tensor, "*B D"]) -> Float[Tensor, "*B"]:
    """(goal / m) . (state / m) with m = max(|goal|, |state|): 1 only where both are equal, for length counts too."""
    goal, state = goal.float(), state.float()
    longer = torch.maximum(torch.linalg.vector_norm(goal, dim=-1), torch.linalg.vector_norm(state, dim=-1)) + 1e-12
    return (goal * state).sum(-1) / longer.square()
