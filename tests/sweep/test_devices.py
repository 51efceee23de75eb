import multiprocessing
import time

import pytest

from hieros_repro.sweep import devices
from hieros_repro.sweep.devices import Slots


def take_and_wait(folder, taken):
    slots = Slots(folder, ["0", "1"])
    taken.put(slots.take(1))
    time.sleep(600)


def test_each_job_has_devices_of_its_own_until_none_is_left(tmp_path):
    first, second, third = (Slots(tmp_path, ["4", "5", "7"]) for _ in range(3))
    assert first.try_take(1) == ["4"]
    assert second.try_take(2) == ["5", "7"]
    assert third.try_take(1) is None
    first.release()
    assert third.try_take(1) == ["4"]


def test_who_gets_too_few_keeps_none(tmp_path):
    first, second, third = (Slots(tmp_path, ["0", "1", "2"]) for _ in range(3))
    assert first.try_take(2) == ["0", "1"]
    assert second.try_take(2) is None
    assert third.try_take(1) == ["2"]


def test_who_has_a_device_keeps_it_for_the_next_job(tmp_path):
    slots = Slots(tmp_path, ["0", "1"])
    assert slots.try_take(1) == slots.try_take(1) == ["0"]
    assert Slots(tmp_path, ["0", "1"]).try_take(1) == ["1"]


def test_more_devices_than_there_are_is_a_mistake_of_ours(tmp_path):
    with pytest.raises(AssertionError, match="2 of 1 devices"):
        Slots(tmp_path, ["0"]).take(2)


def test_the_devices_of_a_process_that_dies_are_free_again(tmp_path):
    context = multiprocessing.get_context("spawn")
    taken = context.Queue()
    processes = [context.Process(target=take_and_wait, args=(tmp_path, taken), daemon=True) for _ in range(2)]
    for process in processes:
        process.start()
    assert sorted(taken.get(timeout=60) for _ in processes) == [["0"], ["1"]]
    slots = Slots(tmp_path, ["0", "1"])
    assert slots.try_take(1) is None
    processes[0].kill()
    processes[0].join()
    assert slots.take(1, pause=0.01) in (["0"], ["1"])
    processes[1].kill()
    processes[1].join()


def test_a_job_sees_only_what_it_has_taken(tmp_path, monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, "2, 3")
    monkeypatch.setattr(devices, "_TAKEN", {})
    assert devices.visible() == ["2", "3"]
    other = Slots(tmp_path, ["2"])
    assert other.try_take(1) == ["2"]
    devices.take(tmp_path, ["2", "3"], 1)
    assert devices.visible() == ["3"]
    devices.take(tmp_path, ["2", "3"], 1)
    assert devices.visible() == ["3"]
    devices._TAKEN[tmp_path].release()


def test_nothing_visible_is_no_device(monkeypatch):
    monkeypatch.setenv(devices.VISIBLE, "")
    assert devices.visible() == []
