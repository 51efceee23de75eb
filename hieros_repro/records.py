"""What crosses a folder's border: steps, spaces, batches, rows, requests; and the errors and types that everyone may use."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np

# -- Errors ------------------------------------------------------------------------------------------------------------


class UserError(Exception):
    """Something the user asked for cannot be done. Its text names the key or file, the value, and what is allowed."""


class ConfigError(UserError):
    """Every fault of a configuration at once."""

    def __init__(self, faults: "list[Fault]"):
        self.faults = faults
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n".join([f"the configuration has {count}:", *(f"  {fault}" for fault in faults)]))

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:  # crosses process borders in parallel sweeps
        return type(self), (self.faults,)


class CannotRender(UserError):
    """An environment was asked for a picture and has none."""


class Fault(NamedTuple):
    """One wrong key of a configuration."""

    key: str
    problem: str

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}"


def needs_extra(what: str, extra: str) -> str:
    """The text of an error about a package that is not installed."""
    return f"{what} needs the extra [{extra}]: pip install 'hieros-repro[{extra}]'"


class Damaged(UserError):
    """A file that must not be used; the text names it and what is wrong with it."""


class Stopped(BaseException):
    """A signal asked the run to stop: it has a checkpoint and can be resumed. Not an Exception, so that a sweep stops too."""


class Failed(Exception):
    """It was tried and failed in a way that its text says all about; no traceback is needed."""


class Diverged(Failed):
    """A reward, a loss or a parameter is no longer finite."""


# -- Types of configuration values -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Between:
    """A bound that `check` enforces: Annotated[int, Between(1, 10)]. None leaves a side open."""

    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if self.high is None:
            return f"at least {self.low}"
        return f"at most {self.high}" if self.low is None else f"between {self.low} and {self.high}"

    def holds(self, value: float) -> bool:
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)


def takes_also(other: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """For a function that gives its last, `**rest`, to another: what the other can be configured by belongs to its signature,
    which is what a configuration is checked against."""

    def told(function: Callable[..., Any]) -> Callable[..., Any]:
        *own, _ = inspect.signature(function).parameters.values()
        more = [p for p in inspect.signature(other).parameters.values() if p.kind is p.KEYWORD_ONLY]
        function.__signature__ = inspect.Signature([*own, *more])  # type: ignore[attr-defined]
        return function

    return told


Count = Annotated[int, Between(1)]
Natural = Annotated[int, Between(0)]
Fraction = Annotated[float, Between(0, 1)]
NonNegative = Annotated[float, Between(0)]
Positive = Annotated[float, Between(1e-12)]
Every = Annotated[int, Between(0)]  # a cadence in steps; 0 means never

# -- Spaces ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Space:
    """What one observation or action looks like.

    image: uint8 (height, width, channels).  vector: float32.  discrete: one integer below sizes[0].
    multidiscrete: one integer below each of sizes.  continuous: float32 between low and high (per dimension).
    onehot: float32, sizes[0] of them, all 0 but one that is 1.
    """

    kind: Literal["image", "vector", "discrete", "multidiscrete", "continuous", "onehot"]
    shape: tuple[int, ...]
    sizes: tuple[int, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()

    @property
    def dtype(self) -> np.dtype:
        kinds = {"image": np.uint8, "discrete": np.int64, "multidiscrete": np.int64}
        return np.dtype(kinds.get(self.kind, np.float32))

    def draw(self, uniform: np.ndarray) -> np.ndarray:
        """Random actions from uniforms in [0, 1) of shape (n, *shape); where a bound is infinite, between -1 and 1."""
        if self.kind == "continuous":
            low, high = (np.array(bound).reshape(self.shape) for bound in (self.low, self.high))
            low, high = np.where(np.isfinite(low), low, -1.0), np.where(np.isfinite(high), high, 1.0)
            return (low + uniform * (high - low)).astype(np.float32)
        if self.kind == "onehot":
            return np.eye(self.sizes[0], dtype=np.float32)[(uniform[..., 0] * self.sizes[0]).astype(np.int64)]
        return (uniform * np.array(self.sizes).reshape(self.shape)).astype(np.int64)


@dataclass(frozen=True)
class Spaces:
    observation: Mapping[str, Space]
    action: Space

    def plain(self) -> dict[str, Any]:
        return {"observation": {k: asdict(v) for k, v in self.observation.items()}, "action": asdict(self.action)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "Spaces":
        def space(fields: Mapping[str, Any]) -> Space:
            plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
            return Space(**plain)

        observation = {name: space(fields) for name, fields in plain["observation"].items()}
        return cls(observation, space(plain["action"]))


# -- What flows --------------------------------------------------------------------------------------------------------

Arrays = Mapping[str, np.ndarray]
Tensors = Mapping[str, Any]  # name -> torch.Tensor; torch is not imported here
Metrics = Mapping[str, Any]  # name -> number or 0-d tensor, converted only when logged
Tree = Any  # a nest of dicts and lists with tensors and plain values at its leaves: what a checkpoint may hold
Carry = Tree


class Step(NamedTuple):
    """What E environments show at one tick. Reward and flags arrive together with the observation.

    An episode is first, ..., last. The tick after a last row shows the next episode's first row: its reward is 0 and the
    action given at the last row is ignored. Terminal rows are last rows with nothing to come; a time-out is last, not terminal.
    """

    obs: Arrays  # name -> (E, ...)
    reward: np.ndarray  # (E,) float32
    is_first: np.ndarray  # (E,) bool
    is_last: np.ndarray  # (E,) bool
    is_terminal: np.ndarray  # (E,) bool


class Rows(NamedTuple):
    """What an agent wants remembered of one tick in one replay; mask says of which environments (None: all)."""

    values: Arrays
    mask: np.ndarray | None = None


class Memory(NamedTuple):
    """What an agent needs of one replay: how many steps its sequences have, which of its rows updates write back, whether
    what the environments show is kept beside the agent's own rows, how many bytes those take besides the action, and of how
    many steps of an environment about one is remembered."""

    length: int = 1
    refreshed: tuple[str, ...] = ()
    observes: bool = True
    row_bytes: int = 0
    every: int = 1


class Request(NamedTuple):
    """What an update wants: `batch` sequences of `length` steps from the replay of that name. If it does not wait for them, it
    goes on without while the replay cannot serve it."""

    replay: str
    batch: int
    length: int
    waits: bool = True


class Episode(NamedTuple):
    """A finished episode."""

    env: int
    length: int
    score: float
    account: Mapping[str, float] = MappingProxyType({})  # what else the environment tells of it, by name


class Hint(NamedTuple):
    """The band in which a metric is healthy, and what it may mean when it is not.

    `per`: the metric is divided by that one first. `falls`: it is to fall below this share of what it first was.
    """

    metric: str
    text: str
    low: float | None = None
    high: float | None = None
    per: str | None = None
    falls: float | None = None


Schedule = Callable[[int], float]  # step -> value
