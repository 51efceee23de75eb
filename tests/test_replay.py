"""Runs that learn from past experience: the same twice, whoever gathers batches, and after every stop."""

import itertools
import signal

import pytest

from hieros_repro.log import jsonl
from hieros_repro.records import UserError
from hieros_repro.run import checkpoint
from tests.checking import mostly_slow
from tests.envs import Mortal, chosen
from tests.runs import SHORT_DQN, assert_equal, facts, process, run, short, stopped, unequal_files

pytestmark = pytest.mark.usefixtures("swift")

UNSEEN = {  # what changes no bit
    "no worker": ("replay.workers=0",),
    "one worker": ("replay.workers=1",),
    "four workers": ("replay.workers=4",),
    "mapped": ("replay.place=mapped",),
    "device": ("replay.place=device",),
    "files of three steps": ("replay.chunk=3", "replay.compress=false"),
    "no files yet": ("replay.chunk=10_000",),
}
SEEN = {  # what makes another run
    "time_balanced": ("replay=time_balanced",),
    "time_balanced_naive": ("replay=time_balanced_naive", "replay.bias=2.0"),
    "efficient_time_balanced": ("replay=efficient_time_balanced",),
    "scaled by capacity": ("replay=efficient_time_balanced", "replay.scale=capacity", "replay.temperature=1.0"),
    "no lead": ("replay.lead=0",),
    "lead of three": ("replay.lead=3", "replay.workers=4"),
    "online": ("replay.online=true", "replay=time_balanced_naive"),
    "online, and never up to date": ("replay.online=true", "agent.batch_size=2", "agent.train_ratio=0.8"),
    "one environment": ("env.num_envs=1", "replay=time_balanced_naive"),
    "eight environments": ("env.num_envs=8", "replay.lead=2"),
    "bounded": ("replay.samples_per_insert=3.5", "agent.train_ratio=50"),
    "many at once": ("agent.train_ratio=40", "replay.lead=2", "replay=time_balanced_naive"),
}
AFTER = {"one environment": 240, "eight environments": 30}  # ticks; of two environments 120


def dqn(folder, *overrides):
    return run(folder, *overrides, usual=SHORT_DQN)


