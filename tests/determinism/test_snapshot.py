import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from hieros_repro.determinism import snapshot
from hieros_repro.run import checkpoint
from tests.runs import ROOT, environment, facts, run


def draws() -> tuple:
    return (
        random.random(),
        random.gauss(0, 1),
        np.random.rand(),
        np.random.randn(),
        torch.rand(2).tolist(),
        torch.randn(1).item(),
    )


def test_a_restored_snapshot_continues_every_stream():
    draws()  # leaves half a pair of normals in python's and numpy's generators
    taken = snapshot.take()
    expected = [draws() for _ in range(3)]
    snapshot.restore(taken)
    assert [draws() for _ in range(3)] == expected


def test_taking_a_snapshot_draws_nothing():
    snapshot.seed_global(3)
    expected = draws()
    snapshot.seed_global(3)
    snapshot.take()
    assert draws() == expected


def test_a_snapshot_survives_a_file_that_can_execute_nothing(tmp_path):
    draws()
    torch.save(snapshot.take(), tmp_path / "rng.pt")
    expected = draws()
    snapshot.restore(torch.load(tmp_path / "rng.pt", weights_only=True))
    assert draws() == expected


def test_a_snapshot_survives_a_checkpoint(tmp_path):
    draws()
    path = checkpoint.save(tmp_path, "step_1", {"rng_state": snapshot.take()}, {"step": 1})
    expected = draws()
    snapshot.restore(checkpoint.load(path)[0]["rng_state"])
    assert draws() == expected


def test_seeding_adds_the_rank():
    snapshot.seed_global(10, rank=3)
    expected = draws()
    snapshot.seed_global(13)
    assert draws() == expected


def test_seeding_sets_all_three_generators():
    snapshot.seed_global(5)
    drawn = random.random(), np.random.rand(), torch.rand(1).item()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    assert drawn == (random.random(), np.random.rand(), torch.rand(1).item())


@pytest.mark.parametrize("states", [None, {}])
def test_a_missing_state_warns_and_changes_nothing(states):
    snapshot.seed_global(4)
    expected = draws()
    snapshot.seed_global(4)
    with pytest.warns(UserWarning, match="no rng_state: global randomness .* will differ"):
        snapshot.restore(states)
    assert draws() == expected


@pytest.mark.parametrize("name", snapshot.NAMES)
def test_a_state_that_lacks_a_generator_is_refused_by_name(name):
    states = snapshot.take()
    del states[name]
    with pytest.raises(ValueError, match=rf"lacks {name}; it holds "):
        snapshot.restore(states)


def test_the_names_of_the_states_are_those_of_the_contract():
    assert set(snapshot.take()) == {"torch_rng_state", "numpy_rng_state", "python_rng_state", "cuda_rng_state_all"}


@pytest.fixture
def poisoned(monkeypatch):
    """Every way of drawing from a global generator raises."""

    def refuse(*arguments, **keywords):
        if keywords.get("generator") is None:
            raise AssertionError("somebody drew from a global generator")

    for name in ("random", "randrange", "randint", "shuffle", "choice", "choices", "sample", "uniform", "gauss", "getrandbits"):
        monkeypatch.setattr(random, name, refuse)
    for name in (
        "rand",
        "randn",
        "random",
        "randint",
        "random_sample",
        "choice",
        "shuffle",
        "permutation",
        "normal",
        "uniform",
    ):
        monkeypatch.setattr(np.random, name, refuse)
    for name in ("rand", "randn", "randint", "randperm", "multinomial", "bernoulli", "normal", "rand_like", "randn_like"):
        monkeypatch.setattr(torch, name, refuse)
    for name in ("normal_", "uniform_", "random_", "bernoulli_", "exponential_"):
        monkeypatch.setattr(torch.Tensor, name, refuse)


@pytest.mark.parametrize("overrides", [("env=cartpole",), ("env=gymnasium", "env.id=Pendulum-v1", "run.steps=450")])
def test_no_run_draws_from_a_global_generator(poisoned, tmp_path, overrides):
    run(tmp_path / "run", *overrides)
    assert facts(tmp_path / "run")["status"] == "finished"


UNTOUCHED = """
import pathlib, random, sys
import numpy, torch
from tests.runs import run
run(pathlib.Path(sys.argv[1]), "seed=7")
found = random.getstate(), repr(numpy.random.get_state()), torch.get_rng_state().tolist()
random.seed(7), numpy.random.seed(7), torch.manual_seed(7)
assert random.getstate() == found[0], "python"
assert repr(numpy.random.get_state()) == found[1], "numpy"
assert torch.get_rng_state().tolist() == found[2], "torch"
"""


def test_a_run_leaves_the_global_generators_as_seeded(tmp_path):
    """In a process of its own: the checks of types that tests install draw from python's generator."""
    arguments = [sys.executable, "-c", UNTOUCHED, str(tmp_path / "run")]
    done = subprocess.run(arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
