import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hieros_repro.run import checkpoint
from hieros_repro.run.checkpoint import Damaged
from tests.runs import ROOT, environment

ARRAYS = ("float32", "float64", "int64", "uint8", "bool")
TREE = {
    "tensors": {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in (*ARRAYS, "bfloat16")},
    "arrays": {name: np.arange(6).reshape(2, 3).astype(name) for name in ARRAYS},
    "scalar": np.array(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "plain": [None, True, 3, 2**80, 0.1, float("inf"), "text", b"bytes", (1, (2, "x")), {}, []],
    "keys": {1: "one", "two": 2},
}


def save(folder: Path, step: int = 1, **parts: object) -> Path:
    return checkpoint.save(folder, f"step_{step}", parts or {"agent": {"weight": torch.ones(3) * step}}, {"step": step})


def spoil(path: Path, kind: str) -> Path:
    """Damages a checkpoint; returns the file that must be named."""
    file = path / "agent.pt"
    if kind == "a corrupt byte":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif kind == "truncated":
        file.write_bytes(file.read_bytes()[:-7])
    elif kind == "missing":
        file.unlink()
    elif kind == "foreign":
        file = path / "notes.txt"
        file.write_text("mine")
    elif kind == "no manifest":
        file = path / "manifest.json"
        file.unlink()
    elif kind == "not a manifest":
        file = path / "manifest.json"
        file.write_text('{"format": 1')
    return file


SAYS = {
    "a corrupt byte": "SHA-256 is not the manifest's",
    "truncated": "bytes instead of",
    "missing": "missing",
    "foreign": "not part of this checkpoint",
    "no manifest": "missing, so this is not a complete checkpoint",
    "not a manifest": "not a manifest",
}


# -- Round trip ----------------------------------------------------------------------------------------------------------


def test_every_allowed_type_comes_back_as_it_was(tmp_path):
    back = checkpoint.load(save(tmp_path, tree=TREE))[0]["tree"]
    for name, tensor in TREE["tensors"].items():
        assert back["tensors"][name].dtype == tensor.dtype and torch.equal(back["tensors"][name], tensor)
    for name, array in {**TREE["arrays"], "scalar": TREE["scalar"], "empty": TREE["empty"]}.items():
        found = back["arrays"].get(name, back.get(name))
        assert type(found) is np.ndarray and found.dtype == array.dtype and found.shape == array.shape
        assert np.array_equal(found, array)
    assert back["plain"] == TREE["plain"] and [type(x) for x in back["plain"]] == [type(x) for x in TREE["plain"]]
    assert back["keys"] == {1: "one", "two": 2}


def test_floats_come_back_bit_by_bit(tmp_path):
    odd = np.array([0.1, -0.0, np.nextafter(1.0, 2.0), 5e-324, np.nan, -np.inf])
    back = checkpoint.load(save(tmp_path, tree={"array": odd, "numbers": odd.tolist()}))[0]["tree"]
    assert back["array"].tobytes() == odd.tobytes() and np.array(back["numbers"]).tobytes() == odd.tobytes()


def test_a_view_is_saved_without_the_tensor_it_belongs_to(tmp_path):
    path = save(tmp_path, tree={"row": torch.zeros(1000, 1000)[3]})
    assert (path / "tree.pt").stat().st_size < 100_000


def test_what_was_loaded_can_be_written_to(tmp_path):
    back = checkpoint.load(save(tmp_path, tree={"array": np.zeros(3), "tensor": torch.zeros(3)}))[0]["tree"]
    back["array"][0] = back["tensor"][0] = 1
    assert back["array"][0] == back["tensor"][0] == 1


@pytest.mark.parametrize("value", [object(), {1, 2}, lambda: 0, Path("x"), 1j, torch.float32], ids=lambda v: type(v).__name__)
def test_anything_but_tensors_and_plain_data_is_refused_when_saving(tmp_path, value):
    with pytest.raises(TypeError, match=f"tensors and plain data only, not {type(value).__name__}"):
        save(tmp_path, tree={"deep": [{"inside": value}]})
    assert checkpoint.steps(tmp_path) == []


def test_the_manifest_has_the_facts_and_a_digest_of_every_file(tmp_path):
    path = checkpoint.save(tmp_path, "best", {"a": {}, "b": {}}, {"score": 3.5})
    facts = json.loads((path / "manifest.json").read_text())
    assert facts["format"] == checkpoint.FORMAT and facts["score"] == 3.5 and set(facts["files"]) == {"a.pt", "b.pt"}
    digest = subprocess.run(["sha256sum", path / "a.pt"], capture_output=True, text=True).stdout.split()[0]
    assert facts["files"]["a.pt"] == {"sha256": digest, "bytes": (path / "a.pt").stat().st_size}


def test_saving_again_replaces(tmp_path):
    save(tmp_path, agent={"x": 1})
    assert checkpoint.load(save(tmp_path, agent={"x": 2}))[0] == {"agent": {"x": 2}}
    assert [path.name for path in tmp_path.iterdir()] == ["step_1"]


# -- Damage --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SAYS)
def test_a_damaged_checkpoint_is_refused_by_the_name_of_the_file(tmp_path, kind):
    path = save(tmp_path)
    file = spoil(path, kind)
    with pytest.raises(Damaged) as refusal:
        checkpoint.load(path)
    assert str(refusal.value).startswith(f"{file}: ") and SAYS[kind] in str(refusal.value)


def test_a_checkpoint_that_is_not_there_is_refused_by_name(tmp_path):
    with pytest.raises(Damaged, match=f"{tmp_path / 'step_7'}: there is no such checkpoint"):
        checkpoint.load(tmp_path / "step_7")


@pytest.mark.parametrize(
    "version, says",
    [(9, rf"format 9; this version reads up to {checkpoint.FORMAT}: update"), (0, r"format 0 is too old.* to 1")],
)
def test_another_format_is_refused_with_the_reason(tmp_path, version, says):
    path = save(tmp_path)
    facts = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**facts, "format": version}))
    with pytest.raises(Damaged, match=says) as refusal:
        checkpoint.load(path)
    assert str(path) in str(refusal.value)


