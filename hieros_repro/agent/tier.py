"""A tier of a hierarchy: levels that share a world, and how they learn. Dreamer and Director are one tier, Hieros is one tier
per level.

One update, from L rows of B windows of past experience:

    the world learns to reconstruct them and to predict what comes next;
    the goal code learns to say which states there are;
    from the states that were seen, everyone dreams on;
    every level learns to act from its own view of the dreams.

All of that is one loss, one gradient and one step, from the parameters as they were before the update.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from hieros_repro.agent.actor_critic import Critic
from hieros_repro.agent.dream import Pay, Stack, Told, roll_out, trajectories
from hieros_repro.agent.level import Replayed
from hieros_repro.agent.upward import shown
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.nn.optimiser import Group, LossScale
from hieros_repro.ops.action import Actions
from hieros_repro.ops.sequence import following
from hieros_repro.records import Memory, Request, Tree
from hieros_repro.world.base import Latent, World
from hieros_repro.world.base import Rows as WorldRows


class Downward:
    """What a tier makes of the goals it is told from above. The original code's ways are the second choices."""

    def __init__(self, *, in_dreams: Literal["moving", "held"], meaning: Literal["fresh", "stored"]):
        self.moving, self.fresh = in_dreams == "moving", meaning == "fresh"


class Practice(NamedTuple):
    """From what a tier learns."""

    batch_size: int
    batch_length: int
    context: int  # rows before those that are learned from, for the state to begin with
    horizon: int
    starts: int  # of dreams
    pay: Pay
    downward: Downward
    aligned: bool  # the world is shown each row with the action that led there, not with the one chosen there


