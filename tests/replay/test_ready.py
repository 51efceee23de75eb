"""When a replay of windows can serve a batch: a matter of what is stored, not of who asked before nor of how it came."""

import pytest

from hieros_repro.records import Request
from tests.replay.making import add, batch_of, remembered, sparse, told, windows


@pytest.mark.parametrize("ticks", [5, 20, 251, 252, 253])
@pytest.mark.parametrize("rows", [remembered, sparse])
def test_how_many_windows_there_are_does_not_depend_on_who_asked_before(tmp_path, rows, ticks):
    """Two ticks are counted at once; of 200 steps of each environment the oldest are forgotten at the end."""
    asked = windows(tmp_path / "a", size=600)
    for tick in range(ticks):
        add(asked, tick, tick + 1, rows).state()
    count = asked.buffer.end - asked.buffer.first
    full = count == asked.selector.capacity or asked.buffer.first > 0
    for more, ready in ((0, True), (1, full)):
        other = add(windows(tmp_path / f"b{more}", size=600), 0, ticks, rows)
        assert [one.ready(Request("windows", count + more, 4), False) for one in (asked, other)] == [ready, ready]


@pytest.mark.parametrize(("rows", "ticks"), [(remembered, 8), (remembered, 30), (sparse, 60)])
def test_a_batch_larger_than_a_full_replay_is_served_once_that_is_full(rows, ticks):
    """8 steps of each of 3 environments are 15 windows."""
    replay, request = windows(None, size=24), Request("windows", 40, 4)
    assert not add(replay, 0, 7, rows).ready(request, False)
    assert add(replay, 7, ticks, rows).ready(request, False)
    assert told(batch_of(replay, request, 0), "reward").shape == (40, 4)
