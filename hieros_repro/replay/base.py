"""What the loop asks of every replay."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from hieros_repro.determinism.keys import Key
from hieros_repro.records import Request, Rows, Spaces, Step, Tree


class Replay(ABC):
    """A store of experience under one name. Built from (spaces, num_envs) and the hyperparameters of its config group."""

    kind: ClassVar[str]  # what an agent's `remembers` names

    def __init__(self, spaces: Spaces, num_envs: int):
        self.spaces = spaces
        self.num_envs = num_envs

    @abstractmethod
    def add(self, before: Step, rows: Rows, after: Step) -> None:
        """Remembers one tick: what was seen, what was done, and what came of it."""

    @abstractmethod
    def ready(self, request: Request, ending: bool) -> bool:
        """Whether the request can be served now. `ending`: no more steps will come."""

    @abstractmethod
    def sample(self, key: Key, request: Request) -> dict[str, Any]:
        """A batch, as a function of the key, the request and what is stored."""

    def write_back(self, values: Any) -> None:
        """Stores what an update computed for the rows it was shown (latents, priorities)."""
        raise ValueError(f"a {self.kind} replay keeps nothing that could be written back")

    def cut(self) -> None:
        """The next rows start new episodes although those under way were not over: what reaches across is not learned from."""
        raise ValueError(f"a {self.kind} replay cannot go on after episodes were cut off")

    @abstractmethod
    def state(self) -> Tree: ...

    @abstractmethod
    def load(self, state: Tree) -> None: ...
