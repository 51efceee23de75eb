"""Films of levels with worlds of their own: what each of them thinks, down to images."""

import numpy as np
import pytest
import torch

from hieros_repro.agent import film
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.ops.transform import symexp
from hieros_repro.world.base import Latent
from tests.agent import making
from tests.agent.dreaming import hieros
from tests.agent.filming import SEES, noise_of
from tests.agent.making import hardware

FILMS = ["open_loop", "open_loop_1", "open_loop_2", "goals_above", "goals_prior", "goals_replay"]


def batch_of(agent):
    return hardware().to_device(making.experience(agent, SEES))


@pytest.fixture(scope="module", params=["s5", "rssm"])
def agent(request):
    return hieros(SEES, f"world={request.param}")


@pytest.fixture(scope="module")
def batch(agent):
    return batch_of(agent)


@pytest.fixture(scope="module")
def noise(agent, batch):
    return noise_of(agent, batch)


@pytest.fixture
def brief(monkeypatch):
    """Films of goals of three steps."""
    monkeypatch.setattr(film, "STEPS", 3)


@pytest.fixture(autouse=True)
def looking():
    with torch.no_grad():
        yield


def lived(agent, ticks=4, envs=2):
    """The carry after some ticks."""
    carry, noise = agent.initial(envs), agent.act_noise(Key(3)("act"), ticks, envs)
    for tick in range(ticks):
        now = making.seen(SEES, envs, seed=tick)._replace(is_first=np.full(envs, tick == 0))
        carry = agent.act(now, carry, {name: block[tick] for name, block in noise.items()})[1]
    return carry


def down(agent, place, latent):
    """Written out: what each world believes to see of the newest state below, its likeliest classes, and so on to the image."""
    while place:
        world, below = agent.tiers[place].who.world, agent.tiers[place - 1].who.world
        seen = world.decoder(latent.deter, latent.stoch)
        count = seen["deter"].shape[-1] // below.deter
        deter = symexp(seen["deter"]).unflatten(-1, (count, below.deter))[:, -1]
        logits = seen["stoch"].unflatten(-1, (count, *below.groups))[:, -1]
        stoch = torch.nn.functional.one_hot(logits.argmax(-1), below.groups[1]).float().flatten(-2)
        latent, place = Latent(deter, stoch, deter[:, :0]), place - 1
    return agent.tiers[0].who.world.pictures(latent)["camera"].numpy()


# -- The films -----------------------------------------------------------------------------------------------------------


def test_every_world_has_a_film_of_what_it_foresees(agent, batch, noise, brief, drawn):
    films = agent.films(batch, noise)
    assert list(films) == FILMS
    length = agent.tiers[0].practice.batch_length
    assert [len(frames) for frames in films.values()] == [length] * 3 + [4] * 3
    titles = [title for title, _, _ in drawn]
    for place, of in enumerate(("", "level 1 (decoded), ", "level 2 (decoded), ")):
        assert titles[place * length] == f"{of}step 1 of {length}: seen (context)"


def test_a_tier_that_had_no_batch_yet_has_no_film(agent, batch, noise, brief, drawn):
    some = {name: value for name, value in batch.items() if name != "windows_1"}
    assert list(agent.films(some, noise)) == [name for name in FILMS if name != "open_loop_1"]


def test_upper_films_show_the_newest_state_of_each_window_as_the_worlds_below_decode_it(agent, batch, noise, brief, drawn):
    agent.films(batch, noise)
    length, kept = agent.tiers[0].practice.batch_length, batch["windows_2"]["obs"]
    below = agent.tiers[1].who.world
    for t, (_, _, rows) in enumerate(drawn[2 * length : 3 * length]):
        state = below.restored({"deter": kept["deter"][:, t, -1], "stoch": kept["stoch"][:, t, -1]})
        assert np.array_equal(rows["truth"].images, down(agent, 1, state))


