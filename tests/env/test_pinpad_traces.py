"""PinPad against episodes recorded from the public environments (../shared/data/README.md)."""

import gzip
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from hieros_repro.env.pinpad import PinPad, PinPadEasy
from tests.runs import ROOT

DATA = ROOT.parent / "shared" / "data"
FILES = ("pinpad_traces.json.gz", "pinpad_easy_traces.json.gz")


def recorded(name: str) -> list[dict]:
    path = Path(DATA, name)
    return json.loads(gzip.decompress(path.read_bytes())) if path.exists() else []


EPISODES = [episode for name in FILES for episode in recorded(name)]
NAMES = [f"{n}_{e['task']}_{e.get('reward_mode', 'pinpad')}" for n, e in enumerate(EPISODES)]

pytestmark = pytest.mark.skipif(not EPISODES, reason=f"the recorded episodes are not in {DATA}")


def made(episode: dict) -> PinPad | PinPadEasy:
    if "reward_mode" in episode:
        return PinPadEasy(episode["task"], episode["length"], reward_mode=episode["reward_mode"])
    return PinPad(episode["task"], episode["length"])


def replayed(episode: dict) -> dict[str, list]:
    """What our environment shows, in the records' form."""
    env, options = made(episode), {"spawns": episode["spawns"]}
    shown: dict[str, list] = {
        name: [] for name in ("rewards", "positions", "sequences", "countdowns", "is_first", "is_last", "image_sha256")
    }
    for tick, action in enumerate(episode["actions"]):
        if action < 0:
            image, reward, last = env.reset(seed=0, options=None if tick else options)[0], 0.0, False
        else:
            image, reward, terminated, last, _ = env.step(action)
            assert not terminated
        digest = hashlib.sha256(np.ascontiguousarray(image)).hexdigest()[:16]
        row = (reward, list(env.position), env.sequence, env.countdown, action < 0, last, digest)
        for name, value in zip(shown, row, strict=True):
            shown[name].append(value)
    return shown


def test_all_recorded_episodes_are_here():
    assert [len(recorded(name)) for name in FILES] == [18, 24]


@pytest.mark.parametrize("episode", EPISODES, ids=NAMES)
def test_a_recorded_episode_is_equal_in_every_step(episode):
    shown = replayed(episode)
    assert shown["rewards"] == pytest.approx(episode["rewards"], abs=1e-6)
    for name in shown.keys() - {"rewards"}:
        assert shown[name] == episode[name], name
