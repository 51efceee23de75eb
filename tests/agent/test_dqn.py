import copy
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import hieros_repro
from hieros_repro.agent.dqn import DQN, look_ahead
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.hardware.recording import Recorded
from hieros_repro.records import Memory, Request, Space, Spaces, UserError
from hieros_repro.train import train
from tests.agent import making
from tests.agent.contract import AgentContract
from tests.agent.making import ACTIONS, DISCRETE, IMAGE, ONE_ACTION, VECTOR, dqn, learn, weights, windows
from tests.runs import compose
from tests.worlds import world

RECORDED = Hardware(device="cpu", precision="fp32", threads=1, compile="record", ranks=1)
TWO = Spaces({"vector": Space("vector", (2,))}, Space("discrete", (), sizes=(2,)))


class TestDQN(AgentContract):
    make = dqn
    actions = ("discrete",)


# -- What followed the first row, computed by hand -----------------------------------------------------------------------

REWARD = [9.0, 1.0, 2.0, 4.0]  # what came with row 0 was for an action before it


def ahead(
    reward: list[float], last: tuple[int, ...] = (), terminal: tuple[int, ...] = (), discount: float = 0.5
) -> list[float]:
    """Of one window with these rows last and terminal: reward, row and discount."""
    flag = {name: np.isin(np.arange(len(reward)), rows) for name, rows in (("is_last", last), ("is_terminal", terminal))}
    first = np.isin(np.arange(len(reward)), [0, *(row + 1 for row in last)])
    batch = {"reward": np.float32(reward), "is_first": first, **flag}
    found = look_ahead({name: torch.from_numpy(value)[None] for name, value in batch.items()}, discount)
    assert all(value.shape == (1,) for value in found)
    return [value.item() for value in found]


@pytest.mark.parametrize(
    ("last", "terminal", "expected"),
    [
        ((), (), [1 + 0.5 * 2 + 0.25 * 4, 3, 0.125]),
        ((3,), (), [1 + 0.5 * 2 + 0.25 * 4, 3, 0.125]),
        ((3,), (3,), [1 + 0.5 * 2 + 0.25 * 4, 3, 0.0]),
        ((2,), (), [1 + 0.5 * 2, 2, 0.25]),
        ((2,), (2,), [1 + 0.5 * 2, 2, 0.0]),
        ((1,), (1,), [1, 1, 0.0]),
        ((1, 2), (2,), [1, 1, 0.5]),
        ((0,), (0,), [0, 0, 0.0]),
        ((0, 2), (), [0, 0, 0.0]),
    ],
    ids=[
        "plain", "time-out at the end", "terminal at the end", "time-out inside", "terminal inside", "terminal at once",
        "a time-out before a terminal row of the next episode", "first row terminal", "first row a time-out",
    ],
)  # fmt: skip
def test_what_followed_the_first_row_is_as_computed_by_hand(last, terminal, expected):
    assert ahead(REWARD, last, terminal) == expected


def test_a_window_of_two_rows_is_one_step():
    assert ahead([9.0, 3.0], discount=0.9) == [3.0, 1, pytest.approx(0.9)]


def test_the_reward_that_came_with_the_first_row_counts_for_nothing():
    assert ahead(REWARD) == ahead([-100.0, *REWARD[1:]])


# -- The loss, computed by hand ------------------------------------------------------------------------------------------


def linear_agent(net: list[list[float]], target: list[list[float]], **changes: Any) -> DQN:
    """Two actions, two observations, no hidden layer: Q(s, a) = net[a] . s, and the same for the target network."""
    agent = dqn(TWO, hidden=[], discount=0.5, **changes)
    with torch.no_grad():
        agent.net.head.weight.copy_(torch.tensor(net))
        agent.target.head.weight.copy_(torch.tensor(target))
    return agent


def window(obs: list[list[float]], action: list[int], reward: list[float], last: tuple[int, ...] = (), **terminal: Any) -> Any:
    """A batch of one window."""
    rows = np.arange(len(reward))
    batch = {
        "action": np.int64(action),
        "reward": np.float32(reward),
        "is_first": rows == 0,
        "is_last": np.isin(rows, last),
        "is_terminal": np.isin(rows, terminal.get("terminal", ())),
    }
    one = {name: torch.from_numpy(value)[None] for name, value in batch.items()}
    return {"obs": {"vector": torch.tensor(obs)[None]}, **one}


