"""Hieros as an agent: levels with worlds of their own, as many and as large as its configuration says."""

import numpy as np
import pytest
import torch

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.records import ConfigError, Request
from tests.agent import making
from tests.agent.contract import AgentContract
from tests.agent.dreaming import drawn, dreamer, floats, hierarchy, hieros, lived, update
from tests.agent.making import ONE_ACTION


class TestHieros(AgentContract):
    make = hieros
    actions = ("discrete", "continuous")


def learned(agent, updates=1):
    """The metrics of the last of some updates of everything there is, all of them numbers."""
    for number in range(updates):
        found = floats(update(agent, making.windows(agent, seed=number), number)[0])
    assert np.isfinite(list(found.values())).all()
    return found


def levels(agent):
    return [level for tier in agent.tiers for level in tier.who.levels]


# -- How many ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_one_to_four_levels_act_and_learn(count):
    agent = hieros(ONE_ACTION, f"agent.max_hierarchy={count}")
    assert list(agent.parts()) == ["world", "goals", "level_0", *(f"upper_{i}" for i in range(1, count))]
    names = ["windows", *(f"windows_{i}" for i in range(1, count))]
    assert list(agent.replays()) == names
    assert [memory.every for memory in agent.replays().values()] == [2**i for i in range(count)]
    assert [memory.observes for memory in agent.replays().values()] == [True] + [False] * (count - 1)
    _, _, rows = agent.act(making.seen(ONE_ACTION, 3), agent.initial(3), drawn(agent, 0, 3))
    assert list(rows) == names
    found = learned(agent)
    assert {name.partition("/")[0] for name in found} == {f"Subactor-{i}" for i in range(count)}


def test_the_highest_of_all_has_no_goal_however_many_there_are():
    for count in (1, 2, 4):
        agent = hieros(ONE_ACTION, f"agent.max_hierarchy={count}")
        told = [["extrinsic", "goal", "novelty"]] * (count - 1)
        assert [sorted(level.critics) for level in levels(agent)] == [*told, ["extrinsic", "novelty"]]
        assert [tier.who.told for tier in agent.tiers] == [True] * (count - 1) + [False]
        goals = [values.get("goal") is not None for values in remembered(agent)]
        assert goals == [True] * (count - 1) + [False]


def remembered(agent):
    _, _, rows = agent.act(making.seen(ONE_ACTION, 2), agent.initial(2), drawn(agent, 0, 2))
    return [own.values for own in rows.values()]


def test_levels_that_are_not_there_draw_and_build_nothing():
    # each level's parameters and noise are named after it, so those of the lower ones are the same in any hierarchy
    two, three = (hieros(ONE_ACTION, f"agent.max_hierarchy={count}") for count in (2, 3))
    parameters, more = two.parameters(), three.parameters()
    shared = [name for name in parameters if name.startswith(("world.", "goals.", "level_0."))]
    assert shared and all(torch.equal(parameters[name], more[name]) for name in shared)
    assert parameters.keys() < more.keys()
    one, other = drawn(two, 3, 2), drawn(three, 3, 2)
    assert one.keys() < other.keys() and digest_tree(one) == digest_tree({name: other[name] for name in one})


# -- When ----------------------------------------------------------------------------------------------------------------


def test_upper_worlds_learn_at_every_so_many_updates_and_are_not_waited_for():
    asked = [hieros().due(update) for update in range(5)]
    [lowest, *upper] = [Request(name, 4, 6, waits=name == "windows") for name in ("windows", "windows_1", "windows_2")]
    assert asked == [[lowest, *upper], [lowest], [lowest, upper[0]], [lowest], [lowest, *upper]]
    seldom = hieros(ONE_ACTION, "agent.subactor_train_every=3")
    assert [len(seldom.due(update)) for update in range(10)] == [3, 1, 1, 2, 1, 1, 2, 1, 1, 3]


