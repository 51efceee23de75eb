"""World-model agents: levels that act every k^i steps and tell each other goals. One class, and four of its uses:

    Dreamer    one level
    Director   two levels in one world: the higher sets goals in its latent space
    Hieros     a world of its own for every level, which observes the states of the one below
    and what lies between them.

Acting goes up and down: states are seen from the lowest world to the highest, then goals are told from the highest level to the
lowest. How they learn is in tier.py: each tier, levels that share a world, learns by itself from a replay of its own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from hieros_repro.agent import film, fitting
from hieros_repro.agent.assembly import assembled, by_level
from hieros_repro.agent.base import Agent
from hieros_repro.agent.goal import Code
from hieros_repro.agent.meanings import MEANINGS, hints
from hieros_repro.agent.tier import Tier
from hieros_repro.agent.upward import NOTHING, Upward, shown
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.nn.init import fill
from hieros_repro.ops.schedule import linear
from hieros_repro.records import (
    Arrays,
    Carry,
    Count,
    Fault,
    Hint,
    Memory,
    Natural,
    NonNegative,
    Positive,
    Request,
    Rows,
    Spaces,
    Step,
    Tree,
    takes_also,
)
from hieros_repro.world.base import Latent


class Hierarchy(Agent):
    remembers: ClassVar[tuple[str, ...]] = ("windows",)
    meanings: ClassVar[Mapping[str, str]] = MEANINGS

    @takes_also(assembled)
    def __init__(
        self,
        spaces: Spaces,
        key: Key,
        hardware: Hardware,
        horizon: int,
        *,
        name: str,
        train_ratio: NonNegative,
        subactor_train_every: Count | None,
        add_hierarchy_every: Natural,
        final_actor_entropy: NonNegative | Sequence[NonNegative] | None,
        goal_on_reset: Literal["renewed", "carried"],
        upward: Upward,
        optimiser: Callable[..., Any],
        learning_rate: Positive,
        behaviour_learning_rate: NonNegative,
        **design: Any,
    ):
        self.hardware, self.train_ratio, self.learning_rate, self.name = hardware, train_ratio, learning_rate, name
        self.upward, self.renewed, self.add_every = upward, goal_on_reset == "renewed", add_hierarchy_every
        self.tiers = assembled(spaces, hardware, upward, **design)
        self.clock, self.context = self.tiers[0].who.clock, self.tiers[0].practice.context
        self.train_every = subactor_train_every or self.clock
        count = sum(len(tier.names) for tier in self.tiers)
        begin, end = (by_level(value, count) for value in (design["actor_entropy"], final_actor_entropy))
        self.entropy = [linear(a, a if b is None else b, horizon) for a, b in zip(begin, end, strict=True)]
        self.least = 1  # tiers that act, whatever the number of updates: those whose parameters were loaded
        lowest, *upper = self.tiers
        self.net = nn.ModuleDict(dict(lowest.net.items()) | {f"upper_{tier.place}": tier.net for tier in upper})
        fill(self.net, key)
        self.net.to(hardware.device)
        for tier in self.tiers:
            tier.ready(optimiser, behaviour_learning_rate / learning_rate)
        self.choose = hardware.recorded(self._choose, [*self.net.parameters(), *self.net.buffers()])

    @classmethod
    def check(cls, **values: Any) -> Iterator[Fault]:
        return fitting.faults(**values)

    @classmethod
    def window(cls, **values: Any) -> int:
        return int(values["batch_length"]) + int(values["replay_context"])

    # -- Acting --------------------------------------------------------------------------------------------------------

    def initial(self, num_envs: int) -> Carry:
        """Per tier: its state, its last action, what it and those above it aim at; above the lowest, what it has seen of the
        world below and been paid since it acted last."""
        tiers = {}
        for tier in self.tiers:
            world = tier.who.world
            state = [torch.zeros(num_envs, width) for width in (world.deter, world.stoch, world.carried)]
            carry = {"state": dict(zip(Latent._fields, state, strict=True)), "action": torch.zeros(num_envs, tier.actions.size)}
            carry["aims"] = dict(enumerate(tier.who.no_aims(state[0])))
            if tier.below is not None:
                begun = torch.zeros(num_envs, dtype=torch.bool)
                window = self.upward.empty(tier.below, self.clock, num_envs)
                carry |= {"window": window, "paid": torch.zeros(num_envs), "begun": begun}
            tiers[tier.place] = carry
        age = torch.zeros(num_envs, dtype=torch.int64)  # ticks since the goals of an environment were first chosen
        return {"age": age, "tiers": self.hardware.to_device(tiers)}

    def act_noise(self, key: Key, ticks: int, num_envs: int) -> Arrays:
        shape = ticks, num_envs
        found: dict[str, np.ndarray] = {}
        for tier in self.tiers:
            drawn = tier.who.world.noise(key("world", *([tier.place] if tier.place else [])), shape)
            found |= {f"world_{tier.place}.{name}": value for name, value in drawn.items()}
            for i, level in enumerate(tier.who.levels, tier.place):
                found[f"level_{i}"] = level.actor.actions.noise(key("level", i), shape)
        return found

    @torch.no_grad()
    def act(self, now: Step, carry: Carry, noise: Arrays, greedy: bool = False) -> tuple[np.ndarray, Carry, dict[str, Rows]]:
        used = {name: value for name, value in noise.items() if not (greedy and name.startswith("level_"))}
        first, last = torch.from_numpy(now.is_first), torch.from_numpy(now.is_last)
        age = torch.where(first, 0, carry["age"]) if self.renewed else carry["age"]
        upper = self.tiers[1 : max(self._grown(self.tiers[0].updates), self.least)]
        moments = {tier.place: self.upward.due(age, first, last, self.clock**tier.place) for tier in upper}
        due = {place: moment for place, moment in moments.items() if moment.any()}
        given: dict[str, Any] = {
            "obs": dict(now.obs),
            "reward": now.reward,
            "first": first,
            "last": last,
            "age": age,
            "due": due,
            "noise": used,
        }
        if first.any():  # what only beginnings need is left out of other ticks, which are recorded by themselves
            given["beginning"] = first
        action, tiers, rows = self.choose(self.hardware.to_device(given), carry["tiers"])
        found = {}
        for place, row in rows.items():
            values = {name: value.cpu().numpy() for name, value in row.items()}
            flags = {"is_last": now.is_last, "is_terminal": now.is_terminal} if place else {}
            found[_replay(place)] = Rows(values | flags, due[place].numpy() if place else None)
        return action.cpu().numpy(), {"age": age + 1, "tiers": tiers}, found

    def _choose(self, given: dict[str, Any], before: dict[int, Any]) -> tuple[Tensor, dict[int, Any], dict[int, Any]]:
        """What is done, every tier's carry, and what those that acted remember."""
        now = {place: dict(carry) for place, carry in before.items()}
        rows: dict[int, dict[str, Tensor]] = {0: {}}
        with self.hardware.autocast():
            self._see(now[0], self.tiers[0], given["obs"], given.get("beginning"), given)
            for tier in self.tiers[1:]:
                rows |= self._look_down(tier, now, before, given)
            for tier in reversed(self.tiers):
                if tier.place in rows:
                    rows[tier.place] |= self._decide(tier, now, given)
        if not self.upward.kept:
            rows[0]["reward"] = given["reward"] * ~given["last"].any()
        return self.tiers[0].actions.to_env(now[0]["action"]), now, rows

    def _see(
        self, carry: dict[str, Any], tier: Tier, obs: Mapping[str, Tensor], first: Tensor | None, given: Mapping[str, Any]
    ) -> None:
        """The state of a tier's world, after one more observation. `first`: None where no environment is at its first."""
        start = f"world_{tier.place}."
        noise = {name.removeprefix(start): value for name, value in given["noise"].items() if name.startswith(start)}
        seen = tier.who.world.observe(
            {name: value.unsqueeze(0) for name, value in obs.items()},
            carry["action"].unsqueeze(0),
            None if first is None else first.unsqueeze(0),
            Latent(**carry["state"]),
            {name: value.unsqueeze(0) for name, value in noise.items()},
        )
        carry["state"] = seen.latent.flat()._asdict()

    def _look_down(self, tier: Tier, now: dict[int, Any], before: dict[int, Any], given: Mapping[str, Any]) -> dict[int, Any]:
        """An upper tier takes in what is below it; where it is due, its world goes on. Gives the rows of those that are."""
        assert tier.below is not None
        carry, due, first, under = now[tier.place], given["due"], given["first"], tier.place - 1
        state = Latent(**(now if self.upward.fresh else before)[under]["state"])
        moved = due.get(under, torch.zeros_like(first) if under else torch.ones_like(first))
        carry["window"] = self.upward.seen(carry["window"], tier.below.stored(state), moved, first)
        carry["paid"] = self.upward.paid(carry["paid"], given["reward"], first, given["last"])
        if tier.place not in due:
            return {}
        moment, begins, old = due[tier.place], first | ~carry["begun"], Latent(**carry["state"])
        self._see(carry, tier, shown(tier.below, carry["window"]), begins, given)
        carry["state"] = Latent(**carry["state"]).where(moment, old)._asdict()
        reward = torch.where(carry["begun"], carry["paid"], 0.0)  # of before a level was added it is told nothing
        reward = reward / self.clock**tier.place if tier.practice.pay.mean else reward
        row = {f"obs.{name}": value for name, value in carry["window"].items()}
        carry["paid"], carry["begun"] = torch.where(moment, 0.0, carry["paid"]), carry["begun"] | moment
        return {tier.place: row | {"reward": reward, "is_first": begins}}

    def _decide(self, tier: Tier, now: dict[int, Any], given: Mapping[str, Any]) -> dict[str, Tensor]:
        """The levels of a tier act, from the highest to the lowest; those whose goals are still good keep them."""
        who, carry, place = tier.who, now[tier.place], tier.place
        state, aims, action = Latent(**carry["state"]), list(carry["aims"].values()), carry["action"]
        told = now[place + 1]["action"] if who.told else None
        if told is not None:
            aims[-1] = who.hear(told)
        look = who.look(state)
        for i in reversed(range(len(who.levels))):
            kept = list(aims)
            action = who.decide(i, look, aims, given["noise"].get(f"level_{place + i}"))
            if i:
                aims[i - 1] = torch.where((given["age"] % who.clock**i == 0).unsqueeze(-1), aims[i - 1], kept[i - 1])
        if place:
            action = torch.where(given["due"][place].unsqueeze(-1), action, carry["action"])
        carry["aims"], carry["action"] = dict(enumerate(aims)), action
        row = {"action": tier.actions.to_env(action)} | (who.world.stored(state) if self.context else {})
        if told is not None:
            row["goal"] = _classes(told, who.goals)
            row |= {"meaning": who.goals.meaning(aims[-1])} if not tier.practice.downward.fresh else {}
        return row

    # -- Learning ------------------------------------------------------------------------------------------------------

    def replays(self) -> Mapping[str, Memory]:
        found = {}
        for tier in self.tiers:
            memory, extra = tier.memory(), 0
            if tier.below is not None:
                window = self.upward.empty(tier.below, self.clock, 1)
                extra += sum(value.nbytes for value in window.values())
            if tier.who.told:
                extra += tier.who.goals.shape[0] + 4 * tier.who.world.deter * (not tier.practice.downward.fresh)
            found[_replay(tier.place)] = memory._replace(row_bytes=memory.row_bytes + extra)
        return found

    def due(self, update: int) -> list[Request]:
        """Every tier that exists by then, at its own pace; the lowest is never waited for in vain."""
        tiers = [tier for tier in self.tiers[: self._grown(update)] if update % self.train_every**tier.place == 0]
        return [tier.request(_replay(tier.place), waits=tier.place == 0) for tier in tiers]

    def _grown(self, updates: int) -> int:
        """How many tiers there are after so many updates: one more after n of them, then after n^2 more, and so on."""
        if not self.add_every:
            return len(self.tiers)
        return 1 + sum(updates >= end for end in accumulate(self.add_every**i for i in range(1, len(self.tiers))))

    def learn_noise(self, key: Key, batches: Mapping[str, Any]) -> Tree:
        tiers = [tier for tier in self.tiers if _replay(tier.place) in batches]
        return {_replay(tier.place): tier.noise(key("tier", tier.place) if tier.place else key) for tier in tiers}

    @torch.no_grad()
    def learn(self, batches: Mapping[str, Any], noise: Mapping[str, Any], step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """One update of every tier that has a batch, each by itself."""
        metrics: dict[str, Any] = {}
        states: dict[str, Any] = {}
        gradients: dict[str, Any] = {}
        for tier in self.tiers:
            if _replay(tier.place) not in batches:
                continue
            for level, entropy in zip(tier.who.levels, self.entropy[tier.place :], strict=False):
                level.entropy.set(entropy(step))
            found, latent, gradient = tier.learn(batches[_replay(tier.place)], noise[_replay(tier.place)], self.learning_rate)
            metrics |= found
            states |= {_replay(tier.place): latent} if self.context else {}
            gradients |= {_path(tier, name): value for name, value in gradient.items()}
        self._first: Mapping[str, Mapping[str, Any]] = {"losses": metrics, "gradients": gradients}
        return metrics, states

    # -- Looking -------------------------------------------------------------------------------------------------------

    def film_noise(self, key: Key, batches: Mapping[str, Any]) -> dict[str, Any]:
        return film.noise(self.tiers, key)

    @torch.no_grad()
    def films(self, batches: Mapping[str, Any], noise: Mapping[str, Any]) -> dict[str, list[np.ndarray]]:
        with self.hardware.autocast():
            return film.films(self.tiers, [batches.get(_replay(tier.place)) for tier in self.tiers], noise)

    @torch.no_grad()
    def beside(self, carry: Carry) -> dict[str, np.ndarray]:
        with self.hardware.autocast():
            return film.aims(self.tiers, carry["tiers"])

    # -- State ---------------------------------------------------------------------------------------------------------

    def parameters(self) -> Mapping[str, Tensor]:
        return {name: p for name, p in self.net.named_parameters() if p.requires_grad}

    def parts(self) -> Mapping[str, int]:
        counts = {n: sum(p.numel() for p in part.parameters() if p.requires_grad) for n, part in self.net.items()}
        return {name: count for name, count in counts.items() if count}

    def hints(self) -> Sequence[Hint]:
        return hints(self.tiers)

    def trace(self) -> dict[str, Mapping[str, Any]]:
        return dict(self._first)

    def state(self) -> dict[str, Any]:
        parameters = {name: value.clone() for name, value in self.net.state_dict().items()}
        if self.add_every:
            parameters["tiers"] = torch.tensor(max(self._grown(self.tiers[0].updates), self.least))
        return {"parameters": parameters, "tiers": [tier.state() for tier in self.tiers]}

    def load(self, state: Mapping[str, Any]) -> None:
        parameters = dict(state["parameters"])
        grown = int(parameters.pop("tiers", 1))
        self.least = 1 if "tiers" in state else grown
        self.net.load_state_dict(parameters)
        for tier, own in zip(self.tiers, state.get("tiers", ()), strict="tiers" in state):
            tier.load(own)


def _replay(place: int) -> str:
    return f"windows_{place}" if place else "windows"


def _path(tier: Tier, name: str) -> str:
    """Of a parameter in the whole network."""
    return f"upper_{tier.place}.{name}" if tier.place else name


def _classes(code: Tensor, goals: Code) -> Tensor:
    """A code as bytes, 255 for none."""
    groups = code.unflatten(-1, goals.shape)
    return torch.where(groups.any(-1), groups.argmax(-1), NOTHING).to(torch.uint8)