OBS = [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]  # Q below: (1, 2), (3, -1), (4, 1); of the target (10, 20), (5, 7), (15, 27)
NET, TARGET = [[1.0, 3.0], [2.0, -1.0]], [[10.0, 5.0], [20.0, 7.0]]


@pytest.mark.parametrize(
    ("last", "terminal", "target"),
    [
        ((), (), 0.5 + 0.5 * 1.5 + 0.25 * 15),  # in the last row action 0 is chosen (4 > 1), and valued 15 by the other network
        ((1,), (), 0.5 + 0.5 * 5),  # action 0 is chosen (3 > -1), and valued 5 although the other network would prefer 7
        ((1,), (1,), 0.5),
        ((2,), (2,), 0.5 + 0.5 * 1.5),
    ],
    ids=["plain", "time-out", "terminal", "terminal at the end"],
)
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_targets_are_double_and_of_n_steps_as_computed_by_hand(last, terminal, target, scale):
    agent = linear_agent(NET, TARGET, n_step=2, value_scale=scale)
    found = agent._loss(window(OBS, [1, 0, 1], [9.0, 0.5 * scale, 1.5 * scale], last, terminal=terminal))
    assert found.value.item() == 2.0  # of action 1, taken at row 0
    assert found.target.item() == pytest.approx(target)
    error = abs(target - 2.0)
    assert found.loss.item() == pytest.approx(error - 0.5 if error > 1 else 0.5 * error**2)


def test_a_window_that_begins_with_a_last_row_has_no_weight():
    agent = linear_agent(NET, TARGET, n_step=2)
    usual = window(OBS, [1, 0, 1], [0.0, 0.5, 1.5])
    empty = window(OBS, [0, 0, 0], [0.0, 700.0, 800.0], last=(0,))
    both = {name: torch.cat([usual[name], empty[name]]) for name in usual if name != "obs"}
    both["obs"] = {"vector": torch.cat([usual["obs"]["vector"], empty["obs"]["vector"]])}
    assert agent._loss(both).loss == agent._loss(usual).loss
    assert agent._loss(empty).loss == 0.0
    assert agent._loss(both).valid.tolist() == [1.0, 0.0]


def test_windows_without_any_transition_move_nothing():
    agent = dqn()
    batches, before = windows(agent), weights(agent)
    batches["windows"]["is_last"][:, 0] = True
    metrics = learn(agent, batches)
    assert digest_tree(weights(agent)) == digest_tree(before)
    assert {metrics[f"dqn/{name}"].item() for name in ("loss", "value", "error", "valid", "grad_norm")} == {0.0}


def test_the_next_episode_takes_no_part_whatever_it_holds():
    agent, twin = dqn(), dqn()
    clean = windows(agent)["windows"]
    beyond = np.cumsum(clean["is_last"], 1) - clean["is_last"] > 0
    absurd = {**clean, "reward": np.where(beyond, np.float32(1e6), clean["reward"])}
    absurd["obs"] = {"vector": np.where(beyond[..., None], np.float32(1e3), clean["obs"]["vector"])}
    absurd["action"] = np.where(beyond, 3 - clean["action"], clean["action"])
    assert 0 < beyond.sum() < beyond.size
    for one, batch in ((agent, clean), (twin, absurd)):
        learn(one, {"windows": batch})
    assert digest_tree(agent.state()) == digest_tree(twin.state())


# -- The same updates, written as in the textbook ------------------------------------------------------------------------


def textbook(agent: DQN) -> nn.Sequential:
    """The same network out of torch's own layers, filled with the agent's weights."""
    net, source = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), weights(agent)
    for layer, index in ((0, 0), (2, 1)):
        net[layer].weight.data = source[f"tower.layers.{index}.weight"][0].T.clone()
        net[layer].bias.data = source[f"tower.layers.{index}.bias"][0, 0]
    net[4].weight.data, net[4].bias.data = source["head.weight"], source["head.bias"]
    return net


