"""Trajectories cut into pieces of k steps. Time comes first: H steps have H + 1 states, and H is a multiple of k."""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor


def split_states(x: Shaped[Tensor, "H1 N ..."], k: int) -> Shaped[Tensor, "K1 M ..."]:
    """States 0..k, k..2k, ... side by side: column p N + n is piece p of trajectory n. Neighbours share a state."""
    pieces = _pieces(len(x) - 1, k)
    return torch.cat([x[p * k : p * k + k + 1] for p in range(pieces)], 1)


def split_steps(x: Shaped[Tensor, "H N ..."], k: int) -> Shaped[Tensor, "K M ..."]:
    """Steps 0..k-1, k..2k-1, ... side by side, in the columns of split_states."""
    return x.unflatten(0, (_pieces(len(x), k), k)).transpose(0, 1).flatten(1, 2)


def following(x: Shaped[Tensor, "T B ..."], horizon: int) -> Shaped[Tensor, "H1 N ..."]:
    """What comes with each of T B rows and with the `horizon` rows after it; after a sequence's end, those of the next sequence
    from its beginning. Column t B + b belongs to row t of sequence b."""
    steps, longer = len(x), [x]
    while len(longer) * steps < steps + horizon:
        longer.append(longer[-1].roll(-1, 1))
    line = torch.cat(longer)
    return torch.stack([line[h : h + steps].flatten(0, 1) for h in range(horizon + 1)])


def every(x: Shaped[Tensor, "H1 N ..."], k: int) -> Shaped[Tensor, "P1 N ..."]:
    """States 0, k, 2k, ..., H."""
    _pieces(len(x) - 1, k)
    return x[::k]


def summed_steps(reward: Float[Tensor, "H N"], cont: Float[Tensor, "H N"], k: int, mean: bool) -> Float[Tensor, "P N"]:
    """The reward of each long step of k steps, each step's counted with the chance that the piece gets there.

        R = sum_{j<k} r_j prod_{i<j} cont_i  =  r_0 + cont_0 (r_1 + cont_1 (r_2 + ...)),      divided by k for the mean

    The continuation of step j itself is not in it: a reward that comes together with the last state is still paid.
    """
    rewards, conts = _long(reward, k), _long(cont, k)
    total = rewards[-1]
    for reward_j, cont_j in zip(reversed(rewards[:-1]), reversed(conts[:-1]), strict=True):
        total = torch.addcmul(reward_j, cont_j, total)
    return total / k if mean else total


def product_steps(cont: Float[Tensor, "H N"], k: int) -> Float[Tensor, "P N"]:
    """The continuation of each long step: the product of those of its k steps."""
    product, *rest = _long(cont, k)
    for cont_j in rest:
        product = product * cont_j
    return product


def _long(x: Tensor, k: int) -> tuple[Tensor, ...]:
    """The j-th steps of all pieces, (P, N), for every j below k."""
    return x.unflatten(0, (_pieces(len(x), k), k)).unbind(1)


def _pieces(steps: int, k: int) -> int:
    assert steps % k == 0 and steps > 0, f"{steps} steps do not divide into pieces of {k}"
    return steps // k
