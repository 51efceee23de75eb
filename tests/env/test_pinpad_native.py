"""Many PinPads at once against one after the other."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.env.base import Batch, Past, Serial, Slots
from hieros_repro.env.pinpad import adapter
from hieros_repro.env.pinpad.adapter import PinPad, PinPadEasy
from hieros_repro.env.pinpad.layout import ACTIONS, MAPS
from hieros_repro.env.pinpad.native import Native
from hieros_repro.env.pinpad.rules import MODES

ENVS = 3


def slots(envs: int, size: int) -> Slots:
    return Slots({"image": np.full((envs, size, size, 3), 77, np.uint8)}, np.zeros(envs), *np.zeros((2, envs), bool))


@st.composite
def maps(draw: st.DrawFn) -> str:
    """Small, so that pads are met often; with holes in the border."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.sampled_from(list(MAPS)))
    width, height, pads = draw(st.integers(2, 6)), draw(st.integers(2, 5)), draw(st.integers(1, 4))
    signs = draw(st.lists(st.sampled_from("..#12345678"[: 3 + pads]), min_size=width * height, max_size=width * height))
    first = draw(st.integers(0, width * height - pads))
    signs[first : first + pads] = "12345678"[:pads]
    return "".join("".join(signs[y * width : (y + 1) * width]) + "\n" for y in range(height))


@pytest.fixture(autouse=True, scope="module")
def native_however_few():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapter, "FEW", 0)
        yield


@settings(max_examples=60, deadline=None)
@given(
    task=maps(),
    mode=st.sampled_from(MODES),
    scale=st.integers(1, 4),
    length=st.integers(1, 60),
    seed=st.integers(0, 1000),
    given_up=st.sets(st.tuples(st.integers(1, 79), st.integers(0, ENVS - 1)), max_size=4),
)
def test_all_at_once_equal_one_after_the_other_in_everything(task, mode, scale, length, seed, given_up):
    def env() -> PinPadEasy:
        return PinPadEasy(task=task, length=length, size=16 * scale, reward_mode=mode)

    alone, together, later = Serial([env() for _ in range(ENVS)]), env().batch(env, ENVS), env().batch(env, ENVS)
    over = {i for i in range(ENVS)}
    reset_seeds = [0] * ENVS
    for tick in range(80):
        seeds = {i: seed + 100 * i + tick for i in range(ENVS) if i in over or (tick, i) in given_up}
        for i, reset in seeds.items():
            reset_seeds[i] = reset
        actions = Key(seed)("act", tick).integers(ACTIONS, (ENVS,))
        expected, found = slots(ENVS, 16 * scale), slots(ENVS, 16 * scale)
        assert alone.step(actions, seeds, expected) == together.step(actions, seeds, found)
        assert digest_tree(expected._asdict()) == digest_tree(found._asdict())
        over = set(np.flatnonzero(found.is_last).tolist())
        if tick % 20 == 19:
            assert digest_tree(alone.snapshot()) == digest_tree(together.snapshot())
            assert all(np.array_equal(alone.render(i), together.render(i)) for i in range(ENVS))
            pasts = [Past(s, np.zeros(0), state) for s, state in zip(reset_seeds, together.snapshot(), strict=True)]
            for other in (alone, later):
                again = slots(ENVS, 16 * scale).obs
                other.restore(pasts, again)
                assert np.array_equal(again["image"], found.obs["image"])
            together, later = later, together


def test_snapshots_are_not_changed_by_what_comes_after():
    env = PinPad(task="three", length=50, size=16)
    players = env.batch(lambda: env, 2)
    players.step(np.zeros(2), {0: 1, 1: 2}, slots(2, 16))
    taken = players.snapshot()
    before = digest_tree(taken)
    for _ in range(5):
        players.step(np.array([1, 2]), {}, slots(2, 16))
    assert digest_tree(taken) == before


def test_few_are_stepped_one_after_the_other_and_many_at_once(monkeypatch):
    monkeypatch.setattr(adapter, "FEW", 6)
    env = PinPad(task="three", length=50, size=16)
    assert [type(env.batch(lambda: env, count)) for count in (1, 5, 6, 64)] == [Serial, Serial, Native, Native]


def random_scores(task: str, steps: int, envs: int) -> np.ndarray:
    env = PinPad(task=task, length=steps, size=16)
    players: Batch = env.batch(lambda: env, envs)
    scores, shown = np.zeros(envs), slots(envs, 16)
    for tick in range(steps + 1):
        shown.reward[:] = 0
        players.step(Key(3)("act", tick).integers(ACTIONS, (envs,)), {} if tick else {i: i for i in range(envs)}, shown)
        scores += shown.reward
    assert shown.is_last.all()
    return scores


@pytest.mark.parametrize(("task", "steps", "mean", "some"), [("three", 2000, 9.6, 0.67), ("three_small", 500, 8.6, 0.63)])
def test_a_random_player_scores_as_in_the_original(task, steps, mean, some):
    """Within four standard errors and the reference's rounding."""
    scores = random_scores(task, steps, envs=512)
    error = scores.std() / np.sqrt(len(scores))
    assert abs(scores.mean() - mean) < 4 * error + 0.05
    assert abs((scores > 0).mean() - some) < 4 * np.sqrt(some * (1 - some) / len(scores)) + 0.005
    assert error < 0.06 * mean