def test_only_what_has_a_batch_learns():
    agent = hieros()
    batches, before = making.windows(agent), making.weights(agent)
    metrics = update(agent, {"windows": batches["windows"], "windows_2": batches["windows_2"]})[0]
    assert {name.partition("/")[0] for name in metrics} == {"Subactor-0", "Subactor-2"}
    moved = {name.partition(".")[0] for name, value in agent.parameters().items() if not torch.equal(value, before[name])}
    assert moved == {"world", "goals", "level_0", "upper_2"}
    assert [tier.updates for tier in agent.tiers] == [1, 0, 1]
    assert {name.partition(".")[0] for name in agent.trace()["gradients"]} == moved


def test_worlds_are_added_after_so_many_updates_and_then_after_ever_more():
    # the first after 2, the second after 4 more: 6
    agent = hieros(ONE_ACTION, "agent.add_hierarchy_every=2")
    assert [len(agent.due(update)) for update in (0, 1, 2, 4, 5, 6, 8)] == [1, 1, 2, 2, 1, 2, 3]
    there = []
    for number in range(7):
        _, carry, rows = agent.act(making.seen(ONE_ACTION, 2), agent.initial(2), drawn(agent, 0, 2))
        there.append(len(rows))
        told = rows["windows"].values["goal"]
        assert (told == 255).all() == (len(rows) == 1) and carry["tiers"][0]["aims"][0].any() == (len(rows) > 1)
        update(agent, {"windows": making.windows(agent)["windows"]}, number)
    assert there == [1, 1, 2, 2, 2, 2, 3]


def test_a_world_that_is_added_begins_its_first_row_as_if_an_episode_did():
    agent = hieros(ONE_ACTION, "agent.add_hierarchy_every=1", "agent.max_hierarchy=2")
    carry = lived(agent, {}, ticks=3)[-1]
    update(agent, {"windows": making.windows(agent)["windows"]})
    begun = []
    for tick in range(3, 7):
        _, carry, rows = agent.act(making.seen(ONE_ACTION, 2), carry, drawn(agent, tick, 2))
        begun += [rows["windows_1"].values["is_first"].tolist()] if "windows_1" in rows else []
    assert begun == [[True, True], [False, False]]


# -- In which worlds -----------------------------------------------------------------------------------------------------


def test_levels_may_share_one_world():
    agent = hieros(ONE_ACTION, "agent.upper_world=null")
    [tier] = agent.tiers
    assert list(agent.parts()) == ["world", "goals", "level_0", "level_1", "level_2"] and list(agent.replays()) == ["windows"]
    assert agent.due(0) == agent.due(1) == [Request("windows", 4, 6)]
    assert [sorted(level.critics) for level in tier.who.levels][1:] == [
        ["extrinsic", "goal", "novelty"],
        ["extrinsic", "novelty"],
    ]
    found = learned(agent, 2)
    assert {name.partition("/")[0] for name in found if "wm" in name} == {"Subactor-0"}
    assert {"Subactor-2/actor_loss", "Subactor-1/goal_reward", "Subactor-0/subgoal_error"} <= found.keys()
    aims = [carry["tiers"][0]["aims"] for carry in lived(agent, {}, ticks=3)]
    assert aims[0][0].shape == (2, 12) and (aims[0][1].sum(-1) == 3).all() and aims[0][2].shape == (2, 0)


@pytest.mark.parametrize("world", ["rssm", "rssm_block"])
def test_its_worlds_may_be_recurrent(world):
    found = learned(hieros(ONE_ACTION, f"world={world}", "world.head_units=16", "world.vector_layers=1"), 2)
    assert {f"Subactor-{i}/deter_loss" in found for i in (1, 2)} == {True} and "Subactor-0/vector_loss" in found


@pytest.mark.parametrize("world", ["s5", "rssm"])
def test_upper_worlds_may_be_narrower(world):
    widths = ("size.state=8", "agent.hierarchy_decrease_sizes=2")
    agent = hieros(ONE_ACTION, f"world={world}", *widths)
    assert [tier.who.world.deter for tier in agent.tiers] == [16, 8, 8]
    assert [tier.who.world.stoch for tier in agent.tiers] == [16, 16, 16]  # not of what is drawn
    full = hieros(ONE_ACTION, f"world={world}", "size.state=8").parts()
    parts = agent.parts()
    assert parts["world"] == full["world"] and parts["level_0"] == full["level_0"] and parts["goals"] == full["goals"]
    assert parts["upper_1"] < full["upper_1"] and parts["upper_2"] < full["upper_2"]
    learned(agent)


