import platform

import numpy
import pytest
import torch

import hieros_repro.determinism.numerics as module
from hieros_repro.determinism.numerics import differences, fast_bf16, numerics, version


def test_equal_facts_differ_nowhere():
    assert differences({"a": 1, "b": {"c": [1, 2]}}, {"b": {"c": [1, 2]}, "a": 1}) == {}


def test_differences_are_named_by_their_path_with_both_values():
    a = {"threads": 1, "packages": {"torch": "2.11", "numpy": "2.0"}, "blas": "MKL"}
    b = {"threads": 2, "packages": {"torch": "2.13", "numpy": "2.0"}, "blas": "MKL"}
    assert differences(a, b) == {"threads": (1, 2), "packages.torch": ("2.11", "2.13")}


def test_what_only_one_side_knows_is_a_difference():
    assert differences({"a": {"x": 1}}, {"a": {}, "b": 2}) == {"a.x": (1, None), "b": (None, 2)}


def test_a_mapping_against_a_value_is_one_difference():
    assert differences({"a": {"x": 1}}, {"a": None}) == {"a": ({"x": 1}, None)}


def test_numerics_are_read_back_from_the_libraries():
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    found = numerics("cpu", "bf16", None, 1)
    assert found["packages"]["numpy"] == numpy.__version__
    assert found["warn_only"] is True
    assert found["cudnn_benchmark"] is True
    assert found["matmul_precision"] == "high"
    assert (found["device"], found["precision"], found["compile"], found["ranks"]) == ("cpu", "bf16", None, 1)
    assert found["machine"] == platform.machine()


def test_another_number_of_threads_is_another_numerics():
    one = numerics("cpu", "fp32", None, 1)
    torch.set_num_threads(2)
    assert differences(one, numerics("cpu", "fp32", None, 1)) == {"threads": (1, 2)}


def test_a_package_that_is_not_installed_has_no_version():
    assert version("surely-not-installed") is None


X86 = "processor\t: 0\nflags\t\t: fpu sse2 {} avx2\nbugs\t: amx_bf16\n\nprocessor\t: 1\n"


@pytest.mark.parametrize(
    "text, fast, amx",
    [
        (X86.format("avx512f"), False, False),
        (X86.format("avx512_bf16"), True, False),
        (X86.format("amx_bf16 amx_tile"), True, True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n", True, False),
        ("processor\t: 0\nFeatures\t: fp asimd\n", False, False),
        ("processor\t: 0\n", True, False),  # nothing is known
    ],
)
def test_whether_a_cpu_has_bf16_is_read_from_what_it_says_it_can_do(tmp_path, monkeypatch, text, fast, amx):
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(module, "open", lambda path, **how: (tmp_path / "cpuinfo").open(**how), raising=False)
    assert (fast_bf16(), numerics("cpu", "fp32", None, 1)["cpu_amx"]) == (fast, amx)


def test_where_a_system_says_nothing_of_its_cpu_nothing_is_held_against_it(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "open", lambda path, **how: (tmp_path / "none").open(**how), raising=False)
    assert fast_bf16() and not numerics("cpu", "fp32", None, 1)["cpu_amx"]
