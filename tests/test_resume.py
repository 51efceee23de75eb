import hashlib
import json
import re
import signal
import time
from subprocess import PIPE, Popen

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from hieros_repro.command import composer
from hieros_repro.determinism.settings import WORKSPACE
from hieros_repro.records import Stopped, UserError
from hieros_repro.resume import _merged, spelt_out
from hieros_repro.run import checkpoint
from hieros_repro.run.folder import RunFolder
from tests.checking import mostly_slow
from tests.envs import Mortal, chosen
from tests.runs import command, environment, facts, process, run, short, unequal_files

pytestmark = pytest.mark.usefixtures("swift")

MORTAL = chosen(Mortal)
NORMALISED = ("env.normalise_observation=true", "env.normalise_reward=true")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing interrupts."""
    return run(tmp_path_factory.mktemp("whole") / "run", *MORTAL, *NORMALISED)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run that normalises nothing."""
    return run(tmp_path_factory.mktemp("plain") / "run", *MORTAL)


@pytest.fixture(autouse=True)
def workspace(monkeypatch):
    """As the program sets it: runs go on in this process that began in another."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", WORKSPACE)


@pytest.fixture
def interrupted(tmp_path, monkeypatch):
    """Makes the same run, asked to stop at a step that any environment takes, those of evaluation included."""

    def made(at: int):
        monkeypatch.setattr(Mortal, "taken", 0)
        monkeypatch.setenv("DIE_AT", str(at))
        monkeypatch.setenv("DIE_BY", str(int(signal.SIGTERM)))
        with pytest.raises(Stopped):
            run(tmp_path / "run", *MORTAL, *NORMALISED, "resume=auto")
        monkeypatch.delenv("DIE_AT")
        return tmp_path / "run"

    return made


def go_on(folder, *overrides):
    return run(folder, *MORTAL, *NORMALISED, "resume=auto", *overrides)


def assert_equal(a, b):
    assert unequal_files(a, b) == []
    assert facts(a)["digests"] == facts(b)["digests"]
    assert facts(a)["results"] == facts(b)["results"]


# -- Interrupted runs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", mostly_slow([40, 333, 700], 333))
def test_a_killed_run_goes_on_to_the_same_files(tmp_path, whole, at):
    arguments = short("run", *MORTAL, *NORMALISED, "resume=auto")
    killed = process("train", *arguments, cwd=tmp_path, DIE_AT=str(at), DIE_BY=str(int(signal.SIGKILL)))
    assert killed.returncode == -signal.SIGKILL
    assert RunFolder(tmp_path / "run").read()["status"] == "interrupted"
    assert (at < 150) == (checkpoint.newest(tmp_path / "run" / "checkpoints", print) is None)
    assert_equal(whole, go_on(tmp_path / "run"))


def test_sigterm_stops_a_run_that_can_be_continued_by_the_command_it_names(tmp_path, whole):
    arguments = short("run", *MORTAL, *NORMALISED, "log.terminal=lines")
    stopped = process("train", *arguments, cwd=tmp_path, DIE_AT="333", DIE_BY=str(int(signal.SIGTERM)))
    assert stopped.returncode == 75, stopped.stderr
    assert re.search(r"stopped at step \d+ with a checkpoint", stopped.stderr)
    assert facts(tmp_path / "run")["status"] == "stopped"
    named = re.search(r"continue with: python -m hieros_repro.train (\S+)", stopped.stdout + stopped.stderr)
    assert named, stopped.stdout
    assert process("train", named[1], cwd=tmp_path).returncode == 0
    assert_equal(whole, tmp_path / "run")


@pytest.mark.parametrize("at", mostly_slow([1, 150, 210, 320, 425, 600, 660, 700], 210, 600))
def test_a_run_stopped_anywhere_goes_on_to_the_same_files(whole, interrupted, at):
    folder = interrupted(at)
    assert facts(folder)["status"] == "stopped"
    assert_equal(whole, go_on(folder))


@pytest.mark.slow
def test_a_run_may_be_stopped_again_and_again(whole, interrupted):
    for at in (100,) * 5:
        folder = interrupted(at)
    assert facts(folder)["restarts"] == 4
    assert_equal(whole, go_on(folder))


def test_a_damaged_newest_checkpoint_is_named_and_passed_over(whole, interrupted, capsys):
    folder = interrupted(555)
    older, newest = checkpoint.steps(folder / "checkpoints")
    path = folder / "checkpoints" / f"step_{newest}" / "agent.pt"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    go_on(folder)
    said = capsys.readouterr().out
    assert f"passing over a damaged checkpoint: {path}: its SHA-256 is not the manifest's" in said
    assert older < newest
    assert_equal(whole, folder)


def test_without_any_intact_checkpoint_a_run_starts_again(whole, interrupted):
    folder = interrupted(555)
    for step in checkpoint.steps(folder / "checkpoints"):
        (folder / "checkpoints" / f"step_{step}" / "loop.pt").unlink()
    assert_equal(whole, go_on(folder))


def test_what_a_crash_left_half_written_is_cleared_away(whole, interrupted):
    folder = interrupted(555)
    (folder / "checkpoints" / ".partial-step_9").mkdir()
    (folder / "checkpoints" / ".partial-step_9" / "agent.pt").write_bytes(b"half")
    for name in ("metrics.jsonl", "episodes.jsonl", "ledger.jsonl"):
        with (folder / name).open("ab") as file:
            file.write(b'{"step": 999, "half')
    assert_equal(whole, go_on(folder))
    assert not list((folder / "checkpoints").glob(".partial*"))


def test_resume_auto_without_a_run_starts_one(tmp_path, whole):
    assert_equal(whole, go_on(tmp_path / "new"))


def test_a_log_shorter_than_its_checkpoint_is_refused_by_name(interrupted):
    folder = interrupted(555)
    (folder / "metrics.jsonl").write_text("")
    with pytest.raises(Exception, match=r"metrics.jsonl has 0 bytes, fewer than the \d+ the checkpoint knows"):
        go_on(folder)


def as_of_before_replays(folder):
    """As it was when checkpoints had format 2 and a run did not say whether it collects."""
    for step in checkpoint.steps(folder / "checkpoints"):
        path = folder / "checkpoints" / f"step_{step}"
        loop = torch.load(path / "loop.pt", weights_only=True)
        assert loop.pop("feed") == []
        torch.save(loop, path / "loop.pt")
        facts = json.loads((path / "manifest.json").read_text())
        assert facts.pop("replay") == {}
        content = (path / "loop.pt").read_bytes()
        facts["files"]["loop.pt"] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        (path / "manifest.json").write_text(json.dumps({**facts, "format": 2}))
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["run"].pop("collect") is True
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder


@pytest.mark.parametrize("how", mostly_slow(["resume=auto", "resume={folder}"], "resume=auto"))
def test_a_run_of_before_replays_goes_on_to_the_same_files(whole, interrupted, how):
    folder = as_of_before_replays(interrupted(333))
    assert_equal(whole, run(folder, *MORTAL, *NORMALISED, how.format(folder=folder)))


def test_a_run_of_before_replays_can_be_branched_from(tmp_path, whole, interrupted):
    folder = as_of_before_replays(interrupted(333))
    step = checkpoint.steps(folder / "checkpoints")[0]
    branch = run(tmp_path / "branch", *MORTAL, *NORMALISED, f"resume={folder}@{step}")
    assert facts(branch)["digests"] == facts(whole)["digests"]


# -- What may change ---------------------------------------------------------------------------------------------------


def refusal(folder, *overrides):
    with pytest.raises(UserError) as caught:
        run(folder, *MORTAL, *NORMALISED, f"resume={folder}", *overrides)
    return str(caught.value)


def test_another_learning_rate_is_refused_with_both_values_and_the_way_out(whole):
    text = refusal(whole, "agent.learning_rate=0.01", "agent.clip=0.3")
    assert "agent.learning_rate: 0.0003 in the run, 0.01 now" in text
    assert "agent.clip: 0.2 in the run, 0.3 now" in text
    assert f"resume={whole}@<step> run.dir=<new folder>" in text


@pytest.mark.parametrize("change", ["seed=1", "env.num_envs=4", "determinism=off", "hardware.threads=2", "run.steps=300"])
def test_what_makes_the_bits_may_not_change(whole, change):
    assert re.search(rf"\n  {change.partition('=')[0]}\S*: .* in the run, .* now", refusal(whole, change))


def test_what_is_only_looked_at_may_change(whole, interrupted):
    folder = go_on(interrupted(555), "run.log_every=50", "run.eval_episodes=1", "run.keep_last=5", "log.tensorboard=true")
    assert facts(folder)["digests"] == facts(whole)["digests"]


def rewrite_numerics(folder, **changes):
    newest = checkpoint.newest(folder / "checkpoints", print)
    path = folder / "checkpoints" / f"step_{newest}" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["numerics"] |= changes
    path.write_text(json.dumps(manifest))


def test_other_numerics_are_refused_by_name(interrupted):
    folder = interrupted(333)
    rewrite_numerics(folder, threads=3)
    text = refusal(folder)
    assert "threads: 3 then, 1 now" in text
    assert "resume_numerics=accept" in text


def test_other_numerics_can_be_accepted_and_mark_the_run(interrupted):
    folder = interrupted(333)
    rewrite_numerics(folder, threads=3)
    told = facts(go_on(folder, "resume_numerics=accept"))
    assert told["status"] == "finished"
    assert told["bit_comparable"] is False
    assert told["numerics_changed"] == {"threads": [3, 1]}


# -- More steps --------------------------------------------------------------------------------------------------------


def test_a_run_extended_where_a_rollout_ended_equals_the_longer_run(tmp_path):
    pendulum = ("env=gymnasium", "env.id=Pendulum-v1", "replay.length=50", "agent.final_learning_rate=1e-5", "run.horizon=500")
    folder = run(tmp_path / "run", *pendulum, "run.steps=400")
    extended = run(folder, *pendulum, "run.steps=700", "resume=auto")
    longer = run(tmp_path / "longer", *pendulum, "run.steps=700")
    assert facts(extended)["digests"] == facts(longer)["digests"]
    assert (extended / "episodes.jsonl").read_bytes() == (longer / "episodes.jsonl").read_bytes()


def test_the_horizon_of_an_extended_run_is_that_of_its_start(tmp_path):
    folder = run(tmp_path / "run", "run.steps=100")
    run(folder, "run.steps=200", "resume=auto")
    assert "horizon: 100" in (folder / "config.yaml").read_text()


def test_a_finished_run_has_nothing_to_do_and_says_how_to_extend_it(whole, capsys):
    before = (whole / "run.json").read_bytes()
    go_on(whole)
    said = capsys.readouterr().out
    assert "finished already, nothing is left to do" in said
    assert re.search(r"run\.steps=<more than 60\d> extends it", said)
    assert (whole / "run.json").read_bytes() == before


# -- Branches ----------------------------------------------------------------------------------------------------------


def test_a_branch_may_change_anything_and_names_its_parent(tmp_path, whole):
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    step = checkpoint.steps(whole / "checkpoints")[0]
    branch = run(
        tmp_path / "branch", f"resume={whole}@{step}", "agent.learning_rate=0.01", "run.steps=600", *MORTAL, *NORMALISED
    )
    parent = facts(branch)["parent"]
    assert (parent["run"], parent["checkpoint"]) == (str(whole), step)
    assert parent["changes"]["agent.learning_rate"] == [0.0003, 0.01]
    assert facts(branch)["digests"] != facts(whole)["digests"]
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_a_branch_that_changes_nothing_ends_like_its_parent(tmp_path, whole):
    step = checkpoint.steps(whole / "checkpoints")[0]
    branch = run(tmp_path / "branch", f"resume={whole}@{step}", *MORTAL, *NORMALISED)
    assert facts(branch)["digests"] == facts(whole)["digests"]


def test_a_branch_that_is_only_stepped_otherwise_ends_like_its_parent(tmp_path, whole):
    """It goes on in the middle of its parent's episodes and of its rollout."""
    step = checkpoint.steps(whole / "checkpoints")[0]
    branch = run(tmp_path / "branch", f"resume={whole}@{step}", *MORTAL, *NORMALISED, "env.processes=2")
    assert facts(branch)["parent"]["changes"]["env.processes"] == [0, 2]
    assert facts(branch)["digests"] == facts(whole)["digests"]
    assert (whole / "episodes.jsonl").read_bytes().endswith((branch / "episodes.jsonl").read_bytes())


