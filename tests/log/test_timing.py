import pytest

from hieros_repro.log import timing
from hieros_repro.log.timing import Rates, Stopwatch


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
    rates = Rates(watch)
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
    assert (row["share/act"], row["share/env"]) == (0.75, 0.25) and row["memory_mb"] > 1