def textbook_loss(net: nn.Module, target: nn.Module, batch: dict[str, Any], scale: float) -> torch.Tensor:
    """One window after the other, one row after the other."""
    losses = []
    for obs, action, reward, last, terminal in zip(
        *(torch.from_numpy(x) for x in (batch["obs"]["vector"], batch["action"])),
        *(batch[name] for name in ("reward", "is_last", "is_terminal")),
        strict=True,
    ):
        if last[0]:
            continue
        end = next((t for t in range(1, len(reward)) if last[t]), len(reward) - 1)
        y = sum(0.9 ** (t - 1) * float(reward[t]) for t in range(1, end + 1)) / scale
        if not terminal[end]:
            y += 0.9**end * target(obs[end])[net(obs[end]).argmax()].item()
        losses.append(nn.functional.smooth_l1_loss(net(obs[0])[action[0]], torch.tensor(y)))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(("n", "scale", "norm"), [(1, 1.0, 10.0), (3, 1.0, 0.1), (3, 5.0, 10.0)])
def test_five_updates_are_the_textbooks(n, scale, norm):
    agent = dqn(n_step=n, value_scale=scale, max_grad_norm=norm, final_learning_rate=2e-4, target_every=2)
    before, net = weights(agent), textbook(agent)
    target, optimiser = copy.deepcopy(net), torch.optim.Adam(net.parameters(), lr=1e-3 * 0.9 + 2e-4 * 0.1)
    for update in range(5):
        batches = windows(agent, seed=update)
        loss = textbook_loss(net, target, batches["windows"], scale)
        metrics = learn(agent, batches, update)
        assert metrics["dqn/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
        optimiser.zero_grad()
        loss.backward()
        total = nn.utils.clip_grad_norm_(net.parameters(), norm)
        assert metrics["dqn/grad_norm"].item() == pytest.approx(total.item(), rel=1e-4)
        optimiser.step()
        if update % 2:
            target.load_state_dict(net.state_dict())
    for name, expected in textbook(agent).state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], expected, rtol=1e-4, atol=1e-5, msg=name)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in weights(agent).items())


def test_the_target_network_is_a_copy_made_every_so_many_updates():
    agent, equal = dqn(target_every=3), []
    for update in range(7):
        learn(agent, windows(agent), update)
        equal.append(torch.equal(agent.net.head.weight, agent.target.head.weight))
    assert equal == [False, False, True, False, False, True, False]


def test_the_count_to_the_next_copy_survives_a_restart():
    agent, restored = dqn(target_every=3), dqn(target_every=3, seed=1)
    for update in range(2):
        learn(agent, windows(agent), update)
    assert not torch.equal(agent.net.head.weight, agent.target.head.weight)
    restored.load(agent.state())
    batches = windows(agent)
    for one in (agent, restored):
        learn(one, batches, 2)
        assert torch.equal(one.net.head.weight, one.target.head.weight)
    assert digest_tree(agent.state()) == digest_tree(restored.state())


# -- Exploration ---------------------------------------------------------------------------------------------------------


def act(agent: DQN, coin: list[float], action: list[int], **changes: Any) -> list[int]:
    now = making.seen(ONE_ACTION, len(coin))
    return agent.act(now, {}, {"coin": np.float32(coin), "action": np.int64(action)}, **changes)[0].tolist()


def test_a_coin_below_epsilon_takes_the_random_action():
    agent = dqn(epsilon=0.25)
    best = act(agent, [1.0] * 4, [0] * 4)
    other = [(action + 1) % 4 for action in best]
    assert act(agent, [0.0, 0.2499, 0.25, 0.9], other) == [other[0], other[1], best[2], best[3]]
    assert act(agent, [0.0] * 4, other, greedy=True) == best
    assert agent.act(making.seen(ONE_ACTION, 4), {}, {}, greedy=True)[0].tolist() == best


def test_the_best_action_has_the_highest_value():
    agent, now = dqn(), making.seen(ONE_ACTION, 9)
    values = textbook(agent)(torch.from_numpy(now.obs["vector"]))
    assert agent.act(now, {}, {}, greedy=True)[0].tolist() == values.argmax(-1).tolist()


def test_random_actions_are_as_often_as_epsilon_says_and_of_every_kind():
    noise = dqn().act_noise(Key(5)("act", 0), 100, 80)
    assert np.mean(noise["coin"] < 0.3) == pytest.approx(0.3, abs=0.02)
    counts = np.bincount(noise["action"].ravel(), minlength=4)
    assert len(counts) == 4 and counts.min() > 1850


