import re

import pytest

from hieros_repro.determinism.keys import Key
from hieros_repro.log import jsonl
from hieros_repro.records import Stopped
from hieros_repro.run import checkpoint, stop
from hieros_repro.run.evaluation import Evaluator
from tests.checking import mostly_slow
from tests.runs import FILES, facts, run, unequal_files
from tests.worlds import world


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole") / "run")


CADENCES = {  # of log, eval, fingerprint, checkpoint
    "nothing": (0, 0, 0, 0, "run.final_episodes=0"),
    "everything": (1, 50, 1, 30, "run.keep_last=9"),
    "odd": (77, 131, 219, 41, "run.eval_envs=7"),
}


@pytest.mark.parametrize("name", mostly_slow(CADENCES, "everything"))
def test_how_often_a_run_is_looked_at_changes_no_bit_of_training(whole, tmp_path, name):
    *every, more = CADENCES[name]
    names = ("log", "eval", "fingerprint", "checkpoint")
    other = run(tmp_path / "run", *(f"run.{what}_every={n}" for what, n in zip(names, every, strict=True)), more)
    assert facts(other)["digests"] == facts(whole)["digests"]
    assert (other / "episodes.jsonl").read_bytes() == (whole / "episodes.jsonl").read_bytes()


def test_filming_changes_no_file_of_training(tmp_path):
    plain = run(tmp_path / "plain", *world("Clock"), "run.steps=100")
    filmed = run(tmp_path / "filmed", *world("Clock"), "run.steps=100", "run.video_every=30", "log.video_format=gif")
    assert unequal_files(plain, filmed) == [] and len(list((filmed / "videos").iterdir())) == 3


def stop_when(monkeypatch, asked):
    """The run is asked to stop as soon as `asked` says so."""
    from contextlib import contextmanager

    @contextmanager
    def asking():
        yield asked

    monkeypatch.setattr(stop, "stop_on_signal", asking)


@pytest.mark.parametrize("tick", mostly_slow([1, 33, 100, 250], 250))
def test_a_run_that_was_stopped_continues_to_equal_files(whole, tmp_path, monkeypatch, tick):
    calls = []
    with monkeypatch.context() as patched:
        stop_when(patched, lambda: calls.append(1) or len(calls) > tick)
        with pytest.raises(Stopped, match=r"stopped at step [\d,]+ with a checkpoint|stopped during the final evaluation"):
            run(tmp_path / "run")
    assert facts(tmp_path / "run")["status"] == "stopped"
    run(tmp_path / "run", "resume=auto")
    assert unequal_files(whole, tmp_path / "run") == []
    assert facts(tmp_path / "run")["digests"] == facts(whole)["digests"]
    assert facts(tmp_path / "run")["restarts"] == 1


@pytest.mark.parametrize("step", mostly_slow([200, 400, 600], 600))
def test_an_evaluation_cut_short_is_left_to_the_resumed_run(whole, tmp_path, monkeypatch, step):
    evaluating = []
    call = Evaluator.__call__

    def noticed(self, agent, normaliser, at, *rest, **others):
        evaluating.append(at)
        return call(self, agent, normaliser, at, *rest, **others)

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "__call__", noticed)
        stop_when(patched, lambda: bool(evaluating) and evaluating[-1] >= step)
        with pytest.raises(Stopped):
            run(tmp_path / "run")
    rows = [row["step"] for row in jsonl.read(tmp_path / "run" / "metrics.jsonl") if "eval/score" in row]
    assert all(row < step for row in rows)
    run(tmp_path / "run", "resume=auto")
    assert unequal_files(whole, tmp_path / "run") == []


@pytest.mark.slow
def test_an_evaluation_cut_short_again_is_still_that_of_its_step(whole, tmp_path, monkeypatch):
    evaluating, stopped_at = [], []
    call = Evaluator.__call__

    def noticed(self, *rest, **others):
        evaluating.append(True)
        return call(self, *rest, **others)

    for _ in range(3):
        evaluating.clear()
        with monkeypatch.context() as patched:
            patched.setattr(Evaluator, "__call__", noticed)
            stop_when(patched, lambda: bool(evaluating))
            with pytest.raises(Stopped):
                run(tmp_path / "run", "resume=auto")
        stopped_at.append(checkpoint.steps(tmp_path / "run" / "checkpoints")[-1])
    assert stopped_at[0] >= 200 and len(set(stopped_at)) == 1
    run(tmp_path / "run", "resume=auto")
    assert unequal_files(whole, tmp_path / "run") == []


def test_extending_a_finished_run_leaves_its_past_alone(tmp_path):
    folder = run(tmp_path / "run", "run.steps=300", "run.final_episodes=0")
    before = {name: (folder / name).read_bytes() for name in FILES}
    run(folder, "run.steps=500", "run.final_episodes=0", "resume=auto")
    assert all((folder / name).read_bytes().startswith(content) for name, content in before.items())
    assert facts(folder)["results"]["step"] >= 500


def test_a_row_of_metrics_says_the_step_first_and_steps_never_go_back(whole):
    rows = list(jsonl.read(whole / "metrics.jsonl"))
    assert all(next(iter(row)) == "step" for row in rows)
    steps = [row["step"] for row in rows]
    assert steps == sorted(steps)
    assert len([row for row in rows if "updates" in row]) == 6 and len([row for row in rows if "eval/score" in row]) == 3


