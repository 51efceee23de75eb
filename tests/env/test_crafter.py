import os
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest

pytest.importorskip("crafter")

import crafter

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.env.base import Env
from hieros_repro.env.contract import EnvContract, drawn
from hieros_repro.env.crafter import Crafter, Ordered, _hasty_noise
from hieros_repro.records import Space
from tests.runs import ROOT

ACTIONS = crafter.constants.actions
SLEEP = ACTIONS.index("sleep")
ACHIEVEMENTS = tuple(f"achievement_{name}" for name in crafter.constants.achievements)


def made(reward: bool = True, size: int = 27, length: int | None = 40) -> Crafter:
    return Crafter(reward=reward, size=size, length=length)


class TestCrafter(EnvContract):
    accounts = ACHIEVEMENTS

    def make(self) -> Env:
        return made()


# The same worlds as the package's


def raw(seed: int, size: int) -> "crafter.Env":
    """The package's own environment; its sets are ordered too, or it would not be a function of its seed."""

    class World(crafter.engine.World):
        def reset(self, seed=None):
            super().reset(seed)
            self._chunks = defaultdict(Ordered)

    env = crafter.Env(size=(size, size), seed=seed)
    env._world.__class__ = World
    return env


@pytest.mark.slow
@pytest.mark.parametrize("size", [27, 64])
def test_an_episode_is_the_first_of_the_package_with_that_seed_day_and_night_asleep_and_awake(size):
    for seed in (3, 4):
        theirs, mine = raw(seed, size), made(size=size, length=None)
        assert np.array_equal(theirs.reset(), mine.reset(seed)["image"])
        slept = dark = 0
        for tick in range(700):
            action = SLEEP if 250 < tick < 300 else drawn(mine.spaces.action, tick, seed)
            image, reward, over, _ = theirs.step(action)
            obs, mine_reward, terminated, truncated = mine.step(action)
            assert np.array_equal(image, obs["image"]), tick
            assert (reward, over) == (mine_reward, terminated or truncated)
            for player in (theirs._player, mine.env._player):
                player.inventory.update(health=9, food=9, drink=9)
            slept, dark = slept + theirs._player.sleeping, dark + (theirs._world.daylight < 0.5)
        assert slept > 10 and dark > 50


def test_the_ground_beyond_the_edge_of_the_map_is_drawn_as_the_package_does():
    env = made(size=63)
    env.reset(0)
    view, player, unit = env.env._local_view, env.env._player, np.array([7, 7])
    for corner in [(0, 0), (63, 0), (0, 63), (63, 63), (2, 30), (30, 61)]:
        player.pos = np.array(corner)
        assert np.array_equal(view(player, unit), view.view(player, unit))


def test_noise_from_lists_is_the_noise_from_arrays():
    from opensimplex import OpenSimplex, internals

    points = [(x / 3 - 7, y / 8 + 20, z) for x in range(15) for y in range(15) for z in (0, 3, 8)]
    with _hasty_noise():
        simplex = OpenSimplex(seed=5)
        assert isinstance(simplex._perm, list) and isinstance(internals.GRADIENTS3, list)
        shown = [float(simplex.noise3(*point)).hex() for point in points]
    simplex = OpenSimplex(seed=5)
    assert isinstance(simplex._perm, np.ndarray) and isinstance(internals.GRADIENTS3, np.ndarray)  # it has left no trace
    assert [float(simplex.noise3(*point)).hex() for point in points] == shown
    assert len(set(shown)) > 600


# Determinism

PLAY = """
import sys
import numpy as np
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.env.crafter import Crafter
from hieros_repro.env.contract import drawn
junk = [object() for _ in range(int(sys.argv[1]))]  # objects lie elsewhere in memory
env, shown = Crafter(reward=True, size=18, length=None), []
env.reset(1)
for tick in range(int(sys.argv[2])):
    obs, reward, *_ = env.step(drawn(env.spaces.action, tick))
    env.env._player.inventory.update(health=9, food=9, drink=9)
    shown += [obs["image"], reward]
print(digest_tree(shown))
"""