@pytest.mark.parametrize("change", ["seed=7", "env.num_envs=3", "replay.length=16"])
@pytest.mark.parametrize("normalised", [True, False])
def test_a_branch_starts_anew_what_its_changes_made_meaningless(tmp_path, whole, plain, change, normalised):
    parent = whole if normalised else plain
    step = checkpoint.steps(parent / "checkpoints")[0]
    branch = run(tmp_path / "branch", f"resume={parent}@{step}", *MORTAL, *NORMALISED, change)
    assert facts(branch)["status"] == "finished"
    assert facts(branch)["results"]["step"] >= 600


def test_an_unknown_step_lists_the_existing_ones(tmp_path, whole):
    found = checkpoint.steps(whole / "checkpoints")
    text = refusal(tmp_path / "branch", f"resume={whole}@17")
    assert f"{whole / 'checkpoints' / 'step_17'}: no such checkpoint; there are {found[0]}, {found[1]}" in text
    assert not (tmp_path / "branch").exists()


def test_a_branch_needs_a_folder_of_its_own(whole):
    step = checkpoint.steps(whole / "checkpoints")[0]
    assert f"run.dir={whole}: it holds a run already" in refusal(whole, f"resume={whole}@{step}")


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    assert f"{tmp_path}: not a run folder (it has no config.yaml)" in refusal(tmp_path)