def test_a_run_counts_transitions_not_ticks_and_ends_at_the_first_tick_past_its_steps(tmp_path):
    folder = run(
        tmp_path / "run", *world("Clock"), "env.num_envs=3", "run.steps=100", "run.log_every=0", "run.final_episodes=0"
    )
    step = facts(folder)["results"]["step"]
    assert 100 <= step < 103
    ended = list(jsonl.read(folder / "episodes.jsonl"))
    finished = sum(row["length"] for row in ended)
    assert step - 3 * 5 < finished <= step and all(row["length"] == row["return"] for row in ended)


def test_training_environments_start_from_the_seed_and_their_number(tmp_path):
    folder = run(tmp_path / "run", *world("Clock"), "env.num_envs=4", "run.steps=40", "seed=41")
    first = {}
    for row in jsonl.read(folder / "episodes.jsonl"):
        first.setdefault(row["env"], row["length"])
    assert first == {env: (41 + env) % 5 + 1 for env in range(4)}


def test_the_best_scheduled_evaluation_is_kept(whole):
    _, manifest = checkpoint.load(whole / "checkpoints" / "best")
    rows = list(jsonl.read(whole / "metrics.jsonl"))
    scheduled = [(row["eval/score"], -row["step"]) for row in rows if row.get("eval/episodes") == 2]
    score, step = max(scheduled)
    assert (manifest["score"], manifest["step"]) == (score, -step)


def test_the_shortened_last_rollout_is_learned_from(tmp_path):
    short = run(tmp_path / "short", "run.steps=70", "run.eval_every=0", "run.final_episodes=0")  # 35 ticks: 32 and 3
    assert facts(short)["results"]["updates"] == 2


def test_results_say_when_the_target_was_reached(tmp_path):
    reached = run(tmp_path / "a", "run.target_score=1")
    assert 200 <= facts(reached)["results"]["convergence_step"] <= 202
    never = run(tmp_path / "b", "run.target_score=1000")
    assert facts(never)["results"]["convergence_step"] is None


def test_a_checkpoint_names_the_step_it_was_taken_at(whole):
    for step in checkpoint.steps(whole / "checkpoints"):
        parts, manifest = checkpoint.load(whole / "checkpoints" / f"step_{step}")
        assert manifest["step"] == parts["loop"]["counters"]["step"] == step
    assert set(parts) == {"loop", "env", "agent", "replay", "rng_state"}


def test_generated_names_use_plain_characters_only(whole):
    names = [str(path.relative_to(whole)) for path in whole.rglob("*")]
    assert all(re.fullmatch(r"[A-Za-z0-9._/-]+", name) for name in names)


# -- At an episode boundary --------------------------------------------------------------------------------------------


def stopped_and_resumed(folder, monkeypatch, tick, *overrides):
    """A run that was asked to stop after a tick and goes on with new episodes; what was logged before, and the run."""
    calls = []
    with monkeypatch.context() as patched:
        stop_when(patched, lambda: calls.append(1) or len(calls) > tick)
        with pytest.raises(Stopped):
            run(folder, *overrides)
    before = list(jsonl.read(folder / "episodes.jsonl")), checkpoint.steps(folder / "checkpoints")[-1]
    run(folder, *overrides, "resume=auto", "determinism.resume=episode_boundary")
    return *before, folder


def test_new_episodes_have_the_seeds_after_those_that_were_given_up(tmp_path, monkeypatch):
    """An episode of Clock is seed % 5 + 1 long."""
    clock = (*world("Clock"), "env.num_envs=2", "run.steps=60", "seed=43", "run.eval_every=0", "run.final_episodes=0")
    before, step, folder = stopped_and_resumed(tmp_path / "run", monkeypatch, 2, *clock)
    assert (before, step) == ([], 6)  # three ticks into the episodes of seeds 43 and 44, of 4 and 5 steps
    first = {}
    for row in jsonl.read(folder / "episodes.jsonl"):
        first.setdefault(row["env"], (row["length"], row["step"]))
    lengths = {env: Key(43)("env", env, 1).seed() % 5 + 1 for env in (0, 1)}
    assert {env: length for env, (length, _) in first.items()} == lengths
    assert first[0][1] > step
    told = facts(folder)
    assert (told["status"], told["bit_comparable"], told["resumed_at"]) == ("finished", False, "episode_boundary")
    assert 60 <= told["results"]["step"] < 62
    given_up = 6 + 2 * 5  # by the stop; by the end at most
    assert told["results"]["step"] - given_up <= sum(row["length"] for row in jsonl.read(folder / "episodes.jsonl"))


def test_going_on_at_an_episode_boundary_is_a_function_of_the_checkpoint(tmp_path, monkeypatch):
    folders = [stopped_and_resumed(tmp_path / name, monkeypatch, 100)[-1] for name in "ab"]
    assert unequal_files(*folders) == []
    assert facts(folders[0])["digests"] == facts(folders[1])["digests"]


def test_only_what_is_resumed_is_marked(whole, tmp_path):
    chosen = run(tmp_path / "run", "resume=episode_boundary")
    assert unequal_files(whole, chosen) == []
    assert "bit_comparable" not in facts(chosen) and "resumed_at" not in facts(chosen)