def test_a_world_above_observes_as_many_states_as_its_level_waits_for_or_the_newest_one():
    # 2 states of 16 numbers and 4 draws below; what is rebuilt are their one-hot vectors
    for window, count in (("all", 2), ("newest", 1)):
        agent = hieros(ONE_ACTION, f"agent.upward.window={window}")
        values = remembered(agent)[1]
        assert values["obs.deter"].shape == (2, count, 16) and values["obs.stoch"].shape == (2, count, 4)
        assert agent.replays()["windows_1"].row_bytes == count * (16 * 4 + 4) + 3
        learned(agent)


# -- Learning ------------------------------------------------------------------------------------------------------------


def weights(metrics):
    return [metrics[name] for name in sorted(metrics) if name.endswith("/entropy_weight")]


def test_entropy_has_a_weight_for_every_level_the_last_for_all_above():
    assert weights(learned(hieros(ONE_ACTION, "agent.actor_entropy=[0.1,0.2]"))) == pytest.approx([0.1, 0.2, 0.2])
    assert weights(learned(hieros(ONE_ACTION, "agent.actor_entropy=0.3"))) == pytest.approx([0.3, 0.3, 0.3])
    shared = hieros(ONE_ACTION, "agent.actor_entropy=[0.1,0.2,0.4]", "agent.upper_world=null")
    assert weights(learned(shared)) == pytest.approx([0.1, 0.2, 0.4])


def test_the_weight_of_entropy_goes_straight_to_its_last_value():
    # updates are made at step 100, a tenth of the horizon
    given = ("agent.actor_entropy=[0.1,0.2,0.4]", "agent.final_actor_entropy=[0.0,0.3]")
    agent = hieros(ONE_ACTION, *given)
    assert weights(learned(agent)) == pytest.approx([0.09, 0.21, 0.39])
    assert [[weight(step) for step in (0, 500, 1000, 5000)] for weight in agent.entropy] == [
        pytest.approx(expected) for expected in ([0.1, 0.05, 0, 0], [0.2, 0.25, 0.3, 0.3], [0.4, 0.35, 0.3, 0.3])
    ]
    [single] = weights(learned(dreamer(ONE_ACTION, "agent.actor_entropy=1.0", "agent.final_actor_entropy=0.0")))
    assert single == pytest.approx(0.9)


def test_what_holds_entropy_at_a_target_is_not_scheduled():
    adaptive = [f"agent.levels.level_{i}.entropy.adaptive=true" for i in range(3)]
    with pytest.raises(ConfigError, match=r"agent.final_actor_entropy: null is needed"):
        hieros(ONE_ACTION, *adaptive, "agent.actor_entropy=0.5", "agent.final_actor_entropy=0.0")
    found = weights(learned(hieros(ONE_ACTION, *adaptive, "agent.actor_entropy=0.5")))
    assert found == pytest.approx([1 / 1.1] * 3)  # policies begin nearly uniform: less weight


def test_the_original_code_s_ways_learn_too():
    agent = hierarchy("hieros_compat")
    found = learned(agent, 2)
    assert agent.replays()["windows_1"].row_bytes == 2 * (16 * 4 + 4) + 3 + 16 * 4
    assert all(found[f"Subactor-{i}/novelty_reward"] > 0 for i in range(3))


@pytest.mark.parametrize(
    "change",
    ["goals.told=state", "goals.draw=sampled", "goals.error=sum", "goals.learn_from=replay", "imag_starts=5", "norm=rms"],
)
def test_every_other_way_learns(change):
    learned(hieros(ONE_ACTION, f"agent.{change}"))


def test_novelty_can_be_for_upper_levels_alone():
    agent = hieros(ONE_ACTION, "agent.levels.level_0.rewards.novelty=0.0", "agent.levels.level_1.rewards.novelty=0.1")
    assert [sorted(level.critics) for level in levels(agent)][:2] == [["extrinsic", "goal"], ["extrinsic", "goal", "novelty"]]