def test_how_to_come_back_is_spelt_out_and_what_to_come_back_to_is_not():
    typed = [
        "resume=episode_boundary",
        "resume=exact",
        "resume=auto",
        "resume=runs/exact",
        "env=dummy",
        "resume_numerics=accept",
    ]
    assert spelt_out(typed) == ["determinism.resume=episode_boundary", "determinism.resume=exact", *typed[2:]]


# -- Proofs that take minutes ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "config",
    [
        ["experiment=cartpole_tuned", "verify_steps=40_000"],
        ["experiment=pendulum", "verify_steps=20_000"],
        ["env=gymnasium", "env.id=Pendulum-v1", "verify_steps=20_000"],
        ["experiment=cartpole_dqn", "replay=time_balanced_naive", "replay.size=5_000", "verify_steps=20_000"],
    ],
    ids=["cartpole", "pendulum normalised", "pendulum", "past experience"],
)
def test_twenty_interruptions_change_nothing(tmp_path, config):
    done = process("verify", "claim=resume", "kills=20", *config, cwd=tmp_path, TMPDIR=str(tmp_path), seconds=1500)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.search(r"resume +held +(\d+) times killed, (\d+) times stopped", done.stdout)
    assert counts and int(counts[1]) + int(counts[2]) > 10, done.stdout


