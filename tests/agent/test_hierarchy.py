import re
from itertools import pairwise

import numpy as np
import pytest
import torch

from hieros_repro import build
from hieros_repro.agent.goal import NoGoals
from hieros_repro.check import check
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.records import ConfigError, Space, Spaces, UserError
from hieros_repro.run import checkpoint
from tests.agent import making
from tests.agent.contract import VIEWS, AgentContract
from tests.agent.dreaming import director, drawn, dreamer, floats, hieros, lived, settings, three, update
from tests.agent.making import ACTIONS, ONE_ACTION, VECTOR, hardware
from tests.runs import SHORT_DIRECTOR, compose, run

RECORDED = Hardware(device="cpu", precision="fp32", threads=1, compile="record", ranks=1)
EVERY = pytest.mark.parametrize("make", [director, dreamer, hieros])


class TestDirector(AgentContract):
    make = director
    actions = ("discrete", "continuous")


class TestDreamer(AgentContract):
    make = dreamer
    actions = ("multidiscrete", "continuous")


# -- What cannot be ------------------------------------------------------------------------------------------------------


def faults(agent, *changes):
    with pytest.raises(ConfigError) as caught:
        settings(agent, *changes)
    return {fault.key: fault.problem for fault in caught.value.faults}


TWO = ["agent.max_hierarchy=2"]
GOAL_ALONE = ["agent.levels.level_2.rewards.extrinsic=0", "agent.levels.level_2.rewards.novelty=0"]


@pytest.mark.parametrize(
    ("agent", "changes", "key", "problem"),
    [
        ("director", ["agent.imag_horizon=5"], "imag_horizon", r"5: 'manager' acts every 2 steps.* e.g. 6$"),
        ("director", ["agent.subactor_update_every=3"], "imag_horizon", r"4: 'manager' acts every 3 steps.* e.g. 6$"),
        (
            "director",
            ["+agent.levels.worker.rewards.gaol=1.0"],
            "levels.worker.rewards.gaol",
            r"this level knows extrinsic, novelty, goal; did you mean goal\?$",
        ),
        ("director", ["+agent.levels.manager.rewards.goal=1.0"], "levels.manager.rewards.goal", "knows extrinsic, novelty$"),
        ("dreamer", ["+agent.levels.actor.rewards.goal=1.0"], "levels.actor.rewards.goal", "knows extrinsic$"),
        ("dreamer", ["+agent.levels.actor.rewards.novelty=1.0"], "levels.actor.rewards.novelty", "knows extrinsic$"),
        ("dreamer", ["agent.imag_starts=7"], "levels.actor.replay_value", "0.3: .*a dream from every row"),
        ("dreamer", ["agent.levels.actor.rewards.extrinsic=0"], "levels.actor.replay_value", "learns from extrinsic reward"),
        ("dreamer", ["agent.batch_length=1"], "levels.actor.replay_value", "0.3: .*windows of 2 rows or more"),
        ("director", ["agent.levels.manager.replay_value=0.5"], "levels.manager.replay_value", "0.5: .*an agent of one level"),
        ("dreamer", ["~agent.levels.actor"], "levels", "there is none"),
        ("dreamer", ["agent.levels.actor=null"], "levels.actor", "a node with a _target_"),
        ("dreamer", [*TWO, "+agent.levels.train=${agent.levels.actor}"], "levels.train", "no level may be named so"),
        ("dreamer", [*TWO, "+agent.levels.goals=${agent.levels.actor}"], "levels.goals", "no level may be named so"),
        ("dreamer", [*TWO, "+agent.levels.above=${agent.levels.actor}"], "goals", "levels tell each other goals"),
        ("dreamer", TWO, "max_hierarchy", "2: there are 1 levels, actor$"),
        ("hieros", ["agent.max_hierarchy=5"], "max_hierarchy", "5: there are 4 levels, level_0, level_1, level_2, level_3$"),
        ("hieros", ["agent.max_hierarchy=0"], "max_hierarchy", "0 is not allowed; .* at least 1"),
        ("hieros", ["agent.upper_world=null", "agent.imag_horizon=6"], "imag_horizon", r"6: 'level_2' acts every 4 .* e.g. 8$"),
        ("hieros", [*GOAL_ALONE], "levels.level_2.rewards", "is told no goal and has no other reward to learn from"),
        (
            "hieros",
            ["+agent.levels.level_2.rewards.gaol=1"],
            "levels.level_2.rewards.gaol",
            "extrinsic, novelty, goal; did you",
        ),
        (
            "hieros",
            ["+agent.levels.level_3.rewards.goal=1", "agent.max_hierarchy=4"],
            "levels.level_3.rewards.goal",
            "novelty$",
        ),
        ("hieros", ["agent.goals.output=activated", "agent.goals.layers=0"], "goals.layers", "0: .*one or more are needed"),
        ("hieros", ["agent.goals.classes=256"], "goals.classes", "255"),
        ("hieros", ["agent.actor_inputs=[rewards]"], "actor_inputs", "each item one of reward, continue, entropy"),
        ("hieros", ["agent.actor_entropy=[0.1,-0.1]"], "actor_entropy", "-0.1"),
        ("hieros", ["agent.levels.level_0.replay_value=0.5"], "levels.level_0.replay_value", "0.5: .*an agent of one level"),
        ("director", ["agent.min_std=2.0"], "min_std", "2.0 is more than max_std=1.0"),
    ],
)
def test_what_does_not_fit_together_is_a_fault_of_its_key(agent, changes, key, problem):
    found = faults(agent, *changes)
    assert re.search(problem, found[f"agent.{key}"]), found


