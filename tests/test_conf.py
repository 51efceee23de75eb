import re

import pytest
import yaml

from hieros_repro import build, check, evaluate, help, verify
from hieros_repro.agent.base import Agent
from hieros_repro.records import ConfigError, UserError
from hieros_repro.run.loop import Loop
from hieros_repro.train import train
from tests.runs import ROOT, compose, facts, run, unequal_files

CONF = ROOT / "conf"
NEEDED = {  # what an option cannot be composed without, or takes too much memory without
    "gymnasium": ("env.id=Pendulum-v1",),
    "dqn": ("replay.size=1_000",),
    "rssm": ("agent=director",),
    "rssm_block": ("agent=director",),
    "s5": ("agent=hieros",),
}
CHANGED = {"ablation": "agent=hieros"}  # groups that change one agent
CONTINUOUS = {"dmc", "gymnasium", "loconav"}  # as composed here
ELSEWHERE = {  # options that need a device
    ("hardware", "gpu"): "cuda",
    ("hardware", "tpu"): "tpu",
    ("experiment", "director_paper"): "cuda",
    ("experiment", "pinpad_gpu"): "cuda",
    ("experiment", "pinpad_hieros"): "cuda",
    ("experiment", "atari100k_hieros"): "cuda",
}
KINDS = ("cartpole", "gymnasium", "pinpad")  # vectors or images, discrete or continuous actions: tried at once with every agent


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name not in ("hydra", "__pycache__"))
PAGES = [(group, option) for group in GROUPS for option in options(group)]
BUILT = ("env", "agent", "experiment")  # groups of which every option is built below, after it was composed and checked
RUNNABLE = [pair for pair in PAGES if pair[0] not in (*BUILT, "replay") and pair not in ELSEWHERE]


def test_every_group_has_an_option():
    assert {"env", "agent", "replay", "determinism", "hardware", "log", "size", "experiment"} <= set(GROUPS)
    assert all(options(group) for group in GROUPS)


@pytest.mark.parametrize(("group", "option"), RUNNABLE)
def test_every_option_composes_and_has_no_fault(group, option):
    needed = NEEDED.get(option, (CHANGED[group],) if group in CHANGED else ())
    plain = check.check(compose(f"{group}={option}", *needed))
    assert plain["seed"] == 42


def test_an_agents_replay_may_be_named_on_the_command_line():
    assert check.check(compose("agent=ppo", "replay=rollout"))["replay"]["length"] == 128


@pytest.fixture(scope="module")
def remembering():
    """The agents that have a replay."""
    return [name for name in options("agent") if "replay" in compose(f"agent={name}")]


@pytest.mark.parametrize("option", options("replay"))
def test_every_replay_serves_the_agents_that_remember_its_kind_and_no_others(remembering, option):
    served = {}
    for agent in remembering:
        config = compose(f"agent={agent}", f"replay={option}")
        kind = build.target(config["replay"]).kind
        if kind in build.target(config["agent"]).remembers:
            served[agent] = check.check(config)["replay"]
        else:
            with pytest.raises(ConfigError, match=f"replay: a {kind} replay cannot serve .*, which learns from: "):
                check.check(config)
    assert served


@pytest.mark.parametrize("option", [option for option in options("replay") if option != "rollout"])
def test_every_replay_of_windows_has_what_they_share(option):
    plain = check.check(compose("agent=dqn", f"replay={option}"))
    shared = set(yaml.safe_load((CONF / "replay" / "_windows.yaml").read_text(encoding="utf8")))
    assert shared < set(plain["replay"]) and plain["replay"]["size"] == 1_000_000


