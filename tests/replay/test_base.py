import threading
import time
import traceback
from typing import ClassVar

import numpy as np
import pytest

from hieros_repro.records import Memory, Request
from hieros_repro.replay.base import Held, Once
from hieros_repro.replay.rollout import Rollout
from tests.replay.contract import ReplayContract
from tests.replay.making import ENVS, SPACES, answer, done, seen, who


class TestRollout(ReplayContract):
    make = staticmethod(lambda folder: Rollout(Held(SPACES, ENVS, Memory()), length=8))
    request: ClassVar[Request] = Request("rollout", 0, 0)
    ticks, every = 8, 1

    def rows_are_right(self, batch):
        """Observation and action of a row, and what came of it; one observation more."""
        start = int(batch["obs"]["id"][0, 0, 0])
        for t in range(9):
            assert np.array_equal(batch["obs"]["id"][t], seen(start + t).obs["id"])
            assert np.array_equal(batch["obs"]["image"][t], seen(start + t).obs["image"])
        for t in range(8):
            now, after = seen(start + t), seen(start + t + 1)
            assert np.array_equal(batch["action"][t], done(start + t))
            assert np.array_equal(batch["reward"][t], after.reward)
            assert np.array_equal(batch["is_last"][t], after.is_last)
            assert np.array_equal(batch["is_terminal"][t], after.is_terminal)
            assert np.array_equal(batch["valid"][t], ~now.is_last)


# -- A piece of work ---------------------------------------------------------------------------------------------------


def test_work_is_done_once_and_everybody_gets_its_result():
    calls: list[str] = []

    def slow() -> list[int]:
        time.sleep(0.05)
        calls.append(who())
        return [len(calls)]

    work, found = Once(slow), []
    threads = [threading.Thread(target=lambda: found.append(work())) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[1]] * 5 and len(calls) == 1
    assert work() is found[0]


def test_work_tells_whether_it_is_done():
    work = Once(answer)
    assert not work.done
    work()
    assert work.done


def test_an_error_is_everybodys_and_shows_where_it_happened():
    work = Once(lambda: answer(error=True))
    for _ in range(2):
        with pytest.raises(KeyError, match="broken") as caught:
            work()
        assert "answer" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert work.done


def test_what_work_needed_is_let_go_when_it_is_done():
    class Large:
        gone = False

        def __del__(self) -> None:
            Large.gone = True

    large = Large()
    work = Once(lambda large=large: id(large))
    del large
    work()
    assert Large.gone
