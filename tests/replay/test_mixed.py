from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from hieros_repro.check import parameters
from hieros_repro.determinism.fingerprint import digest_tree
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Memory, Request, Rows, Space, Spaces, UserError
from hieros_repro.replay import parts, selector
from hieros_repro.replay.base import Held, Replay
from hieros_repro.replay.dataset import Dataset, Writer, episode
from hieros_repro.replay.making import made
from hieros_repro.replay.mixed import Mixed
from hieros_repro.replay.windows import Windows
from tests.replay.contract import LastingContract
from tests.replay.making import ENVS, SPACES, VALUES, add, batch_of, done, drive, seen, through_a_file, told

REQUEST = Request("windows", 8, 4)
LATER = 10_000  # the tick of the first recorded row
LENGTHS = (9, 4, 6, 12)  # steps of the recorded episodes
ROWS = sum(LENGTHS) + len(LENGTHS)


def recorded(path: Path, lengths: tuple[int, ...] = LENGTHS, spaces: Spaces = SPACES) -> Dataset:
    """Episodes one after the other: row r of all shows what environment 0 shows at tick LATER + r."""
    tick = LATER
    with Writer(path, spaces, 20) as writer:
        for length in lengths:
            ticks = range(tick, tick + length + 1)
            obs = {name: np.stack([seen(t).obs[name][0] for t in ticks]) for name in spaces.observation}
            action = np.array([done(t)[0] for t in ticks[:-1]])
            writer.add(episode(spaces, obs, action, np.arange(length, dtype=np.float32), length % 2 == 0))
            tick += length + 1
        return writer.finish({"env": {"id": "Known-v0"}}, [], {})


def mixed(folder: Path | None, dataset: Path | None, share: float = 0.5, memory: Memory = Memory(4), **changes: Any) -> Replay:  # noqa: B008
    kind = changes.pop("kind", selector.Uniform)
    held = Held(changes.pop("spaces", SPACES), ENVS, Memory(), folder)
    node = {
        **VALUES, "bias": 2.0, "dataset": str(dataset) if dataset else None, "dataset_part": None, "dataset_share": share,
        **changes,
    }  # fmt: skip
    return made(kind, held, {"windows": memory}, node, parameters)["windows"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    recorded(tmp_path / "dataset")
    return tmp_path / "dataset"


def from_dataset(batch: Any) -> list[bool]:
    return (told(batch, "obs.id")[:, 0, 0] >= LATER).tolist()


class MixedContract(LastingContract):
    request: ClassVar[Request] = REQUEST

    @pytest.fixture(autouse=True)
    def known(self, dataset: Path) -> None:
        """The dataset is there."""

    def rows_are_right(self, batch):
        """The first half are windows of its own, the others are recorded rows as they were recorded."""
        assert from_dataset(batch) == [False] * 4 + [True] * 4

        def part(tree: Any, rows: slice) -> Any:
            return {k: part(v, rows) if isinstance(v, dict) else np.asarray(v)[rows] for k, v in tree.items()}

        own = type("Own", (LastingContract,), {"request": REQUEST._replace(batch=4)})()
        own.windows_are_right(part(batch, slice(0, 4)))
        recorded_rows_are_right(part(batch, slice(4, 8)))


def recorded_rows_are_right(batch: Any) -> None:
    ids = told(batch, "obs.id").astype(int)
    assert (ids[:, :, 1] == 0).all() and (np.diff(ids[:, :, 0]) == 1).all()
    begins = np.concatenate([[0], np.cumsum(np.array(LENGTHS) + 1)])
    for b, t in np.ndindex(*ids.shape[:2]):
        row = ids[b, t, 0] - LATER
        number = int(np.searchsorted(begins, row, side="right")) - 1
        at, length = row - begins[number], LENGTHS[number]
        assert 0 <= row < ROWS
        assert np.array_equal(told(batch, "obs.image")[b, t], seen(LATER + row).obs["image"][0])
        assert told(batch, "is_first")[b, t] == (t == 0 or at == 0)
        assert told(batch, "is_last")[b, t] == (at == length)
        assert told(batch, "is_terminal")[b, t] == (at == length and length % 2 == 0)
        assert told(batch, "reward")[b, t] == (at - 1 if at else 0)
        assert told(batch, "action")[b, t] == (done(LATER + row)[0] if at < length else 0)


class TestMixed(MixedContract):
    make = staticmethod(lambda folder: mixed(folder, folder.parent / "dataset"))


class TestMixedNaive(MixedContract):
    make = staticmethod(lambda folder: mixed(folder, folder.parent / "dataset", kind=selector.TimeBalancedNaive, online=True))


# -- Shares ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "batch", "count"),
    [(0.01, 8, 1), (0.1, 8, 1), (0.5, 8, 4), (0.5, 5, 2), (0.25, 16, 4), (0.9, 8, 7), (1.0, 8, 8)],
)
def test_of_every_batch_the_same_rounded_share_is_recorded(dataset, share, batch, count):
    replay = add(mixed(None, dataset, share), 0, 30)
    for number in range(5):
        found = from_dataset(batch_of(replay, REQUEST._replace(batch=batch), number))
        assert found == [False] * (batch - count) + [True] * count