@pytest.mark.parametrize(("group", "option"), ELSEWHERE)
def test_a_device_that_is_absent_is_a_clear_fault(group, option, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("hieros_repro.hardware.device._accelerator", lambda: None)
    with pytest.raises(ConfigError) as caught:
        check.check(compose(f"{group}={option}"))
    [fault] = caught.value.faults
    assert fault.key == "hardware.device"
    assert f"'{ELSEWHERE[group, option]}' was asked for, but this machine offers cpu" in fault.problem


def test_verify_composes_and_has_no_fault():
    plain = check.check(compose(name="verify"), verify.PAGE)
    assert (plain["claim"], plain["env"]["id"]) == (None, "CartPole-v1")


def test_evaluate_composes_and_has_no_fault():
    assert check.check(compose("run=some/run", name="evaluate"), evaluate.PAGE)["episodes"] == 100


def test_evaluate_needs_a_run():
    with pytest.raises(ConfigError, match="run: a value is needed"):
        check.check(compose(name="evaluate"), evaluate.PAGE)


class Nowhere:
    """Takes what a run would write, but for the files of its replays."""

    def __init__(self, replay):
        self.replay = replay

    def __getattr__(self, name):
        return lambda *arguments, **keywords: None


@pytest.fixture
def built(tmp_path):
    """Makes the loop of a configuration that has no fault, with two environments."""
    loops = []

    def made(*overrides: str) -> Loop:
        nowhere, config = Nowhere(tmp_path / "replay"), compose(*overrides)
        assert check.check(config)["seed"] == 42
        config.env.num_envs, config.run.eval_envs = 2, 1
        loops.append(build.loop(check.check(config), nowhere, nowhere, lambda: False))
        return loops[-1]

    yield made
    for loop in loops:
        loop.close()


PAIRS = [(agent, env) for agent in options("agent") for env in options("env")]


@pytest.mark.parametrize(
    ("agent", "env"),
    [pair if pair[0] == "ppo" or pair[1] in KINDS else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS],
)
def test_every_agent_is_built_for_every_environment_it_can_act_in(built, agent, env):
    overrides = (f"env={env}", f"agent={agent}", *NEEDED.get(env, ()), *NEEDED.get(agent, ()))
    if agent == "dqn" and env in CONTINUOUS:
        with pytest.raises(UserError, match="agent=dqn needs discrete actions, these are continuous: agent=ppo takes any kind"):
            built(*overrides)
        return
    loop = built(*overrides)
    assert isinstance(loop.parts.agent, Agent)
    assert set(loop.parts.replays) == set(loop.parts.agent.replays())
    assert all(replay.kind in loop.parts.agent.remembers for replay in loop.parts.replays.values())
    loop.now = loop.parts.normaliser(loop.parts.envs.reset())
    loop.carry = loop.parts.agent.initial(2)
    loop._tick()
    assert loop.step == 2


@pytest.mark.parametrize("option", options("experiment"))
def test_every_experiment_is_built(built, option):
    here = ["hardware=cpu"] if ("experiment", option) in ELSEWHERE else []
    assert built(f"experiment={option}", *here).plan.steps >= 1000


def test_the_random_agent_runs_the_same_twice(tmp_path):
    overrides = (
        "agent=random",
        "run.steps=100",
        "run.final_episodes=2",
        "env.num_envs=2",
        "log=quiet",
        "run.fingerprint_every=20",
    )
    folders = []
    for name in "ab":
        typed = [*overrides, f"run.dir={tmp_path / name}"]
        train(compose(*typed), typed)
        folders.append(tmp_path / name)
    assert unequal_files(*folders) == []
    assert facts(folders[0])["status"] == "finished"


def test_a_run_records_the_configuration_it_was_given(tmp_path):
    folder = run(tmp_path / "run", "agent.clip=0.3", "run.steps=100")
    recorded = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf8"))
    assert recorded["agent"]["clip"] == 0.3
    assert "agent.clip=0.3" in (folder / "overrides.yaml").read_text(encoding="utf8")


# Sizes


@pytest.mark.parametrize(
    ("typed", "deter"),
    [
        ((), 128),
        (("hardware=gpu",), 256),
        (("hardware=tpu",), 256),
        (("hardware=gpu", "size=nano"), 128),
        (("size=small",), 256),
        (("experiment=pinpad_cpu", "hardware=gpu"), 128),  # names a size
        (("experiment=pinpad_gpu",), 256),  # names hardware
        (("experiment=pinpad_gpu", "hardware=cpu"), 128),
        (("experiment=pinpad_gpu", "size=12m"), 2048),
        (("experiment=director_paper", "hardware=cpu"), 1024),
    ],
    ids=str,
)
def test_without_a_size_it_is_that_of_the_hardware(typed, deter):
    assert compose("agent=dreamer", *typed).size.deter == deter


@pytest.mark.parametrize(
    ("size", "values"),
    [
        ("1m", {"deter": 512, "units": 64, "head_units": 64, "classes": 4, "depth": 4}),
        ("12m", {"deter": 2048, "units": 256, "head_units": 256, "classes": 16, "depth": 16}),
        ("25m", {"deter": 3072, "units": 384, "head_units": 384, "classes": 24, "depth": 24}),
        ("50m", {"deter": 4096, "units": 512, "head_units": 512, "classes": 32, "depth": 32}),
        ("100m", {"deter": 6144, "units": 768, "head_units": 768, "classes": 48, "depth": 48}),
        ("200m", {"deter": 8192, "units": 1024, "head_units": 1024, "classes": 64, "depth": 64}),
        ("400m", {"deter": 12288, "units": 1536, "head_units": 1536, "classes": 96, "depth": 96}),
    ],
)
def test_sizes_of_dreamer_are_those_published(size, values):
    found = dict(compose("agent=dreamer", f"size={size}").size)
    assert values.items() <= found.items() and (found["stoch"], found["layers"]) == (32, 3)


def test_the_smallest_dreamer_has_about_as_many_parameters_as_published(built):
    """0.7 million on 64x64 pictures with 5 actions."""
    loop = built("agent=dreamer", "env=pinpad", "size=1m", "replay.size=1_000")
    assert sum(loop.parts.agent.parts().values()) == pytest.approx(0.7e6, rel=0.05)


def test_every_size_says_the_same_widths():
    pages = {option: set(compose(f"size={option}").size) for option in options("size")}
    assert len(set(map(frozenset, pages.values()))) == 1


def test_the_published_director_is_what_its_paper_and_code_say():
    config = compose("experiment=director_paper", "hardware=cpu")
    agent, world, size = config.agent, config.world, config.size
    assert (agent.batch_size, agent.batch_length, agent.imag_horizon, agent.train_ratio) == (16, 64, 16, 64)
    assert (size.deter, size.units, size.stoch, size.classes, size.depth) == (1024, 1024, 32, 32, 64)
    assert (world.image_padding, world.image_sigmoid, world.head_units, world.reward_layers) == ("valid", True, 512, 4)
    assert (agent.goal_reward, agent.goal_on_reset, agent.long_step_reward) == ("renewed", "carried", "mean")
    assert (config.env.task, config.env.size, config.env.num_envs, config.env.length) == ("three", 64, 4, 2000)
    assert (agent.optimiser.eps, agent.optimiser.max_grad_norm, agent.optimiser.weight_decay) == (1e-6, 100.0, 0.01)


# Meanings


def printed(pages) -> dict[str, list[str]]:
    """Key -> every comment that --help prints behind it. `pages`: files, each with the key below which its own are."""
    found: dict[str, list[str]] = {}
    for path, below in pages:
        for key, _, comment in help._keys(path, below):
            found.setdefault(key, []).append(comment)
    return found


@pytest.mark.parametrize(("group", "option"), [pair for pair in PAGES if pair[0] not in ("experiment", *CHANGED)])
def test_every_key_of_an_option_has_its_meaning(group, option):
    keys = printed(help._pages(CONF / group / f"{option}.yaml"))
    assert keys
    assert [key for key, comments in keys.items() if not any(comments)] == []


@pytest.mark.parametrize("name", ["train", "evaluate", "verify", "dataset"])
def test_every_key_of_a_verb_has_its_meaning(name):
    keys = printed(help._pages(CONF / f"{name}.yaml"))
    unsaid = [key for key, comments in keys.items() if not any(comments)]
    assert unsaid == []


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.relative_to(CONF).as_posix())
def test_every_key_is_read_by_help(path):
    """What --help reads line by line is what YAML says."""
    content = yaml.safe_load(path.read_text(encoding="utf8")) or {}
    wanted = {
        name
        for name in leaves({k: v for k, v in content.items() if k != "defaults"})
        if not name.endswith(("_target_", "_partial_"))
    }
    assert set(printed([(path, "")])) == wanted


def leaves(tree: dict, prefix: str = ""):
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


@pytest.mark.parametrize("path", sorted(CONF.rglob("*.yaml")), ids=lambda path: path.relative_to(CONF).as_posix())
def test_no_page_has_a_key_twice(path):
    names = re.findall(r"^(\w+):", path.read_text(encoding="utf8"), re.MULTILINE)
    assert sorted(set(names)) == sorted(names)
