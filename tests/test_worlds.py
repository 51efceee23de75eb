"""Every environment inside a PPO run: killed with SIGKILL in the middle of an episode, it comes back to the same bits."""

import os
import signal
import subprocess
import time

import pytest

from hieros_repro.run import checkpoint
from tests.checking import mostly_slow
from tests.runs import ROOT, command, environment, facts, process, run, short, unequal_files

WORLDS = {  # overrides, and what must be installed
    "pinpad": (("env=pinpad", "env.num_envs=8"), None),
    "pinpad_native_grid": (("env=pinpad", "env.task=three_small", "env.size=16", "env.length=90"), None),
    "pinpad_easy": (("env=pinpad_easy", "env.reward_mode=decaying"), None),
    "atari": (("env=atari", "env.task=breakout"), "ale_py"),
    "atari_lives": (("env=atari100k", "env.task=breakout", "env.life_loss=true", "env.num_envs=2"), "ale_py"),
    "dmc_proprio": (("env=dmc", "env.observe=proprio", "env.task=reacher_easy"), "dm_control"),
    "dmc_vision": (("env=dmc",), "dm_control"),
    "loconav": (("env=loconav", "env.observe=proprio"), "dm_control"),
    "crafter": (("env=crafter",), "crafter"),
    "minigrid": (("env=minigrid", "env.id=MiniGrid-DoorKey-5x5-v0"), "minigrid"),
    "dummy": (("env=dummy", "env.task=continuous"), None),
    "gymnasium": (("env=gymnasium", "env.id=Acrobot-v1"), None),
    "in_worker_processes": (("env=minigrid", "env.processes=2"), "minigrid"),
}
STEPS = ("run.steps=240", "run.checkpoint_every=40", "run.log_every=60", "run.eval_every=0", "run.final_episodes=0")


def overrides(name: str) -> tuple[str, ...]:
    chosen, needed = WORLDS[name]
    if needed:
        pytest.importorskip(needed)
    return (*STEPS, *chosen, "agent.image_depth=4")


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("name", mostly_slow(WORLDS, "pinpad_native_grid"))
def test_killed_in_mid_episode_it_comes_back(name, tmp_path):
    chosen = overrides(name)
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    run(whole, *chosen)
    kill_after_a_checkpoint(short(pieces, *chosen), pieces)
    newest = checkpoint.newest(pieces / "checkpoints", print)
    parts, _ = checkpoint.load(pieces / "checkpoints" / f"step_{newest}")
    assert max(parts["env"]["envs"]["lengths"]) > 0, "no environment was in the middle of an episode"
    done = process("train", *short(pieces, *chosen), "resume=auto", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert facts(pieces)["restarts"] == 1
    assert unequal_files(whole, pieces) == []
    assert facts(whole)["digests"] == facts(pieces)["digests"]


def kill_after_a_checkpoint(arguments: list[str], folder) -> None:
    """SIGKILL as soon as there is a checkpoint, and while the run is under way."""
    shell = environment(PYTHONPATH=str(ROOT))
    running = subprocess.Popen(command("train", *arguments), cwd=folder.parent, env=shell, start_new_session=True)
    try:
        while not checkpoint.steps(folder / "checkpoints"):
            assert running.poll() is None, "it ended before it could be killed"
            time.sleep(0.005)
    finally:
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
