"""World-model agents: levels that learn in dreams of one world. With one level Dreamer, with two Director.

One update, from L rows of B windows of past experience:

    the world learns to reconstruct them and to predict what comes next;
    the goal code learns to say which states there are;
    from the states that were seen, everyone dreams on;
    every level learns to act from its own view of the dreams.

All of that is one loss, one gradient and one step, from the parameters as they were before the update.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hieros_repro.agent import film
from hieros_repro.agent.actor_critic import Critic
from hieros_repro.agent.base import Agent
from hieros_repro.agent.dream import Stack, roll_out, trajectories
from hieros_repro.agent.goal import Code
from hieros_repro.agent.level import Level, Replayed
from hieros_repro.agent.meanings import MEANINGS, hints
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.nn.block import Style
from hieros_repro.nn.init import fill
from hieros_repro.nn.optimiser import Group, LossScale
from hieros_repro.ops.action import actions
from hieros_repro.records import (
    Arrays,
    Carry,
    Count,
    Fault,
    Fraction,
    Hint,
    Memory,
    NonNegative,
    Positive,
    Request,
    Rows,
    Spaces,
    Step,
    Tree,
)
from hieros_repro.world.base import Latent, World
from hieros_repro.world.base import Rows as WorldRows


class Hierarchy(Agent):
    remembers: ClassVar[tuple[str, ...]] = ("windows",)
    meanings: ClassVar[Mapping[str, str]] = MEANINGS

    def __init__(
        self,
        spaces: Spaces,
        key: Key,
        hardware: Hardware,
        horizon: int,
        *,
        name: str,
        batch_size: Count,
        batch_length: Count,
        train_ratio: NonNegative,
        replay_context: Literal[0, 1],
        imag_horizon: Count,
        imag_starts: Count | None,
        subactor_update_every: Count,
        actor_entropy: NonNegative,
        norm: Literal["layer", "rms"],
        activation: Literal["tanh", "relu", "silu", "elu"],
        init: Literal["glorot", "fan_in"],
        unimix: Fraction,
        min_std: Positive,
        max_std: Positive,
        std_shift: float,
        world: Callable[..., World],
        goals: Callable[..., Code],
        levels: Mapping[str, Callable[..., Level]],
        goal_reward: Literal["kept", "renewed"],
        goal_on_reset: Literal["renewed", "carried"],
        long_step_reward: Literal["sum", "mean"],
        optimiser: Callable[..., Any],
        learning_rate: Positive,
        behaviour_learning_rate: NonNegative,
    ):
        self.hardware, self.train_ratio, self.learning_rate, self.name = hardware, train_ratio, learning_rate, name
        self.batch_size, self.batch_length, self.context = batch_size, batch_length, replay_context
        self.imag_horizon, self.goal_on_reset = imag_horizon, goal_on_reset
        self.starts = min(imag_starts or batch_size * batch_length, batch_size * batch_length)
        self.renewed, self.mean = goal_reward == "renewed", long_step_reward == "mean"
        style = Style(norm, activation, init)
        self.actions = actions(spaces.action, unimix, min_std, max_std, std_shift)
        names, model = list(levels), world(spaces.observation, self.actions.size, style)
        code = goals(model.deter, style)
        acts = [self.actions, *(code.actions(unimix) for _ in names[1:])]
        widths = [model.feature + code.width for _ in names[1:]] + [model.feature]  # nobody tells the highest anything
        stack = [make(*parts, style, actor_entropy) for make, *parts in zip(levels.values(), widths, acts, strict=True)]
        self.who = Stack(model, code, stack, subactor_update_every)
        self.net = nn.ModuleDict({"world": model, "goals": code} | dict(zip(names, stack, strict=True)))
        fill(self.net, key)
        self.net.to(hardware.device)
        groups = self._groups(names, behaviour_learning_rate / learning_rate)
        self.optimiser = optimiser(groups, LossScale() if hardware.precision == "fp16" else None)
        self.places = [_place(path, names) for path in groups]
        self.critics: list[Critic] = [critic.followed() for level in stack for critic in level.critics.values()]
        self.updates = 0
        acting = [*self.net.parameters(), *self.net.buffers()]
        learning = [*self.optimiser.held(), *(tensor for critic in self.critics for tensor in critic.slow.held())]
        self.choose = hardware.recorded(self._choose, acting)
        self.loss = hardware.compiled(self._loss)
        self.update = hardware.recorded(self._update, acting + learning)
        self._first: dict[str, Mapping[str, Tensor]] = {}

    @classmethod
    def check(cls, *, levels: Mapping[str, Any], goals: Any, **values: Any) -> Iterator[Fault]:
        """What the parts can be of use to each other for."""
        if values["min_std"] > values["max_std"]:
            yield Fault(
                "min_std", f"{values['min_std']} is more than max_std={values['max_std']}, the upper end of the deviation"
            )
        if not levels:
            yield Fault("levels", "there is none, and an agent needs one or more")
            return
        top, horizon, coded = len(levels) - 1, values["imag_horizon"], isinstance(goals, Mapping) and "codes" in goals
        period = values["subactor_update_every"] ** top
        if horizon % period:
            whole = f"{list(levels)[top]!r} acts every {period} steps, and a dream holds a whole number of them"
            yield Fault("imag_horizon", f"{horizon}: {whole}, e.g. {-(-horizon // period) * period}")
        if top and not coded:
            yield Fault("goals", "levels tell each other goals, so more than one needs hieros_repro.agent.goal.Goals")
        for i, (name, level) in enumerate(levels.items()):
            known = ["extrinsic", *(["novelty"] if coded else []), *(["goal"] if i < top else [])]
            of_level = _faults(name, level, known, _unfit_to_replay(level, single=not top, **values))
            yield from (Fault(".".join(("levels", str(name), *path)), problem) for path, problem in of_level)

    def _groups(self, names: list[str], behaviour: float) -> dict[str, Group]:
        """What is clipped together and learns at one rate, by its path in the network."""
        found: dict[str, tuple[nn.Module, float]] = {"world": (self.who.world, 1.0), "goals": (self.who.goals, 1.0)}
        for name, level in zip(names, self.who.levels, strict=True):
            found[f"{name}.actor"] = (level.actor, behaviour)
            found |= {f"{name}.critics.{reward}": (critic, behaviour) for reward, critic in level.critics.items()}
        learned = {
            path: Group({name: p for name, p in module.named_parameters() if p.requires_grad}, rate)
            for path, (module, rate) in found.items()
        }
        return {path: group for path, group in learned.items() if group.parameters}

    # -- Acting --------------------------------------------------------------------------------------------------------

    def initial(self, num_envs: int) -> Carry:
        latent = Latent(torch.zeros(num_envs, self.who.world.deter), torch.zeros(num_envs, self.who.world.stoch))
        carry = {
            "deter": latent.deter,
            "stoch": latent.stoch,
            "action": torch.zeros(num_envs, self.actions.size),
            "age": torch.zeros(num_envs, dtype=torch.int64),  # ticks since its goals were first chosen
            "aims": dict(enumerate(self.who.no_aims(latent.deter))),
        }
        return self.hardware.to_device(carry)

    def act_noise(self, key: Key, ticks: int, num_envs: int) -> Arrays:
        shape = (ticks, num_envs)
        drawn = {f"level_{i}": level.actor.actions.noise(key("level", i), shape) for i, level in enumerate(self.who.levels)}
        return {**self.who.world.noise(key("world"), shape), **drawn}

    @torch.no_grad()
    def act(self, now: Step, carry: Carry, noise: Arrays, greedy: bool = False) -> tuple[np.ndarray, Carry, dict[str, Rows]]:
        used = {name: value for name, value in noise.items() if not (greedy and name.startswith("level_"))}
        given = self.hardware.to_device({"obs": dict(now.obs), "first": now.is_first, "noise": used})
        action, carry = self.choose(given, carry)
        stored = self.who.world.stored(Latent(carry["deter"], carry["stoch"])) if self.context else {}
        rows = {name: value.cpu().numpy() for name, value in {"action": action, **stored}.items()}
        return rows["action"], carry, {"windows": Rows(rows)}

    def _choose(self, given: dict[str, Any], carry: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """Sees what is there, and acts; levels whose goals are still good keep them."""
        who, first, noise = self.who, given["first"], given["noise"]
        drawn = {name: noise[name] for name in noise if name.startswith("level_")}
        with self.hardware.autocast():
            seen = who.world.observe(
                {name: value.unsqueeze(0) for name, value in given["obs"].items()},
                carry["action"].unsqueeze(0),
                first.unsqueeze(0),
                Latent(carry["deter"], carry["stoch"]),
                {name: value.unsqueeze(0) for name, value in noise.items() if name not in drawn},
            )
            latent = seen.latent.flat()
            age = torch.where(first, 0, carry["age"]) if self.goal_on_reset == "renewed" else carry["age"]
            aims = list(carry["aims"].values())
            action = carry["action"]
            for i in reversed(range(len(who.levels))):
                before = list(aims)
                action = who.decide(i, latent.feature, aims, drawn.get(f"level_{i}"))
                if i:
                    aims[i - 1] = torch.where((age % who.clock**i == 0).unsqueeze(-1), aims[i - 1], before[i - 1])
        kept = {"deter": latent.deter, "stoch": latent.stoch, "action": action, "age": age + 1, "aims": dict(enumerate(aims))}
        return self.actions.to_env(action), kept

    # -- Learning ------------------------------------------------------------------------------------------------------

    def replays(self) -> Mapping[str, Memory]:
        kept = self.who.world.stored(self.who.world.initial(1)) if self.context else {}
        size = sum(value.nbytes for value in kept.values())
        return {"windows": Memory(self.batch_length + self.context, tuple(kept), row_bytes=size)}

    def due(self, update: int) -> list[Request]:
        return [Request("windows", self.batch_size, self.batch_length + self.context)]

    def learn_noise(self, key: Key, batches: Mapping[str, Any]) -> Tree:
        who, count, horizon = self.who, self.starts, self.imag_horizon
        rows = self.batch_size * self.batch_length
        calls = [horizon // who.clock**i + (i > 0) for i in range(len(who.levels))]
        drawn = [
            level.actor.actions.noise(key("level", i), (n, count))
            for i, (level, n) in enumerate(zip(who.levels, calls, strict=True))
        ]
        return {
            "observe": who.world.noise(key("observe"), (self.batch_length, self.batch_size)),
            "starts": np.arange(rows) if count == rows else key("starts").permutation(rows)[:count],
            "dream": who.world.noise(key("dream"), (horizon, count)),
            "levels": {str(i): noise for i, noise in enumerate(drawn)},
            "goals": who.goals.noise(key("goals"), rows, horizon * count),
        }

    @torch.no_grad()
    def learn(self, batches: Mapping[str, Any], noise: Mapping[str, Any], step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        self.updates += 1
        mixes = torch.tensor([critic.mix(self.updates) for critic in self.critics])
        pace = self.optimiser.pace(self.learning_rate)
        metrics, gradient, latent = self.update(batches["windows"], noise, pace, self.hardware.to_device(mixes))
        self._first = {"losses": metrics, "gradients": self.optimiser.named(gradient)}
        return metrics, {"windows": latent} if self.context else {}

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
        who = self.who
        rows, start = self._rows(batch)
        with self.hardware.autocast():
            seen = who.world.observe(rows.obs, rows.action, rows.is_first, start, noise["observe"])
            world = {name: loss.mean() for name, loss in who.world.losses(seen, rows).items()}
            latent = seen.latent.detach().flat()
            goals = who.goals.losses(latent.deter, noise["goals"])
            with torch.no_grad():
                began, drawn = noise["starts"], list(noise["levels"].values())
                dream = roll_out(who, latent.take(began), noise["dream"], drawn, self.imag_horizon)
                went_on = who.world.continue_target * (~rows.is_terminal).float().flatten()[began]
                views = trajectories(who, dream, went_on, noise["goals"], self.renewed, self.mean)
            judged = [level.judge(view) for level, view in zip(who.levels, views, strict=True)]
            losses = [*world.values(), *goals.values(), *(loss for j in judged for loss in (j.actor, j.critic))]
            real_loss = {}
            for level, j in zip(who.levels, judged, strict=True):
                if level.replay_value:
                    real = Replayed(seen.latent.feature, rows.reward, rows.is_last, rows.is_terminal)
                    boot = j.returns["extrinsic"][0].view_as(rows.reward)
                    real_loss["replay_value_loss"] = level.replay_loss(real, boot, who.world.continue_target)
        metrics = {"Subactor-0/wm_loss": torch.stack(list(world.values())).sum()}
        metrics |= {
            f"Subactor-0/{name}": value for name, value in {**world, **goals, **real_loss, **who.world.account(seen)}.items()
        }
        for i, j in enumerate(judged):
            own = {"actor_loss": j.actor, "critic_loss": j.critic, **j.metrics}
            metrics |= {f"Subactor-{i}/{name}": value for name, value in own.items()}
        return torch.stack([*losses, *real_loss.values()]).sum(), metrics, seen.latent.detach()

    def _rows(self, batch: dict[str, Any]) -> tuple[WorldRows, Latent]:
        """Time first, and with the action that led to each row; the state before the first of them."""
        context = self.context
        acted = self.actions.from_env(batch["action"])
        before = torch.cat([torch.zeros_like(acted[:, :1]), acted], 1)[:, context:-1]
        flags = [batch[name][:, context:].transpose(0, 1) for name in ("reward", "is_first", "is_last", "is_terminal")]
        obs = {name: value[:, context:].transpose(0, 1) for name, value in batch["obs"].items()}
        world = self.who.world
        start = world.restored({name: batch[name] for name in world.remembers}) if context else world.initial(len(acted))
        return WorldRows(obs, before.transpose(0, 1), *flags), start

    def _refreshed(self, latent: Latent) -> dict[str, Tensor]:
        """The states of a batch's rows, as the replay keeps them; not of the row before the first, which was only looked up."""
        if not self.context:
            return {}
        return {name: value.transpose(0, 1) for name, value in self.who.world.stored(latent).items()}

    # -- Looking -------------------------------------------------------------------------------------------------------

    def film_noise(self, key: Key, batches: Mapping[str, Any]) -> dict[str, Any]:
        return film.noise(self.who, key, self.batch_length, self.batch_size)

    @torch.no_grad()
    def films(self, batches: Mapping[str, Any], noise: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
        with self.hardware.autocast():
            return film.films(self.who, *self._rows(batches["windows"]), noise)

    @torch.no_grad()
    def beside(self, carry: Carry) -> np.ndarray | None:
        with self.hardware.autocast():
            return film.aim(self.who, carry["aims"][0])

    # -- State ---------------------------------------------------------------------------------------------------------

    def parameters(self) -> Mapping[str, Tensor]:
        return {name: p for name, p in self.net.named_parameters() if p.requires_grad}

    def parts(self) -> Mapping[str, int]:
        counts = {n: sum(p.numel() for p in part.parameters() if p.requires_grad) for n, part in self.net.items()}
        return {name: count for name, count in counts.items() if count}

    def hints(self) -> Sequence[Hint]:
        return hints(self.who, self.mean)

    def trace(self) -> dict[str, Mapping[str, Any]]:
        return self._first

    def state(self) -> dict[str, Any]:
        return {
            "parameters": {name: value.clone() for name, value in self.net.state_dict().items()},
            "slow": [critic.slow.state() for critic in self.critics],
            "optimiser": self.optimiser.state(),
            "updates": self.updates,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.net.load_state_dict(state["parameters"])
        if "optimiser" in state:
            for critic, slow in zip(self.critics, state["slow"], strict=True):
                critic.slow.load(slow)
            self.optimiser.load(state["optimiser"])
            self.updates = state["updates"]


def _place(path: str, names: list[str]) -> str:
    """Under which metric name the figures of a group of parameters go."""
    head, *rest = path.split(".")
    if head not in names:
        return "Subactor-0/" + {"world": "wm", "goals": "subgoal"}[head]
    return f"Subactor-{names.index(head)}/" + ("actor" if rest == ["actor"] else f"{rest[1]}_critic")


# -- Faults of a configuration ---------------------------------------------------------------------------------------------


def _faults(name: Any, level: Any, known: Sequence[str], unfit: str | None) -> Iterator[tuple[tuple[str, ...], str]]:
    """Of one level, by the path within its node."""
    if not isinstance(name, str) or "." in name or name in ("world", "goals") or hasattr(nn.ModuleDict(), name):
        yield (), "no level may be named so; any other word will do"
    if not isinstance(level, Mapping) or "_target_" not in level:
        yield (), "a level with a _target_ is needed"
        return
    for reward in sorted(reward for reward, weight in (level.get("rewards") or {}).items() if weight and reward not in known):
        near = difflib.get_close_matches(reward, known, n=1, cutoff=0.5)
        yield ("rewards", reward), f"this level knows {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else "")
    if unfit:
        yield ("replay_value",), f"{level['replay_value']}: {unfit}"


def _unfit_to_replay(
    level: Any, single: bool, batch_size: int, batch_length: int, imag_starts: int | None, **others: Any
) -> str | None:
    """Why a level cannot learn values of replayed rows, if it is to."""
    if not isinstance(level, Mapping) or not level.get("replay_value"):
        return None
    whole = imag_starts is None or imag_starts >= batch_size * batch_length
    if not (single and whole and (level.get("rewards") or {}).get("extrinsic")):
        return (
            "values of replayed rows need an agent of one level that learns from extrinsic reward, and a dream from every row "
            "(agent.imag_starts=null)"
        )
    return "values of replayed rows need windows of 2 rows or more (agent.batch_length)" if batch_length < 2 else None
