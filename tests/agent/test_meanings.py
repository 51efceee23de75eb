"""What world-model agents say of their metrics."""

from functools import partial
from types import SimpleNamespace

import pytest

from hieros_repro.agent.meanings import MEANINGS, hints
from hieros_repro.agent.tier import Tier
from hieros_repro.check import check
from hieros_repro.log import base as log
from hieros_repro.log import jsonl
from hieros_repro.log.health import Health
from tests.runs import SHORT_DIRECTOR, SHORT_DREAMER, SHORT_HIEROS, compose, run

BRIEF = ("run.steps=120", "run.eval_every=0", "run.final_episodes=0", "run.checkpoint_every=0")
AGENTS = {"director": SHORT_DIRECTOR, "dreamer": SHORT_DREAMER, "hieros": SHORT_HIEROS}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """Agent -> the names of its own metrics in a run."""

    def names(agent):
        folder = run(tmp_path_factory.mktemp(agent) / "run", *BRIEF, usual=AGENTS[agent])
        return {name for row in jsonl.read(folder / "metrics.jsonl") for name in row if name.startswith("Subactor")}

    return {agent: names(agent) for agent in AGENTS}


@pytest.mark.parametrize("agent", AGENTS)
def test_every_metric_has_a_meaning(seen, agent):
    assert len(seen[agent]) > 15
    assert {name for name in seen[agent] if log.meaning(name, MEANINGS) is None} == set()


def test_every_meaning_is_that_of_a_metric(seen):
    told = {log.meaning(name, MEANINGS) for names in seen.values() for name in names}
    assert len(set(MEANINGS.values())) == len(MEANINGS)
    assert set(MEANINGS.values()) - told == set()


def test_the_two_agents_share_most_metrics_and_goals_are_the_directors(seen):
    assert {name for name in seen["dreamer"] if "subgoal" in name or "goal_" in name or "Subactor-1" in name} == set()
    assert {"Subactor-0/subgoal_kl", "Subactor-0/goal_reward", "Subactor-1/novelty_value"} <= seen["director"]


def hierarchy(agent, *overrides):
    """Only what hints look at of a hierarchy."""
    from hieros_repro import build
    from hieros_repro.hardware.device import Hardware

    plain = check(compose(*AGENTS[agent], *overrides))
    hardware: Hardware = build.construct(plain["hardware"])
    world = build.recipe(plain["env"])
    envs = world.training([1, 2])
    made = build.agent(plain, envs.spaces, hardware)
    envs.close()
    return made


def test_every_hint_of_an_agent_is_about_metrics_it_has(seen):
    for agent in AGENTS:
        found = hierarchy(agent).hints()
        assert {name for hint in found for name in (hint.metric, hint.per) if name} <= seen[agent] | {"Subactor-0/goal_reward"}


def test_the_director_is_told_of_by_its_levels_and_its_goals():
    assert [(hint.metric, hint.low, hint.high, hint.falls) for hint in hierarchy("director").hints()] == [
        ("Subactor-0/kl", 0.1, None, None),
        ("Subactor-0/image_loss", None, None, 0.9),
        ("Subactor-0/subgoal_kl", pytest.approx(1e-5 * 10 / 1.1), None, None),  # at the ends of its weight's range
        ("Subactor-0/subgoal_kl", None, pytest.approx(11.0), None),
        ("Subactor-0/goal_reward", 0.23, None, None),
        ("Subactor-0/entropy", 0.1, None, None),
        ("Subactor-0/entropy", None, 0.98, None),
        ("Subactor-1/entropy", 0.1, None, None),
        ("Subactor-1/entropy", None, 0.995, None),
    ]


def test_what_is_not_steered_has_no_band():
    assert {hint.metric for hint in hierarchy("dreamer").hints()} == {"Subactor-0/kl", "Subactor-0/image_loss"}
    fixed = hierarchy("director", "agent.goals.kl.adaptive=false", "agent.levels.manager.entropy.adaptive=false")
    assert not {"Subactor-0/subgoal_kl", "Subactor-1/entropy"} & {hint.metric for hint in fixed.hints()}


