import errno
import os

import numpy as np
import pytest
import torch

from hieros_repro.records import UserError
from hieros_repro.replay.bank import BANKS, Bank

PLACES = ("memory", "mapped", "device")
KINDS = ("uint8", "bool", "int64", "float32", "float16", "int32")


@pytest.fixture(params=PLACES)
def bank(request, tmp_path) -> Bank:
    made = BANKS[request.param](12, tmp_path, "cpu")
    for kind in KINDS:
        made.open(kind, (2, 3), np.dtype(kind))
    made.open("scalar", (), np.dtype(np.float32))
    return made


def values(count: int, kind: str = "int64", start: int = 0) -> np.ndarray:
    return (np.arange(count * 6).reshape(count, 2, 3) + start).astype(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_are_taken_out_as_they_were_put_in(bank, kind):
    bank.put(np.array([7, 0, 11]), {kind: values(3, kind)})
    found = bank.fetch(kind, np.array([[11, 7], [0, 1]]))
    assert found.dtype == kind and found.shape == (2, 2, 2, 3)
    assert np.array_equal(found[0], values(3, kind)[[2, 0]])
    assert np.array_equal(found[1, 0], values(3, kind)[1]) and not found[1, 1].any()


def test_slots_may_be_a_slice(bank):
    bank.put(slice(1, None, 4), {"int64": values(3), "scalar": np.array([1, 2, 3], np.float32)})
    assert bank.fetch("scalar", np.arange(12)).tolist() == [0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0]
    assert np.array_equal(bank.fetch("int64", np.array([1, 5, 9])), values(3))


def test_what_was_taken_does_not_change_with_what_is_put(bank):
    bank.put(slice(0, 12), {"int64": values(12)})
    taken, fetched = bank.take("int64", np.arange(3)), bank.fetch("int64", np.arange(3))
    bank.put(slice(0, 12), {"int64": values(12, start=100)})
    assert np.array_equal(np.asarray(taken), values(3)) and np.array_equal(fetched, values(3))


def test_what_was_taken_can_be_changed_without_harm(bank):
    bank.put(slice(0, 12), {"int64": values(12)})
    bank.take("int64", np.arange(3))[:] = -1
    bank.fetch("int64", np.arange(3))[:] = -1
    assert np.array_equal(bank.fetch("int64", np.arange(12)), values(12))


def test_what_cannot_be_written_to_can_be_put(bank):
    """Observations are often views that cannot."""
    shown = values(3)
    shown.flags.writeable = False
    bank.put(np.array([0, 1, 2]), {"int64": shown, "uint8": np.broadcast_to(np.uint8(9), (3, 2, 3))})
    assert np.array_equal(bank.fetch("int64", np.arange(3)), values(3))
    assert (bank.fetch("uint8", np.arange(3)) == 9).all()


def test_no_slots_hold_no_rows(bank):
    bank.put(np.array([], np.int64), {"int64": values(0)})
    assert bank.fetch("int64", np.zeros((0, 4), np.int64)).shape == (0, 4, 2, 3)


@pytest.mark.parametrize("place", PLACES)
def test_batches_are_tensors_only_where_rows_are(place, tmp_path):
    bank = BANKS[place](4, tmp_path, "cpu")
    bank.open("reward", (), np.dtype(np.float32))
    assert isinstance(bank.take("reward", np.arange(2)), torch.Tensor if place == "device" else np.ndarray)
    assert isinstance(bank.fetch("reward", np.arange(2)), np.ndarray)


def test_memory_is_taken_when_rows_come_and_not_before():
    bank = BANKS["memory"](1_000_000, None, "cpu")
    before = resident()
    bank.open("image", (32, 32), np.dtype(np.uint8))  # 1 GB
    bank.put(np.array([0, 999_999]), {"image": np.ones((2, 32, 32), np.uint8)})
    assert resident() - before < 50 * 2**20


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_more_than_the_memory_of_this_machine_is_refused():
    bank = BANKS["memory"](10**7, None, "cpu")
    with pytest.raises(UserError, match=r"replay\.size: 10,000,000 steps need 4577\.6 GB .* replay\.place=mapped"):
        bank.open("image", (8192, 60), np.dtype(np.uint8))
    assert bank.arrays == {}


def test_all_names_together_must_fit(monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: {"SC_PAGE_SIZE": 1, "SC_PHYS_PAGES": 1000}[name])
    bank = BANKS["memory"](10, None, "cpu")
    bank.open("a", (40,), np.dtype(np.uint8))
    bank.open("b", (50,), np.dtype(np.uint8))
    with pytest.raises(UserError, match=r"replay\.size"):
        bank.open("c", (), np.dtype(np.uint8))


def test_a_mapped_bank_may_be_larger_than_the_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "sysconf", lambda name: 1)
    BANKS["mapped"](10, tmp_path, "cpu").open("a", (40,), np.dtype(np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_a_disk_too_small_for_a_mapped_bank_is_told_at_once(monkeypatch, tmp_path):
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(UserError, match=r"replay\.place=mapped: 1\.0 GB do not fit on the disk \(No space left on device\)"):
        BANKS["mapped"](2**20, tmp_path, "cpu").open("a", (1024,), np.dtype(np.uint8))
    assert list(tmp_path.iterdir()) == []
