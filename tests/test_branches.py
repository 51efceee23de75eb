"""Branches off a run that learns from past experience: what they take along, and what becomes of one that dies young."""

import errno
import os
import shutil
import signal

import pytest

from hieros_repro.records import Damaged, UserError
from hieros_repro.run import checkpoint
from hieros_repro.run.loop import Loop
from tests.runs import SHORT_DQN, assert_equal, facts, process, run, short, stopped

pytestmark = pytest.mark.usefixtures("swift", "workspace")


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """Not to be touched."""
    return run(tmp_path_factory.mktemp("parent") / "run", "run.keep_last=3", usual=SHORT_DQN)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, parent):
    """The branch that nothing interrupts and that changes nothing."""
    return branch(tmp_path_factory.mktemp("whole") / "run", fork(parent))


def branch(folder, *overrides):
    """Nothing but this is typed."""
    return run(folder, *overrides, usual=())


def first(folder):
    return checkpoint.steps(folder / "checkpoints")[0]


def fork(folder):
    """Off its oldest checkpoint, with more than 150 steps to go and none saved before."""
    return f"resume={folder}@{first(folder)}"


def files(folder):
    """What lies in its replay, byte for byte."""
    return {path.name: path.read_bytes() for path in (folder / "replay" / "windows").iterdir()}


def named(folder):
    """The files that its oldest checkpoint names, the oldest first."""
    stored = checkpoint.replay_files(folder / "checkpoints" / f"step_{first(folder)}")["windows"]
    return [folder / "replay" / "windows" / name for name, *_ in stored]


# -- Into another world ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["env.num_envs=3", "seed=7"])
@pytest.mark.parametrize("after", [0, 60])
def test_a_branch_into_another_world_is_stopped_and_goes_on_to_the_same_files(tmp_path, parent, change, after):
    """Stopped after no tick it has no file, least of all one of its parent's."""
    alone = branch(tmp_path / "alone", fork(parent), change)
    child = stopped(tmp_path / "child", after, fork(parent), change, usual=())
    if not after:
        assert files(child) == {}
        assert checkpoint.replay_files(child / "checkpoints" / f"step_{first(child)}") == {"windows": []}
    assert_equal(alone, branch(child, f"resume={child}"))
    assert facts(child)["restarts"] == 1
    assert not {path.read_bytes() for path in named(parent)} & set(files(child).values())


# -- With parameters that do not fit ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "texts"),
    [
        (
            ["agent.hidden=[24,16]", "agent.learning_rate=1e-4"],
            [
                "agent.hidden: [16, 16] in the run, [24, 16] now",
                "agent.learning_rate: ",
                "\n  tower.layers.0.weight: 1x4x16 in the checkpoint, 1x4x24 now\n",
            ],
        ),
        (["agent.hidden=[16]"], ["agent.hidden: [16, 16] in the run, [16] now", " in the checkpoint, none now"]),
        (["agent.hidden=[8,8,8,8,8,8]"], ["\n  and ", " more\n"]),
    ],
    ids=str,
)
def test_a_branch_whose_parameters_do_not_fit_names_keys_and_shapes_and_leaves_nothing(tmp_path, parent, changes, texts):
    with pytest.raises(UserError) as caught:
        branch(tmp_path / "made" / "child", fork(parent), *changes)
    text = str(caught.value)
    assert text.startswith(f"{parent / 'checkpoints'}/step_{first(parent)}: its parameters do not fit into the branch, ")
    assert [t for t in texts if t not in text] == [], text
    assert "size mismatch" not in text and len(text.splitlines()) <= 16
    assert list(tmp_path.iterdir()) == []


def test_a_branch_may_change_what_leaves_the_parameters_as_they_are(tmp_path, parent):
    assert facts(branch(tmp_path / "child", fork(parent), "agent.learning_rate=1e-5"))["status"] == "finished"


# -- Killed before its first checkpoint --------------------------------------------------------------------------------


def test_a_branch_killed_before_its_first_checkpoint_goes_on_from_its_parents(tmp_path, parent, whole):
    arguments = short(tmp_path / "child", fork(parent), "plugins=[tests.dying]", usual=())
    killed = process("train", *arguments, cwd=tmp_path, DIE_FILE="2", DIE_MOMENT="after")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    child = tmp_path / "child"
    assert checkpoint.steps(child / "checkpoints") == [] and len(files(child)) == len(named(parent)) + 2
    assert_equal(whole, branch(child, f"resume={child}"))
    assert facts(child)["parent"]["checkpoint"] == first(parent)


def test_its_parent_is_found_from_another_working_directory(tmp_path, monkeypatch, parent, whole):
    """It ends with an error before anything is saved."""

    def broken(loop):
        raise ZeroDivisionError

    monkeypatch.chdir(parent.parent)
    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Loop, "_tick", broken)
        branch(tmp_path / "child", f"resume={parent.name}@{first(parent)}")
    monkeypatch.chdir(tmp_path)
    assert_equal(whole, branch(tmp_path / "child", "resume=child"))


# -- What a parent lost ------------------------------------------------------------------------------------------------


def test_a_branch_that_was_refused_for_a_lost_file_works_once_that_is_back(tmp_path, parent, whole):
    """All files but the last are there already when it is missed; they go with the folder."""
    mine = shutil.copytree(parent, tmp_path / "parent")
    *others, lost = named(mine)
    lost.rename(tmp_path / "away")
    with pytest.raises(Damaged, match=f"{lost}: missing"):
        branch(tmp_path / "child", fork(mine))
    assert others and not (tmp_path / "child").exists()
    (tmp_path / "away").rename(lost)
    assert_equal(whole, branch(tmp_path / "child", fork(mine)))


def unlinked(source, target):
    """As if each folder were on a disk of its own; a name that is taken comes first, as on any disk."""
    raise FileExistsError(target) if os.path.exists(target) else OSError(errno.EXDEV, "Invalid cross-device link")


LEFT = {  # of the parent's files, by an attempt that was killed, or by one off another run
    "a whole file": lambda content: content,
    "half a file": lambda content: content[:100],
    "a file of another content": lambda content: content[:100] + bytes(8) + content[108:],
}


@pytest.mark.parametrize("left", LEFT)
@pytest.mark.parametrize("disk", ["one disk", "two disks"])
def test_a_branch_takes_whole_files_whatever_an_attempt_before_it_left(tmp_path, monkeypatch, parent, whole, left, disk):
    before = {path: path.read_bytes() for path in named(parent)}
    path, *_ = before
    (folder := tmp_path / "child" / "replay" / "windows").mkdir(parents=True)
    (folder / path.name).write_bytes(LEFT[left](before[path]))
    if disk == "two disks":
        monkeypatch.setattr(os, "link", unlinked)
    assert_equal(whole, branch(tmp_path / "child", fork(parent)))
    assert {path: path.read_bytes() for path in before} == before
