import os
import sys
from types import SimpleNamespace

import pytest

from hieros_repro import command, train
from hieros_repro.check import TRAIN
from hieros_repro.command import Verb, choices, prepare
from hieros_repro.determinism.settings import environment
from hieros_repro.records import UserError
from tests.envs import Unrepeatable, chosen
from tests.runs import process

VERB = Verb("train", TRAIN, train.job, "about")


@pytest.fixture(autouse=True)
def shell(monkeypatch, tmp_path):
    """An empty working directory, and an interpreter that needs no restart."""
    for name, value in environment("error", 0).items():
        monkeypatch.setenv(name, value)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(sys, "argv", ["train"])
    monkeypatch.chdir(tmp_path)


def refusal(*typed: str) -> str:
    with pytest.raises(UserError) as caught:
        prepare(VERB, [word for word in typed if word != "-m"], "-m" in typed)
    assert os.listdir() == []
    return str(caught.value)


@pytest.mark.parametrize(
    ("typed", "texts"),
    [
        (["agent.lerning_rate=1"], ["agent.lerning_rate: unknown key; did you mean agent.learning_rate"]),
        (["learning_rate=1"], ["learning_rate: unknown key; did you mean agent.learning_rate?"]),
        (["+agent.lerning_rate=1"], ["agent.lerning_rate: unknown key; did you mean learning_rate?"]),
        (["+nothing.like_it=1"], ["nothing: unknown key"]),
        (["agnt=ppo"], ["agnt: unknown key; did you mean agent"]),
        (["agent.learning_rate=fast"], ["agent.learning_rate: 'fast' is not allowed; it must be a number at least 0"]),
        (["run.steps=1.5"], ["run.steps: 1.5 is not allowed; it must be an integer at least 1"]),
        (["run.steps=0"], ["run.steps: 0 is not allowed; it must be an integer at least 1"]),
        (["run.steps=null"], ["run.steps: null is not allowed; it must be an integer at least 1"]),
        (["run.keep_best=3"], ["run.keep_best: 3 is not allowed; it must be true or false"]),
        (["agent.hidden=64"], ["agent.hidden: 64 is not allowed; it must be a list, each item an integer"]),
        (
            ["determinism.algorithms=strct"],
            ["determinism.algorithms: 'strct' is not allowed; it must be one of error, warn, off"],
        ),
        (["hardware.precision=fp64"], ["hardware.precision: 'fp64' is not allowed", "fp32, bf16, fp16"]),
        (["seed=-1"], ["seed: '-1' is not allowed; it must be an integer between 0 and"]),
        (["seed=x"], ["seed: 'x' is not allowed; it must be an integer between 0 and"]),
        (["agent=pppo"], ["agent: there is no 'pppo'; there are ", "ppo, ", "; did you mean ppo?"]),
        (["experiment=cartpole_basline"], ["experiment: there is no 'cartpole_basline'", "did you mean cartpole_baseline?"]),
        (["env=gymnasium"], ["env.id: a value is needed and has no default"]),
        (["agent=dqn", "replay=unifrom"], ["replay: there is no 'unifrom'; there are ", "; did you mean uniform?"]),
        (["agent=ppo", "replay=uniform"], ["replay: a windows replay cannot serve PPO, which learns from: rollout"]),
        (["agent=dqn", "replay=rollout"], ["replay: a rollout replay cannot serve DQN, which learns from: windows"]),
        (["agent=dqn", "replay.workers=-1"], ["replay.workers: -1 is not allowed; it must be an integer at least 0 or null"]),
        (["agent=dqn", "replay.place=disk"], ["replay.place: 'disk' is not allowed; it must be one of memory, mapped, device"]),
        (["agent=dqn", "replay.size=0"], ["replay.size: 0 is not allowed; it must be an integer at least 1"]),
        (["agent=dqn", "replay.temperature=2"], ["replay.temperature: unknown key"]),
        (
            ["agent=dqn", "replay=efficient_time_balanced", "replay.temperature=2"],
            ["replay.temperature: 2 is not allowed; it must be a number between 0 and 1"],
        ),
        (["env=gymnasium", "env.id=CartPol-v1"], ["env.id: 'CartPol-v1' is not registered", "nearest: CartPole-v1"]),
        (["env=gymnasium", "env.id=nowhere:Thing-v0"], ["env.id: 'nowhere:Thing-v0': the module 'nowhere' is not installed"]),
        (["hardware=tpu"], ["hardware.device: 'tpu' was asked for, but this machine offers ", "[tpu]"]),
        (["hardware.ranks=2"], ["hardware.ranks: 2: data-parallel", "only 1 is allowed"]),
        (["hardware.threads=4096"], ["hardware.threads: 4096 is more than this machine's", "cores"]),
        (["env._target_=os.system"], ["env._target_: 'os.system' is not allowed; only hieros_repro.*; plugins=[...]"]),
        (["env._target_=hieros_repro.env.gymnasium.Gymnasum"], ["has no 'Gymnasum'; did you mean Gymnasium?"]),
        (["agent.clip=0.1,0.2"], ["agent.clip: 'agent.clip=0.1,0.2' gives several values, which needs -m (one run each)"]),
        (["plugins=[no_such_module]"], ["plugins: 'no_such_module' cannot be imported"]),
        (["plugins=tests"], ["plugins: 'tests' is not allowed; it must be a list, each item a text"]),
        (["word"], ["command line: ", "'word'"]),
        (["agent.clip=["], ["command line: "]),
        (["resume_numerics=yes"], ["resume_numerics: ", "it must be one of refuse, accept"]),
        (["-m", "seed=1,x"], ["seed: 'x' is not allowed"]),
        (["-m", "seed=1,2", "agent.clip=0.1,wide"], ["agent.clip: 'wide' is not allowed; it must be a number"]),
        (["-m", "agent=ppo,pppo"], ["agent: there is no 'pppo'; there are "]),
        (["agent=ppo", "world=s5"], ["world: 's5' is of no use: agent=ppo has no world, as director, dreamer, hieros"]),
        (["experiment=cartpole_dqn", "world=s5"], ["world: 's5' is of no use: agent=dqn has no world"]),
        (["agent=random", "replay=uniform"], ["replay: 'uniform' is of no use: agent=random has no replay, as director, dqn"]),
        (["agent=ppo", "world=s6"], ["world: there is no 's6'; there are rssm, rssm_block, s5"]),
        (
            ["agent=ppo", "world=s5", "run.stps=3"],
            ["world: 's5' is of no use", "run.stps: unknown key; did you mean run.steps?"],
        ),
        (["agent.batch_size=4"], ["agent.batch_size: unknown key; did you mean agent.minibatch_size?"]),
        (["agent.nothing_like_it=4"], ["agent.nothing_like_it: unknown key\n"]),
        (["-m", "agent=dreamer,ppo", "agent.batch_size=4"], ["agent.minibatch_size? (with agent=ppo)"]),
        (["-m", "agent=ppo,dreamer", "world=s5", "seed=1,2"], ["agent=ppo has no world, as ", " have (with agent=ppo)"]),
        (["-m", "seed=1,2", "agent.clip=wide"], ["agent.clip: 'wide' is not allowed; it must be a number at least 0\n"]),
        (["-m", "seed=1,2", "determinism=strict,off"], ["cannot vary within one sweep: run two sweeps"]),
        (["-m", "seed=1,2", "hydra/launcher=jobli"], ["hydra/launcher: 'jobli' is not available; there are basic"]),
    ],
    ids=" ".join,
)
def test_what_is_wrong_is_named_with_what_is_allowed_and_nothing_is_made(typed, texts):
    text = refusal(*typed)
    assert [t for t in texts if t not in f"{text}\n"] == [], text
    assert "Could not override" not in text and "not in struct" not in text