@pytest.mark.parametrize("place", ["memory", "mapped", "device"])
def test_a_batch_has_the_same_types_wherever_rows_lie(dataset, place):
    batch = batch_of(add(mixed(None, dataset, place=place), 0, 30), REQUEST, 0)
    assert all(isinstance(value, torch.Tensor) == (place == "device") for value in (batch["reward"], batch["obs"]["image"]))
    assert digest_tree(batch) == digest_tree(batch_of(add(mixed(None, dataset), 0, 30), REQUEST, 0))


def test_every_recorded_window_can_be_chosen_and_none_twice_as_often_by_its_place(dataset):
    batch = batch_of(mixed(None, dataset, 1.0), REQUEST._replace(batch=4000), 0)
    counts = np.bincount(told(batch, "obs.id")[:, 0, 0].astype(int) - LATER)
    assert len(counts) == ROWS - 3 and counts.min() > 50 and counts.max() < 200


def test_own_and_recorded_windows_are_drawn_apart(dataset):
    """32 windows of either: equal draws would choose equal ages."""
    only_0 = np.array([True, False, False])
    replay = add(mixed(None, dataset), 0, 35, lambda tick: Rows({"action": done(tick)}, only_0))
    begins = told(batch_of(replay, REQUEST._replace(batch=40), 0), "obs.id")[:, 0, 0].reshape(2, 20)
    assert (begins[0] < 32).all() and (begins[1] < LATER + 32).all()
    assert (begins[0] != begins[1] - LATER).mean() > 0.5


def test_a_dataset_alone_needs_no_experience(dataset, tmp_path):
    replay = mixed(tmp_path / "files", dataset, 1.0, min_size=1000)
    assert replay.ready(REQUEST, ending=False)
    batch = batch_of(replay, REQUEST, 0)
    assert from_dataset(batch) == [True] * 8
    recorded_rows_are_right(batch)
    state = through_a_file(tmp_path / "checkpoints", replay.state())
    expected = digest_tree(batch_of(replay, REQUEST, 1))
    other = mixed(tmp_path / "files", dataset, 1.0, min_size=1000)
    other.load(state)
    assert digest_tree(batch_of(other, REQUEST, 1)) == expected


def test_with_any_experience_of_its_own_in_a_batch_that_must_be_ready(dataset):
    replay = mixed(None, dataset, 0.5, min_size=30)
    assert [add(replay, tick, tick + 1).ready(REQUEST, ending=False) for tick in range(12)] == [False] * 9 + [True] * 3


def test_only_its_own_steps_count_against_the_limit(dataset):
    """4 windows of 4 an update; 3 steps a tick: with one replay a step every 16/3 ticks."""
    replay, updates = mixed(None, dataset, 0.5, samples_per_insert=1.0), []
    for tick in range(33):
        add(replay, tick, tick + 1)
        while replay.ready(REQUEST, False):
            batch_of(replay, REQUEST, tick)
            updates.append(tick)
    assert updates == [5, 10, 15, 21, 26, 31]


def test_online_is_about_what_comes_not_about_what_was_recorded(dataset):
    """Recorded windows come as the selector draws them, not from the first on."""
    batch = batch_of(add(mixed(None, dataset, online=True), 0, 30), REQUEST, 0)
    ids = told(batch, "obs.id")[:, 0]
    assert ids[:4].tolist() == [[0, 0], [0, 1], [0, 2], [4, 0]]
    assert ids[4:, 0].tolist() != [LATER, LATER + 4, LATER + 8, LATER + 12]


# -- What is recorded stays as it is -----------------------------------------------------------------------------------


def test_neither_learning_nor_adding_changes_a_recorded_row(dataset):
    replay = mixed(None, dataset)
    before = digest_tree(replay.recorded.bank.arrays)
    add(replay, 0, 200)
    batch = batch_of(replay, REQUEST, 0)
    batch["obs"]["image"][:] = 0
    replay.cut()
    assert digest_tree(replay.recorded.bank.arrays) == before


def test_choosing_does_not_pile_up_what_was_chosen(dataset):
    replay = mixed(None, dataset, 1.0)
    for number in range(300):
        batch_of(replay, REQUEST, number)
    assert len(replay.recorded._readings) <= 102 and not any(work() is not None for _, work in replay.recorded._readings)


def test_without_a_dataset_there_are_only_windows(tmp_path):
    assert type(mixed(None, None)) is Windows


# -- Refusals ----------------------------------------------------------------------------------------------------------


