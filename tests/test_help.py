import re
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from hieros_repro.help import page
from tests.runs import ROOT, command, compose, environment

CHOICES = [
    ("train",),
    ("train", "agent=random"),
    ("train", "agent=director", "size=paper"),
    ("train", "agent=dreamer"),
    ("train", "env=gymnasium", "env.id=Pendulum-v1"),
    ("train", "log=wandb", "determinism=off", "hardware=gpu", "size=small"),
    ("verify",),
    ("evaluate",),
]


def leaves(node, prefix=""):
    """Key paths of a configuration's values, as a user types them."""
    for key in node:
        path = f"{prefix}{key}"
        child = node._get_node(key)
        if OmegaConf.is_dict(child) and not child._is_none() and len(child):
            yield from leaves(child, f"{path}.")
        elif key not in ("_target_", "_partial_") and child != {}:
            yield path


@pytest.mark.parametrize("words", CHOICES, ids=" ".join)
def test_every_key_has_a_line_with_its_meaning(words):
    name, *chosen = words
    text = page(name, "", [o for o in chosen if "." not in o])
    keys = list(leaves(compose(*chosen, name=name)))
    assert len(keys) >= 8
    without = [key for key in keys if not re.search(rf"^  {re.escape(key)} = (\[.*?\]|\S+) +\S", text, re.MULTILINE)]
    assert without == []


def test_groups_are_listed_with_the_chosen_option_marked():
    text = page("train", "", ["agent=random", "determinism=off"])
    assert re.search(r"^  agent +director  dqn  dreamer  hieros  hieros_compat  ppo  \[random\]", text, re.MULTILINE)
    assert re.search(r"^  determinism +\[off\]  strict  warn$", text, re.MULTILINE)
    assert "_vector" not in text


@pytest.mark.parametrize("verb", ["train", "verify", "dataset"])
def test_groups_that_only_some_agents_have_are_listed_with_those(verb):
    agents = "director, dreamer, hieros, hieros_compat"
    text = page(verb, "", ["agent=random"])
    assert re.search(rf"^  world +rssm  rssm_block  s5    \(of agent={agents}\)$", text, re.MULTILINE)
    assert re.search(r"^  replay .*  uniform    \(of agent=director, dqn, ", text, re.MULTILINE)
    assert re.search(r"^  world +rssm  \[rssm_block\]  s5$", page(verb, "", ["agent=dreamer"]), re.MULTILINE)


def test_every_group_of_a_verb_is_listed():
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {"hydra", "__pycache__"}
    for verb in ("train", "verify"):
        assert groups == set(re.findall(r"^  (\w+) +(?:\[?[\w-]+\]?  )+", page(verb, "", []), re.MULTILINE))
    assert "Groups" not in page("evaluate", "", [])  # it has none


@pytest.mark.parametrize(
    "words, marked, width",
    [
        ((), r"\[cpu\]  gpu", "128"),
        (("hardware=gpu",), r"cpu  \[gpu\]", "256"),
        (("hardware=gpu", "size=paper"), r"cpu  gpu  nano  \[paper\]", "1024"),
    ],
)
def test_the_size_follows_the_hardware_unless_it_is_chosen(words, marked, width):
    text = page("train", "", list(words))
    assert re.search(rf"^  size .*  {marked}", text, re.MULTILINE)
    assert f"  size.deter = {width} " in text


def test_the_levels_of_a_hierarchy_have_their_keys_below_their_names():
    text = page("train", "", ["agent=director"])
    for key in ("worker.discount = 0.99", "worker.critic.bootstrap = slow", "manager.entropy.high = 100.0"):
        assert f"  agent.levels.{key} " in text
    assert "  agent.levels.manager.rewards.novelty = 0.1 " in text and "  world.cell = gru " in text
    assert "_partial_" not in text and "_director_level" not in text


def test_what_levels_have_in_common_is_shown_for_each():
    """In the file some levels are said to be like others (an anchor and its aliases)."""
    text = page("train", "", ["agent=hieros"])
    for level in ("level_0", "level_1", "level_2"):
        assert f"  agent.levels.{level}.rewards.goal = " in text and f"  agent.levels.{level}.discount = 0.997 " in text
    assert "agent.levels.level_3.rewards.goal" not in text and "agent.levels.rewards" not in text
    assert not re.search(r" = [&*]", text)


def test_help_shows_the_keys_of_the_groups_that_were_chosen():
    assert "  agent.hold = 1 " in page("train", "", ["agent=random"])
    assert "  agent.clip = 0.2 " in page("train", "", ["agent=ppo"])


@pytest.mark.parametrize("verb", ["train", "evaluate", "verify"])
def test_help_answers_without_importing_torch(tmp_path, verb):
    asked = [sys.executable, "-X", "importtime", *command(verb, "--help")[1:]]
    done = subprocess.run(asked, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert done.returncode == 0
    assert "hydra" in imported
    assert imported & {"torch", "gymnasium", "scipy"} == set()
    assert f"python -m hieros_repro.{verb}" in done.stdout


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("hieros-train env=", {"env=cartpole", "env=gymnasium"}),
        ("hieros-train agent=", {"agent=director", "agent=dqn", "agent=dreamer", "agent=ppo", "agent=random"}),
        ("hieros-train agent.learn", {"agent.learning_rate="}),
    ],
)
def test_tab_completes_options_and_keys_but_none_that_is_hidden(tmp_path, line, offered):
    done = subprocess.run(
        command("train", "-sc", "query=bash"), cwd=tmp_path, env=environment(COMP_LINE=line, COMP_POINT=str(len(line))),
        capture_output=True, text=True,
    )  # fmt: skip
    assert offered <= set(done.stdout.split())
    assert "=_" not in done.stdout


def test_what_an_agent_chooses_in_place_of_its_base_is_marked():
    marked = next(line for line in page("train", "", ["agent=hieros_compat"]).splitlines() if line.startswith("  replay "))
    assert "[efficient_time_balanced_capacity]" in marked and "[efficient_time_balanced]" not in marked
