import numpy as np
import pytest
import torch

import hieros_repro
from hieros_repro import build
from hieros_repro.agent.chance import Chance
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.env.gymnasium import Gymnasium
from hieros_repro.env.normalise import Normaliser
from hieros_repro.env.vector import Vector
from hieros_repro.hardware.device import Hardware
from hieros_repro.records import Episode
from hieros_repro.run.evaluation import NOISE_BLOCK, Evaluator, NoiseFeed, Result
from tests.runs import run
from tests.worlds import world

LENGTHS = {(0, 0): 3, (0, 1): 1, (0, 2): 2, (1, 0): 5, (1, 1): 4}  # (environment, episode) -> steps, decided by the seed


def clocks(seeds, num_envs, render):
    """Environments that live as long as LENGTHS says; later episodes last one step."""
    make = lambda: Gymnasium(render, id="tests.worlds:ClockTest-v0", kwargs={}, length=None)  # noqa: E731
    return Vector(
        make, lambda env, episode: LENGTHS.get((env, episode), 1) - 1, num_envs=num_envs, processes=0, worker_timeout=60.0
    )


@pytest.fixture
def scripted():
    spaces = clocks(None, 1, False).spaces
    agent = Chance(spaces, Key(0), Hardware(device="cpu", precision="fp32", threads=1, compile=None, ranks=1), 100, hold=1)
    off = {"normalise_observation": False, "normalise_reward": False, "normalise_discount": 0.9, "normalise_clip": 10.0}
    off["clip_reward"] = None
    return agent, Normaliser(spaces, 2, **off)


def test_episodes_are_dealt_to_the_environments_in_turn(scripted):
    result = Evaluator(clocks, 2, Key(0)("eval"))(*scripted, step=100, episodes=5)
    assert [(e.env, e.length) for e in result.episodes] == [(0, 3), (0, 1), (0, 2), (1, 5), (1, 4)]


def test_short_episodes_do_not_crowd_out_long_ones(scripted):
    result = Evaluator(clocks, 2, Key(0)("eval"))(*scripted, step=100, episodes=2)
    assert result.scores == [3.0, 5.0]  # environment 0 had ended twice by then


def test_fewer_episodes_than_environments_use_as_many_environments(scripted):
    result = Evaluator(clocks, 10, Key(0)("eval"))(*scripted, step=100, episodes=1)
    assert result.episodes == [Episode(0, 3, 3.0)]


def test_a_stop_leaves_no_result(scripted):
    asked = []
    stop = lambda: len(asked) > 2 or asked.append(1)  # noqa: E731
    assert Evaluator(clocks, 2, Key(0)("eval"))(*scripted, step=100, episodes=5, stop=stop) is None


def test_the_metrics_of_a_result():
    row = Result([Episode(0, 2, 1.0), Episode(0, 4, 2.0), Episode(1, 6, 6.0)]).metrics()
    assert row == {
        "eval/score": 3.0,
        "eval/score_min": 1.0,
        "eval/score_max": 6.0,
        "eval/length": 4.0,
        "eval/episodes": 3,
        "eval/score_std": pytest.approx(7**0.5),  # (4 + 1 + 9) / 2
    }


def test_one_episode_has_no_deviation():
    assert "eval/score_std" not in Result([Episode(0, 2, 1.0)]).metrics()


def test_a_film_is_one_episode_from_its_first_row_to_its_last(scripted):
    frames = Evaluator(clocks, 2, Key(0)("eval")).film(*scripted, step=100)
    assert [int(frame[0, 0, 0]) for frame in frames] == [120, 80, 40, 0]  # 3 steps left, 2, 1, 0


def test_noise_is_a_function_of_the_tick_alone(scripted):
    feed, other = (NoiseFeed(Key(0)("act"), scripted[0], 2) for _ in range(2))
    ticks = [0, 1, NOISE_BLOCK - 1, NOISE_BLOCK, NOISE_BLOCK + 7]
    forwards = {tick: digest_tree(feed(tick)) for tick in ticks}
    assert {tick: digest_tree(other(tick)) for tick in reversed(ticks)} == forwards
    assert len(set(forwards.values())) == len(ticks)


# -- A trained agent -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    changes = ("env.normalise_observation=true", "run.eval_every=0")
    return run(tmp_path_factory.mktemp("trained") / "run", *changes)


def evaluator(config):
    return Evaluator(build.recipe(config["env"]).evaluation, 3, Key(42)("eval"))


def globals_digest():  # python's own is left out: the checker of annotations draws from it
    words, position = np.random.get_state(legacy=True)[1:3]
    return digest_tree({"numpy": words, "position": position, "torch": torch.get_rng_state()})


@pytest.mark.parametrize("greedy", [True, False])
def test_evaluating_changes_nothing(trained, greedy):
    policy, config = hieros_repro.load(trained), hieros_repro.policy.read_config(trained)
    before = digest_tree(policy.agent.state()), digest_tree(policy.normaliser.state()), globals_digest()
    evaluator(config)(policy.agent, policy.normaliser, 600, 4, greedy)
    assert (digest_tree(policy.agent.state()), digest_tree(policy.normaliser.state()), globals_digest()) == before


@pytest.mark.parametrize("greedy", [True, False])
def test_an_evaluation_is_a_function_of_its_step(trained, greedy):
    policy, config = hieros_repro.load(trained), hieros_repro.policy.read_config(trained)
    one, two = evaluator(config), evaluator(config)
    two(policy.agent, policy.normaliser, 300, 4, greedy)
    first, again = (e(policy.agent, policy.normaliser, 600, 6, greedy).episodes for e in (one, two))
    assert first == again
    assert one(policy.agent, policy.normaliser, 601, 6, greedy).episodes != first


def test_evaluation_uses_none_of_the_training_seeds(trained):
    config = hieros_repro.policy.read_config(trained)
    policy, used = hieros_repro.load(trained), []

    def make(seeds, n, render):
        noted = lambda env, episode: used.append(seeds(env, episode)) or used[-1]  # noqa: E731
        return build.recipe(config["env"]).evaluation(noted, n, render)

    Evaluator(make, 3, Key(42)("eval"))(policy.agent, policy.normaliser, 600, 6)
    training = build.training_seeds(Key(42), 42, "offset")
    assert len(set(used)) == len(used) >= 6
    assert not set(used) & {training(env, episode) for env in range(8) for episode in range(100)}


def test_worlds_of_a_test_can_be_trained_and_evaluated(tmp_path):
    assert (run(tmp_path / "run", *world("Clock"), "run.steps=100") / "run.json").exists()