def test_an_older_format_is_migrated(tmp_path, monkeypatch):
    path = save(tmp_path, agent={"old": 1})
    facts = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**facts, "format": 0}))
    monkeypatch.setitem(checkpoint.MIGRATIONS, 1, lambda parts: parts)
    monkeypatch.setitem(checkpoint.MIGRATIONS, 0, lambda parts: {"agent": {"new": parts["agent"]["old"]}})
    assert checkpoint.load(path)[0] == {"agent": {"new": 1}}


def test_a_checkpoint_of_before_snapshots_is_read(tmp_path):
    envs = {"actions": [np.zeros(3), np.zeros(5)], "seeds": [1, 2]}
    loop = {"counters": {"tally": [1.0, 2, [], []]}}
    path = save(tmp_path, env={"envs": envs}, loop=loop)
    facts = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**facts, "format": 1}))
    parts, _ = checkpoint.load(path)
    assert parts["env"]["envs"]["snapshots"] == [None, None] and parts["env"]["envs"]["lengths"] == [3, 5]
    assert parts["loop"]["counters"]["tally"] == [1.0, 2, [], [], {}]


class Code:
    """A pickle that writes a file when it is read."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> object:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize(
    "writer", [torch.save, lambda thing, path: path.write_bytes(pickle.dumps(thing, 2))], ids=["torch", "pickle"]
)
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, writer):
    path, victim = save(tmp_path / "checkpoints"), tmp_path / "executed"
    writer(Code(victim), path / "agent.pt")
    facts = json.loads((path / "manifest.json").read_text())
    facts["files"]["agent.pt"] = {
        "sha256": checkpoint.file_digest(path / "agent.pt"),
        "bytes": (path / "agent.pt").stat().st_size,
    }
    (path / "manifest.json").write_text(json.dumps(facts))
    with pytest.raises(Damaged, match=f"{path / 'agent.pt'}: holds more than tensors and plain data"):
        checkpoint.load(path)
    assert not victim.exists()


@pytest.mark.parametrize("kind", SAYS)
def test_the_newest_intact_checkpoint_is_found_and_damaged_ones_are_named(tmp_path, kind):
    for step in (5, 10, 20):
        save(tmp_path, step)
    file, said = spoil(tmp_path / "step_20", kind), []
    assert checkpoint.newest(tmp_path, said.append) == 10
    assert len(said) == 1 and "passing over" in said[0] and str(file) in said[0]


def test_without_an_intact_checkpoint_there_is_no_newest(tmp_path):
    said = []
    assert checkpoint.newest(tmp_path / "absent", said.append) is None and said == []
    spoil(save(tmp_path), "truncated")
    assert checkpoint.newest(tmp_path, said.append) is None and len(said) == 1


def test_steps_are_numbers_not_words(tmp_path):
    for name in ("step_100", "step_20", "step_3", "best", ".partial-step_500", "step_x"):
        (tmp_path / name).mkdir()
    assert checkpoint.steps(tmp_path) == [3, 20, 100]


# -- Keeping -------------------------------------------------------------------------------------------------------------

ALL = range(100, 701, 100)


@pytest.mark.parametrize(
    "last, every, kept",
    [(2, 0, [600, 700]), (1, 0, [700]), (1, 300, [100, 300, 600, 700]), (3, 500, [100, 500, 600, 700]), (9, 0, [*ALL])],
)
def test_pruning_keeps_the_newest_and_the_first_at_or_past_each_multiple(tmp_path, last, every, kept):
    for step in ALL:
        (tmp_path / f"step_{step}").mkdir()
    (tmp_path / "best").mkdir()
    checkpoint.prune(tmp_path, last, every)
    assert checkpoint.steps(tmp_path) == kept and (tmp_path / "best").exists()


def test_pruning_after_every_save_keeps_the_same_as_pruning_once(tmp_path):
    for step in range(70, 1000, 70):
        (tmp_path / f"step_{step}").mkdir()
        checkpoint.prune(tmp_path, 2, 250)
    assert checkpoint.steps(tmp_path) == [70, 280, 560, 770, 910, 980]


def test_what_a_killed_process_left_half_written_is_swept(tmp_path):
    save(tmp_path)
    shutil.copytree(tmp_path / "step_1", tmp_path / ".partial-step_2")
    checkpoint.sweep_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step_1"]


def test_what_was_put_aside_and_not_replaced_comes_back(tmp_path):
    save(tmp_path).rename(tmp_path / ".partial-old-step_1")
    (tmp_path / ".partial-step_1").mkdir()
    checkpoint.sweep_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step_1"]
    assert checkpoint.newest(tmp_path, print) == 1


def test_what_was_put_aside_and_replaced_is_swept(tmp_path):
    save(tmp_path, agent={"x": "old"}).rename(tmp_path / ".partial-old-step_1")
    shutil.move(save(tmp_path / "aside", agent={"x": "new"}), tmp_path / "step_1")
    shutil.rmtree(tmp_path / "aside")
    checkpoint.sweep_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step_1"]
    assert checkpoint.load(tmp_path / "step_1")[0]["agent"] == {"x": "new"}


KILLED = """
import os, pathlib, signal, sys, time
import torch
from hieros_repro.run import checkpoint

