"""Deep Q-learning (Mnih et al. 2015) with double estimates and n-step returns, complete.

One update: from windows of n + 1 rows of past experience, one optimiser step on

    L = E[ huber( Q(s_0, a_0) - y ) ],     y = sum_{t=1..m} gamma^(t-1) r_t / k  +  gamma^m Q'(s_m, argmax_a Q(s_m, a))

with m = n, or less where the episode ends sooner. Q chooses, its older copy Q' values the choice (van Hasselt et al. 2016).
Q is the value in units of k = value_scale; k = 1 is the textbook's. Beyond an error of 1 unit the Huber loss counts votes, not
distances: with values of 100 the few terminal rows are outvoted and Q grows without bound; with k near the returns they count.

Row t is an observation, the reward and flags that came with it, and the action taken at it. So r_1 pays for a_0, and a window
may run on into the next episode, which has no part in y: m is the last row of the first row's own episode. Where that row is
terminal nothing follows and Q' is left out; after a time-out the world would have gone on, and Q' says how well. A window whose
first row was its episode's last holds no transition and has no weight.
"""

import copy
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
from hieros_repro.nn.mlp import Linear, Towers
from hieros_repro.nn.optimiser import Adam, Flat, LossScale
from hieros_repro.ops.schedule import linear
from hieros_repro.records import (
    Arrays,
    Carry,
    Count,
    Fraction,
    Memory,
    NonNegative,
    Positive,
    Request,
    Rows,
    Spaces,
    Step,
    UserError,
)


class QNetwork(Observing):
    """Observations -> the value of every action."""

    epsilon: Tensor

    def __init__(self, spaces: Spaces, hidden: list[int], activation: str, image_depth: int):
        super().__init__(spaces.observation, image_depth)
        self.tower = Towers(1, self.inputs, hidden, activation)
        self.head = Linear(hidden[-1] if hidden else self.inputs, spaces.action.sizes[0])
        self.register_buffer("epsilon", torch.ones(()))  # how often it explores: a part of what acting needs

    def forward(self, obs: dict[str, Tensor]) -> Tensor:
        return self.head(self.tower.member(0, self.features(obs))).float()


class Ahead(NamedTuple):
    """What followed the first row of each window within its episode."""

    reward: Tensor  # discounted sum of the rewards on the way
    row: Tensor  # the row m at which it ended; 0 where there was no way to go
    discount: Tensor  # of what comes after that row: gamma^m, 0 where it is terminal


def look_ahead(batch: Mapping[str, Tensor], discount: float) -> Ahead:
    """Sums the rewards of (B, n + 1) rows from row 1 on, up to the last row of the first row's episode."""
    reward, is_last, is_terminal = batch["reward"], batch["is_last"], batch["is_terminal"]
    going = torch.ones_like(is_last[:, 0])
    total = torch.zeros_like(reward[:, 0])
    row, factor = torch.zeros_like(going, dtype=torch.int64), torch.zeros_like(total)
    for t in range(1, reward.shape[1]):
        going = going & ~is_last[:, t - 1]
        total = torch.where(going, total + discount ** (t - 1) * reward[:, t], total)
        factor = torch.where(going, discount**t * (~is_terminal[:, t]).float(), factor)
        row = row + going
    return Ahead(total, row, factor)


class Losses(NamedTuple):
    """What the windows of an update came to."""

    loss: Tensor
    value: Tensor  # (B,) of the actions taken, in the network's units
    target: Tensor  # (B,) what it should have been, in the same
    valid: Tensor  # (B,) 1 for windows that hold a transition, else 0


