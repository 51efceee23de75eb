"""Squashing of magnitudes, and numbers as weights over fixed bins."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional


def symlog(x: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """symlog(x) = sign(x) ln(1 + |x|); its slope at 0 is 1."""
    sign = torch.where(x < 0, -1.0, 1.0)  # never 0, which would leave no gradient at 0
    return sign * torch.log1p(sign * x)


def symexp(x: Float[Tensor, "*B"]) -> Float[Tensor, "*B"]:
    """symexp(x) = sign(x) (e^|x| - 1), the inverse of symlog; its slope at 0 is 1."""
    sign = torch.where(x < 0, -1.0, 1.0)
    return sign * torch.expm1(sign * x)


def symexp_bins(count: int, limit: float = 20.0) -> Float[Tensor, "K"]:
    """`count` ascending bins, symexp of an even grid from -limit to limit.

    The upper half is the lower one mirrored, so that bins are exactly antisymmetric. An odd count has exactly 0 in its middle;
    an even one has no 0, for two equal bins could not share a target.
    """
    if count < 2:
        raise ValueError(f"a number needs at least 2 bins, not {count}")
    lower = symexp(torch.linspace(-limit, limit, count, dtype=torch.float64)[: count // 2])
    return torch.cat([lower, lower.new_zeros(count % 2), -lower.flip(0)]).float()


def two_hot(target: Float[Tensor, "*B"], bins: Float[Tensor, "K"]) -> Float[Tensor, "*B K"]:
    """Weights of the two bins next to each target t, linear in t: sum_k w_k b_k = t for t within the bins, else the end bin.

        f_k = clip((t - b_k) / (b_{k+1} - b_k), 0, 1),      w_k = f_{k-1} - f_k,      f_{-1} = 1,  f_{K-1} = 0

    f_k is how far t has come from bin k to the next: 1 for all bins left behind, 0 for all not yet reached.
    """
    passed = ((target.float().unsqueeze(-1) - bins[:-1]) / (bins[1:] - bins[:-1])).clamp(0.0, 1.0)
    return functional.pad(passed, (1, 0), value=1.0) - functional.pad(passed, (0, 1), value=0.0)


def two_hot_mean(logits: Float[Tensor, "*B K"], bins: Float[Tensor, "K"]) -> Float[Tensor, "*B"]:
    """sum_k p_k b_k, summed over mirrored pairs: with antisymmetric bins it is exactly 0 where the logits are all equal."""
    weighted, half = logits.float().softmax(-1) * bins, len(bins) // 2
    pairs = weighted[..., :half] + weighted[..., -half:].flip(-1)
    return pairs.sum(-1) + weighted[..., half] if len(bins) % 2 else pairs.sum(-1)


def two_hot_loss(logits: Float[Tensor, "*B K"], target: Float[Tensor, "*B"], bins: Float[Tensor, "K"]) -> Float[Tensor, "*B"]:
    """Cross entropy - sum_k w_k log p_k to the two-hot weights of a target, which is a constant to it."""
    log_p = logits.float().log_softmax(-1)
    if log_p.device.type != "cpu":  # where a gather's gradient takes many launches, and all weights at once take few
        return -(two_hot(target.detach(), bins) * log_p).sum(-1)
    neighbours, weights = _two_hot_pair(target.detach(), bins)
    return -(weights * log_p.gather(-1, neighbours)).sum(-1)


def _two_hot_pair(target: Float[Tensor, "*B"], bins: Float[Tensor, "K"]) -> tuple[Int[Tensor, "*B 2"], Float[Tensor, "*B 2"]]:
    """Which two bins `two_hot` weighs, and how, to the bit; beyond the bins one of the weights is 0."""
    target = target.float().contiguous()
    low = (torch.searchsorted(bins, target, right=True) - 1).clamp(0, len(bins) - 2)
    passed = ((target - bins[low]) / (bins[low + 1] - bins[low])).clamp(0.0, 1.0)
    return torch.stack([low, low + 1], -1), torch.stack([1.0 - passed, passed], -1)
