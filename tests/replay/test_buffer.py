import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hieros_repro.replay.bank import BANKS, Plain
from hieros_repro.replay.buffer import Buffer, Places

NAMES = ("number", "pair")


def rows(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """What the steps of these numbers hold."""
    numbers = np.asarray(numbers, np.int64)
    return {"number": numbers, "pair": np.stack([numbers, -numbers], -1).astype(np.float32)}


def empty(streams: int, steps: int, length: int, slack: int = 1, place: str = "memory") -> Buffer:
    return Buffer(BANKS[place](streams * (steps + slack), None, "cpu"), streams, steps, length)


class Model:
    """The same, slowly and obviously: every step that ever came, and every window in the order in which it was complete."""

    def __init__(self, streams: int, steps: int, length: int):
        self.streams, self.steps, self.length = streams, steps, length
        self.events: list[int] = []  # whose each step is; its number is its index
        self.held: list[list[int]] = [[] for _ in range(streams)]
        self.windows: list[tuple[int, int]] = []
        self.first = 0

    def add(self, stream: int) -> None:
        self.held[stream].append(len(self.events))
        self.events.append(stream)
        if len(self.held[stream]) >= self.length:
            self.windows.append((stream, len(self.held[stream]) - self.length))

    def settle(self) -> None:
        lost = [n for n, (stream, at) in enumerate(self.windows) if at < len(self.held[stream]) - self.steps]
        self.first = max(self.first, max(lost, default=-1) + 1)

    def oldest(self) -> list[int]:
        """The first step of each stream that is or may become part of a window."""
        starts = [len(held) - self.length + 1 for held in self.held]
        stored = self.windows[self.first :]
        return [max(0, min([start, *(at for s, at in stored if s == stream)])) for stream, start in enumerate(starts)]

    def gone(self) -> int:
        """How many of the first steps of all nobody needs any more."""
        count, seen, oldest = 0, [0] * self.streams, self.oldest()
        for stream in self.events:
            seen[stream] += 1
            if seen[stream] > oldest[stream]:
                break
            count += 1
        return count


class Both:
    """A buffer and its model, under the same commands."""

    def __init__(self, streams: int, steps: int, length: int, slack: int):
        self.shape = streams, steps, length, slack
        self.buffer, self.model = empty(*self.shape), Model(streams, steps, length)

    def add_all(self, mask: list[bool] | None = None) -> None:
        own = np.arange(self.model.streams) if mask is None else np.flatnonzero(mask[: self.model.streams])
        values = np.full(self.model.streams, -1)
        values[own] = len(self.model.events) + np.arange(len(own))
        self.buffer.add(rows(values), None if mask is None else own)
        for stream in own.tolist():
            self.model.add(stream)

    def extend(self, streams: list[int]) -> None:
        own = np.array(streams, np.int64) % self.model.streams
        start = len(self.model.events)
        self.buffer.extend(rows(np.arange(start, start + len(own))), own)
        for stream in own.tolist():
            self.model.add(stream)

    def restore(self, share: float) -> None:
        """A new buffer, as a replay makes it from its files: only steps from some point on come back."""
        self.check()
        skipped = int(share * self.model.gone())
        lengths = np.bincount(self.model.events[:skipped], minlength=self.model.streams)
        first, end = self.buffer.first, self.buffer.end
        self.buffer = empty(*self.shape)
        self.buffer.begin(lengths)
        for start in range(skipped, len(self.model.events), 7):
            numbers = np.arange(start, min(start + 7, len(self.model.events)))
            self.buffer.extend(rows(numbers), np.array(self.model.events)[numbers])
        self.buffer.renumber(first, end)

    def check(self) -> None:
        buffer, model = self.buffer, self.model
        buffer.settle()
        model.settle()
        assert (buffer.first, buffer.end) == (model.first, len(model.windows))
        assert buffer.total == len(model.events)
        assert buffer.lengths.tolist() == [len(held) for held in model.held]
        assert buffer.oldest().tolist() == model.oldest()
        numbers = np.arange(buffer.first, buffer.end)
        places, windows = buffer.places(numbers), model.windows[model.first :]
        assert [tuple(pair) for pair in places.pairs()] == windows
        assert buffer.kept(places).all()
        if not windows:
            return
        found = buffer.gather(places, NAMES)
        expected = [model.held[stream][at : at + model.length] for stream, at in windows]
        assert found["number"].tolist() == expected
        assert found["pair"][..., 1].tolist() == (-found["number"]).tolist()


commands = st.lists(
    st.one_of(
        st.tuples(st.just("add_all"), st.none()),
        st.tuples(st.just("add_all"), st.lists(st.booleans(), min_size=4, max_size=4)),
        st.tuples(st.just("extend"), st.lists(st.integers(0, 3), max_size=40)),
        st.tuples(st.just("restore"), st.sampled_from([0.0, 0.5, 1.0])),
        st.tuples(st.just("check")),
        st.tuples(st.just("stay"), st.integers(1, 30)),
    ),
    max_size=40,
)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 4), st.integers(1, 6), st.integers(0, 9), st.integers(1, 4), commands)
def test_any_sequence_of_steps_leaves_the_windows_that_counting_by_hand_leaves(streams, length, more, slack, sequence):
    both = Both(streams, length + more, length, slack)
    for name, *arguments in sequence:
        if name == "stay":  # one stream gets many steps, the others none
            for _ in range(arguments[0]):
                both.add_all([True] + [False] * 3)
        else:
            getattr(both, name)(*arguments)
    both.check()


