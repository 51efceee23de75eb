"""A level of a hierarchy: an actor and its critics, improved on dreamt trajectories. Policy gradients throughout."""

from collections.abc import Callable, Mapping
from typing import Annotated, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from hieros_repro.agent.actor_critic import Actor, Critic
from hieros_repro.nn.block import Style
from hieros_repro.nn.control import Weight
from hieros_repro.ops.action import Actions
from hieros_repro.ops.returns import lambda_return, replay_return
from hieros_repro.records import Between, Count, Fraction, Natural, NonNegative


class Trajectory(NamedTuple):
    """M dreams of T steps of one level."""

    state: Tensor  # (T + 1, M, F) what the level looked at: features and the goal it was given
    action: Tensor  # (T, M, A)
    rewards: Mapping[str, Tensor]  # name -> (T, M), of the step from state t to t + 1
    proceeds: Tensor  # (T + 1, M) probability of going on; of the first state, whether it did


class Replayed(NamedTuple):
    """T rows of B sequences that really were, time first: what the level looked at, and what came with it."""

    state: Tensor  # (T, B, F)
    reward: Tensor
    is_last: Tensor
    is_terminal: Tensor


class Judged(NamedTuple):
    """What a trajectory came to."""

    actor: Tensor  # loss
    critic: Tensor  # loss, over all critics
    returns: Mapping[str, Tensor]  # reward name -> (T, M)
    metrics: Mapping[str, Tensor]


class Level(nn.Module):
    """Maximises the weighted sum of its rewards. A reward of weight 0 has no critic."""

    def __init__(
        self,
        inputs: int,
        actions: Actions,
        style: Style,
        entropy_aim: float,
        *,
        rewards: Mapping[str, NonNegative],
        layers: Natural,
        units: Count,
        actor_scale: NonNegative,
        entropy: Callable[..., Weight],
        discount: Annotated[float, Between(1e-6, 1)],
        trace: Fraction,
        advantage: Callable[[], nn.Module],
        critic: Callable[..., Critic],
        replay_value: NonNegative,
    ):
        super().__init__()
        self.weights = {name: weight for name, weight in rewards.items() if weight}
        self.actor = Actor(inputs, actions, style, layers, units, actor_scale)
        self.critics: Mapping[str, Critic] = nn.ModuleDict({name: critic(inputs, style) for name in self.weights})  # type: ignore
        self.entropy, self.advantage = entropy(entropy_aim, len(actions.max_entropy), False), advantage()
        self.discount, self.trace, self.replay_value = discount, trace, replay_value
        bounds = zip(actions.min_entropy, actions.max_entropy, strict=True)
        # where there is nothing to choose the least is the greatest
        span = [(low, (high - low) or 1.0) if self.entropy.adaptive else (0.0, 1.0) for low, high in bounds]
        self.entropy_low: Tensor
        self.entropy_span: Tensor
        self.register_buffer("entropy_low", torch.tensor([low for low, _ in span]), persistent=False)
        self.register_buffer("entropy_span", torch.tensor([high for _, high in span]), persistent=False)

    def judge(self, dream: Trajectory) -> Judged:
        """The losses of a dream. Once per update: running scales and adaptive weights take a step.

            R_t = r_{t+1} + d_{t+1} [ (1 - trace) v_{t+1} + trace R_{t+1} ],   d = discount * proceeds
            A_t = sum_i w_i (R^i_t - v^i_t) / scale_i
            actor = - E[ u_t ( log pi(a_t | s_t) A_t + entropy ) ],   critic = E[ u_t loss(v(s_t), R_t) ]

        with u_t the probability of getting there at all: prod_{j <= t} d_j / discount.
        """
        discount = self.discount * dream.proceeds
        reached = _products(discount)[:-1] / self.discount
        advantage, critic_loss = torch.zeros_like(reached), torch.zeros_like(reached)
        returns: dict[str, Tensor] = {}
        metrics: dict[str, Tensor] = {}
        for name, critic in self.critics.items():
            values = critic.values(dream.state)
            returns[name] = lambda_return(dream.rewards[name], values.value, discount[1:], self.trace)
            _, scale = critic.returns(returns[name])
            advantage = advantage + self.weights[name] * (returns[name] - values.value[:-1]) / scale
            critic_loss = critic_loss + critic.loss(values, returns[name])
            seen = {"reward": dream.rewards[name], "return": returns[name], "value": values.value, "return_scale": scale}
            metrics |= {f"{name}_{what}": value.mean() for what, value in seen.items()}
        offset, scale = self.advantage(advantage)
        params = self.actor(dream.state[:-1])
        log_prob = self.actor.actions.log_prob(params, dream.action)
        entropy = (self.actor.actions.entropy(params) - self.entropy_low) / self.entropy_span
        weight = self.entropy(entropy.detach().flatten(0, -2).mean(0))
        gain = log_prob * (advantage - offset) / scale + (weight * entropy).sum(-1)
        metrics |= {"entropy": entropy.detach().mean(), "entropy_weight": weight.mean(), "advantage": advantage.abs().mean()}
        return Judged(-(reached * gain).mean(), (reached * critic_loss).mean(), returns, metrics)

    def replay_loss(self, rows: Replayed, boot: Float[Tensor, "T B"], proceeds: float) -> Tensor:
        """The critic of the task's reward, on what really happened; its gradient reaches the states. `boot`: what dreams that
        began there returned; `proceeds`: what the world says of the probability of going on where it goes on."""
        critic = self.critics["extrinsic"]
        values = critic.values(rows.state)
        target = replay_return(rows.reward, rows.is_last, rows.is_terminal, boot, self.discount * proceeds, self.trace)
        live = (~rows.is_last[:-1]).float()
        return self.replay_value * (live * critic.loss(values, target.detach())).mean()


def _products(factors: Float[Tensor, "T M"]) -> Float[Tensor, "T M"]:
    """Of each and all before it, in a fixed order."""
    found = [factors[0]]
    for factor in factors[1:].unbind(0):
        found.append(found[-1] * factor)
    return torch.stack(found)
