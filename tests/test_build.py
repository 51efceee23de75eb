import numpy as np
import pytest

from hieros_repro import build
from hieros_repro.check import check
from hieros_repro.determinism.keys import Key
from hieros_repro.env.gymnasium import Gymnasium
from hieros_repro.run.schedule import Plan
from tests.runs import compose


@pytest.fixture(scope="module")
def config():
    return check(compose("env.num_envs=3", "env.normalise_reward=true", "env.normalise_discount=0.5"))


def test_a_node_becomes_the_object_it_names_with_its_values(config):
    plan = build.construct(config["run"])
    assert type(plan) is Plan and (plan.steps, plan.log_every) == (100_000, 5_000)


def test_parts_come_before_the_nodes_values():
    node = {"_target_": "fractions.Fraction", "denominator": 4}
    assert build.construct(node, 3) == 0.75


def test_nested_nodes_are_built_first():
    node = {"_target_": "builtins.dict", "inner": {"_target_": "fractions.Fraction", "numerator": 5}, "plain": {"a": 1}}
    assert build.construct(node) == {"inner": 5, "plain": {"a": 1}}


def test_an_environments_node_is_split_by_who_takes_what(config):
    make, vector, normalise = build.recipe(config["env"])
    assert make.kind is Gymnasium and set(make.values) == {"id", "kwargs", "length"}  # length: it keeps the time itself
    assert make.wrappers == {"action_repeat": 1, "resize": None, "rescale_actions": False, "one_hot": False}
    assert vector == {"num_envs": 3, "processes": 0, "worker_timeout": 300.0}
    assert normalise == {
        "normalise_observation": False,
        "normalise_reward": True,
        "normalise_discount": 0.5,
        "normalise_clip": 10.0,
        "clip_reward": None,
    }
    taken = {*make.values, *make.wrappers, *vector, *normalise}
    assert taken == set(config["env"]) - {"_target_"}


def test_environments_are_as_many_as_the_node_says_or_as_asked(config):
    seeds = build.training_seeds(Key(1), 1, "offset")
    recipe = build.recipe(config["env"])
    for count, envs in ((3, recipe.training(seeds)), (5, recipe.evaluation(seeds, 5))):
        assert envs.num_envs == count and len({id(env) for env in envs.batch.envs}) == count
        assert isinstance(envs.batch.envs[0], Gymnasium)
        envs.close()


def test_the_first_resets_are_offset_from_the_seed_and_later_ones_keyed():
    seeds = build.training_seeds(Key(42), 42, "offset")
    assert [seeds(env, 0) for env in range(4)] == [42, 43, 44, 45]
    assert seeds(2, 1) == Key(42)("env", 2, 1).seed() and seeds(2, 1) != seeds(2, 2) != seeds(3, 1)


def test_keyed_seeds_are_shared_by_no_two_environments_of_neighbouring_runs():
    used = [build.training_seeds(Key(seed), seed, "keyed")(env, n) for seed in (42, 43) for env in range(8) for n in range(50)]
    assert len(set(used)) == len(used)
    assert build.training_seeds(Key(42), 42, "keyed")(1, 0) == Key(42)("env", 1, 0).seed()


def test_the_numerics_of_a_run_are_those_of_the_hardware_and_of_its_environment(config, monkeypatch):
    hardware = build.construct(config["hardware"])
    assert build.numerics(config, hardware) == {**hardware.numerics(), "env": {}}
    told = classmethod(lambda cls, **values: {"drawn_by": values["id"]})
    monkeypatch.setattr(Gymnasium, "numerics", told)
    assert build.numerics(config, hardware)["env"] == {"drawn_by": "CartPole-v1"}


@pytest.mark.parametrize("agent", ["ppo", "random"])
def test_an_agent_is_filled_from_the_seed(agent):
    spaces = None
    for seed, equal in ((42, True), (43, False)):
        configs = [check(compose(f"agent={agent}", f"seed={s}")) for s in (42, seed)]
        spaces = spaces or build.recipe(configs[0]["env"]).training(lambda env, episode: 0).spaces
        made = [build.agent(config, spaces, build.construct(config["hardware"])) for config in configs]
        filled = [{name: tensor.detach().numpy() for name, tensor in one.parameters().items()} for one in made]
        weights = [name for name in filled[0] if name.endswith("weight")]
        assert all(np.array_equal(filled[0][name], filled[1][name]) == equal for name in weights)


def test_schedules_span_the_horizon_or_else_the_steps():
    for overrides, rate in ((["run.steps=1000"], 0.5), (["run.steps=1000", "run.horizon=2000"], 0.75)):
        plain = check(compose("agent.learning_rate=1.0", "agent.final_learning_rate=0.0", *overrides))
        spaces = build.recipe(plain["env"]).training(lambda env, episode: 0).spaces
        assert build.agent(plain, spaces, build.construct(plain["hardware"])).learning_rate(500) == rate