@pytest.mark.slow
def test_a_kill_at_any_moment_of_writing_leaves_a_run_that_goes_on(tmp_path, whole):
    """Checkpoints at every step: most of the time is spent writing them."""
    busy = [*MORTAL, *NORMALISED, "run.checkpoint_every=1", "run.keep_last=1"]
    arguments = short(tmp_path / "run", *busy, "resume=auto")
    for number in range(20):
        running = Popen(command("train", *arguments), cwd=tmp_path, env=environment(), stdout=PIPE, stderr=PIPE)
        started = time.monotonic()
        while running.poll() is None and not RunFolder(tmp_path / "run").is_held():
            time.sleep(0.01)
        while running.poll() is None and time.monotonic() < started + 2.5 + 0.13 * number:
            time.sleep(0.01)
        running.kill()
        running.communicate()
    assert_equal(whole, run(tmp_path / "run", *busy, "resume=auto"))


# -- Sizes that follow the hardware --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("began", "typed", "hidden"),
    [
        ([], ["hardware=gpu"], [64, 64]),  # another machine alone changes no network
        (["hardware=cpu"], ["hardware=gpu"], [64, 64]),
        (["hardware=gpu"], ["hardware=cpu"], [256, 256]),
        (["size=small"], ["hardware=gpu"], [256, 256]),
        ([], ["hardware=gpu", "size=small"], [256, 256]),
        (["hardware=gpu"], ["hardware=cpu", "size=nano"], [64, 64]),
        ([], ["size=small"], [256, 256]),
    ],
    ids=str,
)
def test_a_branch_on_another_machine_keeps_its_size_unless_another_is_named(tmp_path, began, typed, hidden):
    (tmp_path / "overrides.yaml").write_text(yaml.safe_dump(began))
    asked = [f"resume={tmp_path}@0", *typed]
    before = {key.partition("=")[0]: key for key in began} | {key.partition("=")[0]: key for key in typed}
    with composer() as compose:
        stored, config = (
            OmegaConf.to_container(compose(config_name="train", overrides=list(overrides)), resolve=True)
            for overrides in (began, before.values())
        )
        merged = _merged(stored, config, asked)
    assert merged["agent"]["hidden"] == merged["size"]["hidden"] == hidden
    assert merged["hardware"]["device"] == config["hardware"]["device"]


def test_what_a_run_stored_keeps_its_order():
    """The order of an agent's levels is who is above whom."""
    stored = {"agent": {"levels": {"worker": {"layers": 1}, "manager": {"layers": 2}}}}
    assert list(_merged(stored, {}, [])["agent"]["levels"]) == ["worker", "manager"]