def test_everything_that_does_not_fit_together_is_told_at_once():
    changes = (
        "agent.imag_horizon=5",
        "agent.min_std=2.0",
        "+agent.levels.worker.rewards.a=1",
        "+agent.levels.worker.rewards.b=1",
    )
    rewards = {f"agent.levels.worker.rewards.{name}" for name in "ab"}
    assert set(faults("director", *changes)) == {"agent.imag_horizon", "agent.min_std"} | rewards


def test_what_does_not_fit_together_leaves_no_run_folder(tmp_path):
    for wrong in ("agent.imag_horizon=5", "agent.min_std=2.0", "world.blocks=3 world.cell=block"):
        with pytest.raises(ConfigError):
            run(tmp_path / "run", *wrong.split(), usual=SHORT_DIRECTOR)
    assert list(tmp_path.iterdir()) == []


def test_levels_need_goals_to_tell():
    with pytest.raises(UserError, match=r"agent.goals: levels tell each other goals"):
        director(goals=NoGoals)


def test_a_reward_of_weight_zero_has_no_critic_whatever_its_name():
    agent = director(ONE_ACTION, "agent.levels.worker.rewards.extrinsic=0.0", "+agent.levels.worker.rewards.curiosity=0.0")
    assert [list(level.critics) for level in agent.tiers[0].who.levels] == [["goal"], ["extrinsic", "novelty"]]


def test_dreams_from_some_rows_are_possible_without_values_of_replayed_rows():
    agent = dreamer(ONE_ACTION, "agent.imag_starts=7", "agent.levels.actor.replay_value=0.0")
    batches = making.windows(agent)
    noise = agent.learn_noise(Key(0)("learn", 0), batches)["windows"]
    assert len(set(noise["starts"].tolist())) == 7 and noise["starts"].max() < 24
    assert noise["dream"]["stoch"].shape[:2] == (3, 7) and noise["levels"]["0"].shape[:2] == (3, 7)
    other = agent.learn_noise(Key(0)("learn", 1), batches)["windows"]["starts"]
    assert noise["starts"].tolist() != other.tolist()
    assert np.isfinite(list(floats(update(agent, batches)[0]).values())).all()


def test_more_starts_than_rows_are_all_rows():
    agent = director(ONE_ACTION, "agent.imag_starts=1000")
    noise = agent.learn_noise(Key(0)("learn", 0), making.windows(agent))
    assert noise["windows"]["starts"].tolist() == list(range(24))