@pytest.mark.parametrize(
    "typed", [["agent=director,dreamer", "agent.batch_size=4"], ["agent=glob(dream*)", "agent.batch_size=4", "seed=1,2"]]
)
def test_a_sweep_over_agents_may_set_what_they_share_and_the_default_has_not(typed, tmp_path):
    folder = prepare(VERB, [*typed, "env=dummy", f"sweep.dir={tmp_path / 'sweep'}"], True)
    assert folder == tmp_path / "sweep" and (folder / "sweep.json").exists()


def test_a_launcher_that_is_not_installed_names_its_extra():

    if "hydra_plugins.hydra_ray_launcher" in sys.modules:
        pytest.skip("the Ray launcher is installed here")
    assert "pip install 'hieros-repro[ray]'" in refusal("-m", "seed=1,2", "hydra/launcher=ray")


def test_a_missing_gpu_is_named(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    text = refusal("hardware=gpu")
    assert "hardware.device: 'cuda' was asked for, but this machine offers cpu" in text
    assert "use hardware=cpu" in text


def test_several_faults_are_told_at_once():
    text = refusal("agent=pppo", "env=cartpol", "run.stps=3", "seed=-1")
    assert "the configuration has 4 faults:" in text
    assert all(f"\n  {key}: " in text for key in ("agent", "env", "run.stps", "seed"))


def test_faults_of_values_and_of_bounds_are_told_together():
    text = refusal("agent.clip=wide", "run.steps=0", "hardware.ranks=2", "env.num_envs=none")
    assert [key for key in ("agent.clip", "run.steps", "hardware.ranks", "env.num_envs") if f"\n  {key}: " not in text] == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--cfg", "job"],
        ["--info", "defaults-tree"],
        ["agent.clip=["],
        ["run.stps=3"],
        ["-m", "seed=1,2", "run.stps=3"],
        pytest.param(["env=gymnasium"], marks=pytest.mark.slow),
        ["--no-such-flag"],
    ],
    ids=" ".join,
)
def test_asking_and_mistyping_leave_nothing_on_the_disk(tmp_path, arguments):
    done = process("train", *arguments, cwd=tmp_path)
    asking = arguments[0] in ("--help", "--cfg", "--info")
    assert done.returncode == (0 if asking else 2), done.stderr
    assert "Traceback" not in done.stderr
    assert bool(done.stdout) == asking
    assert os.listdir(tmp_path) == []


