import shutil

import numpy as np
import pytest

from hieros_repro.records import Damaged, Space, UserError
from hieros_repro.replay.dataset import Dataset, Writer
from hieros_repro.replay.preprocess import CHANGES, preprocess
from tests.replay.recorded import IMAGES, plain, rows, written


@pytest.fixture
def known(tmp_path):
    return written(tmp_path / "known")


def through(known, *steps):
    """What a pipeline makes of it: the dataset and its episodes' rows."""
    new = preprocess(known, known.path.with_name("new"), steps, {})
    new.verify()
    return new, list(new.rows())


# -- Steps ---------------------------------------------------------------------------------------------------------------


def test_a_smaller_image_has_the_means_of_what_its_pixels_cover(tmp_path):
    """Columns 0 10 20 30 40 50 to 4: each new pixel covers one and a half old ones; a half is rounded up."""
    episode = rows(0, 1)
    episode["obs.image"][:] = (10 * np.arange(6, dtype=np.uint8))[None, None, :, None]
    with Writer(tmp_path / "known", IMAGES, 6) as writer:
        writer.add(episode)
        known = writer.finish({}, [], {})
    new, [found] = through(known, {"shrink": {"height": 2, "width": 4}})
    assert new.spaces.observation["image"].shape == (2, 4, 3)
    wanted = [(0 + 5) / 1.5, (5 + 20) / 1.5, (30 + 20) / 1.5, (20 + 50) / 1.5]
    assert found["obs.image"][0, 0, :, 0].tolist() == [round(x) for x in wanted] == [3, 17, 33, 47]
    assert found["obs.image"].dtype == np.uint8


def test_observations_are_left_out(known):
    new, found = through(known, {"drop": {"names": ["image"]}})
    assert list(new.spaces.observation) == ["vector"]
    assert [plain(e) for e in found] == [{k: v for k, v in plain(r).items() if k != "obs.image"} for r in known.rows()]


def test_images_become_numbers(known):
    new, found = through(known, {"cast": {"names": ["image"], "scale": 4.0}})
    assert new.spaces.observation["image"] == Space("vector", (4, 6, 3))
    assert found[1]["obs.image"][:, 0, 0, 0].tolist() == [25.0, 25.25]


def test_discrete_actions_become_one_hot(known):
    new, found = through(known, {"one_hot": {}})
    assert new.spaces.action == Space("onehot", (3,), sizes=(3,))
    assert found[2]["action"].tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]


def test_rewards_are_scaled_and_clipped_and_scores_are_of_the_new_ones(known):
    new, found = through(known, {"scale_reward": {"factor": -0.5}}, {"clip_reward": {"low": -1.25, "high": -0.75}})
    assert found[0]["reward"].tolist() == [0, -0.75, -1, -1.25]
    assert new.episodes[0].score == -3.0
    assert not np.signbit(found[0]["reward"][0])


def test_episodes_are_selected_by_return_length_and_end(known):
    """Lengths 3, 1, 2, 4; returns 6, 1, 3, 10; the odd ones end."""

    def left(**bounds):
        kept = [e.seed // 7 for e in through(known, {"select": bounds})[0].episodes]
        shutil.rmtree(known.path.with_name("new"))
        return kept

    assert left(min_return=3) == [0, 2, 3] and left(max_return=5.5) == [1, 2]
    assert left(min_length=2, max_length=3) == [0, 2] and left(end="terminal") == [1, 3] and left(end="time_out") == [0, 2]
    with pytest.raises(UserError, match="there is no episode to write"):
        left(min_return=11)


def test_a_sample_is_drawn_by_number_whatever_came_before(tmp_path):
    known = written(tmp_path / "known", [1 + n % 3 for n in range(20)])
    drawn = {e.seed // 7 for e in through(known, {"sample": {"share": 0.3, "seed": 5}})[0].episodes}
    shutil.rmtree(tmp_path / "new")
    both = through(known, {"select": {"min_length": 2}}, {"sample": {"share": 0.3, "seed": 5}})[0]
    assert len(drawn) == 6
    assert {e.seed // 7 for e in both.episodes} == {n for n in drawn if n % 3 >= 1}


@pytest.mark.parametrize(
    ("step", "said"),
    [
        ({"drop": {"names": ["imag"]}}, "no observation 'imag'; there are image, vector"),
        ({"drop": {"names": ["image", "vector"]}}, "no observation would be left"),
        ({"clip_reward": {"low": 1, "high": 0}}, "low=1 is above high=0"),
    ],
)
def test_a_step_that_cannot_be_taken_is_refused_and_leaves_nothing(known, step, said):
    with pytest.raises(UserError, match=said):
        through(known, step)
    assert [path.name for path in known.path.parent.iterdir()] == ["known"]


def test_a_step_that_finds_nothing_to_work_on_is_refused(known):
    vectors = through(known, {"drop": {"names": ["image"]}}, {"one_hot": {}})[0]
    for step, said in (({"shrink": {"height": 2, "width": 2}}, "no image among vector"), ({"one_hot": {}}, "are onehot")):
        with pytest.raises(UserError, match=said):
            preprocess(vectors, known.path.with_name("newer"), [step], {})


# -- What is recorded ----------------------------------------------------------------------------------------------------

STEPS = [{"select": {"min_return": 3}}, {"shrink": {"height": 2, "width": 2}}]


def test_the_pipeline_and_the_parent_are_recorded_generation_after_generation(known):
    new = through(known, *STEPS)[0]
    assert new.content["pipeline"] == [{"parent": known.digest, "steps": STEPS}]
    newer = preprocess(new, known.path.with_name("newer"), [{"one_hot": {}}], {})
    assert newer.content["pipeline"] == [*new.content["pipeline"], {"parent": new.digest, "steps": [{"one_hot": {}}]}]
    assert newer.manifest["made"]["parent"] == "../new" and newer.content["source"] == known.content["source"]


def test_the_recorded_steps_make_the_same_dataset_again(known):
    new = through(known, *STEPS)[0]
    again = preprocess(known, known.path.with_name("again"), Dataset.open(new.path).content["pipeline"][-1]["steps"], {})
    assert again.digest == new.digest
    assert [(e.seed, e.account) for e in again.episodes] == [(0, {"nth": 0.0}), (14, {"nth": 2.0}), (21, {"nth": 3.0})]


def test_a_damaged_parent_is_refused_and_leaves_nothing(known):
    path = known.path / "rows-000001.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged, match=r"rows-000001\.npz"):
        through(known, *STEPS)
    assert [path.name for path in known.path.parent.iterdir()] == ["known"]


def test_every_step_says_what_it_is():
    assert all(change.about for change in CHANGES.values())
