"""Digests of arrays and tensors: 64 bits that change when one bit, one position, the shape or the type changes.

An array is read as 32-bit words w_0, w_1, ... and its digest is

    sum_i  a_i * w_i   modulo 2^64,      a_i odd, fixed, pseudo-random

Integer sums do not depend on their order, so numpy, CPU and GPU agree and a GPU may sum as it likes. An odd a_i times a change
of less than 2^32 is never 0 modulo 2^64: a changed word is always seen; a permutation is missed with a chance of about 2^-64.
"""

import functools
import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

CHUNK = 1 << 16  # a_i = low[i % CHUNK] * high[i // CHUNK]
_MASK = (1 << 64) - 1


def digest(array: "np.ndarray | torch.Tensor") -> str:
    """16 hex digits for one array or tensor, wherever it lives."""
    if isinstance(array, np.ndarray | np.generic):
        kind, shape, total = array.dtype.str.lstrip("<=|>"), array.shape, _sum_words(_words(array), 0)
    else:
        kind, shape, total = _KINDS.get(str(array.dtype), str(array.dtype)), tuple(array.shape), _tensor_sum(array)
    salt = hashlib.blake2b(f"{kind}{tuple(shape)}".encode(), digest_size=8).digest()
    return f"{(total ^ int.from_bytes(salt, 'little')) & _MASK:016x}"


def digest_tree(tree: Mapping[str, Any]) -> str:
    """One digest for a nest of mappings, sequences, arrays, tensors and plain values."""
    return combine(f"{path}={leaf}" for path, leaf in _leaves(tree, ""))


def combine(parts: Iterable[str]) -> str:
    """One digest for many, order included."""
    state = hashlib.blake2b(digest_size=8)
    for part in parts:
        state.update(part.encode() + b"\0")
    return state.hexdigest()


def tick_sums(rows: np.ndarray) -> np.ndarray:
    """One 64-bit sum per row, a function of that row alone: it tells at which of many ticks something changed."""
    words = _row_words(rows)
    low, high = _weights()
    total = np.zeros(len(words), np.uint64)
    for chunk, start in enumerate(range(0, words.shape[1], CHUNK)):
        piece = words[:, start : start + CHUNK]
        total += (low[: piece.shape[1]] * piece).sum(1, dtype=np.uint64) * np.uint64(high(chunk))
    return total


class Stream:
    """The digest of everything shown so far, however it was cut into pieces: position and sum are its whole state."""

    def __init__(self) -> None:
        self.position = 0
        self.total = 0

    def add(self, rows: np.ndarray) -> None:
        """Rows of one kind and shape, one per tick. Each row is padded to whole words, so cutting elsewhere changes nothing."""
        words = _row_words(rows).reshape(-1)
        self.total = (self.total + _sum_words(words, self.position)) & _MASK
        self.position += len(words)

    def hexdigest(self) -> str:
        return f"{(self.total + self.position * 0x9E3779B97F4A7C15) & _MASK:016x}"


def _leaves(node: Any, path: str) -> Iterable[tuple[str, str]]:
    if isinstance(node, Mapping):
        for name in sorted(node):
            yield from _leaves(node[name], f"{path}/{name}")
    elif isinstance(node, list | tuple):
        for index, child in enumerate(node):
            yield from _leaves(child, f"{path}/{index}")
    elif hasattr(node, "dtype") and hasattr(node, "shape"):
        yield path, digest(node)
    else:
        yield path, repr(node)


# -- numpy -------------------------------------------------------------------------------------------------------------


def _row_words(rows: np.ndarray) -> np.ndarray:
    """(rows, words): each row padded to whole words."""
    flat = np.ascontiguousarray(rows).reshape(len(rows), -1).view(np.uint8)
    padding = -flat.shape[1] % 4
    return (np.pad(flat, ((0, 0), (0, padding))) if padding else flat).view("<u4")


def _words(array: np.ndarray) -> np.ndarray:
    raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    padding = -len(raw) % 4
    return (np.pad(raw, (0, padding)) if padding else raw).view("<u4")


def _sum_words(words: np.ndarray, position: int) -> int:
    """sum of a_(position + i) * words_i."""
    total, start = 0, 0
    low, high = _weights()
    while start < len(words):
        offset, chunk = (position + start) % CHUNK, (position + start) // CHUNK
        piece = words[start : start + CHUNK - offset]
        inner = int(np.sum(low[offset : offset + len(piece)] * piece, dtype=np.uint64))
        total += inner * high(chunk)
        start += len(piece)
    return total & _MASK


@functools.lru_cache(maxsize=1)
def _weights() -> tuple[np.ndarray, Any]:
    return _splitmix(np.arange(CHUNK, dtype=np.uint64)) | np.uint64(1), _high


@functools.lru_cache(maxsize=4096)
def _high(chunk: int) -> int:
    return int(_splitmix(np.array([chunk + (1 << 32)], dtype=np.uint64))[0]) | 1


def _splitmix(x: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: a bijection of 64-bit words that looks random."""
    x = (x + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


# -- torch -------------------------------------------------------------------------------------------------------------

_KINDS = {"torch.float32": "f4", "torch.float64": "f8", "torch.int64": "i8", "torch.int32": "i4", "torch.int16": "i2",
          "torch.int8": "i1", "torch.uint8": "u1", "torch.uint16": "u2", "torch.uint32": "u4", "torch.uint64": "u8",
          "torch.bool": "b1", "torch.float16": "f2", "torch.complex64": "c8", "torch.complex128": "c16",
          "torch.bfloat16": "bf16"}  # fmt: skip


def _tensor_sum(tensor: "torch.Tensor") -> int:
    import torch

    tensor = tensor.detach().contiguous().view(-1)
    if tensor.device.type == "cpu":
        if tensor.dtype in (torch.bfloat16, torch.bool):
            tensor = tensor.view(torch.int16 if tensor.dtype == torch.bfloat16 else torch.uint8)
        return _sum_words(_words(tensor.numpy()), 0)
    raw = tensor.view(torch.uint8)
    if len(raw) % 4:
        raw = torch.nn.functional.pad(raw, (0, -len(raw) % 4))
    return _device_sum(raw.view(torch.int32).to(torch.int64) & 0xFFFFFFFF)


def _device_sum(words: "torch.Tensor") -> int:
    """The same sum where the tensor lives: only the result travels. int64 arithmetic wraps modulo 2^64."""
    import torch

    chunks = -(-len(words) // CHUNK)
    words = torch.nn.functional.pad(words, (0, chunks * CHUNK - len(words))).view(chunks, CHUNK)
    low = torch.from_numpy(_weights()[0].view(np.int64)).to(words.device)
    high = np.array([_high(chunk) for chunk in range(chunks)], dtype=np.uint64).view(np.int64)
    total = ((words * low).sum(1) * torch.from_numpy(high).to(words.device)).sum()
    return int(total.item()) & _MASK
