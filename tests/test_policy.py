import numpy as np
import pytest

import hieros_repro
from hieros_repro.env.gymnasium import Gymnasium
from hieros_repro.records import ConfigError, UserError
from hieros_repro.run import checkpoint
from tests.runs import facts, run
from tests.worlds import world

SEEN = np.float32([0.01, -0.02, 0.03, 0.04])


@pytest.fixture(scope="module")
def cartpole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("cartpole") / "run", "env.normalise_observation=true")


@pytest.fixture(scope="module")
def point(tmp_path_factory):
    return run(tmp_path_factory.mktemp("point") / "run", *world("Point"), "run.eval_every=0", "run.final_episodes=0")


def test_a_discrete_policy_gives_an_integer_that_the_environment_takes(cartpole):
    action = hieros_repro.load(cartpole).act(SEEN)
    assert type(action) is int and action in (0, 1)


def test_a_continuous_policy_gives_an_action_inside_its_bounds(point):
    policy = hieros_repro.load(point)
    for x in np.linspace(-50, 50, 21):
        action = policy.act(np.float32([x, -x]), greedy=False)
        assert action.shape == (2,) and action.dtype == np.float32 and (np.abs(action) <= 0.5).all()


def test_greedy_actions_repeat_and_drawn_ones_vary(point):
    policy = hieros_repro.load(point)
    assert len({policy.act(np.float32([1, 1])).tobytes() for _ in range(5)}) == 1
    assert len({policy.act(np.float32([1, 1]), greedy=False).tobytes() for _ in range(5)}) == 5


def test_drawn_actions_are_a_function_of_the_run_and_the_count(point):
    policies = [hieros_repro.load(point) for _ in range(2)]
    drawn = [[policy.act(np.float32([1, 1]), greedy=False).tobytes() for _ in range(4)] for policy in policies]
    assert drawn[0] == drawn[1]


def test_playing_by_hand_gives_the_runs_own_scores(cartpole):
    """The final evaluation's episodes, played again with nothing but load, act and the environment."""
    from hieros_repro.determinism.keys import Key

    policy, scores = hieros_repro.load(cartpole), []
    key = Key(42)("eval")(facts(cartpole)["results"]["step"])
    env = Gymnasium(id="CartPole-v1", kwargs={}, length=None)
    for number, episode in [(0, 0), (0, 1), (1, 0)]:  # three episodes dealt to two environments
        obs, ended, score = env.reset(key(number, episode).seed()), False, 0.0
        policy.reset()
        while not ended:
            obs, reward, terminated, truncated = env.step(policy.act(obs["vector"]))
            score, ended = score + reward, terminated or truncated
        scores.append(score)
    assert scores == facts(cartpole)["results"]["scores"]


def test_the_best_and_every_kept_step_can_be_loaded(cartpole):
    best = hieros_repro.load(cartpole, "best")
    assert best.step == checkpoint.load(cartpole / "checkpoints" / "best")[1]["step"] and best.act(SEEN) in (0, 1)
    for step in checkpoint.steps(cartpole / "checkpoints"):
        assert hieros_repro.load(cartpole, step).step == step
    assert hieros_repro.load(cartpole).step == step


def test_the_normalisation_learned_in_training_is_applied(cartpole):
    policy = hieros_repro.load(cartpole)
    moments = checkpoint.load(cartpole / "checkpoints" / f"step_{policy.step}")[0]["env"]["normaliser"]["observations"][
        "vector"
    ]
    expected = (SEEN - moments["mean"]) / np.sqrt(moments["variance"] + 1e-8)
    np.testing.assert_allclose(policy.normaliser.observe({"vector": SEEN[None]})["vector"][0], expected, rtol=1e-5)
    assert moments["count"] > 100


def test_a_mapping_is_taken_as_the_environment_shows_it(cartpole):
    policy = hieros_repro.load(cartpole)
    assert policy.act({"vector": SEEN}) == policy.act(SEEN)


@pytest.mark.parametrize("observation", [np.zeros(3), np.zeros((1, 4)), 0.5])
def test_an_observation_of_another_shape_is_refused(cartpole, observation):
    with pytest.raises(ValueError, match=r"observation 'vector' has shape .*, the policy was trained on \(4,\)"):
        hieros_repro.load(cartpole).act(observation)


def test_a_folder_that_is_no_run_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}: not a run folder"):
        hieros_repro.load(tmp_path)


def test_a_checkpoint_that_does_not_exist_is_refused_by_name(cartpole):
    with pytest.raises(UserError, match=f"{cartpole / 'checkpoints' / 'step_7'}: there is no such checkpoint"):
        hieros_repro.load(cartpole, 7)


def test_a_configuration_that_names_foreign_code_is_refused(cartpole, tmp_path):
    (tmp_path / "config.yaml").write_text(
        (cartpole / "config.yaml").read_text().replace("hieros_repro.agent.ppo.PPO", "os.system")
    )
    with pytest.raises(ConfigError, match=r"os\.system"):
        hieros_repro.load(tmp_path)


def test_a_run_of_before_a_key_existed_is_read_with_the_value_that_changes_nothing(cartpole, tmp_path):
    lines = (cartpole / "config.yaml").read_text(encoding="utf8").splitlines()
    new = ("processes:", "action_repeat:", "clip_reward:", "resume: exact")
    (tmp_path / "config.yaml").write_text("\n".join(line for line in lines if not line.strip().startswith(new)))
    config = hieros_repro.policy.read_config(tmp_path)
    assert config == hieros_repro.policy.read_config(cartpole)
    assert config["env"]["processes"] == 0 and config["determinism"]["resume"] == "exact"
