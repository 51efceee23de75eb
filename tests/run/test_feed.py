"""Batches are chosen at logical times, whoever gathers them, and come back from a checkpoint as they were."""

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Memory, Request, Rows, Tree
from hieros_repro.replay.base import Choice, Held, Replay
from hieros_repro.replay.rollout import Rollout
from hieros_repro.replay.windows import Windows
from hieros_repro.run.feed import Feed
from tests.agent.making import hardware
from tests.replay.making import ENVS, SPACES, add, done, through_a_file, windows

KEY = Key(3)


class Learner:
    """Of an agent, what a feed asks."""

    train_ratio = 1.0

    def __init__(self, batches: dict[str, int], every: dict[str, int] | None = None):
        self.batches, self.every = batches, every or {}

    def due(self, update: int) -> list[Request]:
        return [Request(name, batch, 4) for name, batch in self.batches.items() if update % self.every.get(name, 1) == 0]

    def learn_noise(self, key: Key, batches: dict[str, Any]) -> dict[str, Any]:
        return {name: key(name).uniform(batch["reward"].shape) for name, batch in batches.items()}


class Spy(Replay):
    """Tells in `events` what is asked of it. A batch says when it was chosen: how many steps had come, and updates passed."""

    kind = "windows"

    def __init__(self, events: list[str], lead: int = 1, workers: int = 0, ready_from: int = 0):
        self.events, self.lead, self.workers, self.ready_from, self.steps = events, lead, workers, ready_from, 0

    def add(self, before: Any, rows: Any, after: Any) -> None:
        self.steps += 1

    def ready(self, request: Request, ending: bool) -> bool:
        return self.steps >= self.ready_from

    def choose(self, key: Key, request: Request) -> Choice:
        self.events.append(f"choose {key._path[1]}")
        steps = np.full((request.batch, request.length), self.steps, np.float32)
        return Choice(lambda: {"reward": steps}, [self.steps], steps.nbytes)

    def write_back(self, places: Tree, values: Any) -> None:
        self.events.append(f"write back {places[0]}")

    def state(self) -> Tree:
        return {}

    def load(self, state: Tree) -> None: ...


def fed(replay: Replay, learner: Learner | None = None) -> Feed:
    return Feed(learner or Learner({"windows": 2}), {"windows": replay}, KEY, hardware())  # type: ignore[arg-type]


def update(feed: Feed, number: int, ending: bool = False) -> tuple[Any, Any]:
    """What the loop does for one update."""
    ticket, found = feed.take(number)
    feed.write_back(ticket, {"windows": np.zeros(1)})
    feed.choose_ahead(number, ending)
    return found.batches, found.noise


# -- When a batch is chosen --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lead", "expected"),
    [
        (0, ["choose 0", "learn 0", "choose 1", "learn 1", "choose 2", "learn 2", "choose 3", "learn 3"]),
        (1, ["choose 0", "learn 0", "choose 1", "learn 1", "choose 2", "learn 2", "choose 3", "learn 3", "choose 4"]),
        (3, ["choose 0", "learn 0", "choose 1", "choose 2", "choose 3", "learn 1", "choose 4", "learn 2", "choose 5", "learn 3",
             "choose 6"]),
    ],
)  # fmt: skip
def test_batch_u_is_chosen_right_after_update_u_less_lead(lead, expected):
    events: list[str] = []
    feed = fed(Spy(events, lead))
    for number in range(4):
        feed.take(number)
        events.append(f"learn {number}")
        feed.choose_ahead(number, False)
    assert events == expected


@pytest.mark.parametrize(("lead", "expected"), [(0, [1, 2, 3, 4, 5, 6]), (1, [1, 1, 2, 3, 4, 5]), (3, [1, 1, 1, 1, 2, 3])])
def test_a_batch_is_chosen_from_what_had_come_by_then(lead, expected):
    """A step comes before every update."""
    replay, found = Spy([], lead), []
    feed = fed(replay)
    for number in range(6):
        replay.add(None, None, None)
        found.append(int(update(feed, number)[0]["windows"]["reward"][0, 0]))
    assert found == expected


def test_what_an_update_writes_back_is_there_when_the_next_batch_is_chosen():
    events: list[str] = []
    replay = Spy(events, lead=1)
    feed = fed(replay)
    for number in range(3):
        replay.add(None, None, None)
        update(feed, number)
    assert events == ["choose 0", "write back 1", "choose 1", "write back 1", "choose 2", "write back 2", "choose 3"]


