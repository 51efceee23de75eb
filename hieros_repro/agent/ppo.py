"""Proximal policy optimisation (Schulman et al. 2017), complete.

One update: value the rollout with the networks that acted, estimate advantages, then make `epochs` passes over its transitions
in shuffled minibatches, each one optimiser step on

    L = - E[ min(r A, clip(r, 1 - eps, 1 + eps) A) ] + c_v E[ (v - R / k)^2 ] - c_e E[ entropy ],   r = pi(a|s) / pi_old(a|s)

The critic's output v is the value in units of k = value_scale. With k = 1 this is the textbook's; near the size of the returns
it is what makes the critic fast enough: Adam moves a weight by at most about its learning rate, and a value of 100 is far away.

The actor and the critic are separate networks of the same shape, evaluated side by side; images pass a shared encoder first.
Rows, not transitions, come in: row t is an observation and the action taken at it, with the reward and the flags that row t + 1
brought. A row that was an episode's last has no transition and takes no part in learning.
"""

import itertools
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from hieros_repro.agent.base import Agent
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.nn.encoder import Observing
from hieros_repro.nn.init import fill
from hieros_repro.nn.mlp import Constant, Linear, Towers
from hieros_repro.nn.optimiser import Adam, LossScale
from hieros_repro.ops.distribution import Family, family
from hieros_repro.ops.returns import generalised_advantage
from hieros_repro.ops.schedule import linear
from hieros_repro.records import Arrays, Carry, Count, Fraction, Natural, NonNegative, Positive, Request, Rows, Spaces, Step

ACTOR, CRITIC = 0, 1


