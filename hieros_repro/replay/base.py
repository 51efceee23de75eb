"""What the loop asks of every replay."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from hieros_repro.determinism.keys import Key
from hieros_repro.records import Memory, Request, Rows, Spaces, Step, Tree


class Once:
    """A piece of work done once, by whichever thread comes first. Others wait for it; all get its result, or its error."""

    def __init__(self, work: Callable[[], Any]):
        self._work: Callable[[], Any] | None = work
        self._lock = threading.Lock()
        self._result: Any = None
        self._error: BaseException | None = None

    def __call__(self) -> Any:
        with self._lock:
            if self._work is not None:
                try:
                    self._result = self._work()
                except BaseException as error:
                    self._error = error
                    raise
                finally:
                    self._work = None
        if self._error is not None:
            raise self._error
        return self._result

    @property
    def done(self) -> bool:
        return self._work is None


class Choice(NamedTuple):
    """A batch that was chosen. Choosing is the main thread's; any thread may gather."""

    gather: Callable[[], dict[str, Any]]
    places: Tree = None  # where its rows are stored, as plain data, for what is written back
    bytes: int = 0  # about what gathering copies


class Held(NamedTuple):
    """What a replay is to hold, and where."""

    spaces: Spaces
    num_envs: int
    memory: Memory
    folder: Path | None = None  # of its files
    filed: bool = True  # whether its steps go to files
    device: str = "cpu"  # that learns

    def of(self, name: str, memory: Memory) -> "Held":
        """What one of an agent's replays is to hold."""
        return self._replace(memory=memory, folder=self.folder and self.folder / name)


class Replay(ABC):
    """A store of experience under one name. Built from what it is to hold and the hyperparameters of its config group.

    A state may name files: `state()["files"]`, one [name, rows, bytes, sha256] each, which lie in <run>/replay/<name> and
    stay there as long as a checkpoint names them.
    """

    kind: ClassVar[str]  # what an agent's `remembers` names
    lead: int = 0  # batch u is chosen right after update u - lead
    workers: int | None = 0  # threads that gather; None: as many as pay
    changed: bool = False  # whether, once loaded, it is not quite what it was: batches chosen before mean nothing now
    lasts: bool = False  # whether it can serve for ever what it holds, so that somebody else must say when to learn

    @abstractmethod
    def add(self, before: Step, rows: Rows, after: Step) -> None:
        """Remembers one tick: what was seen, what was done, and what came of it."""

    @abstractmethod
    def ready(self, request: Request, ending: bool) -> bool:
        """Whether the request can be served now. `ending`: no more steps will come."""

    @abstractmethod
    def choose(self, key: Key, request: Request) -> Choice:
        """A batch, as a function of the key, the request and what is stored."""

    def write_back(self, places: Tree, values: Any) -> None:
        """Stores what an update computed for the rows it was shown (latents, priorities)."""
        raise ValueError(f"a {self.kind} replay keeps nothing that could be written back")

    def cut(self) -> None:
        """The next rows start new episodes although those under way were not over: what reaches across is not learned from."""
        raise ValueError(f"a {self.kind} replay cannot go on after episodes were cut off")

    def account(self) -> Mapping[str, float]:
        """What to log of it, by name: "steps" and "windows" it holds, "replayed" steps per step."""
        return {}

    def facts(self) -> Mapping[str, Any]:
        """What a run's account must say of where its content comes from."""
        return {}

    def need(self) -> int:
        """About how many bytes of files it will keep."""
        return 0

    def room(self, steps: int) -> int:
        """About how many bytes of memory it will have taken after that many steps."""
        return 0

    @abstractmethod
    def state(self) -> Tree: ...

    @abstractmethod
    def load(self, state: Tree) -> None: ...

    def close(self) -> None:
        """Ends what works in the background."""
