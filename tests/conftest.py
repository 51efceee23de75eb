"""What every test stands on: checked shapes, one thread, strict determinism, uninitialised memory that shows."""

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

os.environ.pop("HIEROS_SCRIPT", None)  # what the script that starts the program would say of itself
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; the runs under test set it themselves

os.environ.setdefault("HIEROS_CACHE", tempfile.mkdtemp(prefix="hieros-test-cache-"))  # no verdict of another day

from jaxtyping import install_import_hook

install_import_hook(["hieros_repro.ops", "hieros_repro.nn"], "beartype.beartype")  # shapes and types of every call are checked

import pytest
import torch

from hieros_repro.determinism import snapshot
from hieros_repro.determinism.settings import WORKSPACE, Settings

STARTED = time.monotonic()
LONGEST = (  # slow proofs included: what would keep one worker busy when the others have nothing left to do comes first
    "test_hieros_claims", "test_verify", "test_conf", "test_resume", "test_dreams_claims", "proof/test_narrow", "test_worlds",
    "test_hieros", "test_dreams", "sweep/test_sweep", "test_replay", "proof/test_reexecution", "agent/test_hieros_contract",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    text = "slow proofs that have not begun after so many minutes are skipped, and say so: for machines with a limit"
    parser.addoption("--minutes", type=float, default=float("inf"), help=text)


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # for the order below


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then those of most tests; every worker comes to the same order."""
    places = {Path(__file__).parent / f"{name}.py": place for place, name in enumerate(LONGEST)}
    counts = Counter(item.path for item in items)
    items.sort(key=lambda item: (places.get(item.path, len(places)), -counts[item.path]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    minutes = item.config.getoption("--minutes")
    if item.get_closest_marker("slow") and time.monotonic() - STARTED > 60 * minutes:
        pytest.skip(f"not begun within {minutes:g} minutes (--minutes)")


@pytest.fixture(autouse=True)
def strict() -> None:
    """As in a strict run; new tensors are filled with NaN, so that a read of uninitialised memory is seen."""
    settings = Settings(
        algorithms="error", hash_seed=None, env_seeds="offset", save_rng=True, resume="exact", fill_uninitialized=True
    )
    settings.apply()
    torch.set_num_threads(1)
    snapshot.seed_global(0)


@pytest.fixture
def swift(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process start without asking Git what was changed or trying whether environments come back exactly."""
    monkeypatch.setattr("hieros_repro.run.recorder.patch", lambda: "")
    monkeypatch.setattr("hieros_repro.exactness.require", lambda recipe: None)


@pytest.fixture(scope="module")
def workspace() -> Iterator[None]:
    """As the program sets it: runs go on in this process that began in another, and the other way round."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)
        yield
