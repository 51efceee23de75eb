"""Environments in worker processes: each steps a slice of them and writes what they show into memory that all share.

Who steps what is fixed, actions are handed out and answers collected in order, so neither the number of processes nor their
speed changes a number. A worker that raises, crashes or hangs is an error that names the environment and shows where it was.
"""

import contextlib
import errno
import faulthandler
import mmap
import os
import pickle
import random
import select
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any, NamedTuple

import numpy as np

from hieros_repro.env.base import Batch, Env, Past, Slots
from hieros_repro.records import Failed, Spaces, Tree, UserError

STOPPING = (signal.SIGINT, signal.SIGTERM)  # the main process needs its workers for its last checkpoint
SHARED = "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
CLOSING_SECONDS = 5.0  # for an environment that takes its time to close


class EnvironmentFailed(Failed):
    """An environment raised, crashed or hung in its worker process."""


class Shared(NamedTuple):
    """The memory that all processes see, as arrays over all environments; `at` says where each worker is."""

    slots: Slots
    action: np.ndarray
    at: np.ndarray  # (workers,) int64


def layout(spaces: Spaces, count: int, workers: int) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Name -> shape and type of every shared array."""
    arrays = {f"obs/{name}": ((count, *space.shape), space.dtype) for name, space in spaces.observation.items()}
    arrays["action"] = ((count, *spaces.action.shape), spaces.action.dtype)
    arrays |= {"reward": ((count,), np.dtype(np.float64)), "at": ((workers,), np.dtype(np.int64))}
    return arrays | {name: ((count,), np.dtype(bool)) for name in ("is_last", "is_terminal")}


def shared(file: IO[bytes] | int, spaces: Spaces, count: int, workers: int) -> Shared:
    """Maps the file that all processes hold, which is made as large as it must be."""
    arrays, end, offsets = layout(spaces, count, workers), 0, {}
    for name, (shape, dtype) in arrays.items():
        offsets[name] = end
        end += -(-int(np.prod(shape)) * dtype.itemsize // 64) * 64  # nobody shares a cache line with another array
    number = file if isinstance(file, int) else file.fileno()
    try:
        os.posix_fallocate(number, 0, end)  # now, since memory that is not there kills who touches it
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(
            f"env.processes: {SHARED} has no {end / 2**20:.1f} MB left to share: enlarge it, or env.processes=0"
        ) from None
    memory = mmap.mmap(number, end)
    found = {name: np.ndarray(shape, dtype, memory, offsets[name]) for name, (shape, dtype) in arrays.items()}
    obs = {name: found[f"obs/{name}"] for name in spaces.observation}
    return Shared(Slots(obs, found["reward"], found["is_last"], found["is_terminal"]), found["action"], found["at"])


# -- The main process --------------------------------------------------------------------------------------------------


class Worker:
    """One worker process as the main process sees it."""

    def __init__(self, number: int, envs: range, make: Callable[[], Env], memory: IO[bytes], timeout: float):
        self.number, self.envs, self.timeout = number, envs, timeout
        first = pickle.dumps((make, number, envs))
        self._trace = tempfile.TemporaryFile("w+b")  # noqa: SIM115 -- where the worker's interpreter writes where it was
        self._pipe, theirs = Pipe()
        files = (theirs.fileno(), memory.fileno(), self._trace.fileno())
        program = f"from hieros_repro.env.parallel import work; work{files}"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, os.getcwd()]))}
        with _deaf():
            self._process = subprocess.Popen([sys.executable, "-c", program], pass_fds=files, env=environment)
        theirs.close()
        self._pipe.send_bytes(first)

    def send(self, *message: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has died: receive() says of what
            self._pipe.send(message)

    def receive(self, at: np.ndarray | None = None) -> Any:
        """The worker's answer. `at`: where workers say which environment they are at."""
        try:
            if not self._pipe.poll(self.timeout):
                self._process.send_signal(signal.SIGUSR1)  # it writes down where it is
                self._pipe.poll(1.0)
                self._process.kill()  # nobody will wait for it again
                raise self._failed(f"gave no answer for {self.timeout:g} s (env.worker_timeout)", at, self._where())
            answer = self._pipe.recv()
        except (EOFError, ConnectionResetError):
            code = self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise self._failed(f"died with {how}", at, self._where()) from None
        if isinstance(answer, UserError):
            raise answer
        if isinstance(answer, Fallen):
            raise self._failed("raised", at, answer.trace)
        return answer

    def _failed(self, what: str, at: np.ndarray | None, trace: str) -> EnvironmentFailed:
        of = f"the worker process of environments {self.envs[0]} to {self.envs[-1]}"
        if at is None:
            env = "an environment that was being made"
        else:  # those that are stepped together do not say
            env = "one" if at[self.number] < 0 else f"environment {self.envs[int(at[self.number])]}"
        return EnvironmentFailed(f"{env} {what} in {of}:\n{trace.rstrip() or '  (nothing is known of where it was)'}")

    def _where(self) -> str:
        self._trace.seek(0)
        return self._trace.read().decode(errors="replace")

    def close(self, seconds: float) -> bool:
        """Whether a worker that was told to close has ended in time; if not, it is killed."""
        in_time = True
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            in_time = False
        self._pipe.close()
        self._trace.close()
        return in_time


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """What is started now does not hear the signals that stop a run, from its first moment on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Parallel(Batch):
    """n environments in worker processes."""

    def __init__(self, make: Callable[[], Env], count: int, processes: int, timeout: float):
        edges = [count * p // processes for p in range(processes + 1)]
        self.count = count
        self._memory = tempfile.TemporaryFile(dir=SHARED)  # noqa: SIM115
        self._workers: list[Worker] = []
        self._shared: Shared | None = None
        try:
            for number in range(processes):
                envs = range(edges[number], edges[number + 1])
                self._workers.append(Worker(number, envs, make, self._memory, timeout))
            self.spaces, self.remembers = self._collect()[0]
            self._shared = shared(self._memory, self.spaces, count, processes)
            self._ask("attach", *[(count, processes)] * processes)
        except BaseException:
            self.close()
            raise

    def step(self, action: np.ndarray, seeds: Mapping[int, int], slots: Slots) -> dict[int, Mapping[str, float]]:
        assert self._shared is not None
        if len(seeds) < self.count:
            self._shared.action[:] = action
        mine = [{env - w.envs[0]: seeds[env] for env in w.envs if env in seeds} if seeds else {} for w in self._workers]
        answers = self._ask("step", *mine)
        self._copy(slots)
        pairs = zip(self._workers, answers, strict=True)
        return {worker.envs[0] + i: account for worker, accounts in pairs for i, account in accounts.items()}

    def snapshot(self) -> list[Tree]:
        return [tree for trees in self._ask("snapshot", *[None] * len(self._workers)) for tree in trees]

    def restore(self, pasts: Sequence[Past], obs: Mapping[str, np.ndarray]) -> None:
        assert self._shared is not None
        self._ask("restore", *(pasts[w.envs[0] : w.envs[-1] + 1] for w in self._workers))
        for name, value in self._shared.slots.obs.items():
            obs[name][:] = value

    def render(self, env: int) -> np.ndarray:
        worker = next(w for w in self._workers if env in w.envs)
        worker.send("render", env - worker.envs[0])
        picture: np.ndarray = worker.receive(self._shared and self._shared.at)
        return picture

    def close(self) -> None:
        for worker in self._workers:
            worker.send("close")
        seconds = CLOSING_SECONDS
        for worker in self._workers:
            if not worker.close(seconds):
                seconds = 0.0  # which was the time of the others, too
        self._workers = []
        self._memory.close()

    def _ask(self, what: str, *arguments: Any) -> list[Any]:
        for worker, argument in zip(self._workers, arguments, strict=True):
            worker.send(what, argument)
        return self._collect()

    def _collect(self) -> list[Any]:
        at = self._shared and self._shared.at
        return [worker.receive(at) for worker in self._workers]

    def _copy(self, slots: Slots) -> None:
        assert self._shared is not None
        for name, value in self._shared.slots.obs.items():
            slots.obs[name][:] = value
        for ours, theirs in zip(slots[1:], self._shared.slots[1:], strict=True):
            ours[:] = theirs


# -- The worker --------------------------------------------------------------------------------------------------------


class Fallen(NamedTuple):
    """What a worker says last: where it raised."""

    trace: str


def work(pipe: int, memory: int, trace: int) -> None:
    """A worker's life: makes its environments, then answers until it is told to close or the main process is gone."""
    for stop in STOPPING:
        signal.signal(stop, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)  # for what the environments start
    faulthandler.enable(trace)
    faulthandler.register(signal.SIGUSR1, trace)
    threading.Thread(target=_end_with_the_main_process, args=(pipe,), daemon=True).start()
    connection = Connection(pipe)
    try:
        _serve(connection, memory)
    except (EOFError, BrokenPipeError):
        raise SystemExit(0) from None
    except UserError as error:
        connection.send(error)
        raise SystemExit(1) from None
    except Exception:
        connection.send(Fallen(traceback.format_exc()))
        raise SystemExit(1) from None


