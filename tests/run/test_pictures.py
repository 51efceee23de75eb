"""Pictures of what environments have been through: written with the films, of training alone, whatever else happens."""

import numpy as np
import pytest
from PIL import Image

from hieros_repro import build
from hieros_repro.check import check
from hieros_repro.env.pinpad.layout import layout_of
from hieros_repro.env.pinpad.picture import heat_map
from tests.runs import compose, run, stopped
from tests.worlds import world

PLAYED = (
    "env=pinpad",
    "env.task=three_small",
    "env.size=16",
    "env.length=20",
    "agent=random",
    "run.steps=120",
    "run.checkpoint_every=40",
    "run.eval_every=0",
    "run.final_episodes=1",
    "run.final_video=true",
    "log=quiet",
    "log.video_format=gif",
)


def visits(folder):
    [path] = (folder / "videos").glob("visits-step_*.png")
    return np.asarray(Image.open(path))


def vector(*overrides):
    """A recipe and its environments."""
    recipe = build.recipe(check(compose("env=pinpad", "env.task=three_small", "env.size=16", *overrides))["env"])
    return recipe, recipe.training(lambda env, episode: 10 * env + episode)


def walked(envs, ticks=30):
    envs.reset()
    counts = envs.num_envs
    for tick in range(ticks):
        envs.step(np.array([(tick + 3 * i) % 5 for i in range(counts)]))
    return envs


def test_a_picture_of_visits_is_that_of_all_environments_together():
    recipe, envs = vector("env.num_envs=3")
    counts = sum(one.env.visits for one in walked(envs).batch.envs)
    assert counts.sum() == 3 * 31
    shown = recipe.pictures(envs)["visits"]
    assert shown.shape == (256, 512, 3)
    assert np.array_equal(shown[:, 256:], heat_map(layout_of("three_small"), counts, 256))
    assert not np.array_equal(shown[:, :256], shown[:, 256:])


@pytest.mark.parametrize("more", ["env.processes=2", "env.num_envs=7"])
def test_it_is_the_same_however_environments_are_stepped(more):
    """Seven are stepped all at once; alone, the first three of them are three."""
    found = []
    for overrides in (("env.num_envs=7",), ("env.num_envs=7", more)):
        recipe, envs = vector(*overrides)
        found.append(recipe.pictures(walked(envs))["visits"])
        envs.close()
    assert np.array_equal(*found)


def test_looking_changes_nothing_and_environments_that_show_nothing_are_left_alone(monkeypatch):
    recipe, envs = vector("env.num_envs=2")
    state = walked(envs).state()["snapshots"]
    recipe.pictures(envs)
    assert [one["visits"].tolist() for one in envs.state()["snapshots"]] == [one["visits"].tolist() for one in state]
    other = build.recipe(check(compose(*world("Clock")))["env"])
    monkeypatch.setattr(type(envs), "snapshots", lambda self: pytest.fail("nobody asked"))
    assert other.pictures(envs) == {}


def test_a_run_that_was_stopped_shows_the_same_visits(tmp_path):
    whole = run(tmp_path / "whole", usual=PLAYED)
    folder = stopped(tmp_path / "run", 30, usual=PLAYED)
    run(folder, "resume=auto", usual=PLAYED)
    assert np.array_equal(visits(whole), visits(folder))
    assert len(np.unique(visits(whole)[:, 256:].reshape(-1, 3), axis=0)) > 5