class Tier:
    """Levels from the lowest up, by name, over a world. `below`: the world whose states this one observes, if one does."""

    def __init__(
        self,
        place: int,
        who: Stack,
        names: list[str],
        actions: Actions,
        below: World | None,
        practice: Practice,
        hardware: Hardware,
    ):
        self.place, self.who, self.names, self.actions = place, who, names, actions
        self.below, self.practice, self.hardware = below, practice, hardware
        self.net = nn.ModuleDict({"world": who.world, "goals": who.goals} | dict(zip(names, who.levels, strict=True)))

    def ready(self, optimiser: Callable[..., Any], behaviour: float) -> None:
        """The parameters are where they will stay. `behaviour`: the learning rate of actors and critics, relative."""
        groups = self._groups(behaviour)
        self.optimiser = optimiser(groups, LossScale() if self.hardware.precision == "fp16" else None)
        self.places = [self._place(path) for path in groups]
        self.critics: list[Critic] = [critic.followed() for level in self.who.levels for critic in level.critics.values()]
        self.updates = 0
        slow = [tensor for critic in self.critics for tensor in critic.slow.held()]
        held = [*self.net.parameters(), *self.net.buffers(), *self.optimiser.held(), *slow]
        self.loss = self.hardware.compiled(self._loss)
        self.update = self.hardware.recorded(self._update, held)

    def _groups(self, behaviour: float) -> dict[str, Group]:
        """What is clipped together and learns at one rate, by its path in the network."""
        found: dict[str, tuple[nn.Module, float]] = {"world": (self.who.world, 1.0), "goals": (self.who.goals, 1.0)}
        for name, level in zip(self.names, self.who.levels, strict=True):
            found[f"{name}.actor"] = (level.actor, behaviour)
            found |= {f"{name}.critics.{reward}": (critic, behaviour) for reward, critic in level.critics.items()}
        learned = {
            path: Group({name: p for name, p in module.named_parameters() if p.requires_grad}, rate)
            for path, (module, rate) in found.items()
        }
        return {path: group for path, group in learned.items() if group.parameters}

    def _place(self, path: str) -> str:
        """Under which metric name the figures of a group of parameters go."""
        head, *rest = path.split(".")
        if head not in self.names:
            return self.metric({"world": "wm", "goals": "subgoal"}[head])
        return self.metric("actor" if rest == ["actor"] else f"{rest[1]}_critic", self.names.index(head))

    def metric(self, name: str, level: int = 0) -> str:
        """What is of the world or the goal code goes under the tier's lowest level."""
        return f"Subactor-{self.place + level}/{name}"

    # -- Learning ------------------------------------------------------------------------------------------------------

    def memory(self) -> Memory:
        """What it needs of its replay. One that observes another world's states keeps them among its own rows."""
        world, length = self.who.world, self.practice.batch_length + self.practice.context
        kept = world.stored(world.initial(1)) if self.practice.context else {}
        size = sum(value.nbytes for value in kept.values())
        return Memory(length, tuple(kept), observes=self.below is None, row_bytes=size, every=self.who.clock**self.place)

    def request(self, replay: str, waits: bool) -> Request:
        return Request(replay, self.practice.batch_size, self.practice.batch_length + self.practice.context, waits)

    def noise(self, key: Key) -> Tree:
        """The random numbers of an update."""
        who, count, horizon = self.who, self.practice.starts, self.practice.horizon
        length, size = self.practice.batch_length, self.practice.batch_size
        calls = [horizon // who.clock**i + (i > 0) for i in range(len(who.levels))]
        drawn = [
            level.actor.actions.noise(key("level", i), (n, count))
            for i, (level, n) in enumerate(zip(who.levels, calls, strict=True))
        ]
        rows = length * size
        learned = horizon * count if who.goals.from_dreams else rows
        return {
            "observe": who.world.noise(key("observe"), (length, size)),
            "starts": np.arange(rows) if count == rows else key("starts").permutation(rows)[:count],
            "dream": who.world.noise(key("dream"), (horizon, count)),
            "levels": {str(i): noise for i, noise in enumerate(drawn)},
            "goals": who.goals.noise(key("goals"), learned, horizon * count),
        }

    def learn(self, batch: Mapping[str, Any], noise: Mapping[str, Any], rate: float) -> tuple[dict[str, Any], ...]:
        """One update: metrics, what is to be written back, and gradients by parameter."""
        self.updates += 1
        mixes = torch.tensor([critic.mix(self.updates) for critic in self.critics])
        metrics, gradient, latent = self.update(batch, noise, self.optimiser.pace(rate), self.hardware.to_device(mixes))
        return metrics, latent, self.optimiser.named(gradient)

    def _update(
        self, batch: dict[str, Any], noise: dict[str, Any], pace: Tensor, mixes: Tensor
    ) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
        """One step in place: metrics, gradient, and the states to be written back."""
        with torch.enable_grad():
            loss, metrics, latent = self.loss(batch, noise)
            gradient = self.optimiser.gradient(loss)
        norms = self.optimiser.move(gradient, pace)
        for critic, mix in zip(self.critics, mixes.unbind(0), strict=True):
            critic.slow.follow(mix)
        metrics |= {f"{place}_grad_norm": norm for place, norm in zip(self.places, norms.unbind(0), strict=True)}
        return {name: value.detach() for name, value in metrics.items()}, gradient, self._refreshed(latent)

    def _loss(self, batch: dict[str, Any], noise: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor], Latent]:
        """The sum of everything that is learned; what it consists of; the states that were seen."""
        who, practice = self.who, self.practice
        rows, start = self.rows(batch)
        with self.hardware.autocast():
            seen = who.world.observe(rows.obs, rows.action, rows.is_first, start, noise["observe"])
            world = {name: loss.mean() for name, loss in who.world.losses(seen, rows).items()}
            latent = seen.latent.detach().flat()
            with torch.no_grad():
                began, drawn = noise["starts"], list(noise["levels"].values())
                told = self.told_in_dreams(batch, began)
                dream = roll_out(who, latent.take(began), noise["dream"], drawn, practice.horizon, told.aim)
            known = dream.deter[1:].flatten(0, 1) if who.goals.from_dreams else latent.deter
            goals, rebuilt = who.goals.losses(known, noise["goals"])
            rebuilt = rebuilt if who.goals.from_dreams else None
            with torch.no_grad():
                went_on = who.world.continue_target * (~rows.is_terminal).float().flatten()[began]
                views = trajectories(who, dream, told.meaning, went_on, noise["goals"], practice.pay, rebuilt)
            judged = [level.judge(view) for level, view in zip(who.levels, views, strict=True)]
            losses = [*world.values(), *goals.values(), *(loss for j in judged for loss in (j.actor, j.critic))]
            real_loss = {}
            for level, j in zip(who.levels, judged, strict=True):
                if level.replay_value:
                    real = Replayed(who.look(seen.latent), rows.reward, rows.is_last, rows.is_terminal)
                    boot = j.returns["extrinsic"][0].view_as(rows.reward)
                    real_loss["replay_value_loss"] = level.replay_loss(real, boot, who.world.continue_target)
        of_world = {**world, **goals, **real_loss, **who.world.account(seen)}
        metrics = {self.metric("wm_loss"): torch.stack(list(world.values())).sum()}
        metrics |= {self.metric(name): value for name, value in of_world.items()}
        for i, j in enumerate(judged):
            own = {"actor_loss": j.actor, "critic_loss": j.critic, **j.metrics}
            metrics |= {self.metric(name, i): value for name, value in own.items()}
        return torch.stack([*losses, *real_loss.values()]).sum(), metrics, seen.latent.detach()

    def rows(self, batch: Mapping[str, Any]) -> tuple[WorldRows, Latent]:
        """Time first, and with the action that led to each row; the state before the first of them."""
        context, world = self.practice.context, self.who.world
        acted = self.actions.from_env(batch["action"])
        if self.practice.aligned:
            acted = torch.cat([torch.zeros_like(acted[:, :1]), acted], 1)[:, :-1]
        acted = acted[:, context:]
        flags = [batch[name][:, context:].transpose(0, 1) for name in ("reward", "is_first", "is_last", "is_terminal")]
        obs = batch["obs"] if self.below is None else shown(self.below, batch["obs"])
        obs = {name: value[:, context:].transpose(0, 1) for name, value in obs.items()}
        start = world.restored({name: batch[name] for name in world.remembers}) if context else world.initial(len(acted))
        return WorldRows(obs, acted.transpose(0, 1), *flags), start

    def told(self, batch: Mapping[str, Any]) -> Told:
        """What the highest level was told with every row (T, B, .), and what that means."""
        goals, first = self.who.goals, batch["reward"].transpose(0, 1)[self.practice.context :]
        if not self.who.told:
            return Told(first.new_zeros(*first.shape, 0), first.new_zeros(*first.shape, 0))
        classes = batch["goal"].transpose(0, 1)[self.practice.context :].unsqueeze(-1)
        code = (classes == torch.arange(goals.size // classes.shape[-2], device=classes.device)).float().flatten(-2)
        aim = self.who.hear(code)
        if self.practice.downward.fresh:
            return Told(aim, goals.meaning(aim))
        return Told(aim, batch["meaning"].transpose(0, 1)[self.practice.context :])

    def told_in_dreams(self, batch: Mapping[str, Any], began: Tensor) -> Told:
        """The same for dreams that begin in some of the rows, (H + 1, N, .): goals go on as they did in life, or the first one
        lasts."""
        horizon = self.practice.horizon
        found = [following(part, horizon)[:, began] for part in self.told(batch)]
        return Told(*(part if self.practice.downward.moving else part[:1].expand_as(part) for part in found))

    def _refreshed(self, latent: Latent) -> dict[str, Tensor]:
        """The states of a batch's rows, as the replay keeps them; not of the row before the first, which was only looked up."""
        if not self.practice.context:
            return {}
        return {name: value.transpose(0, 1) for name, value in self.who.world.stored(latent).items()}

    # -- State ---------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        slow = [critic.slow.state() for critic in self.critics]
        return {"slow": slow, "optimiser": self.optimiser.state(), "updates": self.updates}

    def load(self, state: Mapping[str, Any]) -> None:
        for critic, slow in zip(self.critics, state["slow"], strict=True):
            critic.slow.load(slow)
        self.optimiser.load(state["optimiser"])
        self.updates = state["updates"]