def test_the_shortest_lead_of_several_replays_counts():
    events: list[str] = []
    replays = {"windows": Spy(events, lead=3), "others": Spy(events, lead=0)}
    feed = Feed(Learner({"windows": 2, "others": 2}), replays, KEY, hardware())  # type: ignore[arg-type]
    update(feed, 0)
    assert events == ["choose 0", "choose 0", "write back 0"]


def test_only_what_an_update_is_due_for_is_chosen():
    """The second replay is learned from at every other update."""
    learner = Learner({"windows": 2, "others": 2}, {"others": 2})
    feed = Feed(learner, {"windows": Spy([]), "others": Spy([])}, KEY, hardware())  # type: ignore[arg-type]
    assert [sorted(update(feed, number)[0]) for number in range(4)] == [["others", "windows"], ["windows"]] * 2


def thirds(windows: Replay, others: Replay) -> Feed:
    """The second replay is learned from at every third update, in larger batches."""
    learner = Learner({"windows": 7, "others": 9}, {"others": 3})
    return Feed(learner, {"windows": windows, "others": others}, KEY, hardware())  # type: ignore[arg-type]


def test_replays_of_different_rhythms_keep_the_lead_and_get_back_what_is_theirs():
    """A step comes before every update; batch u is chosen right after update u - 2, from u - 1 steps."""
    windows, others = Spy([], lead=2), Spy([], lead=5)
    feed, shown = thirds(windows, others), []
    for number in range(6):
        windows.steps = others.steps = number + 1
        ticket, found = feed.take(number)
        shown.append({name: int(batch["reward"][0, 0]) for name, batch in found.batches.items()})
        feed.write_back(ticket, dict.fromkeys(found.batches, np.zeros(1)))
        feed.choose_ahead(number, False)
    assert shown == [
        {"windows": 1, "others": 1},
        {"windows": 1},
        {"windows": 1},
        {"windows": 2, "others": 2},
        {"windows": 3},
        {"windows": 4},
    ]
    assert others.events == ["choose 0", "write back 1", "choose 3", "write back 2", "choose 6"]
    assert windows.events == [
        *("choose 0", "write back 1", "choose 1", "choose 2"),
        *("write back 1", "choose 3", "write back 1", "choose 4", "write back 2", "choose 5"),
        *("write back 3", "choose 6", "write back 4", "choose 7"),
    ]


def test_replays_of_one_update_have_draws_of_their_own():
    feed = Feed(
        Learner({"windows": 7, "others": 7}),  # type: ignore[arg-type]
        {name: add(windows(None), 0, 40) for name in ("windows", "others")},
        KEY,
        hardware(),
    )
    batches, noise = update_plain(feed, 0)
    assert digest_tree(batches["windows"]) != digest_tree(batches["others"])
    assert not np.array_equal(noise["windows"], noise["others"])


# -- Whether it is ready -----------------------------------------------------------------------------------------------


def test_nothing_is_ready_before_its_replays_are():
    replay = Spy([], ready_from=3)
    feed, found = fed(replay), []
    for _ in range(5):
        found.append(feed.ready(0, False))
        replay.add(None, None, None)
    assert found == [False] * 3 + [True] * 2


def test_what_was_chosen_is_ready_even_if_no_more_can_be():
    replay = Spy([], lead=2)
    feed = fed(replay)
    update(feed, 0)
    replay.ready_from = 10
    assert [feed.ready(1, False), feed.ready(2, False)] == [True, True]
    for number in (1, 2):
        update(feed, number)
    assert not feed.ready(3, False)


def test_a_batch_that_could_not_be_chosen_ahead_is_chosen_right_before_its_update():
    """No step may be replayed more often than twice: 8 steps an update, 3 a tick. So there is an update every 4/3 ticks."""
    replay = windows(None, samples_per_insert=2.0, lead=2)
    feed, updates, sampled = fed(replay), [], []
    number = 0
    for tick in range(30):
        add(replay, tick, tick + 1)
        while feed.ready(number, False):
            feed.take(number)
            feed.choose_ahead(number, False)
            updates.append(tick)
            number += 1
        sampled.append(replay.sampled)
    assert all(now <= 2 * 3 * (tick + 1) for tick, now in enumerate(sampled))
    assert number == 2 * 90 // 8 and sampled[-1] == 8 * number


