"""Threads that do work ahead of time. What they do, and what comes of it, depends on nothing but the work."""

from concurrent.futures import ThreadPoolExecutor

from hieros_repro.replay.base import Once

WORTH = 256 * 1024  # bytes of a batch from which handing it to a thread pays: copying them takes longer than waking one


class Workers:
    """`count` threads; None: one, for work that is large enough to pay.

    Whoever needs a result calls the work itself, and waits for the thread that is at it or, where none is yet, does it.
    So no result depends on a thread, no error is lost, and there is nothing to wait for at the end.
    """

    def __init__(self, count: int | None):
        self._pays_from = WORTH if count is None else 0
        self._threads = ThreadPoolExecutor(max(count or 1, 1), thread_name_prefix="replay") if count != 0 else None

    def begin(self, work: Once, size: int) -> None:
        """Has the work done, now or in the background. `size`: the bytes it handles."""
        if self._threads is None:
            return
        if size >= self._pays_from:
            self._threads.submit(work)

    def close(self) -> None:
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)