# -- Every kind of space ---------------------------------------------------------------------------------------------------

KINDS = {**ACTIONS, "onehot": Space("onehot", (3,), sizes=(3,))}


@pytest.mark.parametrize("action", KINDS)
@pytest.mark.parametrize("views", [["image"], ["vector"]], ids=" ".join)
@EVERY
def test_every_kind_of_space_is_acted_in_and_learned_from(make, views, action):
    spaces = Spaces({name: VIEWS[name] for name in views}, KINDS[action])
    agent = make(spaces)
    noise = {name: block[0] for name, block in agent.act_noise(Key(0)("act"), 1, 3).items()}
    found, _, rows = agent.act(making.seen(spaces, 3), agent.initial(3), noise)
    assert found.shape == (3, *spaces.action.shape) and found.dtype == spaces.action.dtype
    kept = rows["windows"].values["action"]
    assert np.array_equal(kept, found) and kept.dtype == found.dtype
    assert action != "onehot" or (np.sort(found) == [0.0, 0.0, 1.0]).all()
    assert np.isfinite(list(floats(update(agent, making.windows(agent, spaces))[0]).values())).all()


ENVIRONMENTS = [
    *(("env=dummy", "env.size=16", f"env.task={task}") for task in ("discrete", "continuous", "multidiscrete")),
    ("env=gymnasium", "env.id=Pendulum-v1"),
    ("env=cartpole",),
]


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=" ".join)
@pytest.mark.parametrize("name", ["director", "dreamer", "hieros"])
def test_agents_are_composed_for_environments(name, environment):
    config = check(compose(f"agent={name}", *environment, "size.deter=16", "size.units=16", "size.depth=4", "env.num_envs=1"))
    envs = build.recipe(config["env"]).training(lambda env, episode: env)
    agent = build.agent(config, envs.spaces, hardware())
    noise = {key: block[0] for key, block in agent.act_noise(Key(0)("act"), 1, 1).items()}
    found, _, _ = agent.act(making.seen(envs.spaces, 1), agent.initial(1), noise)
    assert found.shape == (1, *envs.spaces.action.shape) and found.dtype == envs.spaces.action.dtype
    envs.close()


# -- Acting ----------------------------------------------------------------------------------------------------------------


@EVERY
def test_greedy_acting_knows_no_noise_of_policies(make):
    agent = make()
    now = making.seen(ONE_ACTION, 64)
    noise, other = (drawn(agent, tick, 64) for tick in (0, 1))
    other = {name: value if name.startswith("level_") else noise[name] for name, value in other.items()}
    carry = agent.initial(64)
    assert np.array_equal(agent.act(now, carry, noise, greedy=True)[0], agent.act(now, carry, other, greedy=True)[0])
    assert not np.array_equal(agent.act(now, carry, noise)[0], agent.act(now, carry, other)[0])


def test_a_goal_is_held_for_as_many_ticks_as_its_level_waits():
    agent = director(ONE_ACTION, "agent.imag_horizon=6", "agent.subactor_update_every=3")
    aims = [carry["tiers"][0]["aims"][0] for carry in lived(agent, {})]
    changes = [not torch.equal(one, other) for one, other in pairwise(aims)]
    assert changes == [False, False, True, False, False]
    assert aims[0].shape == (2, 16) and aims[0].any(-1).all()


def test_three_levels_hold_their_goals_for_their_own_time():
    found = lived(three(), {}, ticks=7)
    for level, expected in ((0, [2, 4, 6]), (1, [4])):
        aims = [carry["tiers"][0]["aims"][level] for carry in found]
        assert [t for t in range(1, 7) if not torch.equal(aims[t], aims[t - 1])] == expected


