import numpy as np

from hieros_repro.agent.chance import Chance
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Space, Spaces
from tests.agent import making
from tests.agent.contract import AgentContract


def chance(spaces: Spaces, hold: int = 1) -> Chance:
    return Chance(spaces, Key(0)("init"), making.hardware(), 1000, hold=hold)


class TestChance(AgentContract):
    make = chance


def test_a_uniform_number_picks_its_slice_of_the_actions():
    agent = chance(making.ONE_ACTION)
    action, _, _ = agent.act(
        making.seen(making.ONE_ACTION, 4), agent.initial(4), {"action": np.float32([0, 0.26, 0.74, 0.999])}
    )
    assert action.tolist() == [0, 1, 2, 3]


def test_continuous_actions_are_spread_between_the_bounds():
    spaces = Spaces({"vector": making.VECTOR}, Space("continuous", (1,), low=(-2.0,), high=(6.0,)))
    agent = chance(spaces)
    action, _, _ = agent.act(making.seen(spaces, 3), agent.initial(3), {"action": np.float32([[0], [0.25], [0.5]])})
    assert action.tolist() == [[-2.0], [0.0], [2.0]]


def test_an_action_is_held_for_as_many_ticks_as_asked():
    agent, carry, taken = chance(making.ONE_ACTION, hold=3), None, []
    carry = agent.initial(1)
    for u in (0.0, 0.3, 0.6, 0.9, 0.0, 0.3, 0.6):
        action, carry, _ = agent.act(making.seen(making.ONE_ACTION, 1), carry, {"action": np.float32([u])})
        taken.append(int(action[0]))
    assert taken == [0, 0, 0, 3, 3, 3, 2]


def test_it_asks_for_no_batches():
    assert chance(making.ONE_ACTION).due(0) == []
