import pickle
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from hieros_repro import build
from hieros_repro.check import check, parameters
from hieros_repro.determinism.keys import Key
from hieros_repro.env.contract import episode
from hieros_repro.env.gymnasium import Gymnasium
from hieros_repro.env.making import Maker, Recipe
from hieros_repro.env.wrapper import TimeLimit
from tests.env.worlds import Scripted
from tests.runs import compose

WRAPPERS = {"action_repeat": 1, "length": 7, "resize": None, "rescale_actions": False, "one_hot": False}
VECTOR = {"num_envs": 3, "processes": 0, "worker_timeout": 60.0}
NORMALISE = {
    "normalise_observation": True,
    "normalise_reward": False,
    "normalise_discount": 0.9,
    "normalise_clip": 10.0,
    "clip_reward": 1.0,
}


class Hard(Scripted):
    """Ends each episode after as many steps as it has lives; one in training, three in evaluation."""

    evaluation: ClassVar[Mapping[str, Any]] = {"lives": 3}

    def __init__(self, render: bool = False, *, lives: int):
        super().__init__({seed: (lives, True) for seed in range(100)})
        self.lives, self.rendered = lives, render


class Timely(Scripted):
    """Keeps the time itself."""

    def __init__(self, render: bool = False, *, length: int | None):
        super().__init__({})
        self.length = length


def recipe(kind: type, **own: Any) -> Recipe:
    return Recipe.of(kind, {"_target_": "", **WRAPPERS, **VECTOR, **NORMALISE, **own}, parameters)


def seeds(env: int, episode: int) -> int:
    return 10 * env + episode


def test_every_key_goes_to_the_one_who_takes_it():
    made = recipe(Hard, lives=2)
    assert made == Recipe(Maker(Hard, {"lives": 2}, WRAPPERS), VECTOR, NORMALISE)


def test_a_key_that_a_class_takes_itself_wraps_nothing():
    made = recipe(Timely)
    assert made.make.values == {"length": 7} and "length" not in made.make.wrappers
    assert isinstance(made.make(), Timely) and made.make().length == 7
    assert isinstance(recipe(Hard, lives=2).make(), TimeLimit)


def test_evaluation_replaces_what_the_class_says_and_training_does_not():
    made = recipe(Hard, lives=1)
    trained, evaluated = made.training(seeds), made.evaluation(seeds, 2)
    assert (trained.num_envs, evaluated.num_envs) == (3, 2)
    assert [env.env.lives for env in trained.batch.envs] == [1, 1, 1]
    assert [env.env.lives for env in evaluated.batch.envs] == [3, 3]
    assert made.make.values == {"lives": 1}


def test_pictures_are_made_only_where_they_are_asked_for():
    made = recipe(Hard, lives=1)
    vectors = (made.training(seeds), made.evaluation(seeds, 1), made.evaluation(seeds, 1, render=True))
    assert [envs.batch.envs[0].env.rendered for envs in vectors] == [False, False, True]


def test_a_recipe_is_the_same_when_it_was_pickled():
    made = recipe(Hard, lives=2)
    again = pickle.loads(pickle.dumps(made))
    assert again == made and again.make().env.lives == 2


def test_a_normaliser_is_made_for_as_many_environments_as_asked():
    made = recipe(Hard, lives=2)
    normaliser = made.normaliser(made.training(seeds).spaces, 5)
    assert normaliser.state()["running"].shape == (5,) and list(normaliser.state()["observations"]) == ["vector"]


def test_the_configuration_that_is_shipped_makes_what_it_names():
    config = check(compose("env=cartpole", "env.num_envs=2", "env.action_repeat=2"))
    made = Recipe.of(Gymnasium, config["env"], parameters)
    envs = made.training(lambda env, episode: Key(0)("env", env, episode).seed())
    assert [type(env.env) for env in envs.batch.envs] == [Gymnasium, Gymnasium]
    assert type(envs.batch.envs[0]).__name__ == "Repeat"


@pytest.mark.parametrize(
    ("env", "needs"),
    [
        (["env=gymnasium", "env.id=Pendulum-v1"], "gymnasium"),
        (["env=dummy"], "numpy"),
        (["env=pinpad"], "numpy"),
        (["env=atari"], "ale_py"),
        (["env=dmc", "env.observe=proprio"], "dm_control"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.parametrize("times", [1, 2])
def test_a_length_is_in_steps_whoever_keeps_the_time_and_repeats_the_actions(env, needs, times):
    pytest.importorskip(needs)
    made = build.recipe(check(compose(*env, "env.length=20", f"env.action_repeat={times}"))["env"])
    *before, last = episode(made.make(), 3, 60)
    assert len(before) == 20 and not any(over for row in before for over in row[2:]) and any(last[2:])


def test_every_step_of_a_length_takes_its_action_as_often_as_it_is_repeated():
    env = build.recipe(check(compose("env=dummy", "env.length=20", "env.action_repeat=3"))["env"]).make()
    env.reset(3)
    *_, (obs, *rest) = [env.step(0) for _ in range(20)]
    assert obs["vector"][0] == 60 and rest == [3.0, True, False]
