import json
import subprocess
import sys

import numpy as np
import pytest

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.env import atari
from hieros_repro.env.atari import Atari
from hieros_repro.env.base import Env
from hieros_repro.env.contract import EnvContract, drawn, episode
from hieros_repro.records import Space
from tests.runs import ROOT

pytest.importorskip("ale_py")
pytest.importorskip("cv2")

USUAL = {
    "size": 64,
    "gray": False,
    "action_repeat": 4,
    "sticky": 0.0,
    "noops": 0,
    "actions": "minimal",
    "life_loss": False,
    "length": None,
}
ACCOUNT = ("frames", "lives")


def made(task: str = "pong", **values) -> Atari:
    return Atari(task=task, **{**USUAL, **values})


class TestColour(EnvContract):
    accounts = ACCOUNT

    def make(self) -> Env:
        return made("seaquest", noops=30, length=40)


class TestGrayAndSticky(EnvContract):
    accounts = ACCOUNT

    def make(self) -> Env:
        return made("space_invaders", size=84, gray=True, sticky=0.25, actions="full", length=40)


class TestLifeLoss(EnvContract):
    """Random play loses a life of Breakout about every 40 actions."""

    accounts = ACCOUNT

    def make(self) -> Env:
        return made("breakout", sticky=0.25, noops=8, life_loss=True)

    def test_nothing_survives_an_episode(self):
        """But the game, if it was a life that was lost."""
        env = self.make()
        assert episode(env, 8, 400)[-1][2:] == (True, False)
        assert episode(env, 3, self.length) != episode(self.make(), 3, self.length)


# Pictures


def emulator(env: Atari):
    """Another emulator, at the start of the game that the environment shows after its first reset without no-ops."""
    ale = atari._emulator(env.task)
    ale.restoreState(ale.cloneState(include_rng=True))
    ale.reset_game()
    return ale


def area_weights(small: int, large: int) -> np.ndarray:
    """Row i: how much of each of `large` unit intervals lies in the i-th of `small` equal parts, as fractions of the part."""
    edges = np.arange(small + 1) * large / small
    begin, end = np.maximum(edges[:-1, None], np.arange(large)), np.minimum(edges[1:, None], np.arange(large) + 1)
    return np.maximum(end - begin, 0) * small / large


def area_mean(picture: np.ndarray, size: int) -> np.ndarray:
    rows, columns = area_weights(size, picture.shape[0]), area_weights(size, picture.shape[1])
    return np.moveaxis(rows @ np.moveaxis(picture.astype(float), 2, 0) @ columns.T, 0, 2)


def test_the_weights_of_an_area_are_its_parts():
    """5 onto 2: the middle pixel is shared."""
    assert area_weights(2, 5).tolist() == [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]]


@pytest.mark.parametrize(("size", "gray"), [(64, False), (84, True)])
def test_an_image_is_the_area_mean_of_the_maximum_of_the_last_two_frames(size, gray):
    env, between = made("asteroids", size=size, gray=gray), 0
    env.reset(0)
    ale = emulator(env)
    shoot = (lambda: ale.getScreenGrayscale()[..., None]) if gray else ale.getScreenRGB
    for _ in range(20):
        image = env.step(1)[0]["image"]
        frames = [(ale.act(1), shoot())[1] for _ in range(4)]
        expected = area_mean(np.maximum(frames[2], frames[3]), size)
        assert np.abs(image - expected).max() <= 0.5 + 1e-3
        between += np.abs(expected - area_mean(frames[3], size)).max() > 1
    assert between > 5  # Asteroids draws every second frame


def test_without_a_repeat_there_is_no_maximum():
    env = made("asteroids", action_repeat=1)
    env.reset(0)
    ale = emulator(env)
    for _ in range(4):
        ale.act(1)
        assert np.abs(env.step(1)[0]["image"] - area_mean(ale.getScreenRGB(), 64)).max() <= 0.5 + 1e-3


def test_a_picture_is_the_screen():
    env = made()
    env.reset(0)
    assert env.render().shape == (210, 160, 3)
    assert np.array_equal(env.render(), emulator(env).getScreenRGB())