torch.set_num_threads(1)  # threads do not survive a fork
folder = pathlib.Path(sys.argv[1])
checkpoint.save(folder, "step_0", {"agent": {"weight": torch.zeros(50_000)}, "replay": {"step": 0}}, {})
for delay in range(12):
    child = os.fork()
    if not child:
        signal.alarm(60)
        for step in range(checkpoint.steps(folder)[-1] + 1, 10**9):
            for name in (f"step_{step}", "best"):
                checkpoint.save(folder, name, {"agent": {"weight": torch.full((50_000,), step)}, "replay": {"step": step}}, {})
            checkpoint.prune(folder, 2, 0)
    time.sleep(0.08 + 0.0137 * delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    step = checkpoint.newest(folder, lambda text: sys.exit(text))
    checkpoint.sweep_partial(folder)
    for name in (f"step_{step}", "best"):
        if (folder / name).exists():
            parts, _ = checkpoint.load(folder / name)
            assert bool((parts["agent"]["weight"] == parts["replay"]["step"]).all())
    assert (folder / "best").exists() or step <= 1, "best was lost"
print("newest", step)
"""


def test_killed_at_any_instant_of_saving_the_newest_checkpoint_is_intact(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "checkpoints"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) > 12


# -- Describing ----------------------------------------------------------------------------------------------------------


def test_a_description_has_one_line_per_leaf():
    tree = {"agent": {"w": torch.zeros(2, 3), "count": 4}, "log": None, "actions": list(range(100)), "empty": {}}
    assert dict(checkpoint.describe(tree)) == {
        "agent.w": "float32[2, 3]", "agent.count": "4", "log": "None", "actions": "list of 100", "empty": "{}",
    }  # fmt: skip