def test_another_dataset_than_the_checkpoints_is_refused(dataset, tmp_path):
    state = add(mixed(tmp_path / "files", dataset), 0, 30).state()
    recorded(tmp_path / "other", (9, 4, 6, 11))
    with pytest.raises(UserError, match=r"replay\.dataset=.*other: its digest is .*, the checkpoint learned from "):
        mixed(tmp_path / "b", tmp_path / "other").load(state)
    state.pop("dataset")
    with pytest.raises(UserError, match=r"replay\.dataset=.*dataset: its digest is .*, the checkpoint learned from no dataset"):
        mixed(tmp_path / "c", dataset).load(state)


def test_another_part_than_the_checkpoints_is_refused(dataset, tmp_path):
    opened = Dataset.open(dataset)
    parts.write(dataset, parts.SPLITS, opened.digest, {}, {"train": [0, 1, 2], "val": [3]}, replace=False)
    train = mixed(tmp_path / "files", dataset, dataset_part="train")
    assert (told(batch_of(add(train, 0, 30), REQUEST, 0), "obs.id")[4:, :, 0] < LATER + 22).all()
    state = train.state()
    mixed(tmp_path / "files", dataset, dataset_part="train").load(state)
    with pytest.raises(UserError, match=r"replay\.dataset_part=val: the checkpoint learned from other episodes"):
        mixed(tmp_path / "b", dataset, dataset_part="val").load(state)


def test_a_dataset_of_another_environment_is_refused(dataset):
    other = Spaces(SPACES.observation, Space("discrete", (), sizes=(7,)))
    with pytest.raises(UserError, match=r"replay\.dataset=.*: it was recorded in another environment"):
        mixed(None, dataset, spaces=other)


@pytest.mark.parametrize(
    ("memories", "says"),
    [
        ({"windows": Memory(4, ("deter",))}, r"make \(deter\); use agent\.replay_context=0 or replay\.dataset=null"),
        ({"windows": Memory(4, observes=False)}, r"make \(windows\); use replay\.dataset=null"),
        ({"windows": Memory(4, every=2)}, r"make \(windows\); use replay\.dataset=null"),
        (
            {"low": Memory(4), "mid": Memory(4, ("deter",), observes=False), "high": Memory(4, observes=False, every=4)},
            r"make \(mid, high\); use replay\.dataset=null",
        ),
    ],
)
def test_an_agent_that_needs_rows_of_its_own_making_is_refused_before_anything_is_there(tmp_path, memories, says):
    """Nothing is read of the dataset, and no replay has made its folder."""
    held, folder = Held(SPACES, ENVS, Memory(), tmp_path / "replay"), tmp_path / "none"
    node = {**VALUES, "dataset": str(folder), "dataset_part": None, "dataset_share": 0.5}
    with pytest.raises(UserError, match=rf"replay\.dataset={folder}: this agent learns from rows that only it can {says}$"):
        made(selector.Uniform, held, memories, node, parameters)
    assert not (tmp_path / "replay").exists()


def test_replays_have_their_names_memories_and_folders(tmp_path):
    node = {**VALUES, "dataset": None, "dataset_part": None, "dataset_share": 0.5}
    memories = {"low": Memory(4), "high": Memory(5, observes=False, every=4)}
    replays = made(selector.Uniform, Held(SPACES, ENVS, Memory(), tmp_path), memories, node, parameters)
    assert list(replays) == ["low", "high"] and {name: replay.memory for name, replay in replays.items()} == memories
    assert sorted(path.name for path in tmp_path.iterdir()) == ["high", "low"]
    assert [replay.buffer.steps for replay in replays.values()] == [40, 10]


def test_rows_that_a_dataset_does_not_have_are_told(dataset):
    replay = add(mixed(None, dataset), 0, 30, lambda tick: Rows({"action": done(tick), "logit": np.zeros((ENVS, 2))}))
    with pytest.raises(UserError, match=r"replay\.dataset: logit is not both in its rows and in those of this agent"):
        replay.choose(Key(7)("replay", 0), REQUEST).gather()


def test_a_dataset_shorter_than_a_window_is_refused(tmp_path):
    recorded(tmp_path / "dataset", (2,))
    with pytest.raises(UserError, match=r"replay\.dataset=.*: its 3 rows are less than one window of 4"):
        mixed(None, tmp_path / "dataset")


def test_with_another_selector_a_restored_replay_counts_anew(dataset, tmp_path):
    replay = mixed(tmp_path / "files", dataset, kind=selector.TimeBalancedNaive)
    drive(replay, REQUEST, 0, 40)
    state = replay.state()
    replay.close()
    other = mixed(tmp_path / "files", dataset)
    other.load(state)
    assert isinstance(other, Mixed) and drive(other, REQUEST, 40, 60)


def test_room_is_taken_by_what_is_recorded_from_the_start(tmp_path, dataset):
    replay = mixed(tmp_path / "replay", dataset)
    recorded = sum(array.nbytes for array in replay.recorded.bank.arrays.values())
    rows = replay.recorded.buffer.steps / replay.recorded.bank.count  # without its slack
    assert replay.room(0) == pytest.approx(rows * recorded) and replay.room(30) == replay.room(0) + replay.own.room(30)