def test_upper_films_show_what_the_upper_world_makes_of_its_context_and_dreams_then(agent, batch, noise, brief, drawn):
    agent.films(batch, noise)
    tier, length, drew = agent.tiers[2], agent.tiers[0].practice.batch_length, noise["upper"]["2"]
    rows, start = tier.rows(batch["windows_2"])
    seen = tier.who.world.observe(rows.obs, rows.action, rows.is_first, start, drew).latent
    frames = drawn[2 * length : 3 * length]
    state = film._row(seen, 4)
    for t in range(length):
        if t >= 5:
            state = tier.who.world.imagine(state, rows.action[t], {name: value[t] for name, value in drew.items()})
        wanted = down(agent, 2, film._row(seen, t) if t < 5 else state)
        assert np.array_equal(frames[t][2]["model"].images, wanted)
    assert ["dreamt" in title for title, _, _ in frames] == [t >= 5 for t in range(length)]


def test_a_film_is_a_function_of_state_batch_and_noise_and_leaves_them_alone(agent, batch, noise, monkeypatch):
    monkeypatch.setattr(film, "STEPS", 2)
    carry = lived(agent)

    def known():
        return digest_tree({"agent": agent.state(), "batch": batch, "noise": noise, "carry": carry["tiers"][2]})

    before = known()
    first = agent.films(batch, noise)
    agent.beside(carry)
    again = agent.films(batch, noise)
    assert known() == before
    assert all(np.array_equal(a, b) for name in first for a, b in zip(first[name], again[name], strict=True))


# -- Goals ---------------------------------------------------------------------------------------------------------------


def test_the_lowest_level_pursues_the_goal_it_was_told_in_life(agent, batch, noise, brief, drawn):
    agent.films(batch, noise)
    who, length = agent.tiers[0].who, agent.tiers[0].practice.batch_length
    rows, start = agent.tiers[0].rows(batch["windows"])
    seen = who.world.observe(rows.obs, rows.action, rows.is_first, start, noise["observe"]).latent
    code = torch.nn.functional.one_hot(batch["windows"]["goal"][:, 4].long(), who.goals.shape[1]).float().flatten(-2)
    found = film.goals(who, seen, film._row(seen, 4), noise, code)
    assert list(found) == ["above", "prior", "replay"] and torch.equal(found["above"], code)
    wanted = who.goals.state(who.goals.meaning(code))
    states = seen.flat()
    longer = torch.maximum(wanted.norm(dim=-1)[:, None], states.deter.norm(dim=-1)[None])
    close = ((wanted @ states.deter.T) / longer.square()).argmax(-1)
    images = who.world.pictures(who.world.complete(wanted, states.take(close)))["camera"].numpy()
    title, _, shown = drawn[3 * length]
    assert title == "goal of the level above: dreamt step 0 of 3" and np.array_equal(shown["goal"].images, images)


def test_beside_an_environment_are_the_goals_of_all_levels_that_have_one_lowest_first(agent):
    carry = lived(agent)
    shown = agent.beside(carry)
    assert list(shown) == ["goal of level 0", "goal of level 1"]
    for place, image in enumerate(shown.values()):
        who, own = agent.tiers[place].who, carry["tiers"][place]
        near = Latent(**own["state"]).map(lambda part: part[:1])
        state = who.world.complete(who.goals.state(who.goals.meaning(own["aims"][0][:1])), near)
        assert image.shape == (16, 16, 3) and np.array_equal(image, down(agent, place, state)[0])


def test_a_single_level_has_neither_goals_nor_upper_films(brief, drawn):
    alone = hieros(SEES, "agent.max_hierarchy=1")
    batch = batch_of(alone)
    assert list(alone.films(batch, noise_of(alone, batch))) == ["open_loop"] and alone.beside(alone.initial(2)) == {}


def test_who_sees_no_images_makes_no_films():
    blind = hieros()
    batch = hardware().to_device(making.experience(blind))
    assert blind.films(batch, noise_of(blind, batch)) == {} and blind.beside(blind.initial(1)) == {}


def test_levels_that_share_a_world_show_their_goals_too(brief, drawn):
    shared = hieros(SEES, "agent.upper_world=null")
    batch = batch_of(shared)
    assert list(shared.films(batch, noise_of(shared, batch))) == ["open_loop", "goals_manager", "goals_prior", "goals_replay"]
    assert list(shared.beside(lived(shared))) == ["goal of level 0", "goal of level 1"]
