import os

import numpy as np
import pytest
import torch

from hieros_repro.hardware import device
from hieros_repro.hardware.device import Hardware
from hieros_repro.records import UserError

CPU = {"device": "cpu", "precision": "fp32", "threads": 1, "compile": None, "ranks": 1}


def faults(**changes) -> dict[str, str]:
    return {fault.key: fault.problem for fault in Hardware.check(**(CPU | changes))}


@pytest.mark.parametrize(
    "precision, fast, count", [("fp32", False, 0), ("fp32", True, 0), ("bf16", False, 1), ("bf16", True, 0), ("fp16", False, 0)]
)
def test_bf16_on_a_cpu_without_it_is_pointed_out(monkeypatch, precision, fast, count):
    monkeypatch.setattr(device.numerics, "fast_bf16", lambda: fast)
    assert len(list(Hardware(**(CPU | {"precision": precision})).warnings())) == count
    assert list(Hardware(**(CPU | {"precision": precision, "device": "cuda"})).warnings()) == []


@pytest.fixture
def only_a_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "_accelerator", lambda: None)


def test_a_cpu_can_always_be_had():
    assert faults() == {}


def test_an_absent_gpu_is_a_fault_that_says_what_there_is(only_a_cpu):
    assert faults(device="cuda") == {"device": "'cuda' was asked for, but this machine offers cpu; use hardware=cpu"}


def test_an_absent_tpu_is_a_fault_that_says_what_there_is(only_a_cpu):
    assert faults(device="tpu") == {
        "device": "'tpu' was asked for, but this machine offers cpu; a TPU needs the extra [tpu]",
    }


def test_a_tpu_fault_names_the_gpu_there_is(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "A Fine GPU")
    monkeypatch.setattr(device, "_accelerator", lambda: "cuda")
    assert "offers cpu, cuda (A Fine GPU);" in faults(device="tpu")["device"]
    assert faults(device="cuda") == {}


def test_several_ranks_are_refused():
    assert "only 1 is allowed" in faults(ranks=2)["ranks"]


def test_more_threads_than_cores_are_refused(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert faults(threads=4) == {}
    assert faults(threads=5) == {"threads": "5 is more than this machine's 4 cores"}


def test_all_faults_are_found_at_once(only_a_cpu):
    assert set(faults(device="cuda", threads=10**6, ranks=8)) == {"device", "threads", "ranks"}


def test_threads_are_set():
    Hardware(**(CPU | {"threads": 2})).apply()
    assert torch.get_num_threads() == 2
    Hardware(**CPU).apply()
    assert torch.get_num_threads() == 1


def test_threads_that_torch_does_not_take_are_an_error(monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda threads: None)
    with pytest.raises(UserError, match=r"hardware\.threads=2: torch kept 1 threads"):
        Hardware(**(CPU | {"threads": 2})).apply()


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_forward_passes_have_the_precision_asked_for(precision, dtype):
    with Hardware(**(CPU | {"precision": precision})).autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_a_nest_of_arrays_becomes_tensors():
    tensor = torch.ones(2)
    moved = Hardware(**CPU).to_device({"a": np.arange(3), "b": {"c": np.zeros(2, np.uint8), "d": tensor}})
    assert moved["a"].tolist() == [0, 1, 2]
    assert moved["b"]["c"].dtype == torch.uint8
    assert moved["b"]["d"] is tensor


def test_on_the_cpu_nothing_is_copied():
    array = np.arange(3)
    Hardware(**CPU).to_device(array)[0] = 9
    assert array[0] == 9


def test_without_a_mode_a_function_is_not_compiled():
    assert Hardware(**CPU).compiled(len) is len


def test_numerics_say_what_was_asked_for():
    found = Hardware(**(CPU | {"precision": "bf16"})).numerics()
    assert (found["device"], found["precision"], found["compile"], found["ranks"]) == ("cpu", "bf16", None, 1)