def test_levels_with_worlds_of_their_own_hold_their_goals_for_their_own_time():
    # environment 0 begins anew at tick 3: all its levels choose again, and count from there
    found = lived(hieros(seed=1), {3: 0}, ticks=9)
    for level, expected in ((0, ([2, 3, 5, 7], [2, 4, 6, 8])), (1, ([3, 7], [4, 8]))):
        for env in (0, 1):
            aims = [carry["tiers"][level]["aims"][0][env] for carry in found]
            assert [t for t in range(1, 9) if not torch.equal(aims[t], aims[t - 1])] == expected[env]
    assert found[0]["tiers"][2]["aims"][0].shape == (2, 0)


def test_a_reset_renews_the_goal_or_carries_it_on():
    # environment 0 begins anew at tick 3, at which no goal is due; the other one never
    renewed, carried = (lived(director(ONE_ACTION, f"agent.goal_on_reset={how}"), {3: 0}) for how in ("renewed", "carried"))
    aims = {"renewed": [c["tiers"][0]["aims"][0] for c in renewed], "carried": [c["tiers"][0]["aims"][0] for c in carried]}

    def changed(how: str, env: int) -> list[int]:
        return [t for t in range(1, 6) if not torch.equal(aims[how][t][env], aims[how][t - 1][env])]

    assert changed("carried", 0) == [2, 4] == changed("carried", 1) == changed("renewed", 1)
    assert changed("renewed", 0) == [2, 3, 5]
    for tick in range(6):
        one, other = (carries[tick]["tiers"][0] for carries in (renewed, carried))
        assert torch.equal(one["action"][1], other["action"][1])
        assert torch.equal(one["state"]["deter"][0], other["state"]["deter"][0]) or tick > 3
        assert torch.equal(one["aims"][0][0], other["aims"][0][0]) == (tick < 3)


@EVERY
def test_a_carry_goes_through_a_file(tmp_path, make):
    agent = make()
    carry = lived(agent, {}, ticks=3)[-1]
    path = checkpoint.save(tmp_path, "step_1", {"carry": carry}, {})
    again = checkpoint.load(path)[0]["carry"]
    now, noise = making.seen(ONE_ACTION, 2, seed=9), drawn(agent, 3, 2)
    one, other = (agent.act(now, before, noise) for before in (carry, again))
    assert np.array_equal(one[0], other[0]) and digest_tree(one[1]) == digest_tree(other[1])


@EVERY
def test_a_recorded_agent_acts_with_equal_bits(make):
    for greedy in (False, True):
        eager, recorded = make(), make(how=RECORDED)
        carries = [eager.initial(2), recorded.initial(2)]
        for tick in range(4):
            now = making.seen(ONE_ACTION, 2, seed=tick)._replace(is_first=np.array([tick == 0, tick % 2 == 0]))
            one, other = (
                agent.act(now, carry, drawn(agent, tick, 2), greedy)
                for agent, carry in zip((eager, recorded), carries, strict=True)
            )
            assert np.array_equal(one[0], other[0]) and digest_tree(one[1]) == digest_tree(other[1])
            carries = [one[1], other[1]]


@pytest.mark.parametrize("cell", ["gru", "block"])
def test_while_acting_the_world_is_told_the_action_that_learning_will_read(cell):
    # samples beyond the bounds are clipped on their way to the environment, whose action is what the replay keeps
    spaces = Spaces({"vector": VECTOR}, ACTIONS["continuous"])
    agent = director(spaces, f"world.cell={cell}", "agent.min_std=1.0", "agent.max_std=1.0")
    noise = drawn(agent, 0, 2) | {"level_0": np.full((2, 2), 3.0, np.float32)}  # three deviations out
    action, carry, _ = agent.act(making.seen(spaces, 2), agent.initial(2), noise)
    assert np.array_equal(action, np.tile(np.float32([0.5, 1.0]), (2, 1)))
    tier, own = agent.tiers[0], carry["tiers"][0]
    told = tier.actions.from_env(torch.from_numpy(action))
    assert told.tolist() == [[1.0, 1.0]] * 2 and (own["action"] > 1.0).all()
    step, project = tier.who.world.cell.prepare()
    one, other = (step(own["state"]["deter"], own["state"]["stoch"], project(action)) for action in (told, own["action"]))
    assert torch.equal(one, other)