def test_an_update_waits_for_all_that_it_is_due_for_and_none_is_chosen_before_it():
    windows, others = Spy([], lead=2), Spy([], lead=2)
    feed = thirds(windows, others)
    feed.take(0)
    others.ready_from = 1
    feed.choose_ahead(0, False)
    for number in (1, 2):
        assert feed.ready(number, False)
        feed.take(number)
        feed.choose_ahead(number, False)
    assert not feed.ready(3, False)
    assert (windows.events, others.events) == (["choose 0", "choose 1", "choose 2"], ["choose 0"])
    others.steps = 1
    assert feed.ready(3, False)
    assert sorted(feed.take(3)[1].batches) == ["others", "windows"]
    feed.choose_ahead(3, False)
    assert (windows.events[3:], others.events[1:]) == (["choose 3", "choose 4", "choose 5"], ["choose 3"])


# -- Who gathers ------------------------------------------------------------------------------------------------------


def learned(workers: int | None, lead: int, place: str = "memory", size: int = 120) -> list[str]:
    """Digests of all batches and noise of 60 ticks with 2 updates each, some of which write something back."""
    memory = Memory(4, refreshed=("deter",))
    replay = windows(None, "naive", memory, workers=workers, lead=lead, online=True, place=place, size=size)
    feed, found = fed(replay, Learner({"windows": 7})), []
    for tick in range(60):
        add(replay, tick, tick + 1, lambda tick: Rows({"action": done(tick), "deter": np.full((ENVS, 2), tick, np.float32)}))
        for number in (len(found), len(found) + 1) if feed.ready(len(found), False) else ():
            ticket, (batches, noise, _) = feed.take(number)
            found.append(digest_tree({"batches": batches, "noise": noise}))
            deter = batches["windows"]["deter"][:, None].expand(7, 4, 2) + number
            feed.write_back(ticket, {"windows": {"deter": deter}})
            feed.choose_ahead(number, False)
    feed.close()
    return found


@pytest.mark.parametrize("lead", [0, 1, 3])
def test_whoever_gathers_updates_are_shown_the_same(lead):
    expected = learned(0, lead)
    assert len(expected) > 100 and len(set(expected)) == len(expected)
    for workers in (1, 4, 8, None):
        assert learned(workers, lead) == expected
    assert learned(4, lead, "device") == learned(4, lead, "mapped") == expected


def test_leads_are_told_apart():
    assert learned(0, 0) != learned(0, 1) != learned(0, 3)


def test_updates_are_given_tensors_that_share_memory_with_what_was_gathered():
    replay = add(windows(None), 0, 20)
    _, found = fed(replay).take(0)
    assert isinstance(found.batches["windows"]["reward"], torch.Tensor)
    found.batches["windows"]["reward"][:] = 7
    assert (found.raw["windows"]["reward"] == 7).all()


def test_noise_is_a_function_of_the_update():
    replay = add(windows(None), 0, 20)
    feed = fed(replay)
    for number in range(3):
        _, noise = update_plain(feed, number)
        assert np.array_equal(noise["windows"], KEY("learn", number)("windows").uniform((2, 4)))


def update_plain(feed: Feed, number: int) -> tuple[Any, Any]:
    _, found = feed.take(number)
    feed.choose_ahead(number, False)
    return found.batches, found.noise


@pytest.mark.parametrize("workers", [1, 4])
def test_a_slow_thread_is_waited_for_and_sees_what_was_there(workers, monkeypatch):
    """The ring has 41 places for each environment; 100 ticks come while a thread is about to read."""
    quick, gather = windows(None), Windows._gather
    slow = windows(None, workers=workers, lead=1)

    def slowly(self: Windows, *arguments: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.1)
        return gather(self, *arguments)

    expected, found = [], []
    for replay, kept in ((quick, expected), (slow, found)):
        monkeypatch.setattr(Windows, "_gather", slowly if replay is slow else gather)
        add(replay, 0, 50)
        feed = fed(replay)
        update_plain(feed, 0)
        add(replay, 50, 150)
        kept.append(digest_tree(update_plain(feed, 1)[0]))
        feed.close()
    assert found == expected


# -- Errors ------------------------------------------------------------------------------------------------------------


