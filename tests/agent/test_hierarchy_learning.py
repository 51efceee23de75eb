from typing import Any

import numpy as np
import pytest
import torch

from hieros_repro import build
from hieros_repro.agent.dream import RollOut, trajectories
from hieros_repro.agent.hierarchy import Hierarchy
from hieros_repro.agent.level import Judged, Level, Replayed, Trajectory
from hieros_repro.check import check
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.nn.block import Style
from hieros_repro.ops.action import Codes
from hieros_repro.records import Request, Space, Spaces
from hieros_repro.world.base import Latent
from tests.agent import making
from tests.agent.dreaming import director, drawn, dreamer, floats, hieros, lived, three, update
from tests.agent.making import ACTIONS, IMAGE, ONE_ACTION, VECTOR, hardware
from tests.runs import compose
from tests.world.observations import count

RECORDED = Hardware(device="cpu", precision="fp32", threads=1, compile="record", ranks=1)
HALF = Hardware(device="cpu", precision="bf16", threads=1, compile=None, ranks=1)
EVERY = pytest.mark.parametrize("make", [director, dreamer, hieros])


# -- What it learns from ----------------------------------------------------------------------------------------------------


def numbered(agent: Hierarchy, first: tuple[int, ...] = ()) -> dict[str, Any]:
    """One window whose row t has the vector (t, t, t), the reward t and the action t % 4."""
    rows = agent.due(0)[0].length
    t = torch.arange(rows)
    flags = {"is_first": torch.isin(t, torch.tensor([0, *first])), "is_last": t == 3, "is_terminal": t == 3}
    batch = {"obs": {"vector": t.float().unsqueeze(-1).expand(-1, 3)}, "action": t % 4, "reward": t.float(), **flags}
    found = {name: value.unsqueeze(0) for name, value in batch.items() if name != "obs"}
    before = {"deter": torch.full((1, 16), 0.5), "stoch": torch.full((1, 4), 2, dtype=torch.uint8)} if agent.context else {}
    return found | {"obs": {"vector": batch["obs"]["vector"].unsqueeze(0)}} | before