def _end_with_the_main_process(pipe: int) -> None:
    """Ends this process, be its environment hanging, when the other end of the pipe is gone. Sleeps until then."""
    watch = select.poll()
    watch.register(pipe, 0)
    watch.poll()
    os._exit(0)


def _serve(connection: Connection, memory: int) -> None:
    make, number, envs = pickle.loads(connection.recv_bytes())
    batch: Batch = make().batch(make, len(envs))
    connection.send((batch.spaces, batch.remembers))
    _, (count, workers) = connection.recv()
    everything = shared(memory, batch.spaces, count, workers)
    slots, action = everything.slots.part(slice(envs[0], envs[-1] + 1)), everything.action[envs[0] : envs[-1] + 1]
    batch.first, batch.at = envs[0], everything.at[number : number + 1]
    batch.at[0] = -1  # who steps them one by one says where it is
    connection.send(None)
    seeded: list[int] = []

    def step(seeds: dict[int, int]) -> dict[int, Mapping[str, float]]:
        if seeds and not seeded:  # the global generators, for environments of others
            seeded.append(next(iter(seeds.values())))
            random.seed(seeded[0])
            np.random.seed(seeded[0] % 2**32)
        for field in slots[1:]:
            field[:] = 0
        return batch.step(action, seeds, slots)

    does: dict[str, Callable[[Any], Any]] = {
        "step": step,
        "snapshot": lambda _: batch.snapshot(),
        "restore": lambda pasts: batch.restore(pasts, slots.obs),
        "render": batch.render,
    }
    while True:
        what, *argument = connection.recv()
        if what == "close":
            batch.close()
            return
        connection.send(does[what](*argument))
