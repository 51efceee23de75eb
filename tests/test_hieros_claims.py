"""Every claim about levels with worlds of their own, tried by `verify` with real processes; and faults, planted to be found."""

import re
import time

import pytest

from hieros_repro.proof import claims
from hieros_repro.run import checkpoint
from tests.runs import SHORT_HIEROS, process

pytestmark = pytest.mark.slow


def verifiable(*more: str) -> list[str]:
    """What is left to a user to say of a short run: cadences are verify's own. Later overrides win."""
    own = ("run.", "log=", *(override.partition("=")[0] + "=" for override in more))
    return [*(o for o in SHORT_HIEROS if not o.startswith(own)), *more]


BRIEF = ("env.length=29", "agent.train_ratio=4", "agent.imag_horizon=4")
LONG = (*BRIEF[1:], "env.length=150")
CHANGES = {
    "as it is": (),
    "growing": ("agent.add_hierarchy_every=2",),
    "recurrent": ("world=rssm", "agent.replay_context=1"),
    "original": ("agent=hieros_compat",),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_claim_holds(tmp_path, change):
    done = process(
        "verify",
        *verifiable(*BRIEF, *CHANGES[change]),
        "verify_steps=120",
        "kills=2",
        cwd=tmp_path,
        TMPDIR=str(tmp_path),
        seconds=1500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    held = [line.split()[0] for line in done.stdout.splitlines() if line.split()[1:2] == ["held"]]
    assert held == [claim for claim in claims.CLAIMS if claim != "complete"]


@pytest.mark.parametrize("lost", ["0.state", "1.state", "2.state"])
def test_what_a_checkpoint_would_leave_out_of_a_level_is_found(tmp_path, monkeypatch, lost):
    """Killed as soon as there is a checkpoint of after the first updates. No episode begins anew by then, which would forget,
    too."""
    monkeypatch.setenv("FORGET", lost)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("random.uniform", lambda low, high: 0.0)
    monkeypatch.setattr(claims, "_wait_until_running", _wait_until_saved)
    bench = claims.Bench(
        None, verifiable(*LONG, "plugins=[tests.forgetful_worlds]"), {"kills": 1, "verify_steps": 240, "seed": 42}
    )
    with pytest.raises(claims.Broken) as caught:
        claims.resume(bench)
    assert re.search(r"first difference: (action|batch) at step ", str(caught.value)), caught.value


def _wait_until_saved(process, folder):
    while process.poll() is None and max(checkpoint.steps(folder / "checkpoints"), default=0) < 80:
        time.sleep(0.001)