def test_rows_come_with_the_action_that_led_to_them():
    rows, start = director().tiers[0].rows(numbered(director()))
    assert rows.obs["vector"][:, 0, 0].tolist() == rows.reward[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert not rows.action[0].any()
    assert rows.action[1:, 0].argmax(-1).tolist() == [0, 1, 2, 3, 0]  # of row 0, 1, 2, 3, 4
    assert rows.is_first[:, 0].tolist() == [True, *[False] * 5] and rows.is_last[:, 0].tolist() == [t == 3 for t in range(6)]
    assert torch.equal(start.deter, director().tiers[0].who.world.initial(1).deter)


def test_with_context_the_row_before_gives_a_state_and_an_action():
    rows, start = dreamer().tiers[0].rows(numbered(dreamer()))
    assert rows.obs["vector"][:, 0, 0].tolist() == rows.reward[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
    assert rows.action[:, 0].argmax(-1).tolist() == [0, 1, 2, 3, 0, 1]
    assert not rows.is_first.any()
    assert torch.equal(start.deter, torch.full((1, 16), 0.5))
    assert torch.equal(start.stoch, torch.tensor([0.0, 0, 1, 0]).repeat(4).unsqueeze(0))


def test_what_is_asked_of_the_replay():
    without = dreamer(ONE_ACTION, "agent.replay_context=0")
    for agent, length, refreshed in ((director(), 6, ()), (dreamer(), 7, ("deter", "stoch")), (without, 6, ())):
        [(name, memory)] = agent.replays().items()
        assert (name, memory.length, memory.refreshed, memory.observes) == ("windows", length, refreshed, True)
        assert agent.due(0) == [Request("windows", 4, length)]


def test_states_are_remembered_where_windows_start_from_them():
    for agent, names in ((director(), {"action"}), (dreamer(), {"action", "deter", "stoch"})):
        _, carry, rows = agent.act(making.seen(ONE_ACTION, 3), agent.initial(3), drawn(agent, 0, 3))
        values = rows["windows"].values
        assert set(values) == names and rows["windows"].mask is None
        if "deter" in values:
            state = carry["tiers"][0]["state"]
            assert np.array_equal(values["deter"], state["deter"].numpy()) and values["stoch"].shape == (3, 4)


def test_refreshed_states_are_those_that_were_seen_without_the_row_before():
    agent, twin = dreamer(), dreamer()
    batches = making.windows(agent)
    batch = hardware().to_device(batches)["windows"]
    noise = hardware().to_device(twin.learn_noise(Key(0)("learn", 0), batches))["windows"]
    world, (rows, start) = twin.tiers[0].who.world, twin.tiers[0].rows(batch)
    latent = world.observe(rows.obs, rows.action, rows.is_first, start, noise["observe"]).latent
    fresh = update(agent, batches)[1]["windows"]
    assert {name: value.shape for name, value in fresh.items()} == {"deter": (4, 6, 16), "stoch": (4, 6, 4)}
    expected = world.stored(Latent(*(x.detach().transpose(0, 1) for x in latent)))
    assert torch.equal(fresh["deter"], expected["deter"]) and torch.equal(fresh["stoch"], expected["stoch"])
    assert fresh["stoch"].dtype == torch.uint8 and not fresh["deter"].requires_grad


def test_without_context_nothing_is_written_back():
    assert update(director(), making.windows(director()))[1] == {}


def test_the_state_before_matters_where_the_episode_goes_on_and_not_where_one_begins():
    def seen(value: float, **flags: Any) -> torch.Tensor:
        batch = numbered(dreamer(ONE_ACTION, "agent.batch_size=1"), **flags) | {"deter": torch.full((1, 16), value)}
        agent = dreamer(ONE_ACTION, "agent.batch_size=1")
        return update(agent, {"windows": batch})[1]["windows"]["deter"]

    assert not torch.equal(seen(0.5), seen(-0.5))
    assert torch.equal(seen(0.5, first=(1,)), seen(-0.5, first=(1,)))


def test_dreams_start_from_states_that_were_seen_and_know_which_were_ends(monkeypatch):
    heard: dict[str, Any] = {}

    def listening(who: Any, dream: RollOut, meaning: torch.Tensor, went_on: torch.Tensor, *rest: Any) -> list[Trajectory]:
        heard.update(deter=dream.deter[0], look=dream.looks[0], went_on=went_on)
        return trajectories(who, dream, meaning, went_on, *rest)

    monkeypatch.setattr("hieros_repro.agent.tier.trajectories", listening)
    agent, twin = (director(ONE_ACTION, "agent.imag_starts=20", "world.continue_target=0.75") for _ in range(2))
    batches = making.windows(agent)
    update(agent, batches)
    noise = hardware().to_device(twin.learn_noise(Key(0)("learn", 0), batches))["windows"]
    rows, start = twin.tiers[0].rows(hardware().to_device(batches)["windows"])
    latent = twin.tiers[0].who.world.observe(rows.obs, rows.action, rows.is_first, start, noise["observe"]).latent
    time, window = noise["starts"] // 4, noise["starts"] % 4
    assert torch.equal(heard["deter"], latent.deter[time, window]) and torch.equal(heard["look"], latent.feature[time, window])
    ends, lasts = rows.is_terminal[time, window], rows.is_last[time, window]
    assert heard["went_on"].tolist() == [0.0 if end else 0.75 for end in ends]
    assert ends.any() and (lasts & ~ends).any()


def test_a_replayed_row_is_worth_what_the_dream_from_it_returned(monkeypatch):
    heard: dict[str, Any] = {}

    def judging(level: Level, dream: Trajectory) -> Judged:
        heard.update(began=dream.state[0], judged=judge(level, dream))
        return heard["judged"]

    def replaying(level: Level, rows: Replayed, boot: torch.Tensor, proceeds: float) -> torch.Tensor:
        heard.update(rows=rows, boot=boot, proceeds=proceeds)
        return replay_loss(level, rows, boot, proceeds)

    judge, replay_loss = Level.judge, Level.replay_loss
    monkeypatch.setattr(Level, "judge", judging)
    monkeypatch.setattr(Level, "replay_loss", replaying)
    agent = dreamer(ONE_ACTION, "world.head_scale=0.1")  # else all rewards are foreseen as 0
    batches = making.windows(agent)
    update(agent, batches)
    rows = heard["rows"]
    assert torch.equal(rows.state.flatten(0, 1), heard["began"])
    assert torch.equal(heard["boot"].flatten(), heard["judged"].returns["extrinsic"][0])
    assert len(heard["boot"].unique()) == 24
    assert rows.reward.tolist() == batches["windows"]["reward"][:, 1:].T.tolist()
    assert heard["proceeds"] == agent.tiers[0].who.world.continue_target == pytest.approx(1 - 1 / 333)


@EVERY
def test_rewards_and_ends_of_last_rows_are_learned(make):
    def losses(**changes: Any) -> dict[str, float]:
        agent = make(ONE_ACTION, "world.head_scale=0.1")  # equal bins would say the same of every reward
        batches = making.windows(agent)
        batch = batches["windows"]
        window, row = np.argwhere(batch["is_last"] & ~batch["is_terminal"])[0]
        if changes.get("reward"):
            batch["reward"][window, row] += changes["reward"]
        batch["is_terminal"][window, row] = changes.get("terminal", False)
        return floats(update(agent, batches)[0])

    plain, paid, ended = losses(), losses(reward=1.0), losses(terminal=True)
    assert paid["Subactor-0/reward_loss"] != plain["Subactor-0/reward_loss"]
    assert ended["Subactor-0/cont_loss"] != plain["Subactor-0/cont_loss"]
    for name in ("vector_loss", "kl"):
        assert paid[f"Subactor-0/{name}"] == ended[f"Subactor-0/{name}"] == plain[f"Subactor-0/{name}"]
    assert paid["Subactor-0/cont_loss"] == plain["Subactor-0/cont_loss"]
    assert ended["Subactor-0/reward_loss"] == plain["Subactor-0/reward_loss"]


# -- Updates -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["discrete", "continuous"])
@pytest.mark.parametrize("make", [director, dreamer, three, hieros])
def test_a_recorded_agent_learns_with_equal_bits(make, action):
    spaces = Spaces({"vector": VECTOR, "image": IMAGE} if action == "discrete" else {"vector": VECTOR}, ACTIONS[action])
    agents = make(spaces), make(spaces, how=RECORDED)
    for number in range(3):
        batches = making.windows(agents[0], spaces, seed=number)
        one, other = (update(agent, batches, number) for agent in agents)
        assert floats(one[0]) == floats(other[0]) and digest_tree(one[1]) == digest_tree(other[1])
    assert digest_tree(agents[0].state()) == digest_tree(agents[1].state())


@pytest.mark.parametrize("make", [director, dreamer, three, hieros])
def test_everything_learns_and_every_slow_copy_follows(make):
    agent = make()
    critics = [critic for tier in agent.tiers for critic in tier.critics]
    before, slow = making.weights(agent), [digest_tree(critic.slow.state()) for critic in critics]
    for critic in critics:
        critic.slow_every = 1
    for number in range(4):  # what a last layer of zeros stands behind learns from the second update on
        update(agent, making.windows(agent, seed=number), number)
    still = [name for name, value in agent.parameters().items() if torch.equal(value, before[name])]
    assert still == []
    assert all(digest_tree(critic.slow.state()) != old for critic, old in zip(critics, slow, strict=True))


def test_dreams_teach_the_world_nothing():
    # the world's gradient is the same, whatever is dreamt and aimed at; those of the levels are not
    found = []
    for number in (0, 1):
        agent = director()
        batches = making.windows(agent)
        other = agent.learn_noise(Key(0)("learn", number), batches)["windows"]
        update(agent, batches, 0, **{name: other[name] for name in ("dream", "levels", "goals")})
        found.append(agent.trace()["gradients"])
    equal = {name: torch.equal(value, found[1][name]) for name, value in found[0].items()}
    assert {name for name, same in equal.items() if same} == {name for name in equal if name.startswith("world.")}


def test_values_of_replayed_rows_teach_the_world():
    found = []
    for weight in (0.0, 1.0):
        agent = dreamer(ONE_ACTION, f"agent.levels.actor.replay_value={weight}", "agent.levels.actor.critic.scale=1.0")
        update(agent, making.windows(agent))
        found.append(agent.trace()["gradients"]["world.encoder.mlp.blocks.0.affine.weight"])
    assert not torch.equal(*found)


@pytest.mark.parametrize(("make", "levels"), [(dreamer, 1), (director, 2), (three, 3), (hieros, 3)])
def test_every_level_tells_of_itself(make, levels):
    agent = make()
    metrics = floats(update(agent, making.windows(agent))[0])
    assert np.isfinite(list(metrics.values())).all()
    every = [level for tier in agent.tiers for level in tier.who.levels]
    for level in range(levels):
        own = {name.removeprefix(f"Subactor-{level}/") for name in metrics if name.startswith(f"Subactor-{level}/")}
        assert {"actor_loss", "critic_loss", "actor_grad_norm", "entropy", "entropy_weight", "advantage"} <= own
        for reward in every[level].weights:
            assert {f"{reward}_{what}" for what in ("reward", "return", "value", "return_scale", "critic_grad_norm")} <= own
    assert {name.partition("/")[0] for name in metrics} == {f"Subactor-{level}" for level in range(levels)}
    for tier in agent.tiers:
        parts = ("reward_loss", "cont_loss", "kl", *(("deter_loss", "stoch_loss") if tier.place else ("vector_loss",)))
        assert metrics[tier.metric("wm_loss")] == pytest.approx(sum(metrics[tier.metric(name)] for name in parts))


@EVERY
def test_gradients_of_the_latest_update_are_told_by_parameter(make):
    agent = make()
    update(agent, making.windows(agent))
    gradients = agent.trace()["gradients"]
    paths = {f"{head}.{rest}" for head, rest in (name.split(".", 1) for name in agent.parameters())}
    assert set(gradients) == paths
    assert all(gradients[name].shape == value.shape for name, value in agent.parameters().items())


@EVERY
def test_half_precision_learns_and_acts(make):
    agent = make(how=HALF)
    metrics = floats(update(agent, making.windows(agent))[0])
    assert np.isfinite(list(metrics.values())).all()
    assert {tensor.dtype for tensor in agent.parameters().values()} == {torch.float32}
    before = agent.initial(2)
    for carry in lived(agent, {}, ticks=3):  # float32 is what is carried and remembered
        assert dtypes(carry) == dtypes(before)
        for tier in carry["tiers"].values():
            assert all(aim.dtype == torch.float32 and aim.isfinite().all() for aim in tier["aims"].values())


def dtypes(tree: Any) -> Any:
    return {name: dtypes(value) for name, value in tree.items()} if isinstance(tree, dict) else tree.dtype


def test_behaviour_has_a_learning_rate_of_its_own():
    agent = director(ONE_ACTION, "agent.behaviour_learning_rate=0.0")
    before = making.weights(agent)
    update(agent, making.windows(agent))
    moved = {name.partition(".")[0] for name, value in agent.parameters().items() if not torch.equal(value, before[name])}
    assert moved == {"world", "goals"}


def test_directors_parts_have_as_many_parameters_as_published():
    found = check(compose("agent=director", "env=dummy", "size=paper"))["agent"]
    style, deter, state = Style("layer", "elu", "glorot"), 1024, 2048
    goals = build.construct(found["goals"])(deter, style)
    makes = [build.construct(level) for level in found["levels"].values()]
    acts = [Codes((5,), 0.01, "discrete"), goals.actions(0.01)]
    worker, manager = (make(size, act, style, 0.5) for make, size, act in zip(makes, (state + deter, state), acts, strict=True))
    assert count(goals) == 2_696_256
    assert count(worker.actor) == 2_365_957 and count(worker.critics["goal"]) == 2_363_905
    assert count(manager.actor) == 1_871_936 and [count(critic) for critic in manager.critics.values()] == [1_839_617] * 2


# -- What an action does ---------------------------------------------------------------------------------------------------

RING, COUNTING = 4, Spaces({"vector": Space("vector", (4,))}, Space("discrete", (), sizes=(3,)))
COUNTER = (
    "agent.batch_size=32", "agent.batch_length=4", "agent.imag_horizon=2", "agent.imag_starts=2", "agent.learning_rate=1e-2",
    "agent.norm=rms", "agent.activation=silu", "world.kl.adaptive=false", "world.kl_aim=1.0", "world.dynamics_scale=1.0",
    "world.representation_scale=0.1",
)  # fmt: skip


def counted(agent: Hierarchy, number: int, late: int) -> dict[str, Any]:
    """Windows of a counter modulo 4, shown as a one-hot vector, to which actions 0, 1, 2 add -1, 0 and 1: the action of row t
    leads to row t + 1, or with late = 1 (wrongly) to row t + 2."""
    [asked] = agent.due(0)
    key, shape = Key(number)("data"), (asked.batch, asked.length)
    action = key("action").integers(3, shape)
    start = key("start").integers(RING, (len(action), 1))
    count = (start + np.cumsum(np.concatenate([np.zeros_like(start), action[:, :-1] - 1], 1), 1)) % RING
    flags = {name: np.zeros(shape, bool) for name in ("is_first", "is_last", "is_terminal")}
    flags["is_first"][:, 0] = True
    before = {"deter": np.zeros((len(action), 16), np.float32), "stoch": np.zeros((len(action), 4), np.uint8)}
    batch = {"obs": {"vector": np.eye(RING, dtype=np.float32)[count]}, "action": np.roll(action, late, 1), **flags}
    batch |= {"reward": count.astype(np.float32)} | (before if agent.context else {})
    return {"windows": batch}


@torch.no_grad()
def share_foreseen(agent: Hierarchy) -> float:
    """How often what is dreamt after a seen state and an action decodes to what the action causes."""
    world, batch = agent.tiers[0].who.world, counted(agent, 999, late=0)
    rows, start = agent.tiers[0].rows(hardware().to_device(batch)["windows"])
    drawn = {"stoch": torch.full((*rows.is_first.shape, 4), 0.5)}
    seen = world.observe(rows.obs, rows.action, rows.is_first, start, drawn).latent
    before = Latent(*(x[-1] for x in seen))
    count, right = rows.obs["vector"][-1].argmax(-1), 0
    size = len(count)
    for action in range(3):
        vector = agent.tiers[0].actions.from_env(torch.full((size,), action))
        dreamt = world.imagine(before, vector, {"stoch": torch.full((size, 4), 0.5)})
        found = world.decoded(dreamt)["vector"].argmax(-1)
        right += int((found == (count + action - 1) % RING).sum())
    return right / (3 * size)


@pytest.mark.parametrize(("cell", "context"), [("gru", 0), pytest.param("block", 1, marks=pytest.mark.slow)])
def test_what_is_dreamt_after_an_action_is_what_the_action_causes(cell, context):
    def trained(late: int, most: int) -> tuple[int, float]:
        """After how many updates everything is foreseen, at most so many, and how much then is."""
        agent = director(COUNTING, *COUNTER, f"world.cell={cell}", f"agent.replay_context={context}", how=RECORDED)
        for number in range(most):
            update(agent, counted(agent, number, late), number)
            if number % 50 == 49 and share_foreseen(agent) > 0.95:
                break
        return number + 1, share_foreseen(agent)

    updates, foreseen = trained(late=0, most=500)
    assert foreseen > 0.95
    assert trained(late=1, most=updates)[1] < 0.6
