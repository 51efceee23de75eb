"""Films of what an agent thinks: what is on them, and that making them changes nothing."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from hieros_repro import build
from hieros_repro.agent import film
from hieros_repro.agent.picture import DREAMT, OVER, SEEN
from hieros_repro.check import check
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Space, Spaces
from hieros_repro.world.base import Latent
from tests.agent import making
from tests.agent.filming import SEES, noise_of
from tests.runs import compose

TINY = ("agent.batch_size=4", "agent.batch_length=8", "agent.imag_horizon=8", "agent.replay_context=0", "world.deter=16")
WIDTHS = [f"size.{name}={n}" for name, n in {"depth": 4, "stoch": 4, "classes": 4, "units": 16, "head_units": 16}.items()]
GOALS = ("goals_manager", "goals_prior", "goals_replay")
UNTOLD = torch.zeros(4, 0)  # nothing comes from above


def agent_of(name, *changes, spaces=SEES):
    config = check(compose(f"agent={name}", *TINY, *WIDTHS, *changes))
    return build.agent(config, spaces, build.construct(config["hardware"]))


def batch_of(agent, spaces=SEES):
    """Windows in which nothing begins after the first row, so that dreams can be compared to the end."""
    windows = agent.hardware.to_device(making.windows(agent, spaces))
    windows["windows"]["is_first"] = torch.zeros_like(windows["windows"]["is_first"])
    windows["windows"]["is_first"][:, 0] = True
    return windows


@pytest.fixture(scope="module")
def director():
    return agent_of("director")


@pytest.fixture(scope="module")
def batch(director):
    return batch_of(director)


@pytest.fixture(scope="module")
def noise(director, batch):
    return noise_of(director, batch)


def seen_by(agent, batch, noise):
    with torch.no_grad():
        rows, start = agent.tiers[0].rows(batch["windows"])
        return rows, agent.tiers[0].who.world.observe(rows.obs, rows.action, rows.is_first, start, noise["observe"]).latent


# -- The films -----------------------------------------------------------------------------------------------------------


def test_an_agent_with_goals_makes_four_films_of_steady_frames(director, batch, noise):
    films = director.films(batch, noise)
    assert {name: len(frames) for name, frames in films.items()} == {
        "open_loop": 8,
        **dict.fromkeys(GOALS, 65),
    }
    for frames in films.values():
        assert {(frame.shape, str(frame.dtype)) for frame in frames} == {(frames[0].shape, "uint8")}
        assert not any(np.array_equal(a, b) for a, b in pairwise(frames))  # the title at least


def test_an_agent_without_goals_dreams_on_only():
    dreamer = agent_of("dreamer")
    batch = batch_of(dreamer)
    assert list(dreamer.films(batch, noise_of(dreamer, batch))) == ["open_loop"]
    assert dreamer.beside(dreamer.initial(2)) == {}


@pytest.mark.parametrize("name", ["director", "dreamer"])
def test_an_agent_that_sees_no_images_makes_no_films(name):
    blind = agent_of(name, spaces=making.ONE_ACTION)
    batch = batch_of(blind, making.ONE_ACTION)
    assert blind.films(batch, noise_of(blind, batch)) == {} and blind.beside(blind.initial(1)) == {}


def test_of_three_levels_the_lowest_pursues_what_the_highest_makes_the_middle_one_want():
    agent = agent_of(
        "director", "agent.subactor_update_every=2", "agent.max_hierarchy=3", "+agent.levels.top=${agent.levels.manager}"
    )
    batch, who = batch_of(agent), agent.tiers[0].who
    noise = noise_of(agent, batch)
    assert list(agent.films(batch, noise)) == ["open_loop", *GOALS]
    _, seen = seen_by(agent, batch, noise)
    begin = film._row(seen, 4)
    with torch.no_grad():
        of_middle = who.goals.decode(who.levels[2].actor.act(begin.feature, noise["above"]["2"]))
        code = who.levels[1].actor.act(torch.cat([begin.feature, of_middle], -1), noise["above"]["1"])
        assert torch.equal(film.goals(who, seen, begin, noise, UNTOLD)["manager"], who.goals.decode(code))


def test_an_agent_of_another_kind_makes_no_films():
    other = making.dqn()
    assert other.films({}, other.film_noise(Key(0)("eval"), {})) == {} and other.beside(None) == {}


@pytest.mark.parametrize("changes", [("hardware.precision=bf16",), ("agent.batch_length=3",), ("agent.batch_size=8",)])
def test_films_are_made_in_any_precision_and_of_batches_of_any_size(changes, drawn):
    agent = agent_of("director", *changes)
    batch = batch_of(agent)
    films = agent.films(batch, noise_of(agent, batch))
    assert len(films) == 4 and len(films["open_loop"]) == agent.tiers[0].practice.batch_length
    assert {len(row.images) for _, _, rows in drawn for row in rows.values()} == {min(6, agent.tiers[0].practice.batch_size)}


def test_gray_images_are_filmed():
    spaces = Spaces({"gray": Space("image", (16, 16, 1))}, making.DISCRETE)
    agent = agent_of("director", spaces=spaces)
    batch = batch_of(agent, spaces)
    assert agent.films(batch, noise_of(agent, batch))["open_loop"][0].shape[-1] == 3
    assert agent.beside(agent.initial(2))["goal of level 0"].shape == (16, 16, 1)


def test_a_film_is_a_function_of_state_batch_and_noise_and_leaves_them_alone(director, batch, noise):
    now, carry = making.seen(SEES, 3), director.initial(3)
    drawn = {name: block[0] for name, block in director.act_noise(Key(3)("act"), 1, 3).items()}

    def known():
        return digest_tree({"agent": director.state(), "batch": batch, "noise": noise, "torch": torch.get_rng_state()})

    before, acted = known(), director.act(now, carry, drawn)[:2]
    carried = digest_tree(acted[1])
    first = director.films(batch, noise)
    director.beside(acted[1])
    again = director.films(batch, noise)
    assert known() == before and digest_tree(acted[1]) == carried
    assert digest_tree(director.act(now, carry, drawn)[1]) == carried
    assert all(np.array_equal(a, b) for name in first for a, b in zip(first[name], again[name], strict=True))


# -- What the world will be ----------------------------------------------------------------------------------------------


def test_truth_is_the_batch_and_the_context_is_rebuilt_from_what_was_seen(director, batch, noise, drawn):
    director.films(batch, noise)
    images = batch["windows"]["obs"]["camera"].transpose(0, 1).numpy()
    _, latent = seen_by(director, batch, noise)
    for t, (title, heads, rows) in enumerate(drawn[:8]):
        assert list(rows) == ["truth", "model", "error"] and title.startswith(f"step {t + 1} of 8: ")
        assert heads == [f"window {i}" for i in (1, 2, 3, 4)]
        assert np.array_equal(rows["truth"].images, images[t])
        with torch.no_grad():
            rebuilt = director.tiers[0].who.world.pictures(film._row(latent, t))["camera"].numpy()
        assert np.array_equal(rows["model"].images, rebuilt) == (t < 5)
        assert rows["model"].borders == [SEEN if t < 5 else DREAMT] * 4 and (("dreamt" in title) == (t >= 5))


def test_an_error_is_gray_where_truth_and_model_agree(drawn):
    truth = np.array([0, 100, 255, 7], np.uint8).reshape(1, 1, 2, 2, 1)
    model = np.array([255, 100, 0, 9], np.uint8).reshape(1, 1, 2, 2, 1)
    film.open_loop(truth, model, np.zeros((1, 1), bool), 1)
    (_, _, rows), *_ = drawn
    assert rows["error"].images[0].flatten().tolist() == [255, 127, 0, 128]  # (model - truth + 255) / 2, rounded down


def test_a_dream_goes_on_from_the_context_with_the_actions_that_led_to_each_row(director, batch, noise):
    rows, seen = seen_by(director, batch, noise)
    acted = director.tiers[0].actions.from_env(batch["windows"]["action"])
    with torch.no_grad():
        states = film.dreamt(director.tiers[0].who.world, seen, rows.action, noise["observe"], 5)
        state = film._row(seen, 4)
        for t in (5, 6, 7):
            state = director.tiers[0].who.world.imagine(state, acted[:, t - 1], {"stoch": noise["observe"]["stoch"][t]})
            assert torch.equal(states[t].deter, state.deter) and torch.equal(states[t].stoch, state.stoch)
    assert len(states) == 8 and all(torch.equal(states[t].deter, seen.deter[t]) for t in range(5))
    torch.testing.assert_close(states[5].deter, seen.deter[5])  # what is certain follows from the row before and its action
    assert not torch.allclose(states[6].deter, seen.deter[6])


def test_what_is_shown_after_the_context_does_not_reach_the_dream(director, batch, noise, drawn):
    images = batch["windows"]["obs"]["camera"]
    changed = {"windows": {**batch["windows"], "obs": {**batch["windows"]["obs"], "camera": images.clone()}}}
    changed["windows"]["obs"]["camera"][:, 5:] = 255 - images[:, 5:]
    for given in (batch, changed):
        director.films(given, noise)
    one, other = drawn[:8], drawn[8 + 3 * 65 :][:8]
    for t in range(8):
        assert np.array_equal(one[t][2]["model"].images, other[t][2]["model"].images)
        assert np.array_equal(one[t][2]["truth"].images, other[t][2]["truth"].images) == (t < 5)


def test_where_a_new_episode_begins_the_comparison_is_over(drawn):
    pictures, first = np.zeros((4, 2, 8, 8, 3), np.uint8), np.zeros((4, 2), bool)
    first[0] = True  # in the context it is no end
    first[2, 1] = True
    film.open_loop(pictures, pictures, first, 1)
    assert [rows["truth"].borders for _, _, rows in drawn] == [[SEEN, SEEN], [DREAMT, DREAMT], [DREAMT, OVER], [DREAMT, OVER]]
    assert [heads for _, heads, _ in drawn[2:]] == [["window 1", "new episode"]] * 2


def test_a_window_with_a_stored_state_starts_from_it(drawn):
    agent = agent_of("dreamer", "agent.replay_context=1", "agent.batch_length=4")
    window = making.windows(agent, SEES)["windows"]
    window["is_first"][:] = False
    states = agent.tiers[0].who.world.stored(agent.tiers[0].who.world.initial(4))
    pictures = []
    for level in (0.0, 2.0):
        batch = {"windows": {**agent.hardware.to_device(window), "deter": states["deter"] + level, "stoch": states["stoch"]}}
        agent.films(batch, noise_of(agent, batch))
        pictures.append(drawn[0][2])
        assert np.array_equal(drawn[0][2]["truth"].images, window["obs"]["camera"][:, 1])  # row 0 is the context row
        drawn.clear()
    assert not np.array_equal(pictures[0]["model"].images, pictures[1]["model"].images)


# -- Where the worker gets to --------------------------------------------------------------------------------------------


def test_goals_come_from_the_manager_from_any_code_and_from_another_window(director, batch, noise):
    who = director.tiers[0].who
    _, seen = seen_by(director, batch, noise)
    with torch.no_grad():
        begin = film._row(seen, 4)
        found = film.goals(who, seen, begin, {**noise, "prior": torch.zeros_like(noise["prior"])}, UNTOLD)
        code = who.levels[1].actor.act(begin.feature, noise["above"]["1"])
        assert torch.equal(found["manager"], who.goals.decode(code))
        first = torch.zeros(4, 8, 8)
        first[:, :, 0] = 1.0  # a uniform distribution gives its first class where nothing is drawn
        assert torch.equal(found["prior"], who.goals.decode(first.flatten(-2)))
        for i in range(4):
            likeliest = who.goals.encode(seen.deter[7, i - 1]).argmax(-1)
            rebuilt = who.goals.decode(torch.nn.functional.one_hot(likeliest, 8).float().flatten())
            torch.testing.assert_close(found["replay"][i], rebuilt)


def test_a_random_code_is_uniform(director, batch, noise):
    """16 thousand draws of 8 classes each: every class's share is within 5 standard deviations of an eighth."""
    codes = director.tiers[0].who.levels[-1].actor.actions
    many = director.hardware.to_device(codes.noise(Key(1)("eval", "prior"), (2000,)))
    share = codes.sample(torch.zeros(2000, codes.width), many).unflatten(-1, (8, 8)).mean((0, 1))
    assert (share - 0.125).abs().max() < 5 * (0.125 * 0.875 / 16000) ** 0.5


