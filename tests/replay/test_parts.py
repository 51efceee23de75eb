import json

import pytest

from hieros_repro.records import Damaged, UserError
from hieros_repro.replay.parts import FOLDS, SPLITS, folds, named, read, sha256, split, write

THREE = {"train": 0.8, "val": 0.1, "test": 0.1}


# -- Splits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "shares", "sizes"),
    [
        (100, THREE, [80, 10, 10]),
        (11, THREE, [9, 1, 1]),
        (13, THREE, [11, 1, 1]),
        (19, THREE, [15, 2, 2]),
        (100, {"train": 0.29, "val": 0.71, "test": 0.0}, [29, 71]),
        (7, {"train": 1.0, "val": 0.0, "test": 0.0}, [7]),
        (3, {"train": 1 / 3, "val": 1 / 3, "test": 1 / 3}, [1, 1, 1]),
    ],
)
def test_every_episode_is_in_one_part_and_parts_have_their_share(count, shares, sizes):
    found = split(count, shares, 1)
    assert [len(members) for members in found.values()] == sizes
    assert sorted(n for members in found.values() for n in members) == list(range(count))


def test_a_split_is_a_function_of_its_seed():
    assert split(50, THREE, 1) == split(50, THREE, 1)
    assert split(50, THREE, 1) != split(50, THREE, 2)


def test_a_split_of_today_is_the_split_of_tomorrow():
    assert split(10, THREE, 1) == {"train": [1, 3, 4, 5, 6, 7, 8, 9], "val": [2], "test": [0]}


@pytest.mark.parametrize("shares", [{"train": 0.8, "val": 0.1, "test": 0.2}, {"train": 1.1, "val": -0.1}, {"train": 0.0}])
def test_shares_that_do_not_sum_to_one_are_refused(shares):
    with pytest.raises(UserError, match="sum to 1"):
        split(10, shares, 1)


def test_a_part_that_would_be_empty_is_named():
    with pytest.raises(UserError, match="4 episodes are too few, test would be empty"):
        split(4, {"train": 0.8, "val": 0.15, "test": 0.05}, 1)


# -- Folds ---------------------------------------------------------------------------------------------------------------


def test_every_episode_is_validated_once_a_repeat_and_never_trained_on_then():
    found = folds(11, 3, 2, 1)
    assert list(found) == [f"fold-{n}/{part}" for n in range(1, 7) for part in ("train", "val")]
    for repeat in (range(1, 4), range(4, 7)):
        assert sorted(n for i in repeat for n in found[f"fold-{i}/val"]) == list(range(11))
        assert sorted(len(found[f"fold-{i}/val"]) for i in repeat) == [3, 4, 4]
    for i in range(1, 7):
        assert sorted(found[f"fold-{i}/train"] + found[f"fold-{i}/val"]) == list(range(11))


def test_repeats_fold_anew_and_more_of_them_change_no_fold():
    two, three = folds(11, 3, 2, 1), folds(11, 3, 3, 1)
    assert two["fold-1/val"] != two["fold-4/val"]
    assert {name: three[name] for name in two} == two
    assert folds(11, 3, 2, 2) != two


@pytest.mark.parametrize(("k", "repeats", "said"), [(1, 1, "k=1"), (12, 1, "between 2 and 11"), (3, 0, "repeats=0")])
def test_folds_that_cannot_be_are_refused(k, repeats, said):
    with pytest.raises(UserError, match=said):
        folds(11, k, repeats, 1)


# -- Kept as data --------------------------------------------------------------------------------------------------------


def test_parts_are_read_as_they_were_written(tmp_path):
    found, folded = split(10, THREE, 1), folds(10, 2, 1, 1)
    assert write(tmp_path, SPLITS, "abc", {"seed": 1}, found, False)
    assert write(tmp_path, FOLDS, "abc", {"k": 2}, folded, False)
    assert read(tmp_path, "abc") == {**found, **folded}
    assert named(tmp_path, "abc", "fold-2/val") == folded["fold-2/val"]
    assert json.loads((tmp_path / SPLITS).read_text())["how"] == {"seed": 1}


def test_parts_that_are_there_are_not_replaced_unless_asked(tmp_path):
    write(tmp_path, SPLITS, "abc", {}, split(10, THREE, 1), False)
    assert not write(tmp_path, SPLITS, "abc", {}, split(10, THREE, 1), False)
    with pytest.raises(UserError, match=r"splits\.json: there are others already"):
        write(tmp_path, SPLITS, "abc", {}, split(10, THREE, 2), False)
    assert write(tmp_path, SPLITS, "abc", {}, split(10, THREE, 2), True)
    assert read(tmp_path, "abc") == split(10, THREE, 2)


def test_parts_of_another_dataset_are_refused(tmp_path):
    write(tmp_path, SPLITS, "abc", {}, {"train": [0]}, False)
    with pytest.raises(Damaged, match=r"splits\.json: made for the dataset abc, this is abd"):
        named(tmp_path, "abd", "train")


@pytest.mark.parametrize("text", ["[]", "nothing", "{}", '{"sha256": 3}'])
def test_what_is_no_file_of_parts_is_refused(tmp_path, text):
    (tmp_path / FOLDS).write_text(text)
    with pytest.raises(Damaged, match=r"folds\.json: not a file of parts"):
        read(tmp_path, "abc")


def test_changed_parts_are_refused(tmp_path):
    write(tmp_path, SPLITS, "abc", {}, {"train": [0, 1], "val": [2]}, False)
    path = tmp_path / SPLITS
    path.write_text(path.read_text().replace("[0, 1]", "[0, 2]"))
    with pytest.raises(Damaged, match=r"splits\.json: its SHA-256"):
        read(tmp_path, "abc")


def test_an_unknown_part_is_answered_with_those_there_are(tmp_path):
    with pytest.raises(UserError, match="no part 'train'; the verb split makes parts"):
        named(tmp_path, "abc", "train")
    write(tmp_path, SPLITS, "abc", {}, {"train": [0], "val": [1]}, False)
    with pytest.raises(UserError, match="no part 'trian'; there are train, val"):
        named(tmp_path, "abc", "trian")


def test_a_digest_of_plain_data_knows_no_order_of_keys():
    assert sha256({"a": 1, "b": [1.5]}) == sha256({"b": [1.5], "a": 1}) != sha256({"a": 1, "b": [1.25]})
