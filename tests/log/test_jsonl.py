import struct

import hypothesis
import pytest
from hypothesis import strategies as st

from hieros_repro.log import jsonl
from hieros_repro.log.jsonl import JsonLines
from hieros_repro.records import UserError


@pytest.fixture
def file(tmp_path):
    lines = JsonLines(tmp_path / "rows.jsonl")
    yield lines
    lines.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("floats")


@hypothesis.given(st.floats(allow_nan=False))
def test_floats_read_back_to_the_same_bits(folder, value):
    (folder / "rows.jsonl").unlink(missing_ok=True)
    lines = JsonLines(folder / "rows.jsonl")
    lines.write({"x": value})
    lines.close()
    (row,) = jsonl.read(folder / "rows.jsonl")
    assert struct.pack("d", row["x"]) == struct.pack("d", value)


def test_rows_come_back_in_order_with_their_keys_in_order(file):
    rows = [{"step": 1, "b": 2, "a": None}, {"step": 2, "text": 'line\nbreak "x" é'}]
    for row in rows:
        file.write(row)
    file.flush()
    assert [list(row.items()) for row in jsonl.read(file.path)] == [list(row.items()) for row in rows]


def test_the_offset_counts_what_was_written_but_not_yet_flushed(file):
    file.write({"a": 1})
    assert file.offset() == len('{"a": 1}\n')


def test_a_cut_forgets_what_came_after_and_writing_goes_on_there(file):
    file.write({"step": 1})
    offset = file.offset()
    file.write({"step": 2})
    file.cut(offset)
    file.write({"step": 3})
    file.flush()
    assert list(jsonl.read(file.path)) == [{"step": 1}, {"step": 3}]


def test_a_file_shorter_than_the_checkpoint_knows_is_an_error_that_names_it(file):
    file.write({"step": 1})
    with pytest.raises(UserError, match=f"{file.path} has 12 bytes, fewer than the 99"):
        file.cut(99)


def test_an_existing_file_is_continued(file):
    file.write({"step": 1})
    file.close()
    again = JsonLines(file.path)
    again.write({"step": 2})
    again.close()
    assert list(jsonl.read(file.path)) == [{"step": 1}, {"step": 2}]


def test_a_last_line_cut_short_is_left_out(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"step": 1}\n{"step": 2')
    assert list(jsonl.read(tmp_path / "rows.jsonl")) == [{"step": 1}]


def test_a_broken_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(b'{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=f"{tmp_path / 'rows.jsonl'}, line 2: not a JSON object"):
        list(jsonl.read(tmp_path / "rows.jsonl"))


def test_a_file_that_is_not_there_has_no_rows(tmp_path):
    assert list(jsonl.read(tmp_path / "absent.jsonl")) == []
