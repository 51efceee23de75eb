"""Whole runs of an agent with a replay of every tick and one of every fourth, for which its updates do not wait."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch

from hieros_repro.agent.chance import Chance
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.log import jsonl
from hieros_repro.records import Count, Memory, Request, Rows, Spaces, UserError
from hieros_repro.run import checkpoint
from tests.replay.recorded import written
from tests.runs import COMMON, facts, run, stopped, unequal_files

CLOCK = 4


class Storeys(Chance):
    """Acts by chance. The second storey remembers every fourth tick of an episode, and what came in since the one before.

    What it learns is a number for each storey that depends on every batch and its noise.
    """

    remembers = ("windows",)
    train_ratio = 4.0

    def __init__(self, spaces: Spaces, key: Key, hardware: Hardware, horizon: int, *, hold: Count):
        super().__init__(spaces, key, hardware, horizon, hold=hold)
        self.numbers = {"low": torch.zeros(()), "high": torch.zeros(())}

    def replays(self):
        return {"low": Memory(4), "high": Memory(3, observes=False, every=2, row_bytes=8)}  # ready later than the first

    def due(self, update):
        high = [Request("high", 2, 3, waits=False)] if update % 2 == 0 else []
        return [Request("low", 4, 4), *high]

    def initial(self, num_envs):
        return {"age": np.zeros(num_envs, np.int64), "paid": np.zeros(num_envs, np.float32)}

    def act(self, now, carry, noise, greedy=False):
        action = self.space.draw(noise["action"])
        age, paid = np.where(now.is_first, 0, carry["age"]), np.where(now.is_first, 0, carry["paid"]) + now.reward
        acts = age % CLOCK == 0
        own = {"action": action, "obs.two": np.stack([age, paid], 1).astype(np.float32), "reward": paid.astype(np.float32)}
        rows = {"low": Rows({"action": action}), "high": Rows(own, acts)}
        return action, {"age": age + 1, "paid": np.where(acts, 0, paid).astype(np.float32)}, rows

    def learn_noise(self, key, batches):
        return {name: key(name).uniform((1,)) for name in batches}

    def learn(self, batches, noise, step):
        for name, batch in batches.items():
            self.numbers[name] = 0.9 * self.numbers[name] + batch["reward"].mean() + noise[name][0]
        if "high" in batches:
            assert list(batches["high"]["obs"]) == ["two"] and (batches["high"]["obs"]["two"][..., 0] % CLOCK == 0).all()
        return {f"seen/{name}": number for name, number in self.numbers.items() if name in batches}, {}

    def parameters(self) -> Mapping[str, Any]:
        return dict(self.numbers)

    def state(self):
        return {"parameters": {name: number.clone() for name, number in self.numbers.items()}}

    def load(self, state):
        self.numbers = dict(state["parameters"])


USUAL = (
    *(override for override in COMMON if not override.startswith("agent.")),
    "plugins=[tests.run.test_feed_runs]",
    "agent=random",
    "agent._target_=tests.run.test_feed_runs.Storeys",
    "+replay=uniform",
    "replay.size=400",
    "replay.min_size=240",
    "replay.chunk=16",
    "run.checkpoint_every=50",
    "run.keep_last=9",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole") / "run", usual=USUAL)


def test_it_learns_from_the_first_replay_and_from_the_second_once_that_is_ready(whole):
    """An entry of the ledger for each update, of which the even ones ask for the second replay."""
    batches = [entry for entry in jsonl.read(whole / "ledger.jsonl") if entry["component"] == "batch"]
    names = [{name.partition(".")[0] for name in entry["tensors"]} for entry in batches]
    first = names.index({"low", "high"})
    assert 20 < first < 70 and first % 2 == 0 and len(names) == 92
    assert names == [{"low"}] * first + [{"low", "high"}, {"low"}] * ((92 - first) // 2)
    assert batches[first - 1]["step"] < 440 < batches[first]["step"] < 444  # of which about 120 are remembered


@pytest.mark.parametrize("tick", [130, 277, 278, 279, 280])
def test_stopped_and_continued_it_writes_equal_files(whole, tmp_path, tick):
    """At step 217, before anything was learned, and at steps 438 to 444, as the second replay gets ready."""
    stopped(tmp_path / "run", tick, usual=USUAL)
    run(tmp_path / "run", "resume=auto", usual=USUAL)
    assert unequal_files(whole, tmp_path / "run") == []
    assert facts(tmp_path / "run")["digests"] == facts(whole)["digests"]


@pytest.mark.parametrize("changes", [["replay.workers=4"], ["replay.place=mapped"], ["replay.compress=false"]])
def test_however_batches_are_gathered_and_kept_it_writes_equal_files(whole, tmp_path, changes):
    assert unequal_files(whole, run(tmp_path / "run", *changes, usual=USUAL)) == []


def test_both_replays_have_files_and_states(whole):
    for name in ("low", "high"):
        files = {path.name for path in (whole / "replay" / name).iterdir()}
        step = checkpoint.newest(whole / "checkpoints", print)
        assert {stored[0] for stored in checkpoint.replay_files(whole / "checkpoints" / f"step_{step}")[name]} <= files
        assert files


def test_a_dataset_is_refused_by_its_key(tmp_path):
    with pytest.raises(UserError, match=r"replay\.dataset=.*rows that only it can make \(high\); use replay\.dataset=null"):
        run(tmp_path / "run", f"replay.dataset={written(tmp_path / 'recorded').path}", usual=USUAL)


def test_a_resumed_run_may_start_new_episodes(tmp_path):
    changes = ("determinism.resume=episode_boundary",)
    stopped(tmp_path / "run", 150, *changes, usual=USUAL)
    run(tmp_path / "run", "resume=auto", *changes, usual=USUAL)
    assert facts(tmp_path / "run")["status"] == "finished"
