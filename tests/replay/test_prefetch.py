import threading
import time
import traceback

import pytest

from hieros_repro.replay.base import Once
from hieros_repro.replay.prefetch import WORTH, Workers
from tests.replay.making import answer, who


@pytest.mark.parametrize(("count", "size", "ahead"), [(0, WORTH, False), (1, 0, True), (8, 0, True), (None, WORTH, True)])
def test_work_is_begun_in_the_background_where_there_are_threads(count, size, ahead):
    workers, work = Workers(count), Once(who)
    workers.begin(work, size)
    deadline = time.monotonic() + 5
    while ahead and not work.done and time.monotonic() < deadline:
        time.sleep(0.001)
    assert work.done == ahead
    assert work().startswith("replay") == ahead
    workers.close()


def test_by_default_small_work_is_left_to_whoever_needs_it():
    workers, work = Workers(None), Once(who)
    workers.begin(work, WORTH - 1)
    workers.close()
    assert not work.done and work() == who()


@pytest.mark.parametrize("count", [0, 1, 4, None])
def test_an_error_in_a_thread_is_not_lost(count):
    workers, work = Workers(count), Once(lambda: answer(error=True))
    workers.begin(work, WORTH)
    workers.close()
    with pytest.raises(KeyError, match="broken") as caught:
        work()
    assert "answer" in [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]


def test_four_threads_do_four_things_at_a_time():
    together = threading.Barrier(4, timeout=5)
    workers, works = Workers(4), [Once(together.wait) for _ in range(4)]
    for work in works:
        workers.begin(work, 0)
    assert sorted(work() for work in works) == [0, 1, 2, 3]
    workers.close()


def test_closing_waits_for_what_is_being_done_and_not_for_what_is_yet_to_be():
    begun = threading.Event()

    def slow() -> str:
        begun.set()
        time.sleep(0.1)
        return who()

    workers, works = Workers(1), [Once(slow) for _ in range(50)]
    for work in works:
        workers.begin(work, 0)
    begun.wait(5)
    start = time.perf_counter()
    workers.close()
    assert time.perf_counter() - start < 2  # all of them would take 5 seconds
    assert works[0].done and not works[-1].done
    assert works[-1]() == who()  # what nobody began can still be had
    workers.close()


def test_no_thread_is_left():
    before = threading.active_count()
    workers = Workers(4)
    for _ in range(20):
        workers.begin(Once(lambda: time.sleep(0.001)), 0)
    workers.close()
    assert threading.active_count() == before