# Actions


@pytest.mark.parametrize(
    ("task", "actions", "count"),
    [("pong", "minimal", 6), ("pong", "full", 18), ("breakout", "minimal", 4), ("freeway", "minimal", 3)],
)
def test_actions_are_those_of_the_game_or_all(task, actions, count):
    assert made(task, actions=actions).spaces.action == Space("discrete", (), sizes=(count,))


def test_actions_press_the_buttons_of_their_set():
    """Freeway's three are nothing, up and down: 0, 2 and 5 of all."""
    few, all_ = made("freeway"), made("freeway", actions="full")
    few.reset(0), all_.reset(0)
    for one, other in [(1, 2)] * 30 + [(2, 5)] * 10 + [(0, 0)] * 5:
        assert digest_tree(few.step(one)) == digest_tree(all_.step(other))


def test_rewards_of_an_actions_frames_are_summed():
    once, four = made("boxing", action_repeat=1), made("boxing")
    once.reset(0), four.reset(0)
    rewards = []
    for tick in range(150):
        action = drawn(once.spaces.action, tick)
        rewards.append(four.step(action)[1])
        assert rewards[-1] == sum(once.step(action)[1] for _ in range(4))
    assert any(rewards)


def test_a_game_begins_with_up_to_so_many_frames_without_action():
    env = made(noops=3)
    counts = []
    for seed in range(40):
        env.reset(seed)
        counts.append(env.ale.getEpisodeFrameNumber())
    assert set(counts) == {0, 1, 2, 3}


def test_a_sticky_console_keeps_the_button_of_the_frame_before():
    env = made("breakout", sticky=0.25)
    env.reset(5)
    ale = emulator(env)
    sticks = (Key(5)("world", "sticky", 0).uniform((1024,)) < 0.25).tolist()
    assert 200 < sum(sticks) < 312
    held, frame, changed = 0, 0, 0
    for tick in range(60):
        action = drawn(env.spaces.action, tick)
        env.step(action)
        for _ in range(4):
            changed += sticks[frame] and held != env._buttons[action]
            held = held if sticks[frame] else env._buttons[action]
            ale.act(held)
            frame += 1
        assert np.array_equal(env.render(), ale.getScreenRGB())
    assert changed > 20


def test_coins_fall_by_their_probability_for_ever():
    coins = atari._coins(Key(0)("world", "sticky"), 0.25)
    fallen = [next(coins) for _ in range(3 * atari.BLOCK)]
    assert abs(np.mean(fallen) - 0.25) < 0.03
    assert fallen[: atari.BLOCK] != fallen[atari.BLOCK : 2 * atari.BLOCK]


def test_a_console_that_always_sticks_never_hears_an_action():
    env, idle = made("breakout", sticky=1.0), made("breakout")
    env.reset(0), idle.reset(0)
    for tick in range(20):
        assert digest_tree(env.step(drawn(env.spaces.action, tick))) == digest_tree(idle.step(0))


# Ends


def test_a_limit_is_a_time_out():
    shown = episode(made(length=5), 0)
    assert [row[2:] for row in shown] == [(False, False)] * 5 + [(False, True)]


def lives_of_a_game(env: Atari, seed: int) -> list[tuple[float, int, dict]]:
    """Score, length and account of the episodes of a game; random play."""
    played, over = [], False
    while not over:
        env.reset(seed)
        score, ticks, ended = 0.0, 0, False
        while not ended:
            _, reward, ended, _ = env.step(drawn(env.spaces.action, ticks, len(played)))
            score, ticks = score + reward, ticks + 1
        played.append((score, ticks, env.account()))
        over = env.ale.game_over()
    return played