def played(hash_seed: str, junk: int, steps: int) -> str:
    return subprocess.run(
        [sys.executable, "-c", PLAY, str(junk), str(steps)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    ).stdout


@pytest.mark.slow
def test_it_is_the_same_in_every_process_whatever_the_hash_seed():
    assert len({played(hash_seed, junk, 2000) for hash_seed, junk in (("random", 0), ("random", 1000), ("0", 12345))}) == 1


def test_ordered_sets_are_in_the_order_of_arrival():
    members = Ordered()
    for member in (3, 1, 2, 1):
        members.add(member)
    members.remove(3)
    members.add(3)
    assert list(members) == [1, 2, 3]
    assert len(members) == 3
    with pytest.raises(KeyError):
        members.remove(7)


def test_a_picture_for_people_changes_nothing_that_follows():
    """Nights are drawn with the generator that moves the creatures."""
    env, other = made(length=None), made(length=None)
    for each in (env, other):
        each.reset(2)
        each.env._step = 290  # the middle of the night
    for tick in range(5):
        assert env.render().shape == (576, 576, 3)
        assert digest_tree(env.step(drawn(env.spaces.action, tick))[0]) == digest_tree(
            other.step(drawn(env.spaces.action, tick))[0]
        )


def test_what_is_restored_at_night_shows_what_was_shown():
    env, other = made(length=None), made(length=None)
    env.reset(2)
    env.env._step = 290
    shown = env.step(0)[0]["image"]
    assert np.array_equal(other.restore(2, env.snapshot())["image"], shown)
    assert np.array_equal(other.step(0)[0]["image"], env.step(0)[0]["image"])


def test_restoring_removes_what_has_happened_since():
    env = made(length=None)
    env.reset(0)
    snapshot = env.snapshot()
    before = [digest_tree(env.step(drawn(env.spaces.action, tick))[0]) for tick in range(30)]
    env.restore(0, snapshot)
    assert [digest_tree(env.step(drawn(env.spaces.action, tick))[0]) for tick in range(30)] == before


# Rules


def test_there_are_17_actions_and_22_achievements():
    assert made(size=64).spaces.action == Space("discrete", (), sizes=(17,))
    assert made(size=64).spaces.observation == {"image": Space("image", (64, 64, 3))}
    assert len(ACHIEVEMENTS) == 22


def test_the_limit_is_a_time_out():
    env = made(length=3)
    env.reset(0)
    assert [env.step(0)[2:] for _ in range(3)] == [(False, False), (False, False), (False, True)]


def test_death_is_a_termination_even_at_the_limit():
    env = made(length=2)
    env.reset(0)
    env.step(0)
    env.env._player.health = 0
    assert env.step(0)[1:] == (pytest.approx(-0.9), True, False)


def test_the_default_limit_is_ten_thousand_steps():
    env = made(length=None)
    env.reset(0)
    env.env._step = 9998
    assert [env.step(0)[3] for _ in range(2)] == [False, True]


@pytest.mark.parametrize(("reward", "paid"), [(True, 1.0), (False, 0.0)])
def test_an_achievement_pays_once_and_is_told_at_the_end(reward, paid):
    env = made(reward=reward, length=4)
    env.reset(0)
    env.env._player.inventory["sapling"] = 2
    place, here = ACTIONS.index("place_plant"), env.env._player.pos
    env.env._player.facing = (0, 1)
    for facing in ((0, 1), (1, 0)):
        env.world[here + np.array(facing)] = "grass"
    rewards = [env.step(place)[1]]
    env.env._player.facing = (1, 0)
    rewards.append(env.step(place)[1])
    assert rewards == [paid, 0.0]
    assert env.env._player.achievements["place_plant"] == 2
    account = env.account()
    assert {name for name, unlocked in account.items() if unlocked} == {"achievement_place_plant"}
    assert account["achievement_place_plant"] == 1


# Checks


def faults(size: int = 64) -> list[tuple[str, str]]:
    return [tuple(fault) for fault in Crafter.check(reward=True, size=size, length=None)]


def test_the_smallest_picture_has_two_pixels_a_tile():
    assert faults(18) == []
    assert faults(17) == [("size", "17 is too small: a picture shows 9 x 9 tiles of at least 2 x 2 pixels")]
    assert np.ptp(made(size=18).reset(0)["image"]) > 0


def test_a_missing_package_is_one_fault_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert faults() == [("_target_", "Crafter needs the extra [crafter]: pip install 'hieros-repro[crafter]'")]
