"""Replays that an update waits for, and others that it takes where they are ready, as levels of a hierarchy have them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Memory, Request, Rows
from hieros_repro.replay.base import Replay
from hieros_repro.replay.windows import Windows
from hieros_repro.run.feed import Feed
from tests.agent.making import hardware
from tests.replay.making import ENVS, add, done, through_a_file, windows
from tests.run.test_feed import KEY, Learner, Spy

PAIR = {"low": 2, "high": 3}


class Patient(Learner):
    """Learns from "low" at every update and, where it can, from the others, each at its own rhythm."""

    def due(self, update: int) -> list[Request]:
        return [request._replace(waits=request.replay == "low") for request in super().due(update)]


def levels(low: Replay, high: Replay, every: int = 1) -> Feed:
    return Feed(Patient(PAIR, {"high": every}), {"low": low, "high": high}, KEY, hardware())  # type: ignore[arg-type]


def shown(feed: Feed, spies: list[Spy], count: int) -> list[list[str]]:
    """The names of the batches of so many updates; a step comes before each."""
    found = []
    for number in range(count):
        for spy in spies:
            spy.steps = number + 1
        assert feed.ready(number, False)
        _, fed = feed.take(number)
        assert list(fed.noise) == list(fed.raw) == list(fed.batches)
        found.append(list(fed.batches))
        feed.choose_ahead(number, False)
    return found


# -- Which batches an update is shown ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("lead", "without"), [(0, 2), (1, 3), (2, 4)])
def test_what_is_not_waited_for_is_taken_if_it_is_ready_when_the_batch_is_chosen(lead, without):
    """The replay is ready with the third step, which comes before update 2."""
    low, high = Spy([], lead=lead), Spy([], lead=lead, ready_from=3)
    assert shown(levels(low, high), [low, high], 7) == [["low"]] * without + [["low", "high"]] * (7 - without)


def test_what_is_not_waited_for_is_shown_in_its_rhythm_and_only_what_is_shown_is_chosen():
    """Due at updates 0, 3, 6, 9; ready from the fifth step, which has come when batch 5 and later ones are chosen."""
    low, high = Spy([]), Spy([], ready_from=5)
    found = shown(levels(low, high, every=3), [low, high], 11)
    assert [number for number, names in enumerate(found) if "high" in names] == [6, 9]
    assert high.events == ["choose 6", "choose 9"] and low.events == [f"choose {number}" for number in range(12)]


def test_learning_does_not_end_because_a_replay_never_gets_ready():
    low, high = Spy([], lead=2), Spy([], lead=2, ready_from=10**9)
    assert shown(levels(low, high), [low, high], 100) == [["low"]] * 100


def test_an_update_waits_for_those_that_it_waits_for_whatever_else_is_ready():
    low, high = Spy([], lead=0, ready_from=2), Spy([], lead=0)
    feed, ready = levels(low, high), []
    for steps in range(4):
        low.steps = high.steps = steps
        ready.append(feed.ready(0, False))
    assert ready == [False, False, True, True] and low.events == high.events == []
    assert list(feed.take(0)[1].batches) == ["low", "high"]


def test_replays_that_are_limited_are_left_out_as_often_as_their_own_limit_asks():
    """Each may show a step twice: 12 steps a batch of "high", and 4 ticks of 3 environments for each of its ticks.

    "low" has 3 steps a tick and a batch of 4: at most 6 / 4 updates a tick. "high" has 3 steps every fourth tick.
    """
    low, high = windows(None, samples_per_insert=2.0, lead=0), windows(None, samples_per_insert=2.0, lead=0)
    feed = Feed(Patient({"low": 1, "high": 3}), {"low": low, "high": high}, KEY, hardware())  # type: ignore[arg-type]
    number = 0
    for tick in range(80):
        add(low, tick, tick + 1)
        if tick % 4 == 0:
            add(high, tick, tick + 1)
        while feed.ready(number, False):
            feed.take(number)
            number += 1
    assert low.sampled == 4 * number == 2 * 3 * 80
    assert high.sampled == 2 * 3 * 20


def test_what_others_show_does_not_depend_on_what_is_left_out():
    def run(ready_from: int) -> list[str]:
        low, high, found = windows(None, "naive"), Spy([], ready_from=ready_from), []
        feed = levels(add(low, 0, 10), high)
        for number in range(20):
            add(low, 10 + number, 11 + number)
            _, (batches, noise, _) = feed.take(number)
            found.append(digest_tree([batches["low"], noise["low"]]))
            feed.choose_ahead(number, False)
        return found

    assert run(0) == run(10**9)


def test_what_no_more_steps_can_make_ready_is_asked_as_such():
    class Closing(Spy):
        def ready(self, request: Request, ending: bool) -> bool:
            return ending

    feed = levels(Spy([], lead=0), Closing([], lead=0))
    assert list(feed.take(0)[1].batches) == ["low"]
    assert list(feed.take(1, ending=True)[1].batches) == ["low", "high"]


def test_an_update_costs_what_it_waits_for():
    assert levels(Spy([]), Spy([])).cost(0) == 2 * 4


def test_write_backs_go_to_the_replays_that_were_shown():
    low, high = Spy([], lead=0), Spy([], lead=0, ready_from=2)
    feed = levels(low, high)
    for number in range(3):
        low.steps = high.steps = number + 1
        ticket, fed = feed.take(number)
        feed.write_back(ticket, dict.fromkeys(fed.batches, np.zeros(1)))
    assert [event for event in low.events if "write" in event] == ["write back 1", "write back 2", "write back 3"]
    assert high.events == ["choose 1", "write back 2", "choose 2", "write back 3"]


# -- Mistakes of agents ------------------------------------------------------------------------------------------------


class Hasty(Learner):
    """Waits for nothing from its third update on."""

    def due(self, update: int) -> list[Request]:
        return [request._replace(waits=update < 2) for request in super().due(update)]


@pytest.mark.parametrize(("learner", "first"), [(Learner({}), 0), (Hasty({"low": 2}), 2)])
def test_an_update_that_waits_for_nothing_is_a_mistake(learner, first):
    feed = Feed(learner, {"low": Spy([])}, KEY, hardware())
    for number in range(first):
        assert feed.ready(number, False)
        feed.take(number)
    with pytest.raises(ValueError, match=rf"{type(learner).__name__} waits for no replay at update {first}; it must"):
        feed.ready(first, False)


def test_an_agent_without_replays_never_learns():
    assert not Feed(Learner({}), {}, KEY, hardware()).ready(0, True)  # type: ignore[arg-type]


# -- State -------------------------------------------------------------------------------------------------------------

CLOCK = 4


def clocked(tick: int) -> Rows:
    """Each environment at every fourth of its own ticks."""
    row = np.full((ENVS, 2, 3), tick, np.float32)
    return Rows({"action": done(tick), "obs.deter": row}, (tick + np.arange(ENVS)) % CLOCK == 0)


def two(folder: Path, lead: int) -> tuple[Feed, list[Windows]]:
    low = windows(folder / "low", "naive", lead=lead, workers=1)
    upper = Memory(4, observes=False, every=CLOCK)
    high = windows(folder / "high", "efficient", upper, lead=lead, workers=1, min_size=100, chunk=5)
    return levels(low, high, every=2), [low, high]


def run(feed: Feed, replays: list[Windows], number: int, start: int, end: int) -> list[tuple[str, str]]:
    """One update a tick from the sixth on: the names of its batches, and their digest with the noise."""
    found = []
    for tick in range(start, end):
        add(replays[0], tick, tick + 1)
        add(replays[1], tick, tick + 1, clocked)
        if tick >= 6:
            assert feed.ready(number, False)
            _, (batches, noise, _) = feed.take(number)
            found.append((" ".join(batches), digest_tree({"batches": batches, "noise": noise})))
            feed.choose_ahead(number, False)
            number += 1
    return found


READY = 33  # the first tick after which "high" holds 25 steps


@pytest.mark.parametrize("lead", [0, 1, 3])
@pytest.mark.parametrize("at", [8, READY - 1, READY, READY + 1, READY + 2, 60])
def test_what_was_chosen_keeps_its_names_through_a_restart(tmp_path, lead, at):
    feed, replays = two(tmp_path / "files", lead)
    number = len(run(feed, replays, 0, 0, at))
    saved = {"feed": feed.state(), "low": replays[0].state(), "high": replays[1].state()}
    state = through_a_file(tmp_path / "checkpoints", saved)
    names = [list(places) for _, places, _ in state["feed"]]
    expected = run(feed, replays, number, at, 100)
    assert [" ".join(chosen) for chosen in names] == [name for name, _ in expected][: len(names)] and len(names) == lead
    feed.close()
    again, others = two(tmp_path / "files", lead)
    again.load({name: state[name] for name in ("low", "high")}, state["feed"])
    assert run(again, others, number, at, 100) == expected
    again.close()


def test_the_second_replay_is_learned_from_as_soon_as_it_is_ready(tmp_path):
    feed, replays = two(tmp_path, 1)
    found = [name for name, _ in run(feed, replays, 0, 0, 100)]
    first = next(number for number, name in enumerate(found) if name == "low high")
    assert replays[1].min_size == 25 and first == READY + 1 - 6 + (READY + 1) % 2
    assert found[first:] == (["low high", "low"] * 100)[: len(found) - first]
    feed.close()


def test_a_batch_chosen_without_a_replay_stays_without_it_when_that_has_become_ready(tmp_path):
    """Batches 1 to 3 are chosen after update 0, from which on the replay is ready."""
    low, high = Spy([], lead=3), Spy([], lead=3, ready_from=2)
    low.steps = high.steps = 1
    feed = levels(low, high)
    feed.take(0)
    feed.choose_ahead(0, False)
    state = through_a_file(tmp_path, {"feed": feed.state()})["feed"]
    again = levels(low, high)
    again.load({"low": {}, "high": {}}, state)
    high.steps = 2
    for one in (feed, again):
        found = []
        for number in range(1, 6):
            found.append(list(one.take(number)[1].batches))
            one.choose_ahead(number, False)
        assert found == [["low"]] * 3 + [["low", "high"]] * 2


def test_noise_is_drawn_for_what_there_is_again_after_a_restart(tmp_path):
    asked: list[list[str]] = []

    class Noisy(Patient):
        def learn_noise(self, key: Key, batches: dict[str, Any]) -> dict[str, Any]:
            asked.append(list(batches))
            return super().learn_noise(key, batches)

    def made() -> Feed:
        return Feed(Noisy(PAIR), {"low": Spy([]), "high": Spy([], ready_from=1)}, KEY, hardware())  # type: ignore[arg-type]

    feed = made()
    feed.take(0)
    feed.choose_ahead(0, False)
    again = made()
    again.load({"low": {}, "high": {}}, through_a_file(tmp_path, {"feed": feed.state()})["feed"])
    again.take(1)
    assert asked == [["low"]] * 3