@pytest.mark.parametrize(("step", "expected"), [(0, 0.5), (250, 0.4), (1000, 0.1), (9000, 0.1)])
def test_epsilon_falls_linearly_with_the_step_and_is_remembered(step, expected):
    agent, restored = dqn(), dqn()  # 0.5 to 0.1 in 1000 steps
    assert learn(agent, windows(agent), step=step)["dqn/epsilon"] == pytest.approx(expected)
    restored.load({"parameters": agent.state()["parameters"]})
    coin = [expected - 1e-3, expected + 1e-3]
    best = act(restored, [1.0] * 2, [0] * 2)
    other = [(action + 1) % 4 for action in best]
    assert act(restored, coin, other) == act(agent, coin, other) == [other[0], best[1]]


# -- What it asks for, and of whom ---------------------------------------------------------------------------------------


def test_it_asks_for_windows_one_row_longer_than_its_returns():
    agent = dqn(n_step=4, batch_size=7, train_ratio=2.5)
    assert agent.due(3) == [Request("windows", batch=7, length=5)]
    assert agent.replays() == {"windows": Memory(length=5)}
    assert agent.train_ratio == 2.5


@pytest.mark.parametrize("kind", sorted(set(ACTIONS) - {"discrete"}))
def test_actions_that_are_not_discrete_are_refused_with_the_name_of_who_takes_them(kind):
    with pytest.raises(UserError, match=f"agent=dqn needs discrete actions, these are {kind}: agent=ppo takes any kind"):
        dqn(Spaces({"vector": VECTOR}, ACTIONS[kind]))


VIEWS = {
    "vector": {"vector": VECTOR},
    "image": {"image": IMAGE},
    "dict": {"camera": IMAGE, "speed": Space("vector", (1,)), "joints": Space("vector", (2, 2))},
}


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("view", VIEWS)
def test_every_kind_of_observation_is_learned_from_in_every_precision(view, precision):
    spaces = Spaces(VIEWS[view], DISCRETE)
    agent = dqn(spaces, precision=precision)
    before = weights(agent)
    metrics = learn(agent, windows(agent, spaces))
    assert all(math.isfinite(float(value)) for value in metrics.values())
    after = agent.parameters()
    assert all(tensor.dtype == torch.float32 and torch.isfinite(tensor).all() for tensor in after.values())
    assert [name for name, tensor in after.items() if torch.equal(tensor, before[name])] == []


def test_a_recording_gives_the_same_bits():
    agent, other = dqn(target_every=2), dqn(target_every=2, how=RECORDED)
    assert isinstance(other.optimise, Recorded) and isinstance(other.choose, Recorded)
    for update in range(5):
        batches = windows(agent, seed=update)
        assert np.array_equal(batches["windows"]["action"], windows(other, seed=update)["windows"]["action"])
        for one in (agent, other):
            learn(one, batches, update, step=200 * update)
    assert digest_tree(agent.state()) == digest_tree(other.state())
    assert digest_tree(agent.trace()) == digest_tree(other.trace())


def test_the_trace_names_every_parameters_gradient():
    learn(agent := dqn(), windows(agent))
    assert set(agent.trace()["gradients"]) == set(agent.parameters())
    assert set(agent.trace()["losses"]) == {"loss", "value", "target", "valid"}


def test_every_metric_has_a_meaning():
    metrics = learn(agent := dqn(), windows(agent))
    assert set(metrics) == set(DQN.meanings)


# -- Learning, where the values are known --------------------------------------------------------------------------------


def stream(*episodes: list[tuple[int, int, float]], terminal: bool = True) -> dict[str, np.ndarray]:
    """Rows (state, action, reward that came with it) of episodes one after the other, states as one-hot vectors."""
    rows = [row for episode in episodes for row in episode]
    state, action, reward = (np.array(column) for column in zip(*rows, strict=True))
    first = [t == 0 for episode in episodes for t in range(len(episode))]
    last = [t == len(episode) - 1 for episode in episodes for t in range(len(episode))]
    flags = {"is_first": np.array(first), "is_last": np.array(last), "is_terminal": np.array(last) & terminal}
    return {"obs": np.eye(4, dtype=np.float32)[state], "action": action, "reward": np.float32(reward), **flags}


