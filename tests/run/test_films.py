"""Films of runs: which there are, and that a run with them is the run without them."""

from itertools import pairwise

import numpy as np
import pytest

from hieros_repro.agent import film
from hieros_repro.agent.chance import Chance
from hieros_repro.determinism.keys import Key
from hieros_repro.env.gymnasium import Gymnasium
from hieros_repro.env.normalise import Normaliser
from hieros_repro.env.vector import Vector
from hieros_repro.hardware.device import Hardware
from hieros_repro.run import evaluation
from hieros_repro.run.evaluation import Evaluator
from tests.runs import facts, run, stopped, unequal_files
from tests.worlds import world

TINY = (
    "env=pinpad",
    "env.size=16",
    "env.task=three_small",
    "env.length=20",
    "env.num_envs=2",
    "agent.batch_size=4",
    "agent.batch_length=8",
    "agent.imag_horizon=8",
    "agent.train_ratio=4",
    "replay.min_size=64",
    "world.deter=16",
    *(f"size.{name}={n}" for name, n in {"depth": 4, "stoch": 4, "classes": 4, "units": 16, "head_units": 16}.items()),
    "run.steps=120",
    "run.checkpoint_every=40",
    "run.eval_every=0",
    "run.final_episodes=2",
    "run.eval_envs=2",
    "run.log_every=40",
    "run.fingerprint_every=40",
    "log=quiet",
    "log.video_format=gif",
)
GOALS = ("goals_manager", "goals_prior", "goals_replay")


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Goals are pursued for three steps: writing long films takes long."""
    monkeypatch.setattr(film, "STEPS", 3)


def filmed(folder):
    return sorted(path.stem for path in (folder / "videos").iterdir()) if (folder / "videos").exists() else []


def tiny(folder, agent, *overrides):
    return run(folder, f"agent={agent}", *overrides, usual=TINY)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return tiny(tmp_path_factory.mktemp("plain") / "run", "director")


def test_a_run_is_the_same_with_and_without_films(plain, tmp_path):
    other = tiny(tmp_path / "run", "director", "run.video_every=50", "run.final_video=true")
    assert filmed(plain) == []
    assert unequal_files(plain, other) == []
    assert facts(plain)["digests"] == facts(other)["digests"] and facts(plain)["results"] == facts(other)["results"]
    assert facts(plain)["results"]["updates"] > 0
    early, *later = sorted({int(name.rpartition("_")[2]) for name in filmed(other)})
    assert 50 <= early < 54 and later[-1] == facts(other)["results"]["step"]
    made = {step: {n.partition("-")[0] for n in filmed(other) if n.endswith(f"_{step}")} for step in (early, *later)}
    assert made[early] == {"episode", "visits"}  # 64 steps had to be there before the first update
    assert all(made[step] == {"episode", "open_loop", "visits", *GOALS} for step in later) and len(later) == 2


def test_without_goals_a_run_shows_an_episode_and_what_is_dreamt(tmp_path):
    folder = tiny(tmp_path / "run", "dreamer", "run.final_video=true", "run.final_episodes=0")
    step = facts(folder)["results"]["step"]
    assert filmed(folder) == [f"{name}-step_{step}" for name in ("episode", "open_loop", "visits")]


def test_a_run_that_goes_on_films_as_if_it_had_not_been_stopped(plain, tmp_path):
    films = ("run.video_every=50", "run.final_video=true")
    folder = stopped(tmp_path / "run", 50, "agent=director", *films, usual=TINY)
    tiny(folder, "director", *films, "resume=auto")
    assert unequal_files(plain, folder) == [] and facts(plain)["digests"] == facts(folder)["digests"]
    assert f"open_loop-step_{facts(plain)['results']['step']}" in filmed(folder)


def test_a_film_that_is_due_when_a_run_goes_on_waits_for_a_batch_to_dream_of(tmp_path):
    folder = tiny(tmp_path / "run", "dreamer", "run.final_episodes=0")
    step = facts(folder)["results"]["step"]
    tiny(folder, "dreamer", "resume=auto", "run.steps=200", "run.final_episodes=0", "run.video_every=100")
    made = {(name.partition("-")[0], int(name.rpartition("_")[2])) for name in filmed(folder)}
    [at] = {at for _, at in made if at < 200}
    assert made >= {("episode", at), ("open_loop", at)} and step < at < step + 10


def test_without_films_of_batches_an_episode_is_filmed_at_once(tmp_path):
    folder = run(tmp_path / "run", *world("Clock"), "run.steps=200", "run.final_episodes=0")
    step = facts(folder)["results"]["step"]
    more = ("run.steps=260", "run.final_episodes=0", "run.video_every=150", "log.video_format=gif")
    run(folder, *world("Clock"), "resume=auto", *more)
    assert filmed(folder)[0] == f"episode-step_{step}"


# -- The goal beside the environment -------------------------------------------------------------------------------------


class Counting(Chance):
    """It has two goals: images of how often it has acted, and of how often it will have the next time."""

    def initial(self, num_envs):
        return {**super().initial(num_envs), "acted": 0}

    def act(self, now, carry, noise, greedy=False):
        action, after, rows = super().act(now, carry, noise, greedy)
        return action, {**after, "acted": carry["acted"] + 1}, rows

    def beside(self, carry):
        return {name: np.full((16, 16, 3), carry["acted"] + i, np.uint8) for i, name in enumerate(("near", "far"))}


def evaluator():
    make = lambda seeds, num_envs, render: Vector(  # noqa: E731
        lambda: Gymnasium(render, id="tests.worlds:ClockTest-v0", kwargs={}, length=None),
        lambda env, episode: 2,  # a seed of three steps
        num_envs=num_envs,
        processes=0,
        worker_timeout=60.0,
    )
    return Evaluator(make, 2, Key(0)("eval")), make(None, 1, False).spaces


@pytest.fixture
def counting():
    made, spaces = evaluator()
    how = Hardware(device="cpu", precision="fp32", threads=1, compile=None, ranks=1)
    off = {"normalise_observation": False, "normalise_reward": False, "normalise_discount": 0.9, "normalise_clip": 10.0}
    return made, Counting(spaces, Key(0), how, 100, hold=1), Normaliser(spaces, 2, **off, clip_reward=None), how


def test_beside_each_frame_is_the_goal_that_was_chosen_there(counting, monkeypatch):
    drawn = []
    monkeypatch.setattr(evaluation, "grid", lambda title, heads, rows: drawn.append((title, heads, rows)) or np.zeros(1))
    made, agent, normaliser, _ = counting
    assert len(made.film(agent, normaliser, 100)) == 4
    frames, goals, further = zip(*(row.images for _, _, [row] in drawn), strict=True)
    assert [int(frame[0, 0, 0]) for frame in frames] == [120, 80, 40, 0]  # 3 steps left, 2, 1, 0
    assert [int(goal[0, 0, 0]) for goal in goals] == [1, 2, 3, 3]  # the last row is not acted on
    assert [int(goal[0, 0, 0]) for goal in further] == [2, 3, 4, 4]
    assert [title for title, _, _ in drawn] == [f"step {t} of an episode" for t in range(4)]
    assert all(heads == ["environment", "near", "far"] for _, heads, _ in drawn)


def test_a_film_with_goals_is_wider_than_the_environment_and_never_the_same_twice(counting):
    made, agent, normaliser, _ = counting
    frames = made.film(agent, normaliser, 100)
    assert len({frame.shape for frame in frames}) == 1 and not any(np.array_equal(a, b) for a, b in pairwise(frames))


def test_before_the_first_update_there_is_an_episode_only(counting):
    made, agent, normaliser, how = counting
    agent.films = lambda batches, noise: {"dream": [batches["a"], noise["b"]]}
    agent.film_noise = lambda key, batches: {"b": key.uniform((1,))}
    assert [name for name, *_ in made.films(agent, normaliser, 100, {}, how)] == ["episode"]
    episode, (name, frames, slower) = made.films(agent, normaliser, 100, {"a": 7}, how)
    assert (episode[0], episode[2], name, slower) == ("episode", 1, "dream", 4) and frames[0] == 7
    assert frames[1].numpy() == Key(0)("eval", 100, "dream").uniform((1,))
