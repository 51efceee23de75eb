import math
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, Normal

from hieros_repro.agent.ppo import PPO, Minibatch
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.log import jsonl
from hieros_repro.log.base import MEANINGS
from hieros_repro.records import Diverged, Space, Spaces
from hieros_repro.run import checkpoint
from tests.agent import making
from tests.agent.contract import AgentContract
from tests.agent.making import ACTIONS, IMAGE, ONE_ACTION, VECTOR, hardware, learn, ppo, rollout, weights
from tests.runs import facts, run


class TestPPO(AgentContract):
    make = ppo


# -- The same update, written as in the textbook -------------------------------------------------------------------------


class Textbook(nn.Module):
    """Two separate networks, torch.distributions and torch.optim, filled with an agent's weights."""

    def __init__(self, agent: PPO, space: Space):
        super().__init__()
        source = {name: tensor.detach().clone() for name, tensor in agent.parameters().items()}
        self.continuous = space.kind == "continuous"
        self.nets = nn.ModuleList(self._tower(source, member, head) for member, head in enumerate(("actor", "critic")))
        self.log_std = nn.Parameter(source["log_std.value"])

    @staticmethod
    def _tower(source: dict[str, Tensor], member: int, head: str) -> nn.Sequential:
        sizes = [3, 8, 8]
        tower = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, len(source[f"{head}.bias"])))
        for index in range(len(sizes) - 1):
            tower[2 * index].weight.data = source[f"towers.layers.{index}.weight"][member].T.clone()
            tower[2 * index].bias.data = source[f"towers.layers.{index}.bias"][member, 0].clone()
        tower[4].weight.data, tower[4].bias.data = source[f"{head}.weight"], source[f"{head}.bias"]
        return tower

    def policy(self, obs: Tensor) -> torch.distributions.Distribution:
        out = self.nets[0](obs)
        return Independent(Normal(out, self.log_std.exp()), 1) if self.continuous else Categorical(logits=out)

    def value(self, obs: Tensor) -> Tensor:
        return self.nets[1](obs).squeeze(-1)

    def as_agent(self) -> dict[str, Tensor]:
        actor, critic = self.nets
        found = {"log_std.value": self.log_std}
        for index in (0, 1):
            found[f"towers.layers.{index}.weight"] = torch.stack([net[2 * index].weight.T for net in self.nets])
            found[f"towers.layers.{index}.bias"] = torch.stack([net[2 * index].bias[None] for net in self.nets])
        for name, net in (("actor", actor), ("critic", critic)):
            found |= {f"{name}.weight": net[4].weight, f"{name}.bias": net[4].bias}
        return found


def transitions(batch: dict[str, Tensor], value: Tensor, discount: float, trace: float) -> dict[tuple[int, int], float]:
    """The advantage of every transition, one environment and one episode piece after the other, backwards."""
    found, (length, envs) = {}, batch["reward"].shape
    for env in range(envs):
        following = 0.0
        for t in reversed(range(length)):
            if not batch["valid"][t, env]:
                continue
            ahead = 0.0 if batch["is_terminal"][t, env] else float(value[t + 1, env])
            delta = float(batch["reward"][t, env]) + discount * ahead - float(value[t, env])
            following = delta + (0.0 if batch["is_last"][t, env] else discount * trace * following)
            found[t, env] = following
    return found