class DQN(Agent):
    remembers: ClassVar[tuple[str, ...]] = ("windows",)
    meanings: ClassVar[Mapping[str, str]] = {
        "dqn/loss": "Huber loss of the values of the actions taken against their n-step targets, both / value_scale",
        "dqn/value": "mean value of the actions taken",
        "dqn/error": "mean distance between the value of an action taken and its target",
        "dqn/valid": "share of windows that hold a transition",
        "dqn/grad_norm": "gradient norm before clipping",
        "dqn/learning_rate": "learning rate of the update",
        "dqn/epsilon": "share of actions that are drawn at random from this update on",
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
        batch_size: Count,
        train_ratio: NonNegative,
        n_step: Count,
        discount: Fraction,
        value_scale: Positive,
        epsilon: Fraction,
        final_epsilon: Fraction,
        exploration_steps: Count,
        target_every: Count,
        max_grad_norm: NonNegative | None,
        adam_eps: NonNegative,
    ):
        if spaces.action.kind != "discrete":
            raise UserError(f"agent=dqn needs discrete actions, these are {spaces.action.kind}: agent=ppo takes any kind")
        self.hardware, self.actions = hardware, spaces.action.sizes[0]
        self.net = QNetwork(spaces, hidden, activation, image_depth)
        fill(self.net, key)
        self.net.to(hardware.device)
        self.target = copy.deepcopy(self.net).requires_grad_(False)
        scale = LossScale() if hardware.precision == "fp16" else None
        self.optimiser = Adam(dict(self.net.named_parameters()), eps=adam_eps, max_norm=max_grad_norm, scale=scale)
        self.target_flat = Flat(dict(self.target.named_parameters()))
        self.learning_rate = linear(learning_rate, final_learning_rate, horizon)
        self.epsilon = linear(epsilon, final_epsilon, exploration_steps)
        self.net.epsilon.fill_(self.epsilon(0))
        self.batch_size, self.train_ratio, self.n_step, self.discount = batch_size, train_ratio, n_step, discount
        self.value_scale, self.target_every = value_scale, target_every
        self.updates = 0
        self.loss = hardware.compiled(self._loss)
        self.optimise = hardware.recorded(self._optimise, [*self.optimiser.held(), *self.target.parameters()])
        self.choose = hardware.recorded(self._choose, [*self.net.parameters(), self.net.epsilon])
        self._first: dict[str, Mapping[str, Tensor]] = {}

    # -- Acting --------------------------------------------------------------------------------------------------------

    def initial(self, num_envs: int) -> Carry:
        return {}

    def act_noise(self, key: Key, ticks: int, num_envs: int) -> Arrays:
        shape = (ticks, num_envs)
        return {"coin": key("coin").uniform(shape), "action": key("action").integers(self.actions, shape)}

    @torch.no_grad()
    def act(self, now: Step, carry: Carry, noise: Arrays, greedy: bool = False) -> tuple[np.ndarray, Carry, dict[str, Rows]]:
        given = (now.obs,) if greedy else (now.obs, noise["coin"], noise["action"])
        action = self.choose(*map(self.hardware.to_device, given)).cpu().numpy()
        return action, carry, {"windows": Rows({"action": action})}

    def _choose(self, obs: dict[str, Tensor], *noise: Tensor) -> Tensor:
        """The best actions; given noise, where the coin falls below epsilon, the random ones."""
        with self.hardware.autocast():
            best = self.net(obs).argmax(-1)
        if not noise:
            return best
        coin, random = noise
        return torch.where(coin < self.net.epsilon, random, best)

    # -- Learning ------------------------------------------------------------------------------------------------------

    @classmethod
    def window(cls, **values: Any) -> int:
        return int(values["n_step"]) + 1

    def replays(self) -> Mapping[str, Memory]:
        return {"windows": Memory(length=self.window(n_step=self.n_step))}

    def due(self, update: int) -> list[Request]:
        return [Request("windows", self.batch_size, self.n_step + 1)]

    @torch.no_grad()
    def learn(self, batches: Mapping[str, Any], noise: Mapping[str, Any], step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        rate = self.learning_rate(step)
        losses, gradient, grad_norm = self.optimise(batches["windows"], self.optimiser.pace(rate))
        self.updates += 1
        if self.updates % self.target_every == 0:
            self.target_flat.values.copy_(self.optimiser.flat.values)
        self.net.epsilon.fill_(self.epsilon(step))
        self._first = {"losses": losses._asdict(), "gradients": self.optimiser.named(gradient)}
        held = losses.valid.sum().clamp(min=1)
        metrics = {
            "dqn/loss": losses.loss,
            "dqn/value": self.value_scale * (losses.valid * losses.value).sum() / held,
            "dqn/error": self.value_scale * (losses.valid * (losses.target - losses.value).abs()).sum() / held,
            "dqn/valid": losses.valid.mean(),
            "dqn/grad_norm": grad_norm,
            "dqn/learning_rate": rate,
            "dqn/epsilon": self.epsilon(step),
        }
        return metrics, {}

    def _optimise(self, batch: dict[str, Any], pace: Tensor) -> tuple[Losses, Tensor, Tensor]:
        """One optimiser step in place: its losses, its gradient as one vector, and the gradient's norm before clipping."""
        with torch.enable_grad():
            losses = self.loss(batch)
            gradient = self.optimiser.gradient(losses.loss)
        return Losses(*map(Tensor.detach, losses)), gradient, self.optimiser.move(gradient, pace)

    def _loss(self, batch: dict[str, Any]) -> Losses:
        ahead = look_ahead(batch, self.discount)
        window = torch.arange(len(ahead.row), device=ahead.row.device)
        start = {name: obs[:, 0] for name, obs in batch["obs"].items()}
        end = {name: obs[window, ahead.row] for name, obs in batch["obs"].items()}
        with self.hardware.autocast():
            value = _of(self.net(start), batch["action"][:, 0])
            with torch.no_grad():
                following = _of(self.target(end), self.net(end).argmax(-1))
        target, valid = ahead.reward / self.value_scale + ahead.discount * following, (ahead.row > 0).float()
        errors = functional.huber_loss(value, target, reduction="none")
        return Losses((valid * errors).sum() / valid.sum().clamp(min=1), value, target, valid)

    # -- State ---------------------------------------------------------------------------------------------------------

    def parameters(self) -> Mapping[str, Tensor]:
        return dict(self.net.named_parameters())

    def trace(self) -> dict[str, Mapping[str, Any]]:
        return self._first

    def state(self) -> dict[str, Any]:
        return {
            "parameters": {name: p.clone() for name, p in self.net.state_dict().items()},
            "target": {name: p.clone() for name, p in self.target.state_dict().items()},
            "optimiser": self.optimiser.state(),
            "updates": self.updates,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.net.load_state_dict(state["parameters"])
        if "optimiser" in state:
            self.target.load_state_dict(state["target"])
            self.optimiser.load(state["optimiser"])
            self.updates = state["updates"]


def _of(values: Tensor, action: Tensor) -> Tensor:
    """The value of one action per row."""
    return values.gather(-1, action.unsqueeze(-1)).squeeze(-1)
