import json

import numpy as np
import pytest

from hieros_repro.env.gymnasium import _action as read_action_space
from hieros_repro.env.gymnasium import _observation as read_observation_space
from hieros_repro.records import Space, Spaces, UserError
from hieros_repro.replay.dataset import Writer, episode
from hieros_repro.replay.minari import exported, imported
from tests.replay.recorded import plain, written

minari = pytest.importorskip("minari")
pytest.importorskip("h5py")
from gymnasium import spaces as gym  # noqa: E402
from minari.data_collector import EpisodeBuffer  # noqa: E402

ACTIONS = [
    Space("discrete", (), sizes=(3,)),
    Space("multidiscrete", (2,), sizes=(3, 5)),
    Space("continuous", (2,), low=(-1.0, -np.inf), high=(1.0, 2.0)),
    Space("onehot", (3,), sizes=(3,)),
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return tmp_path / "minari"


# -- There and back ------------------------------------------------------------------------------------------------------


def test_what_is_exported_and_imported_is_the_same_dataset(tmp_path):
    known = written(tmp_path / "known")
    exported(known, "tests/known-v0")
    back = imported("tests/known-v0", tmp_path / "back", 99, {})
    back.verify()
    assert back.digest == known.digest
    assert back.episodes == known.episodes and back.manifest["made"] == {"minari": "tests/known-v0"}


@pytest.mark.parametrize("action", ACTIONS, ids=lambda space: space.kind)
@pytest.mark.parametrize("shape", [(40, 33, 3), (8, 8, 1), (3, 3, 3)])
def test_every_kind_of_action_and_size_of_image_survives(tmp_path, action, shape):
    """Also pictures that Minari would by default keep as JPEG."""
    spaces = Spaces({"image": Space("image", shape)}, action)
    image = (np.arange(5 * np.prod(shape)) * 37 % 251).astype(np.uint8).reshape(5, *shape)
    taken = (np.arange(4 * max(1, np.prod(action.shape))) % 3).reshape(4, *action.shape).astype(action.dtype)
    with Writer(tmp_path / "known", spaces, 4) as writer:
        writer.add(episode(spaces, {"image": image}, taken, np.array([0.5, -1, 0, 2]), True), None)
        known = writer.finish({}, [], {})
    exported(known, "known-v0")
    back = imported("known-v0", tmp_path / "back", 99, {})
    assert back.digest == known.digest and back.spaces == spaces
    [rows] = back.rows()
    assert np.array_equal(rows["obs.image"], image)


def test_minari_reads_what_is_exported(tmp_path):
    """Episode 1 ends, the others time out."""
    exported(written(tmp_path / "known", (3, 1, 2)), "tests/known-v0")
    theirs = minari.load_dataset("tests/known-v0")
    assert (theirs.total_episodes, theirs.total_steps) == (3, 6)
    first, second, _ = theirs.iterate_episodes()
    assert first.rewards.tolist() == [1, 2, 3] and first.actions.tolist() == [0, 1, 2]
    assert first.observations["vector"].tolist() == [[0, 0], [1, -1], [2, -2], [3, -3]]
    assert (first.terminations.tolist(), first.truncations.tolist()) == ([False] * 3, [False, False, True])
    assert (second.terminations.tolist(), second.truncations.tolist()) == ([True], [False])


# -- Foreign datasets ----------------------------------------------------------------------------------------------------


def foreign(observation, action, *buffers):
    with pytest.warns(UserWarning):
        return minari.create_dataset_from_buffers(
            "theirs-v3", list(buffers), observation_space=observation, action_space=action, jpeg_encoding=False
        )


def test_a_foreign_dataset_is_read_as_its_environment_would_be(tmp_path):
    """A Dict with a Discrete, pictures with their channels first, and actions that count from 2."""
    observation = gym.Dict(
        {
            "seen": gym.Box(0, 255, (3, 5, 6), np.uint8),
            "state": gym.Discrete(4, start=1),
            "at": gym.Box(-1, 1, (2,), np.float64),
        }
    )
    action = gym.Discrete(3, start=2)
    pictures = np.arange(3 * 90, dtype=np.uint8).reshape(3, 3, 5, 6)
    obs = {"seen": pictures, "state": np.array([1, 4, 2]), "at": np.zeros((3, 2))}
    ends = {"terminations": np.array([False, True]), "truncations": np.array([False, False])}
    foreign(observation, action, EpisodeBuffer(seed=9, observations=obs, actions=np.array([2, 4]), rewards=np.ones(2), **ends))
    found = imported("theirs-v3", tmp_path / "ours", 100, {})
    found.verify()
    ours, read = read_observation_space(observation)
    assert found.spaces == Spaces(ours, read_action_space(action))
    [rows] = found.rows()
    for t in range(3):
        for name, value in read({name: values[t] for name, values in obs.items()}).items():
            assert np.array_equal(rows[f"obs.{name}"][t], value)
    assert plain(rows)["action"] == [0, 2, 0] and plain(rows)["reward"] == [0, 1, 1]
    assert found.episodes[0].seed == 9 and found.episodes[0].terminal
    assert found.content["source"] == {"minari": "theirs-v3", "env": None}


@pytest.mark.parametrize(
    "space", [gym.Box(-1, 1, (3,)), gym.Discrete(4), gym.MultiBinary(3), gym.Box(0, 255, (9, 8), np.uint8)], ids=str
)
def test_a_single_observation_is_named_as_its_environment_would_name_it(tmp_path, space):
    space.seed(1)
    seen = np.stack([np.asarray(space.sample()) for _ in range(3)])
    cut = {"terminations": np.zeros(2, bool), "truncations": np.zeros(2, bool)}  # neither ended nor timed out
    taken = np.array([[0.5], [1.0]], np.float32)
    foreign(space, gym.Box(0, 1, (1,)), EpisodeBuffer(observations=seen, actions=taken, rewards=np.ones(2), **cut))
    found = imported("theirs-v3", tmp_path / "ours", 100, {})
    ours, read = read_observation_space(space)
    assert found.spaces == Spaces(ours, read_action_space(gym.Box(0, 1, (1,))))
    [rows] = found.rows()
    [name] = ours
    assert np.array_equal(rows[f"obs.{name}"], np.stack([read(value)[name] for value in seen]))
    assert (found.episodes[0].terminal, found.episodes[0].seed) == (False, None) and rows["is_last"].tolist()[-1]


def test_spaces_without_a_counterpart_are_refused(tmp_path):
    text = gym.Text(5)
    one = {"terminations": np.array([True]), "truncations": np.array([False])}
    foreign(text, gym.Discrete(2), EpisodeBuffer(observations=["a", "b"], actions=np.array([0]), rewards=np.ones(1), **one))
    with pytest.raises(UserError, match=r"observations of Text.* cannot be imported"):
        imported("theirs-v3", tmp_path / "ours", 100, {})


# -- Errors --------------------------------------------------------------------------------------------------------------


def test_an_absent_dataset_is_answered_with_the_nearest_and_never_fetched(tmp_path, folder, monkeypatch):
    monkeypatch.setattr("minari.storage.hosting.download_dataset", lambda *a, **k: pytest.fail("it was fetched"))
    exported(written(tmp_path / "known"), "tests/known-v0")
    with pytest.raises(UserError, match=rf"tests/knwn-v0: no such Minari dataset in {folder}; did you mean tests/known-v0\?"):
        imported("tests/knwn-v0", tmp_path / "new", 100, {})


@pytest.mark.parametrize("name", ["known", "../known-v0", "a b-v0", "/known-v0", ""])
def test_a_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="is no name for a Minari dataset"):
        exported(written(tmp_path / "known"), name)


def test_a_minari_dataset_is_never_overwritten(tmp_path):
    exported(written(tmp_path / "known"), "known-v0")
    with pytest.raises(UserError, match="never overwritten"):
        exported(written(tmp_path / "other"), "known-v0")


def test_an_export_that_fails_leaves_nothing(tmp_path, folder):
    known = written(tmp_path / "known")
    (known.path / "rows-000001.npz").unlink()
    with pytest.raises(UserError, match=r"rows-000001\.npz: missing"):
        exported(known, "known-v0")
    assert not (folder / "known-v0").exists()


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "minari", None)
    with pytest.raises(UserError, match=r"needs the extra \[minari\]"):
        imported("known-v0", tmp_path / "new", 100, {})


def test_what_minari_keeps_says_where_it_came_from(tmp_path):
    known = written(tmp_path / "known")
    told = json.loads((exported(known, "known-v0") / "data" / "metadata.json").read_text())
    assert known.digest in told["description"] and told["hieros_repro"]["source"] == known.content["source"]