def learned(rows: dict[str, np.ndarray], updates: int = 800, **changes: Any) -> np.ndarray:
    """Q (4 states, 2 actions) learned from every window of the rows at once."""
    spaces = Spaces({"vector": Space("vector", (4,))}, Space("discrete", (), sizes=(2,)))
    given = {"hidden": [], "learning_rate": 0.05, "final_learning_rate": 0.0, "target_every": 5, "n_step": 1, "how": RECORDED}
    agent = dqn(spaces, **(given | changes))
    length = agent.n_step + 1
    index = np.arange(len(rows["reward"]) - agent.n_step)[:, None] + np.arange(length)
    batch = {name: torch.from_numpy(array[index]) for name, array in rows.items()}
    batch["is_first"][:, 0] = True
    batch["obs"] = {"vector": batch["obs"]}
    for update in range(updates):
        agent.learn({"windows": batch}, {}, step=1000 * update // updates)
    with torch.no_grad():
        return agent.value_scale * agent.net({"vector": torch.eye(4)}).numpy()


def test_a_reward_on_terminal_rows_alone_is_valued_back_to_the_start():
    """States 0, 1, 2: action 0 ends with 0.1, action 1 moves on, and out of 2 it ends with 1. Discount 0.9."""
    leave = [[(s, 1, 0.0) for s in range(end)] + [(end, 0, 0.0), (end, 0, 0.1)] for end in (0, 1, 2)]
    through = [(0, 1, 0.0), (1, 1, 0.0), (2, 1, 0.0), (2, 0, 1.0)]
    found = learned(stream(*leave, through, through))
    assert found[:3] == pytest.approx(np.array([[0.1, 0.81], [0.1, 0.9], [0.1, 1.0]]), abs=0.02)


def test_the_first_action_decides_what_the_last_row_pays():
    """No later row shows it: only whoever pairs actions and rewards rightly can tell. Every order of three actions once."""
    orders = [*itertools.product((0, 1), repeat=3), (0, 0, 0)]  # one more, so that every window of the others is whole
    rows = stream(*([(0, a, 0.0), (1, b, 0.0), (2, c, 0.0), (3, b, float(a))] for a, b, c in orders))
    found = learned(rows, n_step=3)
    assert found[:3] == pytest.approx(np.array([[0.0, 0.81], [0.45, 0.45], [0.5, 0.5]]), abs=0.02)


@pytest.mark.parametrize(("terminal", "expected"), [(True, 1.0 + 0.9), (False, 1.0 / (1.0 - 0.9))])
@pytest.mark.parametrize("n", [1, 2])
def test_after_a_time_out_the_world_goes_on_and_after_a_terminal_row_it_does_not(terminal, expected, n):
    """Every step pays 1, and each episode has two. All its rows look the same but where the end is one: then they count up."""
    looks = (0, 1, 2) if terminal else (0, 0, 0)
    episode = [(looks[0], 0, 0.0), (looks[1], 1, 1.0), (looks[2], 0, 1.0)]
    other = [(looks[0], 1, 0.0), (looks[1], 0, 1.0), (looks[2], 0, 1.0)]
    found = learned(stream(*[episode, other] * 4, terminal=terminal), value_scale=10.0, n_step=n)
    assert found[0] == pytest.approx(np.full(2, expected), abs=0.05 * expected)


# -- In a run ------------------------------------------------------------------------------------------------------------

SHORT = (
    "agent=dqn", "agent.hidden=[16]", "agent.learning_rate=0.01", "agent.batch_size=32", "agent.train_ratio=16",
    "agent.exploration_steps=1500", "agent.target_every=20", "replay.min_size=200", "replay.size=2000", "run.steps=2000",
    "run.checkpoint_every=0", "run.eval_every=0", "run.final_episodes=0", "run.fingerprint_every=0", "log=quiet",
)  # fmt: skip


def test_in_a_run_it_passes_by_the_small_reward_for_the_large_one_behind(tmp_path):
    typed = [*world("Chain"), *SHORT, f"run.dir={tmp_path / 'run'}"]
    train(compose(*typed), typed)
    policy = hieros_repro.load(tmp_path / "run")
    assert [policy.act(row) for row in np.eye(3, dtype=np.float32)] == [1, 1, 1]
    values = policy.agent.net({"vector": torch.eye(3)})
    assert values.detach().numpy() == pytest.approx(np.array([[0.1, 0.99**2], [0.1, 0.99], [0.1, 1.0]]), abs=0.05)
