import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hieros_repro.determinism import fingerprint
from hieros_repro.determinism.fingerprint import CHUNK, Stream, combine, digest, digest_tree
from hieros_repro.determinism.keys import Key

DTYPES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1", "c8", "c16"]
M = (1 << 64) - 1


def splitmix(x: int) -> int:
    """Steele, Lea & Flood (2014), the finaliser and its increment."""
    x = (x + 1) * 0x9E3779B97F4A7C15 & M
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & M
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & M
    return x ^ (x >> 31)


def word_by_word(raw: bytes, kind: str, shape: tuple[int, ...]) -> str:
    raw += b"\0" * (-len(raw) % 4)
    total = 0
    for i in range(len(raw) // 4):
        weight = (splitmix(i % CHUNK) | 1) * (splitmix(i // CHUNK + 2**32) | 1)
        total += weight * int.from_bytes(raw[4 * i : 4 * i + 4], "little")
    salt = hashlib.blake2b(f"{kind}{shape}".encode(), digest_size=8).digest()
    return f"{(total & M) ^ int.from_bytes(salt, 'little'):016x}"


def some(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    raw = Key(0)("data", dtype).integers(256, (*shape, np.dtype(dtype).itemsize)).astype(np.uint8)
    return raw.reshape(-1).view(np.dtype(dtype)).reshape(shape) if dtype != "b1" else np.asarray(raw[..., 0] > 127)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3,), (5, 7), (2, 0, 3), (3, 5, 1)])
def test_numpy_and_torch_agree(dtype, shape):
    array = some(shape, dtype)
    assert digest(array) == digest(torch.from_numpy(array))


@pytest.mark.parametrize("dtype", ["f4", "u1", "i8"])
@pytest.mark.parametrize("shape", [(7,), (2, 3)])
def test_the_digest_is_the_sum_its_definition_says(dtype, shape):
    array = some(shape, dtype)
    assert digest(array) == word_by_word(array.tobytes(), dtype, shape)


def test_the_digest_of_a_long_array_is_the_sum_its_definition_says():
    array = some((CHUNK + 33,), "u4")
    assert digest(array) == word_by_word(array.tobytes(), "u4", array.shape)


def test_digests_never_change():
    assert digest(np.arange(6, dtype=np.float32).reshape(2, 3)) == "6271f0ff855f95b9"
    assert digest_tree({"b": [1, np.zeros(2, bool)], "a": {"x": "text"}}) == "a66784a33078c61b"


def test_bfloat16_is_digested_by_its_bits():
    tensor = torch.tensor([1.0, -2.5, 0.0]).bfloat16()
    assert digest(tensor) == word_by_word(bytes.fromhex("803f20c00000"), "bf16", (3,))
    assert digest(tensor) != digest(tensor.view(torch.int16))


@pytest.mark.parametrize("cut", [np.s_[::2], np.s_[:, 1:3], np.s_[::-1], np.s_[1], np.s_[:, ::-2]])
def test_a_view_has_the_digest_of_its_copy(cut):
    array = some((6, 8), "f4")
    assert digest(array[cut]) == digest(array[cut].copy())


def test_a_transposed_tensor_has_the_digest_of_its_copy():
    tensor = torch.arange(12.0).view(3, 4)
    assert digest(tensor.T) == digest(tensor.T.clone(memory_format=torch.contiguous_format)) == digest(tensor.T.numpy())


def test_a_tensor_with_gradient_has_the_digest_of_its_values():
    tensor = torch.arange(5.0, requires_grad=True)
    assert digest(tensor) == digest(tensor.detach())


@given(arrays.arrays(np.uint8, st.integers(1, 70)), st.data())
def test_every_flipped_bit_changes_the_digest(array, data):
    changed = array.copy()
    changed[data.draw(st.integers(0, len(array) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert digest(changed) != digest(array)


@given(st.integers(0, 3 * CHUNK - 1), st.integers(0, 31))
def test_a_flipped_bit_far_into_a_long_array_changes_the_digest(word, bit):
    array = np.zeros(3 * CHUNK, np.uint32)
    before = digest(array)
    array[word] = 1 << bit
    assert digest(array) != before


def test_minus_zero_is_not_zero():
    assert digest(np.array([0.0], np.float32)) != digest(np.array([-0.0], np.float32))


@given(st.integers(0, 39), st.integers(0, 39))
def test_swapped_rows_change_the_digest(i, j):
    rows = np.arange(120, dtype=np.float32).reshape(40, 3)
    swapped = rows.copy()
    swapped[[i, j]] = swapped[[j, i]]
    assert (digest(swapped) == digest(rows)) == (i == j)


def test_rows_swapped_across_chunks_change_the_digest():
    rows = np.arange(2 * CHUNK, dtype=np.int32).reshape(2, CHUNK)
    assert digest(rows) != digest(rows[::-1])


def test_the_shape_is_part_of_the_digest():
    flat = np.zeros(6, np.float32)
    shapes = [(6,), (2, 3), (3, 2), (6, 1), (1, 6)]
    assert len({digest(flat.reshape(shape)) for shape in shapes}) == 5


def test_the_type_is_part_of_the_digest():
    assert len({digest(np.zeros(4, dtype)) for dtype in DTYPES}) == len(DTYPES)


@pytest.mark.parametrize("length", [1, 5, CHUNK, CHUNK + 1, 2 * CHUNK + 7])
def test_the_sum_on_the_device_is_the_sum_in_numpy(length):
    words = some((length,), "u4")
    on_device = fingerprint._device_sum(torch.from_numpy(words.astype(np.int64)))
    assert on_device == fingerprint._sum_words(words, 0)


def test_a_numpy_scalar_has_the_digest_of_its_array():
    assert digest(np.float32(1.5)) == digest(np.array(1.5, np.float32))


# Streams


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.sampled_from(["u1", "f4", "b1"]), st.integers(1, 5))
def test_a_stream_does_not_see_how_it_was_cut(lengths, dtype, width):
    rows = some((sum(lengths), width), dtype)
    whole, pieces = Stream(), Stream()
    whole.add(rows)
    for start, length in zip(np.cumsum([0, *lengths]), lengths, strict=False):
        pieces.add(rows[start : start + length])
    assert pieces.hexdigest() == whole.hexdigest()


def test_a_stream_cut_at_a_chunk_is_the_same():
    rows = some((CHUNK + 10, 3), "i4")
    whole, pieces = Stream(), Stream()
    whole.add(rows)
    pieces.add(rows[: CHUNK // 3]), pieces.add(rows[CHUNK // 3 :])
    assert pieces.hexdigest() == whole.hexdigest()


def test_a_stream_sees_rows_of_zeros():
    short, long = Stream(), Stream()
    short.add(np.zeros((2, 3), np.float32)), long.add(np.zeros((3, 3), np.float32))
    assert short.hexdigest() != long.hexdigest()


def test_a_stream_sees_the_order_of_rows():
    rows = some((4, 2), "f4")
    forward, backward = Stream(), Stream()
    forward.add(rows), backward.add(rows[::-1])
    assert forward.hexdigest() != backward.hexdigest()


# Trees


def test_the_order_of_a_dictionary_does_not_matter():
    a, b = np.arange(3), torch.arange(4.0)
    assert digest_tree({"a": a, "b": {"c": b, "d": 1}}) == digest_tree({"b": {"d": 1, "c": b}, "a": a})


@pytest.mark.parametrize("other", [{"a": [1, 2]}, {"a": [2, 1, 3]}, {"b": [1, 2, 3]}, {"a": [1, 2, 3.0]}, {"a": [1, 2, "3"]}])
def test_every_leaf_of_a_tree_counts(other):
    assert digest_tree(other) != digest_tree({"a": [1, 2, 3]})


def test_a_combination_sees_order_and_borders():
    assert len({combine(parts) for parts in (["ab", "c"], ["a", "bc"], ["c", "ab"], ["abc"])}) == 4
