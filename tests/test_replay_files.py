"""Files of steps beside a run: half written, damaged, taken along by branches, deleted when nobody needs them."""

import re
import shutil
import signal

import numpy as np
import pytest

from hieros_repro import doctor
from hieros_repro.proof import claims
from hieros_repro.records import Damaged, UserError
from hieros_repro.replay import filing
from hieros_repro.run import checkpoint, recorder
from hieros_repro.run.loop import Loop
from tests.checking import mostly_slow
from tests.runs import SHORT_DQN, assert_equal, facts, killed, process, run, short, stopped

pytestmark = pytest.mark.usefixtures("swift", "workspace")
KEPT = ("run.keep_last=3",)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing interrupts."""
    return dqn(tmp_path_factory.mktemp("whole") / "run", *KEPT)


@pytest.fixture(scope="module")
def halted(tmp_path_factory):
    """The same, stopped in its middle; not to be touched."""
    return stopped(tmp_path_factory.mktemp("halted") / "run", 200, *KEPT, usual=SHORT_DQN)


@pytest.fixture
def half(tmp_path, halted):
    """A copy of it."""
    return shutil.copytree(halted, tmp_path / "run")


@pytest.fixture
def began(monkeypatch):
    """How many steps had ever come when each run began, and how many windows it could show."""
    seen = []
    own = Loop.run

    def noticed(loop):
        buffer = loop.parts.replays["windows"].buffer
        seen.append((buffer.total, buffer.end - buffer.first))
        return own(loop)

    monkeypatch.setattr(Loop, "run", noticed)
    return seen


def dqn(folder, *overrides):
    return run(folder, *overrides, usual=SHORT_DQN)


def files(folder):
    return sorted((folder / "replay" / "windows").iterdir())


def newest(folder):
    return folder / "checkpoints" / f"step_{checkpoint.newest(folder / 'checkpoints', pytest.fail)}"


# -- Killed ------------------------------------------------------------------------------------------------------------


MOMENTS = [pytest.param(3, "after", marks=pytest.mark.slow), (15, "half"), pytest.param(15, "after", marks=pytest.mark.slow)]


@pytest.mark.parametrize(("number", "moment"), MOMENTS)
def test_a_run_killed_while_a_file_is_written_goes_on_to_the_same_files(tmp_path, whole, number, moment):
    """At its third file it has no checkpoint. At the 15th, of the steps from 448 on, that of step 450 is not far."""
    arguments = short(tmp_path / "run", *KEPT, "resume=auto", "plugins=[tests.dying]", usual=SHORT_DQN)
    killed = process("train", *arguments, cwd=tmp_path, DIE_FILE=str(number), DIE_MOMENT=moment)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    names = [path.name for path in files(tmp_path / "run")]
    assert (filing.named(32 * (number - 1), 32 * number) in names) == (moment == "after")
    assert any(name.startswith(".partial-") for name in names) == (moment == "half")
    assert bool(checkpoint.steps(tmp_path / "run" / "checkpoints")) == (number == 15)
    assert_equal(whole, dqn(tmp_path / "run", *KEPT, "resume=auto"))
    assert not any(path.name.startswith(".partial-") for path in files(tmp_path / "run"))


@pytest.mark.slow
def test_twenty_kills_at_any_moment_change_nothing(tmp_path):
    """A file for every two steps and a checkpoint for every four: most of the time is spent writing them."""
    longer = ("run.steps=4_000", "run.eval_every=0")
    whole = dqn(tmp_path / "whole", *longer)
    busy = (*longer, "replay.chunk=2", "run.checkpoint_every=4", "run.keep_last=2")
    arguments = short(tmp_path / "run", *busy, "resume=auto", usual=SHORT_DQN)
    ends = killed(tmp_path / "run", arguments, tmp_path, [0.6 + 0.07 * number for number in range(20)])
    assert ends.count(-signal.SIGKILL) >= 15
    assert_equal(whole, dqn(tmp_path / "run", *busy, "resume=auto"))


def test_where_the_newest_checkpoint_is_damaged_the_one_before_has_its_files(whole, half, capsys):
    corrupt(newest(half) / "loop.pt")
    before = len(checkpoint.steps(half / "checkpoints"))
    dqn(half, *KEPT, "resume=auto")
    assert before > 1 and "passing over a damaged checkpoint" in capsys.readouterr().out
    assert_equal(whole, half)


# -- Damaged -----------------------------------------------------------------------------------------------------------


def corrupt(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a corrupt byte": (corrupt, "its SHA-256 is not the recorded one: corrupted or changed"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-7]), "bytes instead of"),
    "empty": (lambda path: path.write_bytes(b""), "0 bytes instead of"),
    "missing": (lambda path: path.unlink(), "missing"),
}


def named(folder):
    """A file in the middle of those that the newest checkpoint names."""
    [stored] = checkpoint.replay_files(newest(folder)).values()
    return folder / "replay" / "windows" / stored[len(stored) // 2].name


def in_every_checkpoint(folder, damage):
    """Damages all files; returns the first that is named by the newest checkpoint."""
    for path in (folder / "replay" / "windows").iterdir():
        damage(path)
    return folder / "replay" / "windows" / checkpoint.replay_files(newest(folder))["windows"][0].name


@pytest.mark.parametrize("kind", mostly_slow(DAMAGE, "a corrupt byte"))
def test_where_only_newer_checkpoints_need_a_damaged_file_an_older_one_is_used_loudly(whole, half, kind, capsys):
    DAMAGE[kind][0](path := named(half))
    dqn(half, *KEPT, "resume=auto")
    assert f"which needs a damaged file: {path}: " in capsys.readouterr().out
    assert_equal(whole, half)


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_refused_by_name_and_the_run_is_not_touched(half, kind):
    damage, text = DAMAGE[kind]
    path = in_every_checkpoint(half, damage)
    logs = {path: path.read_bytes() for path in half.glob("*.jsonl")}
    with pytest.raises(Damaged) as refusal:
        dqn(half, *KEPT, "resume=auto")
    assert str(refusal.value).startswith(f"{path}: ") and text in str(refusal.value)
    assert "every checkpoint needs it; replay.recover=true goes on without the steps it holds" in str(refusal.value)
    assert {path: path.read_bytes() for path in half.glob("*.jsonl")} == logs


@pytest.mark.parametrize("kind", mostly_slow(DAMAGE, "missing"))
def test_asked_to_recover_a_run_goes_on_without_the_steps_and_says_so(half, kind, capsys, began):
    damage, text = DAMAGE[kind]
    damage(path := named(half))
    state = checkpoint.load(newest(half))[0]["replay"]["windows"]
    dqn(half, *KEPT, "resume=auto", "replay.recover=true")
    told = facts(half)
    assert (told["status"], told["bit_comparable"], told["replay_changed"]) == ("finished", False, ["windows"])
    said = capsys.readouterr().out
    assert re.search(f"going on without 32 steps: {re.escape(str(path))}: .*{text}", said)
    left = 32 * (len(state["files"]) - 1) + len(state["tail"]["stream"])
    assert began == [(378, left - 2 * 2)]  # windows of three steps of two environments, some across the gap
    assert list(checkpoint.replay_problems(newest(half))) == []


def test_a_recovered_run_can_be_stopped_and_goes_on_to_the_same_files(tmp_path, half):
    corrupt(named(half))
    other = shutil.copytree(half, tmp_path / "other")
    dqn(half, *KEPT, "resume=auto", "replay.recover=true")
    stopped(other, 40, *KEPT, "resume=auto", "replay.recover=true", usual=SHORT_DQN)
    assert_equal(half, dqn(other, *KEPT, "resume=auto"))


def test_the_program_refuses_a_damaged_file_with_exit_code_2(tmp_path, half):
    path = in_every_checkpoint(half, corrupt)
    done = process("train", f"resume={half}", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {path}: its SHA-256 is not the recorded one")
    assert "Traceback" not in done.stderr


def test_verify_and_doctor_name_a_damaged_file(half, capsys):
    corrupt(path := named(half))
    with pytest.raises(claims.Broken, match=f"{path}: its SHA-256 is not the recorded one"):
        claims.complete(claims.Bench(half, [], {"kills": 1, "verify_steps": None}))
    assert doctor.show_checkpoint(newest(half)) == 1
    assert f"damaged: {path}: its SHA-256" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["notes.txt", "steps-000000000300-000000000399.npz"])
@pytest.mark.parametrize("recover", ["true", "false"])
def test_a_foreign_file_is_refused_by_name(half, name, recover):
    path = half / "replay" / "windows" / name
    path.write_text("mine")
    account = {name: (half / name).read_bytes() for name in recorder.ACCOUNT}
    with pytest.raises(Damaged, match=f"{path}: not part of this replay; move it away"):
        dqn(half, *KEPT, "resume=auto", f"replay.recover={recover}", "run.steps=9000")
    assert path.read_text() == "mine"
    assert {name: (half / name).read_bytes() for name in recorder.ACCOUNT} == account


# -- Deleted -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files_that_no_checkpoint_needs_are_deleted_while_the_run_goes_on(tmp_path, monkeypatch):
    """Its 240 steps and the 300 between three checkpoints are in 17 files, and some are being written."""
    counts, own = [], recorder.Recorder.save

    def noticed(self, step, parts):
        own(self, step, parts)
        counts.append(len(files(tmp_path / "run")))

    monkeypatch.setattr(recorder.Recorder, "save", noticed)
    folder = dqn(tmp_path / "run", *KEPT, "run.steps=2_000", "run.eval_every=0", "agent.train_ratio=1")
    assert len(counts) == 14 and 10 < max(counts) <= 20
    needed = {
        stored.name
        for step in checkpoint.steps(folder / "checkpoints")
        for stored in checkpoint.replay_files(folder / "checkpoints" / f"step_{step}")["windows"]
    }
    left = {path.name for path in files(folder)}
    assert needed <= left
    assert min(left) == min(needed)
    for step in checkpoint.steps(folder / "checkpoints"):
        branch = dqn(tmp_path / f"from-{step}", f"resume={folder}@{step}", f"run.steps={step + 50}")
        assert facts(branch)["status"] == "finished"


def test_what_lies_in_the_files_is_what_was_seen(whole):
    rows = [dict(np.load(path)) for path in files(whole)]
    ends = [int(path.name[19:31]) for path in files(whole)]
    assert ends == sorted(ends)
    for path, row in zip(files(whole), rows, strict=True):
        assert {len(value) for value in row.values()} == {int(path.name[19:31]) - int(path.name[6:18])} == {32}
        assert set(row) == {"stream", "obs.vector", "action", "reward", "is_first", "is_last", "is_terminal"}
        assert sorted(set(row["stream"].tolist())) == [0, 1]
        assert set(row["reward"][row["is_first"]].tolist()) <= {0.0} and set(row["reward"][~row["is_first"]].tolist()) <= {1.0}


# -- Branches ----------------------------------------------------------------------------------------------------------


def test_a_branch_has_its_own_files_and_its_parent_may_go(tmp_path, whole):
    parent = shutil.copytree(whole, tmp_path / "parent")
    step = checkpoint.steps(parent / "checkpoints")[0]
    stopped(tmp_path / "branch", 20, *KEPT, f"resume={parent}@{step}", usual=SHORT_DQN)
    shutil.rmtree(parent)
    branch = dqn(tmp_path / "branch", *KEPT, "resume=auto")
    assert facts(branch)["digests"] == facts(whole)["digests"]
    assert (whole / "episodes.jsonl").read_bytes().endswith((branch / "episodes.jsonl").read_bytes())


@pytest.mark.parametrize(
    "changes",
    mostly_slow(
        [
            ("replay=time_balanced_naive",),
            ("replay=efficient_time_balanced", "replay.temperature=1.0"),
            ("replay.size=100",),
            ("replay.size=5_000", "replay=time_balanced"),
            ("agent.n_step=4",),
            ("replay.lead=0", "replay.online=true"),
            ("agent.learning_rate=0.01",),
        ],
        ("replay.size=100",),
        ("replay.lead=0", "replay.online=true"),
    ),
    ids=" ".join,
)
def test_a_branch_may_learn_otherwise_from_the_experience_of_its_parent(tmp_path, whole, began, changes):
    step = checkpoint.steps(whole / "checkpoints")[0]
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    branch = dqn(tmp_path / "branch", *KEPT, f"resume={whole}@{step}", *changes)
    assert facts(branch)["digests"] != facts(whole)["digests"]
    [(total, shown)] = began
    assert total > step and shown > 90 and (shown <= 100) == ("replay.size=100" in changes)
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_the_same_branch_twice_has_equal_files(tmp_path, whole):
    step = checkpoint.steps(whole / "checkpoints")[0]
    for name in "ab":
        dqn(tmp_path / name, *KEPT, f"resume={whole}@{step}", "replay=time_balanced_naive", "replay.size=100")
    assert_equal(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("change", ["seed=7", "env.num_envs=3", "env.length=50"])
def test_a_branch_into_another_world_starts_without_experience(tmp_path, whole, began, change):
    step = checkpoint.steps(whole / "checkpoints")[0]
    branch = dqn(tmp_path / "branch", *KEPT, f"resume={whole}@{step}", change)
    assert began == [(0, 0)]
    assert facts(branch)["status"] == "finished" and facts(branch)["results"]["step"] >= 600


def test_a_branch_off_a_parent_that_lost_a_file_is_refused_by_name(tmp_path, half):
    named(half).unlink()
    with pytest.raises(UserError, match=f"{named(half)}: missing"):
        dqn(tmp_path / "branch", *KEPT, f"resume={half}@{newest(half).name[5:]}")


# -- As it was ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change", ["replay.size=100", "replay.lead=0", "replay=time_balanced", "replay.chunk=64", "agent.n_step=3"]
)
def test_what_makes_the_bits_may_not_change_in_place(halted, change):
    with pytest.raises(UserError, match=rf"\n  {change.partition('=')[0]}\S*: .* in the run, .* now"):
        dqn(halted, *KEPT, f"resume={halted}", change)