def broken_gather(*arguments: Any) -> Any:
    raise ZeroDivisionError("in the middle of gathering")


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_an_error_in_gathering_is_raised_where_the_batch_is_needed(workers, monkeypatch):
    monkeypatch.setattr(Windows, "_gather", broken_gather)
    replay = add(windows(None, workers=workers), 0, 20)
    feed = fed(replay)
    with pytest.raises(ZeroDivisionError, match="in the middle of gathering") as caught:
        feed.take(0)
    assert {"broken_gather", "prepare"} <= {frame.name for frame in caught.traceback}
    feed.close()


def test_an_error_in_gathering_is_raised_by_a_step_that_cannot_wait_for_it(monkeypatch):
    replay = add(windows(None), 0, 20)
    feed = fed(replay)
    monkeypatch.setattr(Windows, "_gather", broken_gather)
    feed.choose_ahead(0, False)
    add(replay, 20, 21)
    with pytest.raises(ZeroDivisionError, match="in the middle of gathering") as caught:
        add(replay, 21, 22)
    assert {"broken_gather", "_read_in_time"} <= {frame.name for frame in caught.traceback}


def test_an_error_in_a_thread_waits_for_whoever_needs_the_batch(monkeypatch):
    replay = add(windows(None, workers=1), 0, 20)
    feed = fed(replay)
    monkeypatch.setattr(Windows, "_gather", broken_gather)
    feed.choose_ahead(0, False)
    feed.close()  # after which the thread is done with it, or will never begin
    with pytest.raises(ZeroDivisionError, match="in the middle of gathering"):
        feed.take(1)


def test_an_error_in_gathering_is_raised_when_a_state_is_asked_for(monkeypatch):
    replay = add(windows(None, workers=1), 0, 20)
    feed = fed(replay)
    monkeypatch.setattr(Windows, "_gather", broken_gather)
    feed.choose_ahead(0, False)
    with pytest.raises(ZeroDivisionError):
        feed.state()
    feed.close()


def test_closing_does_not_wait_for_batches_that_nobody_will_see(monkeypatch):
    def slowly(*arguments: Any) -> Any:
        time.sleep(0.1)
        return {}

    replay = add(windows(None, workers=1, lead=50), 0, 20)
    feed = fed(replay)
    monkeypatch.setattr(Windows, "_gather", slowly)
    feed.choose_ahead(0, False)
    start = time.perf_counter()
    feed.close()
    assert time.perf_counter() - start < 2  # all 50 would take 5 seconds


# -- State -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lead", [0, 1, 3])
@pytest.mark.parametrize("at", [0, 2, 5, 60])
def test_what_was_chosen_and_not_shown_is_shown_after_a_restart(tmp_path, lead, at):
    def run(feed: Feed, replay: Windows, number: int, start: int, end: int) -> list[str]:
        found = []
        for tick in range(start, end):
            add(replay, tick, tick + 1)
            if feed.ready(number, False):
                found.append(digest_tree(dict(zip(("batches", "noise"), update_plain(feed, number), strict=True))))
                number += 1
        return found

    made: dict[str, Any] = {"choose": "naive", "lead": lead, "workers": 1, "online": True}
    replay = windows(tmp_path / "files", **made)
    feed = fed(replay)
    passed = len(run(feed, replay, 0, 0, at))
    state = through_a_file(tmp_path / "checkpoints", {"feed": feed.state(), "replay": replay.state()})
    assert [number for number, *_ in state["feed"]] == (list(range(passed, passed + lead)) if passed else [])
    expected = run(feed, replay, passed, at, 100)
    feed.close()
    replay.close()
    other = windows(tmp_path / "files", **made)
    again = fed(other)
    again.load({"windows": state["replay"]}, state["feed"])
    assert run(again, other, passed, at, 100) == expected
    again.close()


def marked(tick: int) -> Rows:
    return Rows({"action": done(tick), "deter": np.full((ENVS, 2), tick, np.float32)})


def thirds_of_windows(folder: Path, lead: int) -> tuple[Feed, list[Windows]]:
    shared: dict[str, Any] = {"memory": Memory(4, refreshed=("deter",)), "lead": lead, "workers": 1}
    replays = [windows(folder / "windows", "naive", **shared), windows(folder / "others", "efficient", size=60, **shared)]
    return thirds(*replays), replays