class ActorCritic(Observing):
    """Observations -> policy parameters and value. Two towers; images first pass one encoder that both share."""

    def __init__(self, spaces: Spaces, policy: Family, hidden: list[int], activation: str, image_depth: int):
        super().__init__(spaces.observation, image_depth)
        self.towers = Towers(2, self.inputs, hidden, activation)
        top = hidden[-1] if hidden else self.inputs
        self.actor = Linear(top, policy.width, gain=0.01)
        self.critic = Linear(top, 1, gain=1.0)
        self.log_std = Constant(policy.scales, value=0.0)

    def forward(self, obs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        actor, critic = self.towers(self.features(obs))
        value = functional.linear(critic, self.critic.weight, self.critic.bias).squeeze(-1).float()
        return self._params(actor), value

    def policy(self, obs: dict[str, Tensor]) -> Tensor:
        """The actor alone, for acting."""
        return self._params(self.towers.member(ACTOR, self.features(obs)))

    def _params(self, actor: Tensor) -> Tensor:
        params, log_std = functional.linear(actor, self.actor.weight, self.actor.bias), self.log_std.value
        return torch.cat([params, log_std.expand(len(params), -1)], -1) if len(log_std) else params


class Minibatch(NamedTuple):
    """N transitions, flat."""

    obs: dict[str, Tensor]
    action: Tensor
    log_prob: Tensor  # under the policy that acted
    advantage: Tensor
    target: Tensor  # the lambda-return the critic regresses on, in the critic's units
    value: Tensor  # the critic's output before the update

    def rows(self, index: Tensor | slice) -> "Minibatch":
        return Minibatch({name: obs[index] for name, obs in self.obs.items()}, *(field[index] for field in self[1:]))


class Losses(NamedTuple):
    """What one share of a minibatch came to."""

    loss: Tensor
    policy_loss: Tensor
    value_loss: Tensor
    log_prob: Tensor


class Outcome(NamedTuple):
    """What one optimiser step came to."""

    shares: list[Losses]
    gradient: Tensor  # one vector
    grad_norm: Tensor


class PPO(Agent):
    remembers: ClassVar[tuple[str, ...]] = ("rollout",)
    meanings: ClassVar[Mapping[str, str]] = {
        "ppo/policy_loss": "clipped surrogate loss, mean over the update's minibatches",
        "ppo/value_loss": "mean squared error of the critic's output against the lambda-return / value_scale",
        "ppo/entropy": "mean entropy of the policy that acted, in nats",
        "ppo/approx_kl": "mean of r - 1 - ln r over the update's last epoch: how far the policy has moved",
        "ppo/clip_fraction": "share of transitions whose ratio left [1 - clip, 1 + clip] in the last epoch",
        "ppo/grad_norm": "gradient norm before clipping, mean over the update's optimiser steps",
        "ppo/learning_rate": "learning rate of the update",
        "ppo/epochs": "passes over the rollout before the target KL stopped the update",
        "ppo/explained_variance": "1 - var(return - value) / var(return): 1 is a perfect critic, below 0 worse than none",
    }

    def __init__(
        self,
        spaces: Spaces,
        key: Key,
        hardware: Hardware,
        horizon: int,
        *,
        hidden: list[Count],
        activation: Literal["tanh", "relu", "silu", "elu"],
        image_depth: Count,
        learning_rate: NonNegative,
        final_learning_rate: NonNegative,
        warmup_steps: Natural,
        minibatch_size: Count,
        epochs: Count,
        accumulate: Count,
        discount: Fraction,
        trace: Fraction,
        clip: NonNegative,
        value_clip: NonNegative | None,
        value_scale: Positive,
        entropy: NonNegative,
        value_coefficient: NonNegative,
        normalise_advantage: bool,
        max_grad_norm: NonNegative | None,
        target_kl: NonNegative | None,
        adam_eps: NonNegative,
    ):
        self.hardware = hardware
        self.space, self.family = spaces.action, family(spaces.action)
        self.net = ActorCritic(spaces, self.family, hidden, activation, image_depth)
        fill(self.net, key)
        self.net.to(hardware.device)
        scale = LossScale() if hardware.precision == "fp16" else None
        self.optimiser = Adam(dict(self.net.named_parameters()), eps=adam_eps, max_norm=max_grad_norm, scale=scale)
        self.learning_rate = linear(learning_rate, final_learning_rate, horizon, warmup_steps)
        self.minibatch_size, self.epochs, self.accumulate = minibatch_size, epochs, accumulate
        self.discount, self.trace_decay = discount, trace
        self.clip, self.value_clip, self.value_scale, self.target_kl = clip, value_clip, value_scale, target_kl
        self.entropy, self.value_coefficient, self.normalise_advantage = entropy, value_coefficient, normalise_advantage
        self.low, self.high = (np.array(bound, np.float32) for bound in (spaces.action.low, spaces.action.high))
        self.loss = hardware.compiled(self._loss)
        self.optimise = hardware.recorded(self._optimise, self.optimiser.held())
        self.choose = hardware.recorded(self._choose, list(self.net.parameters()))
        self._first: dict[str, Mapping[str, Tensor]] = {}

    # -- Acting --------------------------------------------------------------------------------------------------------

    def initial(self, num_envs: int) -> Carry:
        return {}

    def act_noise(self, key: Key, ticks: int, num_envs: int) -> Arrays:
        return {"action": self.family.noise(key, (ticks, num_envs))}

    @torch.no_grad()
    def act(self, now: Step, carry: Carry, noise: Arrays, greedy: bool = False) -> tuple[np.ndarray, Carry, dict[str, Rows]]:
        given = (now.obs,) if greedy else (now.obs, noise["action"])
        chosen = self.choose(*map(self.hardware.to_device, given)).cpu().numpy()
        return self._to_space(chosen), carry, {"rollout": Rows({"action": chosen})}

    def _choose(self, obs: dict[str, Tensor], *noise: Tensor) -> Tensor:
        """Actions drawn by the noise; without any the best ones."""
        with self.hardware.autocast():
            params = self.net.policy(obs)
        return self.family.sample(params, *noise) if noise else self.family.mode(params)

    def _to_space(self, action: np.ndarray) -> np.ndarray:
        """Continuous actions are clipped where they leave the agent; learning sees them as they were drawn."""
        if self.space.kind != "continuous":
            return action
        return np.clip(action, self.low, self.high).reshape(len(action), *self.space.shape)

    # -- Learning ------------------------------------------------------------------------------------------------------

    def due(self, update: int) -> list[Request]:
        return [Request("rollout", batch=0, length=0)]  # the whole rollout, whatever its size

    def learn_noise(self, key: Key, batches: Mapping[str, Mapping[str, Any]]) -> Arrays:
        rows = batches["rollout"]["reward"].size
        return {"order": np.stack([key(epoch).permutation(rows) for epoch in range(self.epochs)])}

    @torch.no_grad()
    def learn(self, batches: Mapping[str, Any], noise: Mapping[str, Any], step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        rollout, valid, metrics = self._prepare(batches["rollout"])
        rate, outcomes = self.learning_rate(step), list[Outcome]()
        for epochs, order in enumerate(noise["order"], start=1):  # noqa: B007
            shuffled = rollout.rows(order[valid[order]])
            minibatches = _split(shuffled, -(-len(shuffled.action) // self.minibatch_size))
            latest = [self.optimise(minibatch, self.optimiser.pace(rate)) for minibatch in minibatches]
            outcomes += latest
            log_ratio = torch.cat([share.log_prob for outcome in latest for share in outcome.shares]) - shuffled.log_prob
            ratio = log_ratio.exp()
            divergence = (ratio - 1 - log_ratio).mean()
            if self.target_kl is not None and divergence > self.target_kl:
                break
        losses = [share for outcome in outcomes for share in outcome.shares]
        self._first = {"losses": losses[0]._asdict(), "gradients": self.optimiser.named(outcomes[0].gradient)}
        metrics |= {
            "ppo/policy_loss": torch.stack([share.policy_loss for share in losses]).mean(),
            "ppo/value_loss": torch.stack([share.value_loss for share in losses]).mean(),
            "ppo/approx_kl": divergence,
            "ppo/clip_fraction": ((ratio - 1).abs() > self.clip).float().mean(),
            "ppo/grad_norm": torch.stack([outcome.grad_norm for outcome in outcomes]).mean(),
            "ppo/learning_rate": rate,
            "ppo/epochs": epochs,
        }
        return metrics, {}

    def _prepare(self, batch: Mapping[str, Any]) -> tuple[Minibatch, Tensor, dict[str, Any]]:
        """The rollout's rows, flat; which of them are transitions; and the metrics of the policy that acted."""
        length, num_envs = batch["reward"].shape
        rows = length * num_envs
        obs = {name: value.flatten(0, 1) for name, value in batch["obs"].items()}
        with self.hardware.autocast():
            params, value = self.net(obs)
        value = self.value_scale * value.view(length + 1, num_envs)
        advantage = generalised_advantage(
            batch["reward"], value, batch["is_terminal"], batch["is_last"], self.discount, self.trace_decay
        ).flatten()
        params, value, valid = params[:rows], value[:-1].flatten(), batch["valid"].flatten()
        action, target = batch["action"].flatten(0, 1), advantage + value
        unexplained, total = advantage[valid].var(correction=0), target[valid].var(correction=0)
        metrics = {
            "ppo/entropy": self.family.entropy(params)[valid].mean(),
            "ppo/explained_variance": 1 - unexplained / total.clamp(min=1e-8),
        }
        inputs = {name: array[:rows] for name, array in obs.items()}
        log_prob, units = self.family.log_prob(params, action), 1.0 / self.value_scale
        return Minibatch(inputs, action, log_prob, advantage, target * units, value * units), valid, metrics

    def _optimise(self, minibatch: Minibatch, pace: Tensor) -> Outcome:
        """One optimiser step in place, its gradient accumulated over `accumulate` shares of the minibatch."""
        if self.normalise_advantage:
            variance, mean = torch.var_mean(minibatch.advantage, correction=0)
            minibatch = minibatch._replace(advantage=(minibatch.advantage - mean) / (variance.sqrt() + 1e-8))
        losses, gradients = [], []
        for share in _split(minibatch, min(self.accumulate, len(minibatch.action))):
            with torch.enable_grad():
                losses.append(self.loss(share))
                weight = len(share.action) / len(minibatch.action)
                gradients.append(self.optimiser.gradient(losses[-1].loss if weight == 1 else losses[-1].loss * weight))
        gradient = sum(gradients[1:], start=gradients[0])
        return Outcome(losses, gradient, self.optimiser.move(gradient, pace))

    def _loss(self, batch: Minibatch) -> Losses:
        with self.hardware.autocast():
            params, value = self.net(batch.obs)
        log_prob = self.family.log_prob(params, batch.action)
        ratio = (log_prob - batch.log_prob).exp()
        # max(-r A, -clip(r, 1 - eps, 1 + eps) A) = max(r C, C - eps |C|) with the cost C = -A
        cost = -batch.advantage
        policy_loss = torch.clamp(ratio * cost, min=cost - self.clip * cost.abs()).mean()
        value_loss = self._value_loss(value, batch)
        loss = policy_loss.add(value_loss, alpha=self.value_coefficient)
        if self.entropy:
            loss = loss - self.entropy * self.family.entropy(params).mean()
        return Losses(loss, policy_loss, value_loss, log_prob)

    def _value_loss(self, value: Tensor, batch: Minibatch) -> Tensor:
        if self.value_clip is None:
            return functional.mse_loss(value, batch.target)
        near = batch.value + (value - batch.value).clamp(-self.value_clip, self.value_clip)
        return torch.maximum((value - batch.target).square(), (near - batch.target).square()).mean()

    # -- State ---------------------------------------------------------------------------------------------------------

    def parameters(self) -> Mapping[str, Tensor]:
        return dict(self.net.named_parameters())

    def trace(self) -> dict[str, Mapping[str, Any]]:
        return self._first

    def state(self) -> dict[str, Any]:
        return {
            "parameters": {name: p.clone() for name, p in self.net.state_dict().items()},
            "optimiser": self.optimiser.state(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.net.load_state_dict(state["parameters"])
        if "optimiser" in state:
            self.optimiser.load(state["optimiser"])


def _split(batch: Minibatch, parts: int) -> list[Minibatch]:
    """Shares whose sizes differ by one at most, so that no minibatch is left with a single row."""
    edges = [len(batch.action) * part // parts for part in range(parts + 1)]
    return [batch.rows(slice(*edge)) for edge in itertools.pairwise(edges)] if parts > 1 else [batch]
