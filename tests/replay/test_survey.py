import math

import numpy as np
import pytest

from hieros_repro.records import Damaged
from hieros_repro.replay import parts
from hieros_repro.replay.dataset import Writer
from hieros_repro.replay.survey import outliers, spread, survey
from tests.replay.recorded import IMAGES, rows, written


def surveyed(path, *episodes):
    with Writer(path, IMAGES, 8) as writer:
        for episode in episodes:
            writer.add(episode)
        return survey(writer.finish({}, [], {}))


def test_episodes_are_counted_and_their_returns_summarised(tmp_path):
    """Lengths 3, 1, 2, 4; a reward of t at step t: returns 6, 1, 3, 10."""
    told = survey(written(tmp_path / "known"))
    assert (told["episodes"], told["steps"], told["ended"]) == (4, 10, {"terminal": 2, "time_out": 2})
    assert told["return"] == {
        "mean": 5.0, "std": pytest.approx(math.sqrt((1 + 16 + 4 + 25) / 3)), "min": 1.0, "q1": 2.5, "median": 4.5, "q3": 7.0,
        "max": 10.0,
    }  # fmt: skip
    assert told["length"]["mean"] == 2.5


def test_a_key_has_its_range_and_mean_over_what_means_something(tmp_path):
    """No reward came with a first row and no action is taken in a last one."""
    told = survey(written(tmp_path / "known", (3, 1)))["keys"]
    assert {key: told["reward"][key] for key in ("min", "mean", "max")} == {"min": 1, "mean": 7 / 4, "max": 3}
    assert told["action"]["mean"] == 3 / 4 and told["action"]["dtype"] == "int64"
    assert told["obs.vector"]["min"] == -101 and told["obs.vector"]["max"] == 101 and told["obs.vector"]["mean"] == 0
    assert told["obs.image"]["mean"] == (0 + 1 + 2 + 3 + 100 + 101) / 6 and told["obs.image"]["shape"] == [4, 6, 3]


def test_what_is_constant_is_named_with_its_value(tmp_path):
    first, second = rows(1, 3), rows(2, 3)
    for episode in (first, second):
        episode["obs.vector"][:, 1] = 4.5
        episode["action"][:-1] = 2
    found = surveyed(tmp_path / "new", first, second)["findings"]
    assert found == ["obs.vector[1]: constant, always 4.5", "action: constant, always 2"]


def test_what_is_not_finite_is_counted_and_left_out_of_the_mean(tmp_path):
    first, second = rows(1, 2), rows(2, 2)
    second["obs.vector"][0, 0], second["obs.vector"][1] = np.nan, [np.inf, -np.inf]
    told = surveyed(tmp_path / "new", first, second)
    key = told["keys"]["obs.vector"]
    assert (key["nan"], key["infinite"]) == (1, 2)
    assert (key["min"], key["max"], key["mean"]) == (-202, 202, (-200 + 202 - 202) / 9)
    assert told["findings"] == ["obs.vector: 1 NaN and 2 infinite values, in episode 1"]


def test_an_observation_that_is_zero_throughout_an_episode_is_missing(tmp_path):
    first, second = rows(1, 2), rows(2, 2)
    second["obs.image"][:] = 0
    assert surveyed(tmp_path / "new", first, second)["findings"] == ["obs.image: nothing but zeros in episode 1: missing?"]


def test_outliers_lie_three_quartile_distances_beyond_the_quartiles():
    """Quartiles of 0 ... 8 are 2 and 6: the fences are -10 and 18."""
    values = [*range(9)]
    assert list(outliers("return", range(9), values)) == []
    beyond = [0.0, 1, 2, 3, 4, 5, 6, 7, 40]
    assert list(outliers("return", range(9), beyond)) == ["return: above 18 in episode 8: outliers"]
    assert list(outliers("length", [5, 7, 9, 11, 13], [3, 3, 3, 3, -1])) == ["length: below 3 in episode 13: outliers"]


def test_a_long_list_is_cut():
    values = [0.0] * 40 + [1.0] * 9
    assert list(outliers("return", range(49), values)) == [
        "return: above 0 in episodes 40, 41, 42, 43, 44, 45, 46, 47 and 1 more: outliers"
    ]


def test_one_value_has_no_spread():
    assert spread([2.0])["std"] is None and spread([])["mean"] is None


def test_a_part_is_surveyed_alone(tmp_path):
    known = written(tmp_path / "known")
    parts.write(known.path, parts.SPLITS, known.digest, {}, {"train": [0, 3], "val": [1, 2]}, False)
    told = survey(known, "val")
    assert (told["part"], told["episodes"], told["steps"], told["return"]["max"]) == ("val", 2, 3, 3.0)


def test_a_damaged_file_is_not_surveyed(tmp_path):
    known = written(tmp_path / "known")
    (known.path / "rows-000001.npz").write_bytes(b"nothing")
    with pytest.raises(Damaged, match=r"rows-000001\.npz"):
        survey(known)
