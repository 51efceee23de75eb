"""Which devices a job of a sweep has for itself: one OS lock per device, which its process keeps until it ends or dies."""

import fcntl
import os
import time
from collections.abc import Sequence
from pathlib import Path

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible() -> list[str]:
    """The devices that this process may use."""
    named = os.environ.get(VISIBLE)
    if named is not None:
        return [name.strip() for name in named.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


class Slots:
    """The devices that the jobs of a sweep share. A process that has taken some keeps them: CUDA cannot change over."""

    def __init__(self, folder: Path, devices: Sequence[str]):
        self._folder, self._devices = folder, list(devices)
        self._held: dict[str, int] = {}

    def take(self, count: int, pause: float = 0.2) -> list[str]:
        """Waits until `count` devices are free at once, so that nobody waits for another while keeping what that one needs."""
        assert 0 < count <= len(self._devices), f"{count} of {len(self._devices)} devices"
        while (taken := self.try_take(count)) is None:
            time.sleep(pause)
        return taken

    def try_take(self, count: int) -> list[str] | None:
        """`count` devices for this process alone, or None and no device where fewer are free."""
        for device in self._devices:
            if len(self._held) >= count:
                break
            if device not in self._held:
                self._lock(device)
        if len(self._held) < count:
            self.release()
            return None
        return list(self._held)[:count]

    def release(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _lock(self, device: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._folder / f"device-{device.replace('/', '-')}.lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
        else:
            self._held[device] = descriptor


_TAKEN: dict[Path, Slots] = {}  # by this process, for as long as it lives


def take(folder: Path, devices: Sequence[str], count: int) -> None:
    """Makes `count` free devices the only ones that this process sees. It comes before torch first asks for CUDA."""
    slots = _TAKEN.setdefault(folder, Slots(folder, devices))
    os.environ[VISIBLE] = ",".join(slots.take(count))