@pytest.mark.parametrize(("steps", "length"), [(1, 1), (9, 1), (9, 9), (9, 4)])
def test_windows_are_all_there_is_and_no_more(steps, length):
    """Of one stream: when full it holds steps - length + 1 windows, numbered from the first ever."""
    buffer = empty(1, steps, length)
    for tick in range(40):
        buffer.add(rows(np.array([tick])))
        buffer.settle()
        assert buffer.end == max(0, tick + 2 - length)
        assert buffer.end - buffer.first == max(0, min(tick + 1, steps) - length + 1)


def test_ages_are_right_after_a_million_steps_were_forgotten():
    """Step `at` of stream s has the number 2 at + s. Window n, of 4 steps, starts in stream n % 2 at n // 2."""
    buffer = empty(2, 1000, 4, slack=500)
    for start in range(0, 1_000_000, 10_000):
        numbers = np.arange(start, start + 10_000)
        buffer.extend(rows(numbers), numbers % 2)
    assert (buffer.first, buffer.end) == (2 * (500_000 - 1000), 2 * (500_000 - 3))
    numbers = np.arange(buffer.first, buffer.end)
    assert buffer.gather(buffer.places(numbers), ["number"])["number"][:, 0].tolist() == numbers.tolist()


def test_a_dense_stream_takes_older_windows_of_a_sparse_one_along():
    """By hand: 0 has a step a tick, 1 one in tick 0 and one in tick 4; 3 steps are kept, windows have 1.

    Completed in the order (0,0) (1,0) (0,1) (0,2) (0,3) (0,4) (1,1). When 0 forgets its step 0, only that window goes; with
    its step 1 goes what is older, stream 1's first, although that step is kept.
    """
    buffer = empty(2, 3, 1)
    found = []
    for tick in range(5):
        buffer.add(rows(np.array([tick, 100 + tick])), np.arange(2 if tick in (0, 4) else 1))
        buffer.settle()
        found.append([tuple(pair) for pair in buffer.places(np.arange(buffer.first, buffer.end)).pairs()])
    assert found[2] == [(0, 0), (1, 0), (0, 1), (0, 2)]
    assert found[3] == [(1, 0), (0, 1), (0, 2), (0, 3)]
    assert found[4] == [(0, 2), (0, 3), (0, 4), (1, 1)]
    assert buffer.kept(Places.of([[1, 0], [1, 1], [0, 1], [0, 2]])).tolist() == [False, True, False, True]


@pytest.mark.parametrize("slack", [1, 3, 10])
def test_a_forgotten_step_can_be_read_for_as_many_ticks_as_there_is_slack(slack):
    buffer = empty(2, 10, 2, slack)
    for tick in range(25):
        buffer.add(rows(np.array([tick, 100 + tick])))
    oldest = Places.of([[0, 15], [1, 15]])
    assert buffer.kept(oldest).all() and not buffer.kept(Places.of([[0, 14]])).any()
    for tick in range(25, 25 + slack):
        buffer.add(rows(np.array([tick, 100 + tick])))
        assert buffer.gather(oldest, ["number"])["number"].tolist() == [[15, 16], [115, 116]]
    buffer.add(rows(np.array([-1, -1])))
    assert buffer.gather(oldest, ["number"])["number"].tolist() == [[-1, 16], [-1, 116]]


def test_steps_that_come_in_bulk_after_single_ones_find_the_room_they_need():
    """Single steps not yet counted and as many in bulk are more at a time than there is slack."""
    both = Both(2, 6, 1, 4)
    for _ in range(20):
        for _ in range(3):
            both.add_all()
        both.extend([0, 0, 0, 0, 1, 1, 1, 1])
    both.check()


def test_the_newest_and_the_stored_steps_are_told_stream_by_stream():
    buffer = empty(3, 3, 2)
    buffer.extend(rows(np.arange(6)), np.array([0, 2, 2, 2, 2, 0]))
    assert buffer.latest().pairs() == [[0, 1], [2, 3]]
    assert Places.between(buffer.oldest(), buffer.lengths).pairs() == [[0, 0], [0, 1], [2, 1], [2, 2], [2, 3]]


def test_what_no_window_can_reach_any_more_is_not_kept():
    """Stream 1 falls silent after 3 steps; with windows of 2, its last step alone can still be part of one."""
    buffer = empty(2, 4, 2)
    for tick in range(20):
        buffer.add(rows(np.array([tick, 100 + tick])), np.arange(2 if tick < 3 else 1))
    buffer.settle()
    assert buffer.oldest().tolist() == [16, 2]
    assert buffer.kept(Places.of([[1, 1], [1, 2], [0, 15], [0, 16]])).tolist() == [False, True, False, True]


def test_a_step_that_comes_to_nobody_changes_nothing():
    buffer = empty(2, 5, 2)
    buffer.add(rows(np.array([0, 1])), np.array([], np.int64))
    assert buffer.total == buffer.settle() == buffer.end == 0


def test_an_uneven_buffer_puts_a_step_of_all_where_each_stream_is():
    buffer = empty(2, 4, 1)
    buffer.add(rows(np.array([0, 1])), np.array([1]))
    buffer.add(rows(np.array([2, 3])))
    buffer.settle()
    assert buffer.gather(buffer.places(np.arange(3)), ["number"])["number"].tolist() == [[1], [2], [3]]


def test_rows_are_kept_in_the_type_they_came_in():
    buffer = Buffer(Plain(4), 1, 3, 1)
    buffer.add({"flag": np.array([True]), "picture": np.full((1, 2, 2, 3), 255, np.uint8), "half": np.ones(1, np.float16)})
    assert {name: str(array.dtype) for name, array in buffer.bank.arrays.items()} == {
        "flag": "bool",
        "picture": "uint8",
        "half": "float16",
    }