def test_a_life_lost_ends_an_episode_and_the_next_carries_the_game_on():
    env = made("breakout", life_loss=True)
    played = lives_of_a_game(env, 1)
    accounts = [account for *_, account in played]
    assert [account["lives"] for account in accounts] == [4, 3, 2, 1, 0]
    # The frames of the episode's actions, and of the one that carries the game on.
    assert [a["frames"] for a in accounts] == [4 * (n + (life > 0)) - _left(env, life) for life, (_, n, a) in enumerate(played)]
    assert ["game_score" in account for account in accounts] == [False] * 4 + [True]
    assert accounts[-1]["game_score"] == sum(score for score, *_ in played) > 0


def _left(env: Atari, life: int) -> int:
    """Frames of the last action that came after the end of the game, which the emulator does not count."""
    return -env.ale.getEpisodeFrameNumber() % 4 if life == 4 else 0


def test_a_game_that_is_over_is_followed_by_a_new_one():
    env = made("breakout", life_loss=True, noops=30)
    lives_of_a_game(env, 1)
    assert digest_tree(env.reset(7)) == digest_tree(made("breakout", noops=30).reset(7))


def test_no_lives_left_is_not_the_end_of_a_game():
    """Bank Heist goes on without spare cars, and some games show 0 for a few frames before they are over."""
    accounts = [account for *_, account in lives_of_a_game(made("bank_heist", life_loss=True), 1)]
    assert [account["lives"] for account in accounts] == [3, 2, 1, 0]


@pytest.mark.parametrize("ticks", [0, 2])
def test_an_episode_given_up_in_a_later_life_is_followed_by_a_new_game(ticks):
    env = made("breakout", life_loss=True, noops=30)
    episode(env, 1, 400)
    episode(env, 1, ticks)
    assert digest_tree(env.reset(7)) == digest_tree(made("breakout", noops=30).reset(7))


@pytest.mark.parametrize("more", [0, 1])
def test_a_game_that_has_timed_out_is_not_carried_on(more):
    """If it was the last action before the limit that lost a life, or if the limit is the action that would carry it on."""
    ends = lives_of_a_game(made("breakout", life_loss=True), 1)[0][1]
    env = made("breakout", life_loss=True, length=ends + more)
    env.reset(1)
    flags = [env.step(drawn(env.spaces.action, tick))[2:] for tick in range(ends)]
    assert flags == [(False, False)] * (ends - 1) + [(True, False)]
    assert digest_tree(env.reset(7)) == digest_tree(made("breakout").reset(7))


def test_without_life_loss_an_episode_is_a_game():
    env = made("breakout")
    [(_, _, account)] = lives_of_a_game(env, 1)
    assert account == {"frames": env.ale.getEpisodeFrameNumber(), "lives": 0}


def test_evaluation_plays_whole_games():
    assert Atari.evaluation == {"life_loss": False}


# State

CONTINUES = """
import json, sys
import numpy as np
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.env.contract import drawn
from tests.env.test_atari import made

values, state, ticks = json.load(sys.stdin)
env = made(**values)
shown = [digest_tree(env.restore(0, {**state, "played": np.array(state["played"], np.uint8)}))]
for tick in range(ticks):
    obs, *rest = env.step(drawn(env.spaces.action, tick, 9))
    shown.append([digest_tree(obs), *rest])
    if rest[1] or rest[2]:
        shown.append(digest_tree(env.reset(tick)))
print(json.dumps(shown))
"""


def test_a_state_comes_back_in_a_fresh_process():
    """Two episodes old, in the second life of a game whose seed is not that of its episode, through its end and beyond."""
    values = {"task": "breakout", "sticky": 0.25, "noops": 30, "life_loss": True, "length": 250}
    env = made(**values)
    lives_of_a_game(env, 1)
    episode(env, 2, 400)
    episode(env, 3, 10)
    state = env.snapshot()
    assert state["seed"] == 2 and atari.GOES_ON in state["played"]
    last = env._see()
    shown = [digest_tree(last)]
    for tick in range(250):
        obs, *rest = env.step(drawn(env.spaces.action, tick, 9))
        shown.append([digest_tree(obs), *rest])
        if rest[1] or rest[2]:
            shown.append(digest_tree(env.reset(tick)))
    assert len(shown) > 253
    sent = json.dumps([values, {**state, "played": state["played"].tolist()}, 250])
    found = subprocess.run([sys.executable, "-c", CONTINUES], input=sent, capture_output=True, text=True, cwd=ROOT, check=True)
    assert json.loads(found.stdout) == shown