def stopped_dqn(folder, after, *overrides):
    return stopped(folder, after, *overrides, usual=SHORT_DQN)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing interrupts."""
    return dqn(tmp_path_factory.mktemp("whole") / "run")


# -- The same run ------------------------------------------------------------------------------------------------------


def test_a_run_forgets_its_oldest_steps_several_times_over(whole):
    newest = max(checkpoint.steps(whole / "checkpoints"))
    state = checkpoint.load(whole / "checkpoints" / f"step_{newest}")[0]["replay"]["windows"]
    assert state["first"] > 240 and state["end"] - state["first"] <= 240
    assert facts(whole)["results"]["updates"] > 50


def test_the_same_run_twice_has_equal_files(tmp_path, whole):
    assert_equal(whole, dqn(tmp_path / "again"))


def test_every_row_of_metrics_says_how_the_replay_does(whole):
    rows = [row for row in jsonl.read(whole / "metrics.jsonl") if "updates" in row]
    held, ever = rows[-1]["replay/windows/steps"], rows[-1]["step"] + rows[-1]["episode/count"]
    assert 0 < rows[-1]["replay/windows/windows"] < held <= ever
    assert rows[-1]["replay/windows/replayed"] > rows[0]["replay/windows/replayed"] >= 0


@pytest.mark.parametrize("name", mostly_slow(UNSEEN, "four workers", "mapped", "files of three steps"))
def test_who_gathers_and_where_steps_lie_changes_no_bit_of_a_run_that_is_stopped(tmp_path, whole, name):
    stopped_dqn(tmp_path / "run", 171, *UNSEEN[name])
    assert_equal(whole, dqn(tmp_path / "run", *UNSEEN[name], "resume=auto"))
    assert facts(tmp_path / "run")["restarts"] == 1
    assert "bit_comparable" not in facts(tmp_path / "run")


@pytest.mark.parametrize("name", mostly_slow(SEEN, "efficient_time_balanced", "bounded", "eight environments", "many at once"))
def test_a_run_that_was_stopped_goes_on_to_the_same_files(tmp_path, name):
    """It forgets two thirds of its steps, and half of them before it is stopped."""
    briefly = ("run.steps=360", "run.eval_every=0", "run.final_episodes=0", "replay.size=120")
    overrides = (*briefly, *SEEN[name])
    alone = dqn(tmp_path / "alone", *overrides)
    stopped_dqn(tmp_path / "run", AFTER.get(name, 120), *overrides)
    assert_equal(alone, dqn(tmp_path / "run", *overrides, "resume=auto"))


@pytest.mark.slow
def test_a_run_that_is_stopped_again_and_again_goes_on_to_the_same_files(tmp_path, whole):
    for stop in range(4):
        stopped_dqn(tmp_path / "run", 50 + stop, *(("resume=auto",) if stop else ()))
    assert_equal(whole, dqn(tmp_path / "run", "resume=auto"))
    assert facts(tmp_path / "run")["restarts"] == 4


def test_a_resumed_run_may_have_other_workers(tmp_path, whole):
    stopped_dqn(tmp_path / "run", 120, "replay.workers=0")
    assert_equal(whole, dqn(tmp_path / "run", "replay.workers=4", "resume=auto"))


def test_environments_in_processes_change_no_bit(tmp_path, whole):
    assert_equal(whole, dqn(tmp_path / "run", "env.processes=2"))


def test_a_run_goes_on_with_its_options_though_they_are_not_typed_again(tmp_path):
    options = ("replay=efficient_time_balanced", "replay.temperature=0.5", "log.terminal=lines", *chosen(Mortal))
    alone = dqn(tmp_path / "alone", *options, "log.terminal=quiet")
    typed = short("run", *options, usual=SHORT_DQN)
    first = process("train", *typed, cwd=tmp_path, DIE_AT="333", DIE_BY=str(int(signal.SIGTERM)))
    assert first.returncode == 75, first.stderr
    then = process("train", "resume=run", cwd=tmp_path)
    assert then.returncode == 0, then.stderr
    assert unequal_files(alone, tmp_path / "run") == []
    assert facts(tmp_path / "run")["digests"] == facts(alone)["digests"]
    assert not_default(first.stdout) == not_default(then.stdout)
    assert [line for line in not_default(then.stdout) if line.startswith("replay.")] == [
        "replay.chunk = 32 (1024)",
        "replay.min_size = 60 (1000)",
        "replay.size = 240 (1000000)",
        "replay.temperature = 0.5 (0.3)",
    ]


def not_default(said):
    """What a run said of itself as it started."""
    lines = said.partition("not default ")[2].splitlines()
    following = itertools.takewhile(lambda line: line.startswith(" " * 12), lines[1:])
    return [line.strip() for line in (lines[0], *following)]


# -- How often it learns -----------------------------------------------------------------------------------------------


def ticks(folder):
    """(step, updates) after every tick of a run that logs every tick."""
    return [(row["step"], row["updates"]) for row in jsonl.read(folder / "metrics.jsonl") if "updates" in row]


@pytest.mark.parametrize("ratio", mostly_slow(["8", "0.7", "100.1"], "0.7"))
def test_the_train_ratio_is_kept_exactly_from_the_tick_on_at_which_it_is_ready(tmp_path, ratio):
    """16 windows of 3 steps an update. 60 steps are stored after 30 ticks of 2 environments."""
    every = ("run.log_every=1", "run.eval_every=0", f"agent.train_ratio={ratio}", "run.steps=300")
    stopped_dqn(tmp_path / "run", 87, *every)
    seen = ticks(dqn(tmp_path / "run", *every, "resume=auto"))
    before = seen[28][0]
    tenths = round(10 * float(ratio))  # whole numbers: nothing is rounded here
    assert [updates for _, updates in seen] == [max(tenths * (step - before), 0) // 480 for step, _ in seen]
    assert seen[-1][0] >= 300


def test_no_step_is_replayed_more_often_than_it_may_be(tmp_path):
    """Two rows a tick, 48 replayed an update, 3.5 times each on average."""
    every = ("run.log_every=1", "run.eval_every=0", "agent.train_ratio=500", "replay.samples_per_insert=3.5", "run.steps=300")
    stopped_dqn(tmp_path / "run", 50, *every)
    seen = ticks(dqn(tmp_path / "run", *every, "resume=auto"))
    assert [updates for _, updates in seen] == [7 * tick // 48 if tick >= 30 else 0 for tick in range(1, len(seen) + 1)]


# -- Refused -----------------------------------------------------------------------------------------------------------


def test_a_replay_smaller_than_a_window_of_each_environment_is_refused(tmp_path):
    text = r"replay.size: 1: 1 steps of each of 2 environments are less than one window of 3; it must be at least 5"
    with pytest.raises(UserError, match=text):
        dqn(tmp_path / "run", "replay.size=1", "replay.min_size=0")


# -- Episodes that are cut off -----------------------------------------------------------------------------------------


def test_new_episodes_may_start_where_a_run_goes_on_and_it_is_marked(tmp_path):
    overrides = (*chosen(Mortal), "run.steps=400", "run.eval_every=0")
    for name in "ab":
        stopped_dqn(tmp_path / name, 110, *overrides)
        dqn(tmp_path / name, *overrides, "determinism.resume=episode_boundary", "resume=auto")
    assert_equal(tmp_path / "a", tmp_path / "b")
    newest = tmp_path / "a" / "checkpoints" / f"step_{max(checkpoint.steps(tmp_path / 'a' / 'checkpoints'))}"
    marks = checkpoint.load(newest)[0]["replay"]["windows"]["marks"]
    assert marks == [["is_last", env, 110] for env in (0, 1)]  # the 111th row of each is its episode's last
    told = facts(tmp_path / "a")
    assert (told["status"], told["bit_comparable"], told["resumed_at"]) == ("finished", False, "episode_boundary")