def test_cfg_shows_the_configuration_with_what_was_typed(tmp_path):
    done = process("train", "--cfg", "job", "experiment=cartpole_tuned", "agent.clip=0.15", cwd=tmp_path)
    assert "  clip: 0.15\n" in done.stdout
    assert "  num_envs: 16\n" in done.stdout


def test_a_plugin_named_on_the_command_line_passes_the_check():
    prepare(VERB, list(chosen(Unrepeatable)), multirun=False)


def test_threads_of_the_libraries_follow_the_configuration(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    prepare(VERB, [], multirun=False)
    assert os.environ["OMP_NUM_THREADS"] == "1"


def test_the_interpreter_is_restarted_once_where_the_shell_set_other_variables(monkeypatch):
    class Restarted(BaseException):
        pass

    def execve(path, arguments, variables):
        assert (path, arguments[0]) == (sys.executable, sys.executable)
        assert {name: variables[name] for name in ("PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG")} == environment("error", 0)
        raise Restarted

    monkeypatch.setenv("PYTHONHASHSEED", "3")
    monkeypatch.delenv("HIEROS_RESTARTED", raising=False)
    monkeypatch.setattr(os, "execve", execve)
    with pytest.raises(Restarted):
        prepare(VERB, [], multirun=False)
    monkeypatch.setenv("HIEROS_RESTARTED", "1")
    with pytest.raises(RuntimeError, match="PYTHONHASHSEED='3' instead of '0'"):
        prepare(VERB, [], multirun=False)


# -- A run that is resumed ---------------------------------------------------------------------------------------------


@pytest.fixture
def before():
    """What was typed for a run, in its folder and wherever else something might take it for an answer."""
    for folder in (".", "run", "auto", "null", "exact", "episode_boundary"):
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/overrides.yaml", "w", encoding="utf8") as file:
            file.write("[agent=dqn, replay=uniform, replay.size=99, seed=3, replay=time_balanced]\n")


@pytest.mark.parametrize("resume", ["run", "run@150", "run/", "./run@0"])
def test_a_resumed_run_brings_its_options(before, resume):
    assert choices(["seed=4", f"resume={resume}"]) == ["agent=dqn", "replay=time_balanced"]


@pytest.mark.parametrize("resume", [None, "auto", "null", "exact", "episode_boundary", "nowhere", "run@best"])
def test_what_names_no_run_brings_no_options_not_even_in_the_folder_of_one(before, resume):
    assert choices(["seed=4", *([] if resume is None else [f"resume={resume}"])]) == []


@pytest.mark.parametrize(
    ("verb", "typed", "started"),
    [
        ("train", ["seed=4", "resume=run"], ["seed=4", "resume=run", "agent=dqn", "replay=time_balanced"]),
        ("train", ["resume=run@150", "replay=uniform"], ["resume=run@150", "replay=uniform", "agent=dqn"]),
        ("train", ["seed=4"], ["seed=4"]),
        ("verify", ["resume=run"], ["resume=run"]),
        ("evaluate", ["run=run", "resume=run"], ["run=run", "resume=run"]),
        ("dataset", ["resume=run"], ["resume=run"]),
    ],
)
def test_only_train_starts_with_the_options_of_a_run(before, monkeypatch, verb, typed, started):
    seen = []
    monkeypatch.setattr(sys, "argv", [verb, *typed])
    monkeypatch.setattr(command, "prepare", lambda verb, overrides, *rest: seen.append(list(overrides)))
    monkeypatch.setattr(command, "_hydra", lambda verb, single: 0)
    with pytest.raises(SystemExit, match="0"):
        command.run(Verb(verb, TRAIN, train.job, "about"))
    assert seen == [started] and sys.argv[1:] == started


def test_what_a_resumed_run_brought_along_was_not_typed(before):
    started = ["seed=4", "resume=run", "replay=uniform", "agent=dqn"]
    assert command.typed(started) == ["seed=4", "resume=run", "replay=uniform"]
    assert command.typed([override for override in started if override != "resume=run"]) == [
        "seed=4", "replay=uniform", "agent=dqn",
    ]  # fmt: skip


def test_a_run_is_told_only_what_was_typed(before, monkeypatch):
    task = SimpleNamespace(task=["resume=run", "seed=4", "agent=dqn", "replay=time_balanced"])
    monkeypatch.setattr(train.HydraConfig, "get", lambda: SimpleNamespace(overrides=task, mode=None))
    monkeypatch.setattr(train, "train", lambda config, asked: asked)
    assert train.job(None) == ["resume=run", "seed=4"]