def tier(*rewards, place=0, mean=False):
    """Levels in one world by their reward, each of whose actions lasts as long as three of the level below."""
    levels = [SimpleNamespace(weights={reward: 1.0}, entropy=SimpleNamespace(adaptive=False)) for reward in rewards]
    who = SimpleNamespace(world=SimpleNamespace(least_kl=0.0), goals=None, levels=levels, clock=3)
    practice, below = SimpleNamespace(pay=SimpleNamespace(mean=mean)), object() if place else None
    made = SimpleNamespace(place=place, who=who, practice=practice, below=below)
    made.metric = partial(Tier.metric, made)
    return made


def test_a_level_that_is_not_told_goals_has_no_goal_to_miss():
    assert all("goal" not in hint.metric for hint in hints([tier("extrinsic")]))


@pytest.mark.parametrize(
    "mean, low, told", [(False, 9 * 0.23, "(2.88 to 4.14 is healthy)"), (True, 0.23, "(0.32 to 0.46 is healthy)")]
)
def test_the_band_of_goals_is_that_of_as_many_steps_as_are_summed(mean, low, told):
    found = {hint.metric: hint for hint in hints([tier("goal", "extrinsic", "goal", mean=mean)])}
    assert found["Subactor-0/goal_reward"].low == 0.23 and "(0.32 to 0.46 is healthy)" in found["Subactor-0/goal_reward"].text
    assert found["Subactor-2/goal_reward"].low == pytest.approx(low) and told in found["Subactor-2/goal_reward"].text


def test_levels_with_worlds_of_their_own_are_told_of_under_their_own_numbers():
    """Only the lowest world sees images; the actions of an upper level are steps of its own world."""
    found = hints([tier("goal"), tier("goal", place=1), tier("extrinsic", place=2)])
    assert [hint.metric for hint in found] == [
        "Subactor-0/kl",
        "Subactor-0/image_loss",
        "Subactor-0/goal_reward",
        "Subactor-1/kl",
        "Subactor-1/goal_reward",
        "Subactor-2/kl",
    ]
    assert [hint.low for hint in found if "goal" in hint.metric] == [0.23, 0.23]


@pytest.mark.parametrize("overrides, low", [((), 1.111), (("world.free_nats=0.0",), 0.1), (("world.free_nats=2.0",), 2.222)])
def test_a_collapse_is_seen_through_free_nats(overrides, low):
    """No row's KL exceeds the free nats: (1 + 0.1) free; a hundredth above that is still as good as none."""
    [kl] = [hint for hint in hierarchy("dreamer", *overrides).hints() if hint.metric == "Subactor-0/kl"]
    assert kl.low == pytest.approx(low) and "collapsed" in kl.text
    health, collapsed = Health([kl]), {"Subactor-0/kl": 0.5 * low / 1.01, "Subactor-0/kl_weight": 0.5}
    assert [len(health.see({"updates": n, **collapsed})) for n in (501, 502)] == [0, 1]


PARTS = {
    "director": ["world", "goals", "worker", "manager"],
    "dreamer": ["world", "actor"],
    "hieros": ["world", "goals", "level_0", "upper_1", "upper_2"],
}


@pytest.mark.parametrize("name", AGENTS)
def test_the_parts_of_an_agent_are_all_of_it(name):
    agent = hierarchy(name)
    assert list(agent.parts()) == PARTS[name]
    assert sum(agent.parts().values()) == sum(tensor.numel() for tensor in agent.parameters().values())


def test_what_a_replay_keeps_of_an_agents_states_is_announced():
    """16 numbers of 4 bytes and 4 classes of a byte; the director starts every window anew."""
    assert hierarchy("dreamer").replays()["windows"].row_bytes == 16 * 4 + 4
    assert hierarchy("director").replays()["windows"].row_bytes == 0


def test_what_upper_levels_observe_and_are_told_is_announced_too():
    """Each of two states below takes 68 bytes, a goal of 3 codes 3, and its meaning 64; the highest is told nothing."""
    found = hierarchy("hieros", "agent.downward.meaning=fresh").replays()
    assert {name: memory.row_bytes for name, memory in found.items()} == {
        "windows": 3,
        "windows_1": 2 * (16 * 4 + 4) + 3,
        "windows_2": 2 * (16 * 4 + 4),
    }
    stored = hierarchy("hieros", "agent.downward.meaning=stored").replays()
    assert [stored[name].row_bytes - found[name].row_bytes for name in found] == [64, 64, 0]
