import copy

import numpy as np
import pytest
import torch

from hieros_repro.determinism.keys import Key
from hieros_repro.ops.returns import generalised_advantage
from hieros_repro.records import Memory, Request, Rows, Space, Spaces, Step
from hieros_repro.replay.base import Held
from hieros_repro.replay.rollout import Rollout

SPACES = Spaces({"vector": Space("vector", (1,)), "image": Space("image", (2, 2, 1))}, Space("discrete", (), sizes=(2,)))
HELD = Held(SPACES, 2, Memory())
ALL = Request("rollout", 0, 0)
KEY = Key(0)("replay", 0)


def row(tick: int, last: tuple[bool, bool] = (False, False), terminal: tuple[bool, bool] = (False, False)) -> Step:
    """Environment e shows 10 tick + e and is paid 100 tick + e."""
    ids = 10 * tick + np.arange(2)
    obs = {
        "vector": ids[:, None].astype(np.float32),
        "image": np.broadcast_to(ids.astype(np.uint8)[:, None, None, None], (2, 2, 2, 1)),
    }
    return Step(obs, (100 * tick + np.arange(2)).astype(np.float32), np.zeros(2, bool), np.array(last), np.array(terminal))


def filled(ticks: int, length: int = 4, start: int = 0, rollout: Rollout | None = None, **ends) -> Rollout:
    """Ticks start ... start + ticks; environment 0's episode is over at the row ends["last"]."""
    rollout = rollout or Rollout(HELD, length=length)

    def at(tick: int) -> Step:
        return row(tick, (tick == ends.get("last"), False), (tick == ends.get("terminal"), False))

    for tick in range(start, start + ticks):
        rollout.add(at(tick), Rows({"action": np.array([tick, -tick])}), at(tick + 1))
    return rollout


def plain(batch: dict) -> dict:
    return {name: plain(value) if isinstance(value, dict) else value.tolist() for name, value in batch.items()}


def test_a_row_holds_what_was_seen_and_done_and_what_came_of_it():
    batch = filled(4).choose(KEY, ALL).gather()
    assert batch["obs"]["vector"].squeeze(-1).tolist() == [[0, 1], [10, 11], [20, 21], [30, 31], [40, 41]]
    assert batch["obs"]["image"][:, :, 0, 0, 0].tolist() == [[0, 1], [10, 11], [20, 21], [30, 31], [40, 41]]
    assert batch["action"].tolist() == [[0, 0], [1, -1], [2, -2], [3, -3]]
    assert batch["reward"].tolist() == [[100, 101], [200, 201], [300, 301], [400, 401]]
    assert batch["valid"].all()
    assert batch["obs"]["image"].dtype == np.uint8


def test_flags_belong_to_the_transition_and_a_last_row_has_none():
    batch = filled(4, last=2, terminal=2).choose(KEY, ALL).gather()
    assert batch["is_last"].tolist() == [[False, False], [True, False], [False, False], [False, False]]
    assert batch["is_terminal"].tolist() == batch["is_last"].tolist()
    assert batch["valid"].tolist() == [[True, True], [True, True], [False, True], [True, True]]


def test_a_time_out_is_last_and_not_terminal():
    batch = filled(4, last=2).choose(KEY, ALL).gather()
    assert batch["is_last"][1, 0]
    assert not batch["is_terminal"].any()


def test_it_is_ready_when_it_is_full():
    assert [filled(ticks).ready(ALL, ending=False) for ticks in (0, 1, 3, 4)] == [False, False, False, True]


def test_at_the_end_an_unfinished_rollout_is_ready_and_short():
    rollout = filled(3)
    assert rollout.ready(ALL, ending=True)
    batch = rollout.choose(KEY, ALL).gather()
    assert {name: len(value) for name, value in batch.items() if name != "obs"} == {
        name: 3 for name in ("action", "reward", "is_last", "is_terminal", "valid")
    }
    assert len(batch["obs"]["vector"]) == 4


def test_at_the_end_an_empty_rollout_is_not_ready():
    assert not filled(0).ready(ALL, ending=True)


def test_at_the_end_a_rollout_without_a_transition_is_not_ready():
    rollout = Rollout(HELD, length=4)
    rollout.add(row(0, last=(True, True)), Rows({"action": np.zeros(2)}), row(1))
    assert not rollout.ready(ALL, ending=True)


def test_it_is_empty_after_its_batch():
    rollout = filled(4)
    rollout.choose(KEY, ALL).gather()
    assert not rollout.ready(ALL, ending=True)
    batch = filled(4, start=4, rollout=rollout).choose(KEY, ALL).gather()
    assert batch["obs"]["vector"][:, 0, 0].tolist() == [40, 50, 60, 70, 80]


def test_flags_of_the_last_rollout_do_not_leak_into_the_next():
    rollout = filled(4, last=2, terminal=2)
    rollout.choose(KEY, ALL).gather()
    batch = filled(4, start=4, rollout=rollout).choose(KEY, ALL).gather()
    assert batch["valid"].all()
    assert not batch["is_last"].any()