@pytest.mark.parametrize(
    ("lead", "at", "asked"), [(0, 9, []), (1, 8, [2]), (1, 9, [1]), (3, 8, [2, 1, 1]), (3, 9, [1, 1, 2]), (3, 10, [1, 2, 1])]
)
def test_replays_of_different_rhythms_go_on_after_a_restart(tmp_path, lead, at, asked):
    """There is an update at every tick from the fifth on. `asked`: of how many replays the saved batches are.

    A row's "deter" is its tick, below 1000, until an update writes back 1000 or 2000, as the replay is the first or second.
    """
    shown: dict[str, set[float]] = {"windows": set(), "others": set()}

    def run(feed: Feed, replays: list[Windows], start: int, end: int) -> list[str]:
        found = []
        for tick in range(start, end):
            for replay in replays:
                add(replay, tick, tick + 1, marked)
            if tick >= 5:
                ticket, (batches, noise, _) = feed.take(tick - 5)
                found.append(digest_tree({"batches": batches, "noise": noise}))
                for name, batch in batches.items():
                    shown[name] |= set((batch["deter"] // 1000).flatten().tolist())
                values = {"windows": torch.full((7, 4, 2), 1000.0), "others": torch.full((9, 4, 2), 2000.0)}
                feed.write_back(ticket, {name: {"deter": values[name]} for name in batches})
                feed.choose_ahead(tick - 5, False)
        return found

    feed, replays = thirds_of_windows(tmp_path / "files", lead)
    run(feed, replays, 0, at)
    saved = {"feed": feed.state(), "windows": replays[0].state(), "others": replays[1].state()}
    state = through_a_file(tmp_path / "checkpoints", saved)
    assert [len(places) for _, places, _ in state["feed"]] == asked
    expected = run(feed, replays, at, 40)
    feed.close()
    again, others = thirds_of_windows(tmp_path / "files", lead)
    again.load({name: state[name] for name in ("windows", "others")}, state["feed"])
    assert run(again, others, at, 40) == expected
    again.close()
    assert shown == {"windows": {0.0, 1.0}, "others": {0.0, 2.0}}


def test_what_is_shown_after_a_restart_can_be_written_back_to_its_places(tmp_path):
    events: list[str] = []
    replay = Spy(events, lead=1)
    replay.steps = 9
    feed = fed(replay)
    update(feed, 0)
    state = through_a_file(tmp_path, {"feed": feed.state()})["feed"]
    other = Spy(events, lead=1)
    again = fed(other)
    again.load({"windows": {}}, state)
    events.clear()
    update(again, 1)
    assert events == ["write back 9", "choose 2"]


def test_what_was_chosen_from_a_replay_that_has_changed_is_not_shown(tmp_path):
    replay = add(windows(tmp_path / "files"), 0, 50)
    feed = fed(replay)
    update_plain(feed, 0)
    state = through_a_file(tmp_path / "checkpoints", {"feed": feed.state(), "replay": replay.state()})
    feed.close()
    other = windows(tmp_path / "files", size=60)
    again = fed(other)
    again.load({"windows": state["replay"]}, state["feed"])
    assert other.changed and again.state() == []
    again.close()


def test_an_agent_that_does_not_say_how_often_it_learns_is_refused_a_replay_that_lasts():
    learner = Learner({"windows": 2})
    learner.train_ratio = None  # type: ignore[assignment]
    with pytest.raises(ValueError, match="Learner learns from a replay that lasts, so it must say how often"):
        fed(windows(None), learner)


def test_an_update_costs_the_steps_of_its_largest_batch():
    assert fed(Spy([]), Learner({"windows": 6})).cost(0) == 24


def test_asking_for_a_state_changes_nothing():
    def run(ask: bool) -> list[str]:
        replay = windows(None, "naive", lead=2)
        feed, found = fed(replay), []
        for tick in range(40):
            add(replay, tick, tick + 1)
            if feed.ready(len(found), False):
                found.append(digest_tree(update_plain(feed, len(found))[0]))
            if ask:
                feed.state()
        return found

    assert run(ask=True) == run(ask=False)


def test_a_rollout_is_fed_when_it_is_full(tmp_path: Path):
    replay = Rollout(Held(SPACES, ENVS, Memory()), length=5)
    feed = Feed(Learner({"rollout": 0}), {"rollout": replay}, KEY, hardware())  # type: ignore[arg-type]
    ready = []
    for tick in range(10):
        add(replay, tick, tick + 1)
        ready.append(feed.ready(len(ready) // 5, False))
        if ready[-1]:
            batches, _ = update_plain(feed, len(ready) // 5 - 1)
            assert batches["rollout"]["reward"].shape == (5, ENVS)
            assert feed.state() == []
    assert ready == ([False] * 4 + [True]) * 2
