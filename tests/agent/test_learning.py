"""Whether learning learns, where the best policy is known."""

import numpy as np
import pytest

import hieros_repro
from tests.runs import run
from tests.worlds import world

LEARNING = (
    "run.eval_every=0", "run.checkpoint_every=0", "run.final_episodes=0", "env.num_envs=8", "agent.learning_rate=0.01",
    "agent.minibatch_size=64", "agent.epochs=4",
)  # fmt: skip


def test_ppo_finds_the_arm_of_every_context(tmp_path):
    policy = hieros_repro.load(run(tmp_path / "run", *world("Bandit"), "run.steps=4000", *LEARNING))
    assert [policy.act(row) for row in np.eye(3, dtype=np.float32)] == [1, 2, 3]


@pytest.mark.parametrize("normalise", ["true", "false"])
def test_ppo_passes_by_the_small_reward_for_the_large_one_behind(tmp_path, normalise):
    changes = [f"env.normalise_observation={normalise}", f"env.normalise_reward={normalise}"]
    policy = hieros_repro.load(run(tmp_path / "run", *world("Chain"), "run.steps=4000", *changes, *LEARNING))
    assert [policy.act(row) for row in np.eye(3, dtype=np.float32)] == [1, 1, 1]


def test_ppo_pulls_the_point_to_the_middle(tmp_path):
    changes = ["agent.discount=0.8", "agent.hidden=[32,32]", "run.steps=8000"]
    policy = hieros_repro.load(run(tmp_path / "run", *world("Point"), *changes, *LEARNING))
    for x, y in [(1, 1), (-1, 1), (1, -1), (-1, -1)]:
        action = policy.act(np.float32([x, y]))
        assert action[0] * x < -0.1 and action[1] * y < -0.1
