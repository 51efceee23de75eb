"""The loop of every agent: act, step, remember, learn, look, log, save."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from hieros_repro.agent.base import Agent
from hieros_repro.determinism import snapshot
from hieros_repro.determinism.keys import Key
from hieros_repro.determinism.ledger import Ledger, shown
from hieros_repro.determinism.settings import Settings
from hieros_repro.env.normalise import Normaliser
from hieros_repro.env.vector import Vector
from hieros_repro.hardware.device import Hardware
from hieros_repro.log.base import Log, plain_number
from hieros_repro.log.tally import Tally
from hieros_repro.log.timing import Forecast, Rates, Stopwatch
from hieros_repro.records import Carry, Diverged, Step, Stopped, Tree
from hieros_repro.replay.base import Replay
from hieros_repro.run.evaluation import Evaluator, NoiseFeed, Result
from hieros_repro.run.feed import Feed
from hieros_repro.run.finite import not_finite
from hieros_repro.run.schedule import Pace, Plan, due


class Parts(NamedTuple):
    """What a run is made of."""

    key: Key
    hardware: Hardware
    envs: Vector
    normaliser: Normaliser
    agent: Agent
    replays: Mapping[str, Replay]
    evaluator: Evaluator
    log: Log
    save: Callable[[int, Mapping[str, Tree]], None]
    keep_best: Callable[[int, float, Tree], None]
    pictures: Callable[[Vector], Mapping[str, np.ndarray]]
    frames: int = 1  # environment frames per step


class Loop:
    """Runs until `plan.steps` or until `stop` says so. Everything that must survive a restart is in `state`."""

    def __init__(self, parts: Parts, plan: Plan, stop: Callable[[], bool], settings: Settings):
        self.parts, self.plan, self.stop, self.settings = parts, plan, stop, settings
        self.ledger = Ledger(parts.log.ledger, plan.fingerprint_every)
        self.feed = Feed(parts.agent, parts.replays, parts.key, parts.hardware)
        self.noise = NoiseFeed(parts.key("act"), parts.agent, parts.envs.num_envs)
        self.pace = Pace(parts.agent.train_ratio)
        self.watch = Stopwatch()
        self.forecast = Forecast(self.watch, plan.steps, plan.episodes_ahead, parts.log.say)
        self.rates = Rates(self.watch, self.forecast)
        self.step = self.tick = self.update = 0
        self.now: Step | None = None
        self.carry: Carry = None
        self.evaluations: list[list[float]] = []  # [step, mean score], scheduled ones
        self.tally = Tally()
        self._learned: Mapping[str, Any] = {}  # metrics, each of the latest update that gave it
        self._shown: Mapping[str, Any] = {}  # batches, each of the latest update that had it
        self._looked = {"fingerprint": 0, "log": 0, "eval": 0, "video": 0}  # the step at which each was last done

    def run(self) -> Result | None:
        """All remaining ticks, then the final evaluation."""
        parts, plan = self.parts, self.plan
        if self.now is None:
            self._begin(parts.envs.reset())
        self.rates.start(self.step, self.update)
        self.forecast.start(self.update, learns=bool(parts.replays))
        self._look()  # what was due when the run was stopped
        if 0 < self.step < plan.steps and self.stop():  # what was cut short again is due at this very step
            parts.save(self.step, self.state())
            raise Stopped(f"stopped at step {self.step:,} with a checkpoint")
        while self.step < plan.steps:
            before = self.step
            self._tick()
            self.forecast.see(self.step, self.update)
            self._look()
            stopping = self.stop()
            if stopping or self.step >= plan.steps or due(before, self.step, plan.checkpoint_every):
                parts.save(self.step, self.state())
                self.watch.lap("save")
            if stopping and self.step < plan.steps:
                raise Stopped(f"stopped at step {self.step:,} with a checkpoint")
        if not plan.final_episodes:
            return None
        final = self._evaluate(plan.final_episodes)
        if final is None:
            raise Stopped(f"stopped during the final evaluation; the checkpoint of step {self.step:,} has everything else")
        return final

    def _begin(self, first: Step) -> None:
        """The first rows of new episodes everywhere."""
        self.now = self.parts.normaliser(first)
        self.carry = self.parts.agent.initial(self.parts.envs.num_envs)
        self.ledger.see(shown(self.now))

    # -- One tick ------------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """act, step, remember, learn."""
        transitions = self._collect() if self.plan.collect else self.parts.envs.num_envs
        self.step, self.tick = self.step + transitions, self.tick + 1
        if self.update or self.feed.ready(0, self.step >= self.plan.steps):  # nothing is owed for steps before that
            self.pace.earn(transitions)
        while self._learn_once():
            self.watch.lap("learn")

    def _collect(self) -> int:
        """One tick of every environment, remembered. Returns how many transitions it brought."""
        parts, watch, now = self.parts, self.watch, self.now
        assert now is not None
        action, self.carry, rows = parts.agent.act(now, self.carry, self.noise(self.tick))
        watch.lap("act")
        raw = parts.envs.step(action)
        self.now = parts.normaliser(raw)
        transitions = raw.is_first.size - int(np.count_nonzero(raw.is_first))
        watch.lap("env")
        for name, row in rows.items():
            parts.replays[name].add(now, row, self.now)
        self.ledger.see(shown(self.now), action)
        self.tally.pay(raw.reward, transitions)
        if parts.envs.finished:
            episodes = parts.envs.take_finished()
            self.tally.ended(episodes)
            parts.log.episodes(self.step + transitions, episodes)
        watch.lap("remember")
        return transitions

    def _learn_once(self) -> bool:
        """One update, if one is owed and its batches can be had."""
        parts, ending = self.parts, self.step >= self.plan.steps
        if not self.feed.ready(self.update, ending) or not self.pace.spend(self.feed.cost(self.update)):
            return False
        ticket, (batches, noise, _) = self.feed.take(self.update, ending)
        self.watch.lap("replay")
        fingerprint = self.update == 0 or self._due("fingerprint", self.plan.fingerprint_every)
        weights = {name: tensor.clone() for name, tensor in parts.agent.parameters().items()} if fingerprint else {}
        learned, write_backs = parts.agent.learn(batches, noise, self.step)
        self._learned, self._shown = {**self._learned, **learned}, {**self._shown, **batches}
        self.feed.write_back(ticket, write_backs)
        self.feed.choose_ahead(self.update, ending)
        self.update += 1
        wrong = not_finite(learned, parts.agent.parameters())
        if fingerprint or wrong:
            known = {"batch": batches, "noise": noise, "parameters": parts.agent.parameters()}
            self._fingerprint(known | ({"weights": weights} if weights else {}) | parts.agent.trace())
        if wrong:
            raise Diverged(f"step {self.step}, update {self.update}: no longer finite: {wrong}")
        return True

    # -- Looking: nothing below changes a bit of training --------------------------------------------------------------

    def _look(self) -> None:
        """Everything that is due. What a stop cuts short is done when the run goes on."""
        parts, plan, ending = self.parts, self.plan, self.step >= self.plan.steps
        if ending and self._looked["fingerprint"] < self.step:
            self._fingerprint({"parameters": parts.agent.parameters()})
        if self._due("log", plan.log_every) or (ending and self._looked["log"] < self.step):
            self._log_row()
        if self._due("eval", plan.eval_every) and not ending:
            self._evaluate_scheduled()
        due_now = self._due("video", plan.video_every) and (ending or not self._awaits_batch())
        if due_now or (plan.final_video and ending and self._looked["video"] < self.step):
            films = parts.evaluator.films(parts.agent, parts.normaliser, self.step, self._shown, parts.hardware)
            for name, frames, slower in films:
                parts.log.video(self.step, name, frames, max(1, plan.video_fps // slower))
            parts.log.pictures(self.step, parts.pictures(parts.envs))
            self._looked["video"] = self.step
        self.watch.lap("look")

    def _awaits_batch(self) -> bool:
        """Whether an agent with films of its batches had some before the run was resumed, and none since."""
        return self.update > 0 and not self._shown and type(self.parts.agent).films is not Agent.films

    def _due(self, what: str, every: int) -> bool:
        return due(self._looked[what], self.step, every)

    def _fingerprint(self, components: Mapping[str, Mapping[str, Any]]) -> None:
        if self.plan.fingerprint_every:
            self.ledger.entry(self.step, self.update, components)
            self._looked["fingerprint"] = self.step

    def _log_row(self) -> None:
        self.parts.log.timing(self.rates.row(self.step, self.update))
        frames = {"frames": self.step * self.parts.frames} if self.parts.frames > 1 else {}
        row = {"step": self.step, **frames, "updates": self.update, **self.tally.row(), **self.feed.account(), **self._learned}
        self.parts.log.metrics(row)
        self._looked["log"] = self.step

    def _evaluate_scheduled(self) -> None:
        parts, result = self.parts, self._evaluate(self.plan.eval_episodes)
        if result is None:
            return
        score, best = result.metrics()["eval/score"], max((score for _, score in self.evaluations), default=-np.inf)
        self.evaluations, self._looked["eval"] = [*self.evaluations, [self.step, score]], self.step
        if self.plan.keep_best and score > best:
            acting = {name: tree for name, tree in parts.agent.state().items() if name == "parameters"}
            parts.keep_best(self.step, score, {"agent": acting, "env": {"normaliser": parts.normaliser.state()}})

    def _evaluate(self, episodes: int) -> Result | None:
        """None if the run was asked to stop meanwhile."""
        parts = self.parts
        result = parts.evaluator(parts.agent, parts.normaliser, self.step, episodes, stop=self.stop)
        if result is not None:
            parts.log.metrics({"step": self.step, **result.metrics()})
        self.watch.lap("evaluate")
        self.forecast.evaluated(episodes)
        return result

    def close(self) -> None:
        self.feed.close()
        self.parts.envs.close()

    # -- State ---------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tree]:
        parts = self.parts
        counters = {
            "step": self.step,
            "tick": self.tick,
            "update": self.update,
            "pace": self.pace.state(),
            "evaluations": self.evaluations,
            "learned": {name: plain_number(value) for name, value in self._learned.items()},
            "tally": self.tally.state(),
            "looked": dict(self._looked),
        }
        logs = {"ledger": self.ledger.state(), "log": parts.log.state()}
        return {
            "loop": {"counters": counters, "carry": self.carry, "feed": self.feed.state(), **logs},
            "env": {"envs": parts.envs.state(self.settings.resume == "exact"), "normaliser": parts.normaliser.state()},
            "agent": parts.agent.state(),
            "replay": {name: replay.state() for name, replay in parts.replays.items()},
            **({"rng_state": snapshot.take()} if self.settings.save_rng else {}),
        }

    def load(self, state: Mapping[str, Tree]) -> None:
        """Everything back to where it was; the global generators last, after whatever loading may have drawn."""
        parts, loop = self.parts, state["loop"]
        parts.agent.load(state["agent"])
        self.feed.load(state["replay"], loop["feed"])
        parts.normaliser.load(state["env"]["normaliser"])
        if "envs" in state["env"] and self.settings.resume == "episode_boundary":
            self._begin(parts.envs.start_anew(state["env"]["envs"]))
            for replay in parts.replays.values():
                replay.cut()
        elif "envs" in state["env"]:  # a branch with other environments starts them anew
            self.now = parts.normaliser(parts.envs.load(state["env"]["envs"]), frozen=True)
            self.carry = loop["carry"]
        self.ledger.load(loop["ledger"])
        parts.log.load(loop["log"])
        counters = loop["counters"]
        self.step, self.tick, self.update = counters["step"], counters["tick"], counters["update"]
        self.pace.load(counters["pace"])
        self.evaluations, self._learned, self._looked = (counters[name] for name in ("evaluations", "learned", "looked"))
        self.tally.load(counters["tally"])
        snapshot.restore(state.get("rng_state"))
