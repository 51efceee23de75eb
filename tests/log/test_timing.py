import pytest

from hieros_repro.log import timing
from hieros_repro.log.timing import Forecast, Rates, Stopwatch, duration


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [100.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    return now


def test_the_time_between_laps_goes_to_names(clock):
    watch = Stopwatch()
    for name, seconds in (("act", 1.0), ("env", 2.0), ("act", 0.5)):
        clock[0] += seconds
        watch.lap(name)
    assert watch.seconds == {"act": 1.5, "env": 2.0} and watch.elapsed() == 3.5


def test_a_row_is_about_the_time_since_the_row_before(clock):
    watch = Stopwatch()
    rates = Rates(watch, Forecast(watch, 1000, lambda step: 0, print))
    rates.start(0, 0)
    clock[0] += 2.0
    watch.lap("act")
    assert rates.row(100, 4)["steps_per_second"] == 50.0
    clock[0] += 3.0
    watch.lap("act")
    clock[0] += 1.0
    watch.lap("env")
    row = rates.row(300, 5)
    assert (row["step"], row["steps_per_second"], row["updates_per_second"], row["elapsed"]) == (300, 50.0, 0.25, 6.0)
    assert "seconds_left" not in row  # nothing was learned yet
    assert (row["share/act"], row["share/env"]) == (0.75, 0.25) and row["memory_mb"] > 1


# -- When it will be done ------------------------------------------------------------------------------------------------


class Run:
    """A run of 1000 steps with 10 episodes of evaluation at step 500 and 30 at the end, told by its forecast."""

    def __init__(self, clock, update=0, learns=True):
        self.clock, self.watch, self.said = clock, Stopwatch(), []
        self.forecast = Forecast(self.watch, 1000, lambda step: 30 + 10 * (step < 500), self.said.append)
        self.forecast.start(update, learns)

    def tick(self, step, update, seconds, what="learn"):
        self.clock[0] += seconds
        self.watch.lap(what)
        self.forecast.see(step, update)
        return self.forecast.left(step, update)


def test_nothing_is_known_before_learning_is_under_way(clock):
    run = Run(clock)
    assert [run.tick(step, 0, 0.001) for step in (10, 100)] == [None, None]
    assert [run.tick(110, 1, 60.0), run.tick(120, 2, 60.0)] == [None, None]  # compiles
    assert run.tick(130, 3, 2.0) == pytest.approx((1000 - 130) * 0.2)


def test_what_counts_is_the_pace_since_then(clock):
    run = Run(clock)
    run.tick(100, 2, 500.0)
    assert run.tick(110, 3, 1.0) == pytest.approx(890 * 0.1)
    assert run.tick(130, 4, 5.0) == pytest.approx(870 * 0.2)  # 6 s for 30 steps


def test_evaluations_that_are_ahead_count_as_long_as_the_past_ones_took(clock):
    run = Run(clock)
    run.tick(100, 2, 1.0)
    run.tick(200, 12, 10.0)
    run.forecast.evaluated(5)
    left = run.tick(200, 12, 20.0, "evaluate")  # 4 s an episode
    assert left == pytest.approx(800 * 0.1 + 40 * 4.0)
    assert run.tick(600, 50, 40.0) == pytest.approx(400 * 0.1 + 30 * 4.0)
    assert run.tick(1000, 90, 40.0) == pytest.approx(30 * 4.0)


def test_the_end_is_foretold_once_after_twenty_updates(clock, monkeypatch):
    monkeypatch.setattr(timing.time, "time", lambda: 1_000_000.0)
    monkeypatch.setattr(timing.time, "localtime", timing.time.gmtime)  # 13:46:40
    run = Run(clock)
    for update in range(1, 40):
        run.tick(10 * update, update, 10.0)
        assert len(run.said) == (update >= 20)
    assert run.said[0].startswith("done in about 13 min, at 14:00; the evaluations ahead come on top (memory so far ")  # 800 s


def test_a_continued_run_begins_to_count_anew(clock):
    run = Run(clock, update=700)
    for update in range(700, 720):
        run.tick(update, update, 1.0)
    assert run.said == []
    run.tick(720, 720, 1.0)
    assert len(run.said) == 1


def test_one_that_never_learns_counts_from_its_first_tick_and_foretells_nothing(clock):
    run = Run(clock, learns=False)
    assert [run.tick(10, 0, 1.0), run.tick(20, 0, 2.0)] == [None, pytest.approx(980 * 0.2)]
    assert run.said == []


@pytest.mark.parametrize(
    "seconds, words", [(7.4, "7 s"), (99, "99 s"), (100, "2 min"), (660, "11 min"), (9000, "2.5 h"), (200_000, "2.3 days")]
)
def test_durations_are_said_as_people_do(seconds, words):
    assert duration(seconds) == words
