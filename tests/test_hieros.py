"""Runs of levels with worlds of their own: the same twice, after every stop, however they are fed, stepped and watched."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import hieros_repro
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.proof.difference import compare
from hieros_repro.run import checkpoint
from hieros_repro.run.loop import Loop
from tests.checking import mostly_slow
from tests.runs import SHORT_HIEROS, assert_equal, facts, killed, run, short, stopped, unequal_files

pytestmark = pytest.mark.usefixtures("swift", "workspace")

BRIEF = {  # steps that pay, episodes that end between two moments of every upper level, and a replay that forgets
    "env": "pinpad_easy",
    "env.reward_mode": "dense_guidance",
    "env.length": 29,
    "run.steps": 180,
    "run.checkpoint_every": 60,
    "run.eval_every": 60,
    "run.final_episodes": 2,
    "run.log_every": 25,
    "run.keep_last": 9,
    "replay.size": 80,
    "replay.min_size": 40,
    "replay.chunk": 8,
    "replay.lead": 2,
    "agent.imag_horizon": 4,
    "world.layers": 1,
    "hardware.compile": "null",
}
USUAL = (*(o for o in SHORT_HIEROS if o.partition("=")[0] not in BRIEF), *(f"{key}={value}" for key, value in BRIEF.items()))
ASKED = (
    81  # times, evaluations included: the middle level acts next, on what it has seen and was paid before, the highest later
)
GROWING = "agent.add_hierarchy_every=2"  # the second level after two updates, the third after four more
PICTURES = np.random.default_rng(0).integers(0, 256, (20, 16, 16, 3), np.uint8)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing interrupts, its batches gathered by one worker."""
    return run(tmp_path_factory.mktemp("whole") / "run", "replay.workers=1", usual=USUAL)


@pytest.fixture(scope="module")
def halted(tmp_path_factory):
    """The same, stopped in the middle of everything; its batches gathered by four."""
    return stopped(tmp_path_factory.mktemp("halted") / "run", ASKED, "replay.workers=4", usual=USUAL)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to / "run"))


def newest(folder: Path) -> dict[str, Any]:
    """All that its last checkpoint holds."""
    return checkpoint.load(folder / "checkpoints" / f"step_{max(checkpoint.steps(folder / 'checkpoints'))}")[0]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


# -- The same run ------------------------------------------------------------------------------------------------------


def test_every_level_lives_and_learns(whole):
    state, last = newest(whole), rows(whole)[-2]
    learned = [tier["updates"] for tier in state["agent"]["tiers"]]
    assert learned[0] > learned[1] > learned[2] > 1 and learned[0] == last["updates"]
    assert list(state["replay"]) == ["windows", "windows_1", "windows_2"]
    assert all(f"Subactor-{level}/wm_loss" in last for level in range(3))
    assert all(row["train/reward"] for row in rows(whole) if "train/reward" in row), "which upper levels have to sum"


def test_what_is_stopped_is_in_the_middle_of_everything(halted):
    """So that nothing of what a checkpoint holds is there by chance."""
    state = newest(halted)
    age, tiers = state["loop"]["carry"]["age"], state["loop"]["carry"]["tiers"]
    assert (age % 4 == 2).all() and (age > 0).all() and (age < BRIEF["env.length"]).all()
    for place in (1, 2):
        assert tiers[place]["begun"].all() and tiers[place]["state"]["carried"].any()
        assert tiers[place]["window"]["deter"].any() and tiers[place]["paid"].any() and tiers[place]["action"].any()
    assert len(state["loop"]["feed"]) == 2, "batches that were chosen and not learned from"
    names = [set(raw) for _, _, raw in state["loop"]["feed"]]
    assert names[0] != names[1], "one of them of more levels than the other"
    assert all(tier["updates"] > 0 for tier in state["agent"]["tiers"])


def test_a_stopped_run_goes_on_to_the_same_files_whoever_gathers(tmp_path, whole, halted):
    folder = copied(halted, tmp_path)
    assert_equal(whole, run(folder, "replay.workers=0", "resume=auto", usual=USUAL))
    assert facts(folder)["restarts"] == 1 and "bit_comparable" not in facts(folder)
    stored = [
        {p.relative_to(one): p.read_bytes() for p in (one / "replay").rglob("*") if p.is_file()} for one in (folder, whole)
    ]
    assert stored[0] == stored[1] and len(stored[0]) > 6


@pytest.mark.slow
def test_a_run_may_be_stopped_again_and_again(tmp_path, whole):
    for after in (31, 60, 52):
        stopped(tmp_path / "run", after, "resume=auto", usual=USUAL)
    assert_equal(whole, run(tmp_path / "run", "resume=auto", usual=USUAL))
    assert facts(tmp_path / "run")["restarts"] == 3


@pytest.mark.slow
def test_a_run_that_is_stepped_and_looked_at_otherwise_learns_the_same(tmp_path, whole, monkeypatch):
    """Its environments live in processes; its films are made, and not written: that takes longer than all the rest."""
    films: list[str] = []
    monkeypatch.setattr("hieros_repro.log.base.write_video", lambda path, *_: films.append(path.stem) or path)
    looks = {"log": 10, "eval": 0, "video": 170, "checkpoint": 0, "fingerprint": 7}
    typed = (*(f"run.{what}_every={n}" for what, n in looks.items()), "env.processes=2")
    watched = run(tmp_path / "run", *typed, usual=USUAL)
    equal, account = compare(whole, watched)
    assert equal, account
    assert facts(watched)["digests"]["parameters"] == facts(whole)["digests"]["parameters"]
    assert films


