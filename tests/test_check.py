import configparser
import math
import pickle
from collections.abc import Mapping
from typing import Annotated, Literal

import pytest

from hieros_repro.check import EXTRAS, check, describe, fits, missing_module, nearest
from hieros_repro.records import Between, ConfigError, Count, Fault, Fraction, NonNegative, Positive
from tests.runs import ROOT, compose


def faults(*overrides: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        check(compose(*overrides))
    return {fault.key: fault.problem for fault in caught.value.faults}


def test_the_default_configuration_has_no_fault():
    assert check(compose())["run"]["steps"] == 100_000


def test_every_kind_of_fault_is_told_at_once_with_their_number():
    with pytest.raises(ConfigError) as caught:
        check(
            compose(
                "+agent.learning_rat=0.1",  # unknown
                "agent.epochs=ten",  # wrong type
                "~agent.clip",  # missing
                "agent.discount=1.5",  # out of range
                "agent.activation=tahn",  # unknown option
                "replay._target_=os.system",  # outside the allowlist
                "plugins=[surely_not_installed]",
                "env.id=CartPol-v1",  # what only the environment knows
                "+nonsense=1",
                "run.horizon=???",
            )
        )
    heading, *lines = str(caught.value).splitlines()
    assert heading == "the configuration has 10 faults:"
    assert len(lines) == 10
    expected = [
        "  agent.learning_rat: unknown key; did you mean learning_rate?",
        "  agent.epochs: 'ten' is not allowed; it must be an integer at least 1",
        "  agent.clip: missing; it must be a number at least 0",
        "  agent.discount: 1.5 is not allowed; it must be a number between 0 and 1",
        "  agent.activation: 'tahn' is not allowed; it must be one of tanh, relu, silu, elu; did you mean tanh?",
        "  replay._target_: 'os.system' is not allowed; only hieros_repro.*, surely_not_installed.*; ",
        "  plugins: 'surely_not_installed' cannot be imported: No module named 'surely_not_installed'",
        "  env.id: 'CartPol-v1' is not registered with Gymnasium; nearest: CartPole-v1",
        "  nonsense: unknown key",
        "  run.horizon: a value is needed and has no default",
    ]
    for line in expected:
        assert any(found.startswith(line) for found in lines), line


def test_one_fault_is_said_in_the_singular():
    with pytest.raises(ConfigError, match="has 1 fault:"):
        check(compose("seed=-1"))


@pytest.mark.parametrize(
    ("override", "key", "problem"),
    [
        ("seed=1.5", "seed", "1.5 is not allowed; it must be an integer between 0 and 2147483647"),
        ("seed=2147483648", "seed", "2147483648 is not allowed"),
        ("seed=true", "seed", "true is not allowed"),
        ("seed=null", "seed", "null is not allowed"),
        ("resume_numerics=refus", "resume_numerics", "did you mean refuse?"),
        ("agent.normalise_advantage=1", "agent.normalise_advantage", "1 is not allowed; it must be true or false"),
        ("agent.hidden=64", "agent.hidden", "64 is not allowed; it must be a list, each item an integer at least 1"),
        ("agent.hidden=[64,0]", "agent.hidden", "[64, 0] is not allowed"),
        ("agent.max_grad_norm=much", "agent.max_grad_norm", "it must be a number at least 0 or null"),
        ("env.kwargs=3", "env.kwargs", "it must be a mapping"),
        ("run.dir=3", "run.dir", "it must be a text or null"),
        ("hardware.device=cdua", "hardware.device", "must be one of cpu, cuda, tpu; did you mean cuda?"),
        ("determinism.algorithms=strict", "determinism.algorithms", "must be one of error, warn, off"),
        ("run.video_fps=500", "run.video_fps", "it must be an integer between 1 and 120"),
        ("sweep.margin=0", "sweep.margin", "it must be a number at least 1e-12 or null"),
        ("sweep.margin=inf", "sweep.margin", "inf is not allowed; it must be a finite number"),
        ("sweep.cv_tolerance=-0.1", "sweep.cv_tolerance", "it must be a number at least 0 or null"),
        ("run=null", "run", "missing: a group with a _target_ is needed"),
        ("env=gymnasium", "env.id", "a value is needed and has no default"),
        ("agent._target_=hieros_repro.agent.ppo.PP0", "agent._target_", "has no 'PP0'; did you mean PPO?"),
        (
            "agent._target_=hieros_repro.agent.nothing.PPO",
            "agent._target_",
            "'hieros_repro.agent.nothing', which is not installed",
        ),
        ("agent._target_=hieros_repro_evil.PPO", "agent._target_", "is not allowed; only hieros_repro.*"),
        ("agent._target_=builtins.eval", "agent._target_", "is not allowed; only hieros_repro.*"),
        ("agent.hidden=${nowhere}", "agent.hidden", "nowhere"),
    ],
)
def test_a_wrong_value_is_told_with_what_is_allowed(override, key, problem):
    found = faults(override)
    assert set(found) == {key}
    assert problem in found[key]


@pytest.mark.parametrize(
    ("target", "problem"),
    [("hieros_repro.agent.ppo.np", "is not a class or a function"), ("3", "3 is not allowed; it must be a text")],
)
def test_a_target_that_cannot_be_built_is_a_fault(target, problem):
    assert problem in faults(f"agent._target_={target}")["agent._target_"]


def test_a_class_of_another_group_does_not_take_this_ones_keys():
    found = faults("agent._target_=hieros_repro.env.gymnasium.Gymnasium")
    assert found["agent.hidden"].startswith("unknown key")
    assert found["agent.id"] == "missing; it must be a text"


@pytest.mark.parametrize(
    "override",
    [
        "agent.learning_rate=1",  # an integer where a number is meant
        "agent.max_grad_norm=null",
        "agent.value_clip=0.2",
        "run.horizon=10",
        "agent.hidden=[]",
        "resume=auto",
        "seed=0",
        "env.length=5",
    ],
)
def test_a_right_value_is_accepted(override):
    check(compose(override))


def test_values_are_returned_resolved_and_plain():
    plain = check(compose("size=small"))
    assert plain["agent"]["hidden"] == [256, 256]
    assert plain["agent"]["final_learning_rate"] == plain["agent"]["learning_rate"] == 3e-4
    assert type(plain["agent"]["hidden"]) is list


def test_a_plugin_extends_what_may_be_named(tmp_path, monkeypatch):
    (tmp_path / "my_plugin.py").write_text(
        "from hieros_repro.agent.chance import Chance\nclass Mine(Chance):\n    def check(hold):\n        return []\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "agent._target_" in faults("agent=random", "agent._target_=my_plugin.Mine")
    check(compose("agent=random", "+replay=rollout", "agent._target_=my_plugin.Mine", "plugins=[my_plugin]"))


def test_a_replay_that_the_agent_cannot_use_is_a_fault(tmp_path, monkeypatch):
    (tmp_path / "other_replay.py").write_text(
        "from hieros_repro.replay.rollout import Rollout\nclass Odd(Rollout):\n    kind = 'odd'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = faults("plugins=[other_replay]", "replay._target_=other_replay.Odd")
    assert found == {"replay": "a odd replay cannot serve PPO, which learns from: rollout"}


def test_the_faults_of_a_configuration_cross_process_borders():
    error = ConfigError([Fault("a.b", "wrong"), Fault("c", "missing")])
    copied = pickle.loads(pickle.dumps(error))
    assert (str(copied), copied.faults) == (str(error), error.faults)


# Types


@pytest.mark.parametrize(
    ("value", "annotation", "expected"),
    [
        (1, int, True),
        (True, int, False),
        (1.0, int, False),
        (1, float, True),
        (True, float, False),
        ("1", float, False),
        (True, bool, True),
        (1, bool, False),
        (None, int | None, True),
        (None, int, False),
        ("a", Literal["a", "b"], True),
        ("c", Literal["a", "b"], False),
        (True, Literal[1], False),
        ([1, 2], list[Count], True),
        ([1, -2], list[Count], False),
        ((1, 2), list[int], False),
        ({"a": 1}, dict[str, int], True),
        ({"a": "x"}, Mapping[str, int], False),
        (0, Count, False),
        (1, Count, True),
        (1, Fraction, True),
        (1.0001, Fraction, False),
        (-0.0, NonNegative, True),
        (0.0, Positive, False),
        (math.nan, NonNegative, False),
        (5, Annotated[int, Between(None, 4)], False),
    ],
)
def test_a_value_fits_its_annotation_or_not(value, annotation, expected):
    assert fits(value, annotation) is expected


@pytest.mark.parametrize(
    ("annotation", "said"),
    [
        (Count | None, "an integer at least 1 or null"),
        (Fraction, "a number between 0 and 1"),
        (Annotated[float, Between(None, 3)], "a number at most 3"),
        (Literal["a", "b"], "one of a, b"),
        (list[str], "a list, each item a text"),
        (dict[str, int], "a mapping"),
        (bool, "true or false"),
    ],
)
def test_annotations_are_said_as_people_say_them(annotation, said):
    assert describe(annotation) == said


REPLAY = ("env.num_envs=2", "replay.min_size=1")


@pytest.mark.parametrize(
    ("typed", "key", "problem"),
    [
        (
            ("agent=hieros", "agent.replay_context=1"),
            "agent.replay_context",
            "1: world is S5, which keeps no states in a replay",
        ),
        (
            ("agent=dreamer", "world=s5"),
            "agent.replay_context",
            "1: world is S5, which keeps no states in a replay; use 0, or ",
        ),
        (("agent=dqn", "agent.n_step=3", "replay.size=6", *REPLAY), "replay.size", "6: 3 steps of each of 2 environments are "),
        (
            ("agent=hieros", "agent.batch_length=8", "replay.size=14", *REPLAY),
            "replay.size",
            "one window of 8; it must be at l",
        ),
        (
            ("agent=dreamer", "agent.batch_length=8", "replay.size=16", *REPLAY),
            "replay.size",
            "one window of 9; it must be at ",
        ),
    ],
)
def test_what_an_agent_cannot_learn_from_is_a_fault(typed, key, problem):
    assert problem in faults("env=dummy", *typed)[key]


@pytest.mark.parametrize(
    "typed",
    [
        ("agent=hieros", "agent.replay_context=1", "world=rssm"),
        ("agent=dqn", "agent.n_step=3", "replay.size=7", *REPLAY),
        ("agent=dreamer", "agent.batch_length=8", "replay.size=17", *REPLAY),
    ],
)
def test_what_it_just_can_is_none(typed):
    assert check(compose("env=dummy", *typed))


def test_the_nearest_name_is_offered_only_if_there_is_one():
    assert nearest("learning_rat", ["clip", "learning_rate"]) == "; did you mean learning_rate?"
    assert nearest("zzz", ["clip", "learning_rate"]) == ""


@pytest.mark.parametrize(("module", "extra"), [("ale_py", "atari"), ("dm_control.suite", "dmc"), ("torch_tpu", "tpu")])
def test_a_missing_package_is_told_with_the_extra_that_installs_it(module, extra):
    assert missing_module(module, "env=x") == f"env=x needs the extra [{extra}]: pip install 'hieros-repro[{extra}]'"


def test_a_missing_package_of_no_extra_is_told_by_name():
    assert missing_module("foo.bar", "env=x") == "env=x needs the module 'foo.bar', which is not installed"


def test_every_extra_that_is_named_exists():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    assert set(EXTRAS.values()) <= set(setup["options.extras_require"])


def test_a_wrong_item_of_a_mapping_is_named():
    with pytest.raises(ConfigError) as error:
        check(compose("agent=director", "env=pinpad", "agent.levels.worker.rewards.goal=abc"))
    assert str(error.value).splitlines()[1:] == [
        "  agent.levels.worker.rewards.goal: 'abc' is not allowed; it must be a number at least 0"
    ]