def test_the_worker_pursues_one_goal_from_the_last_row_of_the_context(director, batch, noise, drawn):
    who = director.tiers[0].who
    _, seen = seen_by(director, batch, noise)
    begin = film._row(seen, 4)
    goal = begin.deter.clone()
    goal[1] *= 2.0
    with torch.no_grad():
        film.pursuit(who, "manager", begin, goal, begin, noise)
        action = who.levels[0].actor.act(torch.cat([begin.feature, goal], -1), noise["worker"][0])
        after = who.world.imagine(begin, action, {"stoch": noise["dream"]["stoch"][0]})
        shown = {
            name: who.world.pictures(state)["camera"].numpy() for name, state in {"start": begin, "roll-out": after}.items()
        }
        wanted = who.world.pictures(who.world.complete(goal, begin))["camera"].numpy()
    assert [title for title, _, _ in drawn] == [f"goal of the manager: dreamt step {t} of 64" for t in range(65)]
    assert drawn[0][1] == ["reward 1.00", "reward 0.50", "reward 1.00", "reward 1.00"]  # s . 2s / |2s|^2
    for _, _, rows in drawn:
        assert np.array_equal(rows["start"].images, shown["start"]) and np.array_equal(rows["goal"].images, wanted)
    assert np.array_equal(drawn[0][2]["roll-out"].images, shown["start"])
    assert np.array_equal(drawn[1][2]["roll-out"].images, shown["roll-out"])
    assert [drawn[t][2]["roll-out"].borders[0] for t in (0, 1, 64)] == [SEEN, DREAMT, DREAMT]


def test_the_image_beside_an_environment_is_the_goal_its_worker_has(director):
    who, now = director.tiers[0].who, making.seen(SEES, 3)
    drawn = {name: block[0] for name, block in director.act_noise(Key(3)("act"), 1, 3).items()}
    _, acted, _ = director.act(now, director.initial(3), drawn)
    carry = acted["tiers"][0]
    with torch.no_grad():
        wanted = who.world.pictures(who.world.complete(carry["aims"][0], Latent(**carry["state"])))["camera"][0].numpy()
    shown = director.beside(acted)
    assert list(shown) == ["goal of level 0"] and wanted.shape == (16, 16, 3)
    assert np.array_equal(shown["goal of level 0"], wanted)