def test_a_state_between_two_lives_comes_back():
    env, other = made("breakout", life_loss=True), made("breakout", life_loss=True)
    assert episode(env, 1, 400)[-1][2:] == (True, False)
    other.restore(1, env.snapshot())
    assert other.account() == env.account()
    assert episode(other, 2, 400) == episode(env, 2, 400)


def test_a_snapshot_is_not_changed_by_what_follows():
    env = made()
    episode(env, 0, 3)
    state = env.snapshot()
    env.step(1)
    assert len(state["played"]) == 3


@pytest.mark.parametrize("task", ["amidar", "pitfall", "video_chess", "kaboom"])
def test_a_game_starts_as_in_a_fresh_emulator_whatever_was_played_before(task):
    """To the last byte of memory and generators, also where reset_game() alone would not: it keeps both."""
    env, fresh = made(task), made(task)
    episode(env, 3, 50), env.reset(0), fresh.reset(0)
    assert env.ale.cloneState(include_rng=True).serialize() == fresh.ale.cloneState(include_rng=True).serialize()
    env.ale.reset_game()
    assert env.ale.cloneState(include_rng=True).serialize() != fresh.ale.cloneState(include_rng=True).serialize()


# Games


@pytest.mark.parametrize("task", ["ms_pacman", "MsPacman", "Ms. Pac-Man", "MS PACMAN"])
def test_a_game_may_be_spelt_in_any_way(task):
    assert atari._find(task) == "ms_pacman"


def faults(task: str) -> list[tuple[str, str]]:
    return [tuple(fault) for fault in Atari.check(task=task, size=64)]


def test_a_known_game_has_no_fault():
    assert faults("Breakout") == []


def test_an_unknown_game_is_named_with_the_nearest():
    [(key, problem)] = faults("brakeout")
    assert key == "task"
    assert problem.startswith("'brakeout' is not one of the ") and "nearest: breakout" in problem
    with pytest.raises(ValueError, match="nearest: breakout"):
        made("brakeout")


def test_a_game_like_no_other_has_no_nearest():
    assert faults("qqqq")[0][1].endswith("nearest: none")


def test_a_game_for_two_only_is_refused():
    """Loading it would end the process."""
    [(_, problem)] = faults("combat")
    assert "'combat' is not one of the" in problem


@pytest.mark.parametrize("missing", ["ale_py", "cv2"])
def test_a_missing_package_is_one_fault_with_what_to_install(missing, monkeypatch):
    found = atari.importlib.util.find_spec
    monkeypatch.setattr(atari.importlib.util, "find_spec", lambda name: None if name == missing else found(name))
    assert faults("brakeout") == [("task", "Atari needs the extra [atari]: pip install 'hieros-repro[atari]'")]


def test_the_benchmark_has_26_games_with_their_scores():
    games = atari.benchmark()
    assert len(games) == 26
    assert all(set(scores) == {"random", "human"} and scores["human"] > scores["random"] for scores in games.values())
    assert Atari.references(task="Pong", size=64) == {"random": -20.7, "human": 14.6}
    assert Atari.references(task="up_n_down") == {"random": 533.4, "human": 11693.2}
    assert Atari.references(task="adventure") == {}


def plays(task: str) -> None:
    """Some screens stay black for the first actions."""
    env = made(task, noops=30)
    images = [env.reset(0)["image"], *(env.step(drawn(env.spaces.action, tick))[0]["image"] for tick in range(12))]
    assert images[0].shape == (64, 64, 3)
    assert any(np.ptp(image) > 0 for image in images)


def test_every_game_of_the_benchmark_can_be_played():
    for task in atari.benchmark():
        plays(task)


@pytest.mark.slow
def test_every_game_can_be_played():
    assert len(atari.games()) >= 104
    for task in atari.games():
        plays(task)
