import json
import sys

import pytest

from hieros_repro import doctor
from hieros_repro.run import checkpoint
from hieros_repro.run.checkpoint import FORMAT
from tests.runs import process, run


@pytest.fixture(scope="module")
def visit(tmp_path_factory):
    """(what the doctor did, the snapshot it wrote)."""
    folder = tmp_path_factory.mktemp("doctor")
    done = process("doctor", "--snapshot", "env.json", cwd=folder)
    return done, json.loads((folder / "env.json").read_text())


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = run(tmp_path_factory.mktemp("run") / "run", "run.steps=150") / "checkpoints"
    return folder / f"step_{checkpoint.steps(folder)[-1]}"


def ask(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["hieros-doctor", *arguments])
    with pytest.raises(SystemExit) as ended:
        doctor.main()
    return ended.value.code


def quick(monkeypatch, **changes):
    """Without the probes that start processes."""
    monkeypatch.setattr(doctor, "PROBES", {"probe: keys": doctor._keys})
    for name, value in changes.items():
        monkeypatch.setattr(doctor, name, value)


@pytest.mark.parametrize("what", ["Python", "packages", "CPU", "disk", "probe: keys", "probe: globals", "probe: repeats"])
def test_the_doctor_looks_at(visit, what):
    done, _ = visit
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"{what} ")]
    assert line.split(what)[1].split()[0] in ("ok", "NOT", "-")


def test_the_probes_pass_here(visit):
    found = {f["name"]: f["ok"] for f in visit[1]["findings"]}
    assert {name: ok for name, ok in found.items() if name.startswith("probe")} == dict.fromkeys(doctor.PROBES, True)


def test_the_exit_code_says_whether_all_is_well(visit):
    done, snapshot = visit
    assert done.returncode == int(any(finding["ok"] is False for finding in snapshot["findings"]))


def test_the_snapshot_has_packages_machine_code_and_numerics(visit):
    _, snapshot = visit
    assert snapshot["packages"]["torch"]
    assert snapshot["machine"]["cores"] >= 1
    assert len(snapshot["code"]["sources"]) == 32
    assert snapshot["numerics"]["precision"] == "fp32"


def test_a_snapshot_that_cannot_be_written_is_named(monkeypatch, capsys, tmp_path):
    quick(monkeypatch)
    assert ask(monkeypatch, "--snapshot", str(tmp_path / "no" / "env.json")) == 2
    assert f"error: {tmp_path / 'no' / 'env.json'}: cannot be written" in capsys.readouterr().err


def test_a_package_off_its_pin_is_named_with_both_versions(monkeypatch, capsys):
    quick(monkeypatch, lock=lambda: {"numpy": "2.0.0", "torch": "9"}, packages=lambda: {"numpy": "1.0", "torch": "9+cpu"})
    assert ask(monkeypatch) == 1
    said = capsys.readouterr().out
    assert "NOT OK  1 differ from the lock: numpy 1.0 instead of 2.0.0" in said


def test_random_numbers_that_are_not_what_they_are_everywhere_are_seen(monkeypatch, capsys):
    quick(monkeypatch, KEYS_DIGEST="0123456789abcdef")
    assert ask(monkeypatch) == 1
    said = capsys.readouterr().out
    assert "NOT OK  random numbers have digest " in said
    assert "they should have 0123456789abcdef" in said


def test_two_processes_that_compute_different_numbers_are_seen(monkeypatch):
    monkeypatch.setattr(doctor, "_child", lambda seed: f"digest{seed}")
    finding = doctor._probe("probe: repeats", doctor._same_twice)
    assert finding.ok is False
    assert "digest0 and digest1" in finding.text


def test_a_draw_from_a_global_generator_is_seen(monkeypatch):
    import random

    monkeypatch.setattr(doctor, "_train_small", random.random)
    assert doctor._probe("probe: globals", doctor._globals_untouched) == doctor.Finding(
        "probe: globals", False, "a global generator was drawn from"
    )


# -- A checkpoint ------------------------------------------------------------------------------------------------------


def test_an_intact_checkpoint_is_described(monkeypatch, capsys, saved):
    assert ask(monkeypatch, f"checkpoint={saved}") == 0
    said = capsys.readouterr().out
    assert f"{saved}: intact, format {FORMAT}, step {saved.name[5:]}" in said
    assert all(f"{part}.pt  " in said for part in ("loop", "env", "agent", "replay", "rng_state"))
    assert "float32[2, 4, 16]" in said


def test_a_damaged_checkpoint_is_seen(monkeypatch, capsys, saved, tmp_path):
    copy = tmp_path / saved.name
    copy.mkdir()
    for path in saved.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "agent.pt").write_bytes((saved / "agent.pt").read_bytes()[:-1])
    assert ask(monkeypatch, f"checkpoint={copy}") == 1
    assert f"damaged: {copy / 'agent.pt'}: " in capsys.readouterr().out


def test_a_checkpoint_that_is_not_there_is_named(monkeypatch, capsys, tmp_path):
    assert ask(monkeypatch, f"checkpoint={tmp_path / 'nothing'}") == 2
    assert f"checkpoint={tmp_path / 'nothing'}: there is no such folder" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["chekpoint=x", "checkpoint=", "x"])
def test_a_word_that_is_not_understood_is_told_the_form(monkeypatch, capsys, word):
    assert ask(monkeypatch, word) == 2
    assert f"error: '{word}': write checkpoint=<path>" in capsys.readouterr().err