def textbook_update(book: Textbook, batch: dict[str, Tensor], order: np.ndarray, h: dict[str, Any]) -> None:
    envs = batch["reward"].shape[1]
    obs = batch["obs"]["vector"]
    with torch.no_grad():
        units = book.value(obs)
        old_log = book.policy(obs[:-1]).log_prob(batch["action"])
    advantages = transitions(batch, h["value_scale"] * units, 0.9, 0.8)
    optimiser = torch.optim.Adam(book.parameters(), lr=1e-3 * (1 - 100 / 1000) + 2e-4 * 100 / 1000, eps=1e-5)
    for epoch in order:
        rows = [divmod(int(row), envs) for row in epoch if divmod(int(row), envs) in advantages]
        parts = math.ceil(len(rows) / 16)
        for part in range(parts):
            index = tuple(torch.tensor(rows[len(rows) * part // parts : len(rows) * (part + 1) // parts]).T)
            advantage = torch.tensor([advantages[int(t), int(e)] for t, e in zip(*index, strict=True)])
            old = units[:-1][index]
            target = (advantage + h["value_scale"] * old) / h["value_scale"]
            advantage = (advantage - advantage.mean()) / (advantage.std(unbiased=False) + 1e-8)
            policy, value = book.policy(obs[:-1][index]), book.value(obs[:-1][index])
            ratio = (policy.log_prob(batch["action"][index]) - old_log[index]).exp()
            surrogate = torch.min(ratio * advantage, ratio.clamp(1 - h["clip"], 1 + h["clip"]) * advantage)
            error = (value - target) ** 2
            if h["value_clip"] is not None:
                near = old + (value - old).clamp(-h["value_clip"], h["value_clip"])
                error = torch.max(error, (near - target) ** 2)
            loss = -surrogate.mean() + 0.5 * error.mean() - 0.01 * policy.entropy().mean()
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(book.parameters(), 0.5)
            optimiser.step()


@pytest.mark.parametrize("kind", ["discrete", "continuous"])
@pytest.mark.parametrize("value_clip, value_scale, clip", [(None, 1.0, 0.2), (0.01, 1.0, 0.001), (None, 10.0, 0.05)])
def test_an_update_is_the_textbooks(kind, value_clip, value_scale, clip):
    spaces, h = Spaces({"vector": VECTOR}, ACTIONS[kind]), {"value_clip": value_clip, "value_scale": value_scale, "clip": clip}
    agent = ppo(spaces, final_learning_rate=2e-4, **h)
    book, batches = Textbook(agent, spaces.action), rollout(agent, spaces)
    before = weights(agent)
    metrics = learn(agent, batches)
    textbook_update(book, hardware().to_device(batches["rollout"]), agent.learn_noise(Key(0)("learn", 0), batches)["order"], h)
    for name, expected in book.as_agent().items():
        torch.testing.assert_close(agent.parameters()[name].detach(), expected.detach(), rtol=1e-5, atol=1e-5, msg=name)
        moved = (expected - before[name]).abs()
        assert not moved.numel() or moved.max() > 1e-4, name
    assert kind == "continuous" or value_clip is None or metrics["ppo/clip_fraction"] > 0.3  # the bound was really met


def _prepared(agent: PPO) -> Minibatch:
    return agent._prepare(hardware().to_device(rollout(agent)["rollout"]))[0]


@hypothesis.given(
    st.floats(-3, 3, width=32), st.floats(0, 4, width=32), st.sampled_from([0.0, 0.1, 0.2, 0.5])
)  # advantage, ratio, clip
def test_the_surrogate_with_one_bound_is_the_textbooks_min(advantage, ratio, clip):
    agent = ppo(clip=clip, entropy=0.0, value_coefficient=0.0)
    minibatch = _prepared(agent)
    one = minibatch.rows(slice(0, 1))
    with torch.no_grad():
        new = agent._loss(one).log_prob
    one = one._replace(advantage=torch.tensor([advantage]), log_prob=new - math.log(max(ratio, 1e-6)))
    expected = -min(max(ratio, 1e-6) * advantage, min(max(ratio, 1 - clip), 1 + clip) * advantage)
    assert agent._loss(one).loss.item() == pytest.approx(expected, rel=2e-5, abs=2e-5)


# -- What takes part -----------------------------------------------------------------------------------------------------


def test_rows_after_an_episodes_end_take_no_part_whatever_they_hold():
    agent, twin = ppo(), ppo()
    clean = rollout(agent)
    batch, invalid = clean["rollout"], ~clean["rollout"]["valid"]
    reward, action = (
        np.where(invalid, value, batch[name]) for name, value in (("reward", 1e6), ("action", 3 - batch["action"]))
    )
    absurd = {"rollout": {**batch, "reward": reward.astype(np.float32), "action": action}}
    metrics, other = learn(agent, clean), learn(twin, absurd)
    assert digest_tree(agent.state()) == digest_tree(twin.state())
    assert {k: float(v) for k, v in metrics.items()} == {k: float(v) for k, v in other.items()}


def test_gradients_accumulated_over_shares_are_those_of_the_whole_minibatch():
    agents = [ppo(accumulate=shares) for shares in (1, 3)]
    for agent in agents:
        learn(agent, rollout(agents[0]))
    for name, tensor in agents[0].parameters().items():
        torch.testing.assert_close(agents[1].parameters()[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_target_kl_ends_the_update_after_the_epoch_that_exceeds_it():
    first = learn(one := ppo(epochs=1, learning_rate=0.01), rollout(one))["ppo/approx_kl"]
    two = learn(agent := ppo(epochs=2, learning_rate=0.01), rollout(agent))["ppo/approx_kl"]
    assert two > first > 0
    between = learn(agent := ppo(epochs=9, learning_rate=0.01, target_kl=float(first + two) / 2), rollout(agent))
    assert between["ppo/epochs"] == 2
    below = learn(agent := ppo(epochs=9, learning_rate=0.01, target_kl=float(first) / 2), rollout(agent))
    assert below["ppo/epochs"] == 1


def test_no_target_kl_means_every_epoch():
    assert learn(agent := ppo(epochs=4, learning_rate=0.1), rollout(agent))["ppo/epochs"] == 4


@pytest.mark.parametrize(
    "value, expected",
    [(0.7, 0.09), (1.5, 0.25), (0.3, 0.49), (-2.0, 9.0)],
)  # old 0.5, target 1.0, clip 0.1: inside; worse than its bound; held at 0.4 is 0.36 < 0.49; far away counts in full
def test_the_clipped_value_loss_is_the_worse_of_both(value, expected):
    agent = ppo(value_clip=0.1)
    one = _prepared(agent).rows(slice(0, 1))
    one = one._replace(value=torch.tensor([0.5]), target=torch.tensor([1.0]))
    held = 0.5 + min(max(value - 0.5, -0.1), 0.1)
    assert agent._value_loss(torch.tensor([value]), one).item() == pytest.approx(max(expected, (held - 1.0) ** 2), rel=1e-5)


def test_a_clipped_value_that_comes_nearer_has_no_gradient_left():
    agent = ppo(value_clip=0.1)
    one = _prepared(agent).rows(slice(0, 1))
    one = one._replace(value=torch.tensor([0.5]), target=torch.tensor([1.0]))
    value = torch.tensor([0.9], requires_grad=True)  # error 0.1, but held at 0.6 the error is 0.4: that one counts
    loss = agent._value_loss(value, one)
    loss.backward()
    assert loss.item() == pytest.approx(0.16, rel=1e-5) and value.grad.item() == 0.0


def test_value_scale_with_a_critic_as_much_smaller_predicts_the_same():
    plain, scaled = ppo(), ppo(value_scale=10.0)
    with torch.no_grad():
        for name in ("critic.weight", "critic.bias"):
            scaled.parameters()[name] /= 10.0
    one, other = _prepared(plain), _prepared(scaled)
    torch.testing.assert_close(10.0 * other.value, one.value, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(10.0 * other.target, one.target, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(other.advantage, one.advantage, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("step, expected", [(0, 0.0), (50, 0.2 * 0.95), (250, 0.75), (1000, 0.0), (5000, 0.0)])
def test_the_learning_rate_warms_up_and_anneals_with_the_step(step, expected):
    agent = ppo(learning_rate=1.0, final_learning_rate=0.0, warmup_steps=250)  # horizon 1000
    assert learn(agent, rollout(agent), step=step)["ppo/learning_rate"] == pytest.approx(expected)


def test_a_learning_rate_of_zero_moves_nothing():
    agent = ppo(learning_rate=0.0)
    before = digest_tree(weights(agent))
    learn(agent, rollout(agent))
    assert digest_tree(weights(agent)) == before


def test_the_trace_is_of_the_first_optimiser_step():
    agent = ppo(normalise_advantage=False)
    batches = rollout(agent)
    learn(agent, batches)
    losses = agent.trace()["losses"]
    first = ppo(normalise_advantage=False, epochs=1, minibatch_size=16)
    learn(first, batches)
    assert torch.equal(losses["log_prob"], first.trace()["losses"]["log_prob"])
    assert set(agent.trace()["gradients"]) == set(agent.parameters())


# -- Every kind of space and precision -----------------------------------------------------------------------------------

VIEWS = {
    "vector": {"vector": VECTOR},
    "matrix": {"vector": Space("vector", (2, 3))},
    "image": {"image": IMAGE},
    "dict": {"camera": IMAGE, "speed": Space("vector", (1,)), "joints": Space("vector", (4,))},
}


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("kind", ACTIONS)
def test_every_kind_of_observation_and_action_is_learned_from(view, kind):
    spaces = Spaces(VIEWS[view], ACTIONS[kind])
    agent = ppo(spaces)
    before = weights(agent)
    metrics = learn(agent, rollout(agent, spaces))
    assert all(math.isfinite(float(value)) for value in metrics.values())
    still = [name for name, tensor in agent.parameters().items() if tensor.numel() and torch.equal(tensor, before[name])]
    assert still == []


def test_continuous_actions_are_clipped_where_they_leave_and_remembered_as_drawn():
    spaces = Spaces({"vector": VECTOR}, ACTIONS["continuous"])
    agent = ppo(spaces)
    noise = {"action": np.float32([[3.0, 0.0], [-3.0, 5.0]])}  # standard deviation 1, mean near 0
    action, _, remembered = agent.act(making.seen(spaces, 2), {}, noise)
    assert action[0, 0] == 0.5 and action[1].tolist() == [-0.5, 1.0]
    drawn = remembered["rollout"].values["action"]
    assert drawn[0, 0] > 2.5 and drawn[1, 0] < -2.5 and drawn[1, 1] > 4.5 and drawn[0, 1] == action[0, 1]


def test_greedy_needs_no_noise():
    for action in ACTIONS.values():
        spaces = Spaces({"vector": VECTOR}, action)
        agent = ppo(spaces)
        greedy = [
            agent.act(making.seen(spaces, 3), {}, noise, greedy=True)[0] for noise in ({}, agent.act_noise(Key(1)("act"), 3, 1))
        ]
        assert np.array_equal(*greedy)


def test_the_greedy_action_is_the_most_probable():
    agent = ppo()
    now = making.seen(ONE_ACTION, 6)
    logits = Textbook(agent, ONE_ACTION.action).policy(torch.from_numpy(now.obs["vector"])).logits
    assert agent.act(now, {}, {}, greedy=True)[0].tolist() == logits.argmax(-1).tolist()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("view", ["vector", "image"])
def test_half_precision_learns_in_float32_parameters(precision, view):
    spaces = Spaces(VIEWS[view], ACTIONS["discrete"])
    agent = ppo(spaces, precision=precision)
    before = weights(agent)
    metrics = learn(agent, rollout(agent, spaces))
    assert all(math.isfinite(float(value)) for value in metrics.values())
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in agent.parameters().values())
    assert not torch.equal(agent.parameters()["actor.weight"], before["actor.weight"])


def test_every_metric_has_a_meaning():
    metrics = learn(agent := ppo(), rollout(agent))
    assert set(metrics) == set(PPO.meanings)


# -- In a run ------------------------------------------------------------------------------------------------------------


def test_every_column_of_a_run_has_a_meaning(tmp_path):
    rows = list(jsonl.read(run(tmp_path / "run") / "metrics.jsonl"))
    assert {name for row in rows for name in row} <= {*MEANINGS, *PPO.meanings}


def test_a_reward_that_is_not_a_number_stops_the_run_and_says_where(tmp_path, monkeypatch):
    from gymnasium.envs.classic_control.cartpole import CartPoleEnv

    honest, calls = CartPoleEnv.step, []

    def step(self, action):
        calls.append(1)
        obs, reward, *rest = honest(self, action)
        return obs, float("nan") if len(calls) == 400 else reward, *rest

    monkeypatch.setattr(CartPoleEnv, "step", step)
    with pytest.raises(Diverged, match=r"environment 1 paid nan in step \d+ of its episode"):
        run(tmp_path / "run", "run.eval_every=0")
    told = facts(tmp_path / "run")
    assert told["status"] == "failed" and told["error"]["kind"] == "Diverged"
    assert checkpoint.newest(tmp_path / "run" / "checkpoints", print) == checkpoint.steps(tmp_path / "run" / "checkpoints")[-1]
    newest = checkpoint.steps(tmp_path / "run" / "checkpoints")[-1]
    assert f"resume={tmp_path / 'run'}@{newest} run.dir=" in (tmp_path / "run" / "console.log").read_text()


def test_a_step_too_large_stops_the_run_and_names_the_parameter(tmp_path):
    with pytest.raises(Diverged, match=r"step \d+, update \d+: no longer finite: .*weight"):
        run(tmp_path / "run", "agent.learning_rate=1e38", "agent.max_grad_norm=null")
