import warnings

import pytest
import torch

from hieros_repro.determinism import settings
from hieros_repro.determinism.settings import Settings, environment, nondeterministic_operations, restart_with


def flags() -> dict:
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "fill": torch.utils.deterministic.fill_uninitialized_memory,
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "matmul": torch.get_float32_matmul_precision(),
    }


def applied(algorithms: str, fill: bool = False) -> dict:
    Settings(
        algorithms=algorithms, hash_seed=0, env_seeds="offset", save_rng=True, resume="exact", fill_uninitialized=fill
    ).apply()
    return flags()


SAFE = {"cudnn_deterministic": True, "cudnn_benchmark": False, "cudnn_tf32": False, "matmul": "highest", "fill": False}
FAST = {"cudnn_deterministic": False, "cudnn_benchmark": True, "cudnn_tf32": True, "matmul": "high", "fill": False}
EXPECTED = {
    "error": SAFE | {"deterministic": True, "warn_only": False},
    "warn": SAFE | {"deterministic": True, "warn_only": True},
    "off": FAST | {"deterministic": False, "warn_only": False},
}


@pytest.mark.parametrize("before", EXPECTED)
@pytest.mark.parametrize("after", EXPECTED)
def test_nothing_of_the_last_job_is_left(before, after):
    applied(before, fill=True)
    assert applied(after) == EXPECTED[after]


def test_uninitialised_memory_is_filled_where_asked():
    assert applied("error", fill=True)["fill"] is True
    assert torch.empty(1000).isnan().all()


def test_under_error_an_operation_without_a_deterministic_form_raises():
    applied("error")
    with pytest.raises(RuntimeError, match="deterministic"):
        torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)


def test_under_warn_each_such_operation_is_named_once(monkeypatch):
    monkeypatch.setattr(warnings, "showwarning", lambda *arguments: None)
    applied("warn")
    with warnings.catch_warnings(), nondeterministic_operations() as seen:
        warnings.simplefilter("always")
        for _ in range(3):
            torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2), accumulate=False)
            warnings.warn("something else", stacklevel=1)
    assert seen == ["put_"]


def test_listening_to_warnings_ends_with_the_run():
    show = warnings.showwarning
    with pytest.raises(KeyError), nondeterministic_operations():
        raise KeyError
    assert warnings.showwarning is show


@pytest.mark.parametrize(
    ("algorithms", "hash_seed", "expected"),
    [
        ("error", 0, {"PYTHONHASHSEED": "0", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}),
        ("warn", 7, {"PYTHONHASHSEED": "7", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}),
        ("error", None, {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}),
        ("off", None, {}),
        ("off", 0, {"PYTHONHASHSEED": "0"}),
    ],
)
def test_the_interpreter_needs_what_the_settings_ask_for(algorithms, hash_seed, expected):
    assert environment(algorithms, hash_seed) == expected


@pytest.fixture
def executed(monkeypatch):
    calls = []
    monkeypatch.setattr(settings.os, "execve", lambda *arguments: calls.append(arguments))
    monkeypatch.delenv("HIEROS_RESTARTED", raising=False)
    return calls


def test_a_process_that_has_what_it_needs_is_not_restarted(executed, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    restart_with({"PYTHONHASHSEED": "0"})
    assert executed == []


def test_a_process_is_restarted_as_the_same_command_with_what_it_needs(executed, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    monkeypatch.setattr(settings.sys, "orig_argv", ["python", "-X", "utf8", "-m", "train", "seed=1"])
    restart_with({"PYTHONHASHSEED": "0"})
    [(program, arguments, variables)] = executed
    assert program == settings.sys.executable
    assert arguments[1:] == ["-X", "utf8", "-m", "train", "seed=1"]
    assert variables["PYTHONHASHSEED"] == "0"
    assert variables["HIEROS_RESTARTED"] == "1"


def test_a_restart_that_did_not_help_raises_instead_of_looping(executed, monkeypatch):
    monkeypatch.setenv("PYTHONHASHSEED", "5")
    monkeypatch.setenv("HIEROS_RESTARTED", "1")
    with pytest.raises(RuntimeError, match="PYTHONHASHSEED='5' instead of '0'"):
        restart_with({"PYTHONHASHSEED": "0"})
    assert executed == []


def test_only_strict_and_warn_promise_something():
    made = {
        name: Settings(
            algorithms=name, hash_seed=0, env_seeds="offset", save_rng=True, resume="exact", fill_uninitialized=False
        ).promise()
        for name in EXPECTED
    }
    assert "same bits" in made["error"]
    assert "listed in run.json" in made["warn"]
    assert made["off"].startswith("none")
