"""Every claim about agents that dream, tried by `verify` with real processes; and faults, planted to be found."""

import re
import time

import pytest

from hieros_repro.proof import claims
from hieros_repro.run import checkpoint
from tests.runs import SHORT_DIRECTOR, SHORT_DREAMER, process

pytestmark = pytest.mark.slow

USUAL = {"director": SHORT_DIRECTOR, "dreamer": SHORT_DREAMER}


def verifiable(name: str) -> list[str]:
    """What is left to a user to say of a short run: cadences are verify's own."""
    own = ("run.", "log=", "env.length", "agent.train_ratio")
    return [*(o for o in USUAL[name] if not o.startswith(own)), "env.length=30", "agent.train_ratio=4"]


@pytest.mark.parametrize("name", USUAL)
def test_every_claim_holds(tmp_path, name):
    done = process("verify", *verifiable(name), "verify_steps=120", "kills=2", cwd=tmp_path, TMPDIR=str(tmp_path), seconds=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    held = [line.split()[0] for line in done.stdout.splitlines() if line.split()[1:2] == ["held"]]
    assert held == [claim for claim in claims.CLAIMS if claim != "complete"]


FORGOTTEN = {  # what is lost -> how it is found, and under which name
    ("director", "age"): ("action", "action"),
    ("director", "goals.kl.weight"): ("losses", "Subactor-0/subgoal_kl"),
    ("dreamer", "refreshed"): ("batch", "windows.deter"),
}


@pytest.mark.parametrize(("name", "lost"), FORGOTTEN, ids=map(" ".join, FORGOTTEN))
def test_what_a_checkpoint_would_leave_out_is_found_and_named(tmp_path, monkeypatch, name, lost):
    """Killed as soon as there is a checkpoint of after the first updates."""
    monkeypatch.setenv("FORGET", lost)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    monkeypatch.setattr(claims, "_wait_until_running", _wait_until_saved)
    asked = [*verifiable(name), "plugins=[tests.forgetful]"]
    bench = claims.Bench(None, asked, {"kills": 1, "verify_steps": 240, "seed": 42})
    with pytest.raises(claims.Broken) as caught:
        claims.resume(bench)
    component, tensor = FORGOTTEN[name, lost]
    assert re.search(rf"first difference: {component} at step .*\n(.*\n)*  {tensor}\n", str(caught.value)), caught.value


def _wait_until_saved(process, folder):
    while process.poll() is None and max(checkpoint.steps(folder / "checkpoints"), default=0) < 80:
        time.sleep(0.02)
