"""What every agent promises. A test class inherits this and says how its agent is made, and for which kinds of actions."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from hieros_repro.agent.base import Agent
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Spaces
from hieros_repro.run import checkpoint
from tests.agent import making

VIEWS = {"vector": making.VECTOR, "image": making.IMAGE}
_experience: dict[tuple[type, str, str], dict[str, Any]] = {}


class AgentContract:
    make: Callable[[Spaces], Agent]
    actions: ClassVar[Sequence[str]] = tuple(making.ACTIONS)

    def pytest_generate_tests(self, metafunc: Any) -> None:
        if "spaces" in metafunc.fixturenames:
            metafunc.parametrize("spaces", self.actions, indirect=True)

    @pytest.fixture
    def spaces(self, request: Any) -> Spaces:
        return Spaces(VIEWS, making.ACTIONS[request.param])

    @pytest.fixture
    def agent(self, spaces: Spaces) -> Agent:
        return type(self).make(spaces)

    def act(self, agent: Agent, spaces: Spaces, tick: int = 0, **changes: Any) -> np.ndarray:
        noise = {name: block[0] for name, block in agent.act_noise(Key(3)("act", tick), 1, 5).items()}
        return agent.act(making.seen(spaces, 5), agent.initial(5), noise, **changes)[0]

    def experience(self, agent: Agent, spaces: Spaces) -> dict[str, Any]:
        """What the agent would learn from; of agents in the same state it is the same."""
        of = type(self), str(spaces), digest_tree(agent.state())
        if of not in _experience:
            _experience[of] = making.experience(agent, spaces)
        return copy.deepcopy(_experience[of])

    def learn(self, agent: Agent, spaces: Spaces, update: int = 0) -> None:
        asked = {request.replay for request in agent.due(update)}
        if asked:
            making.learn(agent, {n: b for n, b in self.experience(agent, spaces).items() if n in asked}, update)

    def history(self, agent: Agent, spaces: Spaces, ticks: int = 4, other: int | None = None) -> tuple[list[np.ndarray], Any]:
        """The actions of so many ticks from the start, and the carry. `other`: this environment sees something else."""
        carry, found = agent.initial(5), []
        noise = agent.act_noise(Key(3)("act"), ticks, 5)
        for tick in range(ticks):
            now, strange = making.seen(spaces, 5, seed=tick), making.seen(spaces, 5, seed=100 + tick)
            for name, value in now.obs.items():
                value[other] = value[other] if other is None else strange.obs[name][other]
            now = now._replace(is_first=np.full(5, tick == 0))
            action, carry, _ = agent.act(now, carry, {name: block[tick] for name, block in noise.items()})
            found.append(action)
        return found, carry

    def test_nothing_is_drawn_from_the_global_generators(self, agent, spaces):
        def generators() -> str:  # python's own is left out: the checker of annotations draws from it
            words, position = np.random.get_state(legacy=True)[1:3]
            return digest_tree({"numpy": words, "position": position, "torch": torch.get_rng_state()})

        before = generators()
        self.act(agent, spaces)
        self.learn(agent, spaces)
        assert generators() == before

    def test_equal_noise_gives_equal_actions_whatever_the_global_generators_hold(self, agent, spaces):
        first = self.act(agent, spaces)
        torch.manual_seed(99)
        np.random.seed(99)
        assert np.array_equal(self.act(agent, spaces), first)

    def test_environments_have_nothing_to_do_with_each_other(self, agent, spaces):
        one, other = self.history(agent, spaces)[0], self.history(agent, spaces, other=2)[0]
        rest = [0, 1, 3, 4]
        assert all(np.array_equal(a[rest], b[rest]) for a, b in zip(one, other, strict=True))

    def test_a_first_row_begins_anew(self, agent, spaces):
        _, carry = self.history(agent, spaces)
        now = making.seen(spaces, 5, seed=9)._replace(is_first=np.ones(5, bool))
        noise = {name: block[0] for name, block in agent.act_noise(Key(5)("act"), 1, 5).items()}
        begun, going_on = (agent.act(now, before, noise) for before in (agent.initial(5), carry))
        assert np.array_equal(begun[0], going_on[0])
        assert digest_tree(begun[1]) == digest_tree(going_on[1])

    def test_other_noise_gives_other_actions(self, agent, spaces):
        assert any(not np.array_equal(self.act(agent, spaces), self.act(agent, spaces, tick)) for tick in range(1, 5))

    def test_actions_have_the_shape_and_type_of_their_space_and_lie_inside_it(self, agent, spaces):
        for tick in range(20):
            action, space = self.act(agent, spaces, tick), spaces.action
            assert action.shape == (5, *space.shape) and action.dtype == space.dtype
            low = np.array(space.low or 0.0, np.float32)
            high = np.array(space.high, np.float32) if space.high else np.array(space.sizes).reshape(space.shape) - 1
            assert (action >= low).all() and (action <= high).all()

    def test_acting_leaves_state_and_observation_alone(self, agent, spaces):
        now, before = making.seen(spaces, 5), digest_tree(agent.state())
        looked = digest_tree(now.obs)
        noise = {name: block[0] for name, block in agent.act_noise(Key(3)("act"), 1, 5).items()}
        agent.act(now, agent.initial(5), noise)
        assert digest_tree(agent.state()) == before and digest_tree(now.obs) == looked

    def test_noise_is_a_function_of_the_key_alone(self, agent, spaces):
        batches = self.experience(agent, spaces)
        first = agent.act_noise(Key(1)("act", 4), 3, 2), agent.learn_noise(Key(1)("learn", 4), batches)
        self.act(agent, spaces)
        self.learn(agent, spaces)
        again = agent.act_noise(Key(1)("act", 4), 3, 2), agent.learn_noise(Key(1)("learn", 4), batches)
        other = agent.act_noise(Key(1)("act", 5), 3, 2), agent.learn_noise(Key(1)("learn", 5), batches)
        assert digest_tree(first) == digest_tree(again)
        assert digest_tree(first[0]) != digest_tree(other[0])
        assert not first[1] or digest_tree(first[1]) != digest_tree(other[1])

    def test_a_state_that_went_through_a_file_continues_bit_by_bit(self, agent, spaces, tmp_path):
        self.learn(agent, spaces)
        path = checkpoint.save(tmp_path, "step_1", {"agent": agent.state()}, {})
        restored = type(self).make(spaces)
        restored.load(checkpoint.load(path)[0]["agent"])
        for one in (agent, restored):
            self.learn(one, spaces, update=1)
        assert digest_tree(agent.state()) == digest_tree(restored.state())
        assert np.array_equal(self.act(agent, spaces), self.act(restored, spaces))

    def test_parameters_suffice_to_act(self, agent, spaces):
        self.learn(agent, spaces)
        restored = type(self).make(spaces)
        restored.load({name: tree for name, tree in agent.state().items() if name == "parameters"})
        assert np.array_equal(self.act(restored, spaces), self.act(agent, spaces))

    def test_equal_seeds_learn_equal_parameters(self, agent, spaces):
        twin = type(self).make(spaces)
        for one in (agent, twin):
            self.learn(one, spaces)
            torch.manual_seed(99)  # learning reads no generator
            np.random.seed(99)
        assert digest_tree(agent.state()) == digest_tree(twin.state())

    def test_a_state_is_a_copy_that_later_learning_leaves_alone(self, agent, spaces):
        state = agent.state()
        before = digest_tree(state)
        self.learn(agent, spaces)
        assert digest_tree(state) == before
