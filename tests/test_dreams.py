"""Runs of agents that dream: the same twice, however they are watched and fed, after every stop and in every verb."""

import json
import shutil
import signal
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch

import hieros_repro
from hieros_repro.agent.hierarchy import Hierarchy
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.evaluate import evaluate
from hieros_repro.proof.difference import compare
from hieros_repro.recording import record
from hieros_repro.records import Step, UserError
from hieros_repro.run import checkpoint
from hieros_repro.train import train
from tests.agent import making
from tests.agent.dreaming import director, dreamer
from tests.runs import (
    SHORT_DIRECTOR,
    SHORT_DREAMER,
    assert_equal,
    compose,
    facts,
    killed,
    run,
    short,
    stopped,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("swift", "workspace")

MAKE = {"director": director, "dreamer": dreamer}
BRIEF = {  # a third of its steps is forgotten before the end; best parameters are kept where a whole checkpoint is
    "run.steps": 120,
    "run.checkpoint_every": 40,
    "run.eval_every": 40,
    "run.eval_episodes": 2,
    "run.final_episodes": 2,
    "run.log_every": 25,
    "run.keep_last": 9,
    "env.length": 30,
    "agent.train_ratio": 4,
    "replay.size": 80,
    "replay.min_size": 40,
    "replay.chunk": 16,
    "replay.lead": 2,
}
USUAL = {
    name: (*(o for o in shorts if o.partition("=")[0] not in BRIEF), *(f"{key}={value}" for key, value in BRIEF.items()))
    for name, shorts in {"director": SHORT_DIRECTOR, "dreamer": (*SHORT_DREAMER, "hardware.compile=null")}.items()
}
ASKED = 107  # times, evaluations included: after 90 steps, in the middle of the second episode and of a goal's time


PICTURES = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module", params=USUAL)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def whole(tmp_path_factory, name):
    """The run that nothing interrupts, its batches gathered by one worker."""
    return run(tmp_path_factory.mktemp("whole") / "run", "replay.workers=1", usual=USUAL[name])


# -- The same run ------------------------------------------------------------------------------------------------------


def test_a_run_stopped_in_the_middle_of_everything_goes_on_to_the_same_files_whoever_gathers(tmp_path, whole, name):
    folder = stopped(tmp_path / "run", ASKED, "replay.workers=4", usual=USUAL[name])
    _assert_in_the_middle(folder, name)
    assert_equal(whole, run(folder, "replay.workers=0", "resume=auto", usual=USUAL[name]))
    assert facts(folder)["restarts"] == 1 and "bit_comparable" not in facts(folder)
    assert replay_files(folder) == replay_files(whole)


def _assert_in_the_middle(folder, name):
    """So that nothing of what a checkpoint holds is there by chance."""
    state = checkpoint.load(newest(folder))[0]
    age, windows = state["loop"]["carry"]["age"], state["replay"]["windows"]
    assert len(state["loop"]["feed"]) == BRIEF["replay.lead"], "batches that were chosen and not learned from"
    assert (age % 8 != 0).all() and (age < BRIEF["env.length"]).all(), "neither a goal nor an episode begins"
    assert windows["first"] > 0 and state["agent"]["tiers"][0]["updates"] > 2
    kept = {"director": [], "dreamer": ["deter", "stoch"]}[name]
    assert list(windows["refreshed"]) == kept and bool(windows["unseen"]) == (name == "dreamer")


def newest(folder):
    return folder / "checkpoints" / f"step_{max(checkpoint.steps(folder / 'checkpoints'))}"


def replay_files(folder):
    return {path.name: path.read_bytes() for path in (folder / "replay").rglob("*") if path.is_file()}


def test_a_run_that_is_looked_at_otherwise_learns_the_same(tmp_path, whole, name, monkeypatch):
    """Its films are made, and not written: that takes longer than all the rest."""
    films: list[str] = []
    monkeypatch.setattr("hieros_repro.log.base.write_video", lambda path, *_: films.append(path.stem) or path)
    looks = {"log": 10, "eval": 0, "video": 70, "checkpoint": 0, "fingerprint": 7}
    watched = run(tmp_path / "run", *(f"run.{what}_every={n}" for what, n in looks.items()), usual=USUAL[name])
    equal, account = compare(whole, watched)
    assert equal, account
    assert facts(watched)["digests"]["parameters"] == facts(whole)["digests"]["parameters"]
    assert films


# -- Trained agents ----------------------------------------------------------------------------------------------------


def test_a_loaded_policy_acts_like_the_agent_and_a_reset_is_a_first_row(whole):
    """The agent is shown what an evaluation shows it, with one carry throughout; the policy is told to begin anew."""
    policy, agent = hieros_repro.load(whole), hieros_repro.load(whole).agent
    carry, key = agent.initial(1), Key(42)("eval", "policy")
    for tick, picture in enumerate(PICTURES):
        first = tick in (0, 11)
        if first:
            policy.reset()
        flags = np.array([[first], [False], [False]])
        noise = {name: block[0] for name, block in agent.act_noise(key(tick), 1, 1).items()}
        action, carry, _ = agent.act(Step({"image": picture[None]}, np.zeros(1, np.float32), *flags), carry, noise, greedy=True)
        assert policy.act(picture) == action[0]
        assert digest_tree(policy._carry) == digest_tree(carry)


def test_an_evaluation_afterwards_gives_the_runs_own_numbers_and_leaves_it_alone(whole, tmp_path):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    evaluate(compose(f"run={whole}", f"out={tmp_path}", "video=false", "episodes=2", name="evaluate"))
    told, results = json.loads((tmp_path / "evaluation.json").read_text()), facts(whole)["results"]
    assert {n: v for n, v in told.items() if n.startswith("eval/")} == {
        n: v for n, v in results.items() if n.startswith("eval/")
    }
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_the_parameters_kept_as_the_best_act_like_the_whole_checkpoint_of_their_step(whole):
    best = hieros_repro.load(whole, "best")
    full = hieros_repro.load(whole, best.step)
    assert list(checkpoint.load(whole / "checkpoints" / "best")[0]["agent"]) == ["parameters"]
    for picture in PICTURES:
        assert best.act(picture, greedy=False) == full.act(picture, greedy=False)
    assert digest_tree(best._carry) == digest_tree(full._carry)


# -- What an agent is --------------------------------------------------------------------------------------------------


def learned(name: str, precision: str, seed: int, updates: int) -> Hierarchy:
    agent = MAKE[name](seed=seed, how=making.hardware(precision))
    for number in range(updates):
        batch = making.experience(agent, seed=seed)
        noise = agent.learn_noise(Key(seed)("learn", number), batch)
        agent.learn(agent.hardware.to_device(batch), agent.hardware.to_device(noise), number)
    return agent


OF_MODULES = ("_modules", "_parameters", "_buffers")


def held(thing: Any, path: str = "", seen: set[int] | None = None) -> Iterator[tuple[str, Any]]:
    """Every number and tensor that can be reached from an object, by path."""
    seen = set() if seen is None else seen
    if isinstance(thing, torch.Tensor | np.ndarray):
        yield path, torch.as_tensor(thing).detach().clone()
    elif isinstance(thing, int | float):
        yield path, thing
    elif (
        not isinstance(thing, str | bytes | type)
        and not callable(getattr(thing, "__wrapped__", None))
        and id(thing) not in seen
    ):
        seen.add(id(thing))
        inside = thing if isinstance(thing, Mapping) else getattr(thing, "__dict__", {})
        inside = dict(enumerate(thing)) if isinstance(thing, list | tuple | set) else inside
        for key, value in inside.items():
            yield from held(value, path if key in OF_MODULES else f"{path}.{key}", seen)


CHANGING = {"director": ["entropy.weight", "kl.weight", "returns.mean"], "dreamer": ["returns.high"]}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_agents_state_holds_everything_that_learning_changes(name, precision):
    """Another agent, that learned otherwise and longer, becomes equal in everything: not only in what the state names."""
    agent, other = learned(name, precision, seed=1, updates=2), learned(name, precision, seed=2, updates=3)

    def everything(of: Hierarchy) -> dict[str, Any]:
        return {path: value for path, value in held(of) if not path.startswith("._first")}  # is only looked at

    def unequal() -> set[str]:
        mine, its = everything(agent), everything(other)
        assert mine.keys() == its.keys()
        return {path for path in mine if not torch.equal(torch.as_tensor(mine[path]), torch.as_tensor(its[path]))}

    before = unequal()
    moved = ["optimiser.steps", "optimiser.mean", *CHANGING[name]] if precision == "fp32" else ["optimiser.scale"]
    changing = ["updates", "slow.flat", *moved]
    for part in changing:
        assert any(part in path for path in before), part
    other.load(agent.state())
    assert unequal() == set()


def test_values_of_replayed_rows_need_two_rows():
    assert director(making.ONE_ACTION, "agent.batch_length=1").due(0)[0].length == 1
    with pytest.raises(UserError, match=r"levels.actor.replay_value: .*windows of 2 rows or more"):
        dreamer(making.ONE_ACTION, "agent.batch_length=1")


# -- Datasets ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Four episodes of an agent that has not learned anything."""
    own = [o for o in USUAL["director"] if o.startswith(("agent", "env", "size"))]
    typed = [f"out={tmp_path_factory.mktemp('data') / 'director'}", "episodes=4", *own]
    return record(compose(*typed, name="dataset"), typed).path


def test_an_agent_that_dreams_records_a_dataset_and_learns_from_it(tmp_path, data):
    briefly = ("run.steps=60", "run.eval_every=0", "run.final_episodes=0")
    told = facts(run(tmp_path / "run", f"replay.dataset={data}", *briefly, usual=USUAL["director"]))
    assert told["results"]["updates"] > 0
    assert (told["datasets"]["windows"]["episodes"], told["datasets"]["windows"]["share"]) == (4, 0.5)


def test_a_dataset_that_has_no_states_is_refused_by_the_key_that_asks_for_them(tmp_path, data):
    text = rf"replay.dataset={data}: .* only it can make \(deter, stoch\); use agent.replay_context=0 or"
    with pytest.raises(UserError, match=text):
        run(tmp_path / "run", f"replay.dataset={data}", usual=USUAL["dreamer"])


# -- Proofs that take minutes ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("name", "place"), [("director", "memory"), ("dreamer", "mapped")])
def test_a_run_killed_again_and_again_goes_on_to_the_same_files(tmp_path, name, place):
    """Ever later it is killed, whatever it is doing. Where it stores its steps changes nothing either."""
    longer = ("run.steps=400", "run.eval_every=0")
    alone = run(tmp_path / "alone", *longer, usual=USUAL[name])
    busy = (*longer, f"replay.place={place}", "replay.chunk=4", "run.checkpoint_every=6", "run.keep_last=2", "resume=auto")
    typed = short(tmp_path / "run", *busy, usual=USUAL[name])
    ends = killed(tmp_path / "run", typed, tmp_path, [1.0 + 0.4 * number for number in range(5)])
    assert ends.count(-signal.SIGKILL) >= 2
    assert_equal(alone, run(tmp_path / "run", *busy, usual=USUAL[name]))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_the_same_twice_and_after_a_stop(tmp_path, precision):
    half = (f"hardware.precision={precision}", "run.eval_every=0")
    alone, again = (run(tmp_path / which, *half, usual=USUAL["director"]) for which in ("alone", "again"))
    assert_equal(alone, again)
    stopped(tmp_path / "run", 45, *half, usual=USUAL["director"])  # ticks: nothing is evaluated
    assert_equal(alone, run(tmp_path / "run", *half, "resume=auto", usual=USUAL["director"]))


def test_a_finished_run_is_extended_by_its_name_alone(tmp_path, whole):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    asked = [f"resume={folder}", "run.steps=150"]
    train(compose(*asked), asked)
    assert json.loads((folder / "run.json").read_text())["results"]["step"] == 150