def test_its_batch_does_not_depend_on_the_key():
    assert plain(filled(4).choose(KEY, ALL).gather()) == plain(filled(4).choose(Key(9)("replay", 5), ALL).gather())


@pytest.mark.parametrize("held", [0, 1, 2, 4])
def test_a_restored_rollout_goes_on_as_if_nothing_had_happened(held):
    rollout, other = filled(held, last=1), Rollout(HELD, length=4)
    other.load(copy.deepcopy(rollout.state()))
    for one in (rollout, other):
        filled(4 - held, start=held, rollout=one, last=1)
    assert plain(rollout.choose(KEY, ALL).gather()) == plain(other.choose(KEY, ALL).gather())


def test_a_saved_state_does_not_change_with_later_rows():
    rollout = filled(2)
    state = rollout.state()
    before = str(state)
    filled(2, start=2, rollout=rollout)
    assert str(state) == before


def test_a_rollout_that_is_too_long_is_refused():
    with pytest.raises(ValueError, match=r"holds 4 ticks, replay\.length is 3"):
        Rollout(HELD, length=3).load(filled(4).state())


# -- Episodes that are cut off -----------------------------------------------------------------------------------------


def cut(held: int, **ends) -> dict:
    """What is learned from a rollout that held so many rows when its episodes were cut off; new ones start at tick 50."""
    rollout = filled(held, **ends)
    rollout.cut()
    return filled(4 - held, start=50, rollout=rollout).choose(KEY, ALL).gather()


def test_the_last_row_before_a_cut_ends_its_episode_by_a_time_out():
    batch = cut(3)
    assert batch["obs"]["vector"].squeeze(-1).tolist() == [[0, 1], [10, 11], [20, 21], [500, 501], [510, 511]]
    assert batch["is_last"].tolist() == [[False, False], [True, True], [False, False], [False, False]]
    assert not batch["is_terminal"].any()
    assert batch["valid"].tolist() == [[True, True], [True, True], [False, False], [True, True]]
    assert batch["reward"].tolist() == [[100, 101], [200, 201], [0, 0], [5100, 5101]]


def test_an_end_that_was_seen_before_a_cut_stays_what_it_was():
    """Environment 0 terminates in row 1: its row 2 is the first of an episode, which is lost with the cut."""
    batch = cut(3, last=1, terminal=1)
    assert batch["is_last"][:, 0].tolist() == batch["is_terminal"][:, 0].tolist() == [True, False, False, False]
    assert batch["valid"][:, 0].tolist() == [True, False, False, True]
    assert batch["is_last"][:, 1].tolist() == [False, True, False, False]


def test_a_single_row_before_a_cut_has_no_transition():
    batch = cut(1)
    assert batch["valid"].tolist() == [[False, False], [True, True], [True, True], [True, True]]
    assert not batch["is_last"].any() and batch["reward"][0].tolist() == [0, 0]


def test_a_cut_changes_nothing_where_nothing_is_held():
    assert plain(cut(0)) == plain(filled(4, start=50).choose(KEY, ALL).gather())


def test_advantages_before_a_cut_are_those_before_a_time_out():
    """In both, row 2 is an episode's last and row 3 the first of the next."""
    seen = Rollout(HELD, length=4)
    for tick in (0, 1):
        seen.add(row(tick), Rows({"action": np.zeros(2)}), row(tick + 1, last=(tick == 1,) * 2))
    seen.add(row(2, last=(True, True)), Rows({"action": np.zeros(2)}), row(50)._replace(reward=np.zeros(2, np.float32)))
    filled(1, start=50, rollout=seen)
    found, expected = (advantages(batch) for batch in (cut(3), seen.choose(KEY, ALL).gather()))
    assert np.array_equal(found, expected)
    # Environment 0, by hand: values are a tenth of what is shown, discount and trace are 1/2.
    assert found[:, 0].tolist() == [100 + 0.5 * 1 - 0 + 0.25 * (200 + 0.5 * 2 - 1), 200 + 0.5 * 2 - 1, 5100 + 0.5 * 51 - 50]


def advantages(batch: dict) -> np.ndarray:
    """Of the rows that are learned from."""
    came = {name: torch.as_tensor(batch[name]) for name in ("reward", "is_terminal", "is_last")}
    value = torch.as_tensor(batch["obs"]["vector"].squeeze(-1) / 10)
    found = generalised_advantage(came["reward"], value, came["is_terminal"], came["is_last"], 0.5, 0.5)
    return found.numpy()[batch["valid"].all(1)]


def test_nothing_can_be_written_back():
    with pytest.raises(ValueError, match="a rollout replay keeps nothing"):
        filled(4).write_back([], {"priority": np.ones(4)})


def test_rows_of_some_environments_only_are_refused():
    with pytest.raises(ValueError, match="a rollout has every environment's row of every tick"):
        Rollout(HELD, length=4).add(row(0), Rows({"action": np.zeros(2)}, np.array([True, False])), row(1))
