"""Where rows lie: in memory, in a mapped file where they are larger than it, or on the accelerator."""

import os
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hieros_repro.records import Arrays, UserError

_SHARE = 0.9  # of the machine's memory that rows may take


class Bank(ABC):
    """`count` slots under each name. Slots are numbered; rows are put into them and taken out again."""

    def __init__(self, count: int):
        self.count = count
        self.arrays: dict[str, Any] = {}

    @abstractmethod
    def open(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        """Slots for rows of this shape."""

    def put(self, slots: Any, values: Arrays) -> None:
        """`slots`: numbers, or a slice."""
        for name, value in values.items():
            self.arrays[name][slots] = value

    @abstractmethod
    def take(self, name: str, slots: np.ndarray) -> Any:
        """The rows in these slots, shaped as `slots`."""

    def fetch(self, name: str, slots: np.ndarray) -> np.ndarray:
        """The same, in the host's memory."""
        return self.take(name, slots)


class Plain(Bank):
    """Plain arrays; a page of memory is taken when its first row comes."""

    def open(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        size = int(np.prod((self.count, *shape))) * dtype.itemsize
        self._make_room(size + sum(array.nbytes for array in self.arrays.values()))
        self.arrays[name] = self._array((self.count, *shape), dtype)

    def take(self, name: str, slots: np.ndarray) -> np.ndarray:
        return self.arrays[name].take(slots, axis=0, mode="clip")  # clip: without a copy of its own; no slot is outside

    def _array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        return np.zeros(shape, dtype)

    def _make_room(self, size: int) -> None:
        most = _SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if size > most:
            raise UserError(
                f"replay.size: {self.count:,} steps need {size / 2**30:.1f} GB and this machine has {most / 2**30:.1f} GB to "
                "give; lower it, or keep the steps in a file with replay.place=mapped"
            )


class Mapped(Plain):
    """Arrays in files without a name, which vanish with the process however it ends."""

    def __init__(self, count: int, folder: Path | None):
        super().__init__(count)
        self._folder = folder

    def _array(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        with tempfile.TemporaryFile(dir=self._folder) as file:
            size = int(np.prod(shape)) * dtype.itemsize
            try:
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is an error now, not a signal later
            except OSError as error:
                raise UserError(
                    f"replay.place=mapped: {size / 2**30:.1f} GB do not fit on the disk ({error.strerror})"
                ) from error
            return np.memmap(file, dtype, "r+", shape=shape)

    def _make_room(self, size: int) -> None:
        """The disk's own limit counts."""


class Device(Bank):
    """Tensors on the accelerator, so that batches need not be copied there."""

    def __init__(self, count: int, device: str):
        super().__init__(count)
        self._device = device

    def open(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
        kind = torch.from_numpy(np.zeros((), dtype)).dtype
        self.arrays[name] = torch.zeros((self.count, *shape), dtype=kind, device=self._device)

    def put(self, slots: Any, values: Arrays) -> None:
        where = slots if isinstance(slots, slice) else torch.from_numpy(slots).to(self._device)
        for name, value in values.items():
            self.arrays[name][where] = torch.from_numpy(np.require(value, requirements=["C", "W"])).to(self._device)

    def take(self, name: str, slots: np.ndarray) -> torch.Tensor:
        where = torch.from_numpy(slots.reshape(-1)).to(self._device)
        return self.arrays[name].index_select(0, where).view(*slots.shape, *self.arrays[name].shape[1:])

    def fetch(self, name: str, slots: np.ndarray) -> np.ndarray:
        return self.take(name, slots).cpu().numpy()


BANKS: Mapping[str, Callable[[int, Path | None, str], Bank]] = {
    "memory": lambda count, folder, device: Plain(count),
    "mapped": lambda count, folder, device: Mapped(count, folder),
    "device": lambda count, folder, device: Device(count, device),
}