# -- What a checkpoint must not leave out --------------------------------------------------------------------------------


def upper(name: str) -> Callable[[dict[str, Any]], None]:
    def forget(state: dict[str, Any]) -> None:
        tier = state["loop"]["carry"]["tiers"][1]
        tier[name] = zeros(tier[name])

    return forget


def zeros(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {name: zeros(value) for name, value in tree.items()}
    return torch.zeros_like(tree)


def moments(state: dict[str, Any]) -> None:
    optimiser = state["agent"]["tiers"][2]["optimiser"]
    state["agent"]["tiers"][2]["optimiser"] = {
        name: torch.zeros_like(value) if isinstance(value, torch.Tensor) else value for name, value in optimiser.items()
    }


def ticket(state: dict[str, Any]) -> None:
    """Of the batches that were chosen and not learned from, those of upper levels."""
    for chosen in state["loop"]["feed"]:
        chosen[2] = {"windows": chosen[2]["windows"]}


FORGOTTEN = {
    "state": upper("state"),
    "action": upper("action"),
    "window": upper("window"),
    "paid": upper("paid"),
    "begun": upper("begun"),
    "moments": moments,
    "ticket": ticket,
}


@pytest.mark.parametrize("what", mostly_slow(FORGOTTEN, "window", "ticket"))
def test_what_upper_levels_would_forget_at_a_stop_is_seen(tmp_path, whole, halted, monkeypatch, what):
    load = Loop.load

    def forgetful(loop: Loop, state: dict[str, Any]) -> None:
        FORGOTTEN[what](state)
        load(loop, state)

    monkeypatch.setattr(Loop, "load", forgetful)
    folder = run(copied(halted, tmp_path), "resume=auto", "run.eval_every=0", "run.final_episodes=0", usual=USUAL)
    assert "ledger.jsonl" in unequal_files(whole, folder)
    assert facts(folder)["digests"]["parameters"] != facts(whole)["digests"]["parameters"]


# -- Growth ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    return run(tmp_path_factory.mktemp("grown") / "run", GROWING, usual=USUAL)


def test_levels_are_added_one_after_the_other(grown, whole):
    state = newest(grown)
    learned = [tier["updates"] for tier in state["agent"]["tiers"]]
    assert learned[0] > learned[1] > learned[2] > 0
    for row in rows(grown):
        for level, least in ((1, 2), (2, 6)):
            assert f"Subactor-{level}/wm_loss" not in row or row["updates"] > least
    assert facts(grown)["digests"]["parameters"] != facts(whole)["digests"]["parameters"]


@pytest.mark.parametrize("asked", [pytest.param(45, marks=pytest.mark.slow), pytest.param(ASKED, marks=pytest.mark.slow), 110])
def test_a_run_that_grows_goes_on_to_the_same_files(tmp_path, grown, asked):
    stopped(tmp_path / "run", asked, GROWING, usual=USUAL)
    assert_equal(grown, run(tmp_path / "run", GROWING, "resume=auto", usual=USUAL))


# -- Trained agents ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["whole", "grown"])
def test_the_parameters_kept_as_the_best_act_like_the_whole_checkpoint_of_their_step(request, which):
    folder = request.getfixturevalue(which)
    best = hieros_repro.load(folder, "best")
    full = hieros_repro.load(folder, best.step)
    for picture in PICTURES:
        assert best.act(picture, greedy=False) == full.act(picture, greedy=False)
    assert digest_tree(best._carry) == digest_tree(full._carry)


# -- Proofs that take minutes ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("change", [(), (GROWING,), ("world=rssm", "agent.replay_context=1")], ids=" ".join)
def test_a_run_killed_again_and_again_goes_on_to_the_same_files(tmp_path, change):
    """Ever later it is killed, whatever it is doing. Where it stores its steps changes nothing either."""
    usual = tuple(o for o in USUAL if not (o.startswith("world.layers") and "world=rssm" in change))
    longer = (*change, "run.steps=400", "run.eval_every=0")
    alone = run(tmp_path / "alone", *longer, usual=usual)
    busy = (*longer, "replay.place=mapped", "replay.chunk=4", "run.checkpoint_every=6", "run.keep_last=2", "resume=auto")
    typed = short(tmp_path / "run", *busy, usual=usual)
    ends = killed(tmp_path / "run", typed, tmp_path, [1.0 + 0.6 * number for number in range(5)])
    assert ends.count(-signal.SIGKILL) >= 2
    assert_equal(alone, run(tmp_path / "run", *busy, usual=usual))


@pytest.mark.slow
def test_half_precision_is_the_same_twice_and_after_a_stop(tmp_path):
    half = ("hardware.precision=bf16", "run.eval_every=0")
    alone = run(tmp_path / "alone", *half, usual=USUAL)
    stopped(tmp_path / "run", 45, *half, usual=USUAL)  # ticks: nothing is evaluated
    assert_equal(alone, run(tmp_path / "run", *half, "resume=auto", usual=USUAL))
