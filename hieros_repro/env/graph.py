"""Python objects as plain data and back: the exact state of an environment that is written in pure Python.

    tree = freeze({"player": player, "creatures": creatures}, packages=("crafter",))
    thaw(tree, packages=("crafter",))        # the same graph of new objects, in this process or in any other

A tree holds lists, texts and numbers only, so a checkpoint can hold it. Whatever is no plain value is a node in a list and
referred to as [its number]: what was one object in two places is one object again, and cycles are kept. Unlike a pickle it can
run nothing: thaw() calls no constructor and no method of what it makes, and makes only classes that a named package defines.
Refused are functions, and sets of anything but plain values: their order is where their members lie in memory.
"""

import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from types import MappingProxyType, ModuleType
from typing import Any, Literal

import numpy as np
from numpy.random import MT19937, PCG64, PCG64DXSM, SFC64, BitGenerator, Generator, Philox, RandomState

from hieros_repro.records import Tree

PLAIN = (type(None), bool, int, float, str)
BITS: tuple[type[BitGenerator], ...] = (MT19937, PCG64, PCG64DXSM, Philox, SFC64)
NOTHING: Mapping[str, Any] = MappingProxyType({})


def freeze(root: Any, packages: Sequence[str] = (), fixed: Mapping[str, Any] = NOTHING) -> Tree:
    """Everything that can be reached from `root`. Of `fixed` objects only the names are kept: thaw() is given its own."""
    freezer = _Freezer(packages, fixed)
    return {"root": freezer.value(root, "root"), "nodes": freezer.nodes}


def thaw(tree: Tree, packages: Sequence[str] = (), fixed: Mapping[str, Any] = NOTHING) -> Any:
    """New objects, equal to those that were frozen and connected as they were."""
    return _Thawer(tree["nodes"], packages, fixed).value(tree["root"])


def fields(owner: Any, but: Iterable[str]) -> dict[str, Any]:
    """An object's fields, some left out."""
    return {name: value for name, value in vars(owner).items() if name not in but}


def replace(owner: Any, new: Mapping[str, Any], but: Iterable[str]) -> None:
    """Gives an object the fields `new` in place of all it has but some."""
    for name in fields(owner, but):
        del vars(owner)[name]
    vars(owner).update(new)


# -- Objects to nodes --------------------------------------------------------------------------------------------------


class _Freezer:
    def __init__(self, packages: Sequence[str], fixed: Mapping[str, Any]):
        self.packages = packages
        self.fixed = {id(thing): name for name, thing in fixed.items()}
        self.nodes: list[list[Any]] = []
        self.numbers: dict[int, int] = {}  # by id
        self.alive: list[Any] = []  # whatever has a number, so that its id is not given to another
        self.open: set[int] = set()  # tuples under way
        self.memories: dict[int, int] = {}  # id of who owns an array's memory -> of the one array that shows it

    def value(self, thing: Any, path: str) -> Any:
        """A plain value as it is, anything else as [the number of its node]."""
        if type(thing) in PLAIN:
            return thing
        if id(thing) in self.open:
            raise TypeError(f"{path} is a tuple that contains itself")
        if id(thing) not in self.numbers:
            self.numbers[id(thing)] = number = len(self.nodes)
            self.alive.append(thing)
            self.nodes.append([])
            self.nodes[number] = self._node(thing, path)
        return [self.numbers[id(thing)]]

    def _node(self, thing: Any, path: str) -> list[Any]:
        if id(thing) in self.fixed:
            return ["fixed", self.fixed[id(thing)]]
        if isinstance(thing, Enum):
            return ["enum", self._name(type(thing), path), thing.name]
        if isinstance(thing, type):
            return ["class", self._name(thing, path)]
        if isinstance(thing, np.generic):
            return ["scalar", *_bits_of(np.asarray(thing), path)]
        return _FREEZE.get(type(thing), _Freezer._object)(self, thing, path)

    def _sequence(self, thing: Iterable[Any], path: str) -> list[Any]:
        return [type(thing).__name__, [self.value(item, f"{path}[{i}]") for i, item in enumerate(thing)]]

    def _tuple(self, thing: tuple, path: str) -> list[Any]:
        self.open.add(id(thing))
        node = self._sequence(thing, path)
        self.open.remove(id(thing))
        return node

    def _set(self, thing: Iterable[Any], path: str) -> list[Any]:
        items, kind = list(thing), set if isinstance(thing, set) else frozenset
        again = kind(items) if all(map(_is_plain, items)) else kind()
        if items != list(again) or sys.getsizeof(thing) != sys.getsizeof(again):  # it may have been larger once
            raise TypeError(f"{path} is a set whose order cannot be kept")
        return [type(thing).__name__, [self.value(item, path) for item in items]]

    def _array(self, thing: np.ndarray, path: str) -> list[Any]:
        owner = thing
        while isinstance(owner.base, np.ndarray):
            owner = owner.base
        if self.memories.setdefault(id(owner), id(thing)) != id(thing):
            raise TypeError(f"{path} shares its memory with another array, which cannot be kept")
        return ["array", *_bits_of(thing, path), "F" if thing.flags.fnc else "C"]

    def _random_state(self, thing: RandomState, path: str) -> list[Any]:
        state = thing.get_state(legacy=False)
        if state["bit_generator"] != MT19937.__name__:  # as which alone it can be made anew
            raise TypeError(f"{path} is a RandomState of {state['bit_generator']}")
        return ["random_state", self.value(state, path)]

    def _dict(self, thing: Mapping[Any, Any], path: str) -> list[Any]:
        for key in thing:
            if not _is_plain(key) and type(key).__hash__ is not object.__hash__:
                raise TypeError(f"{path} has a key of type {type(key).__name__}, whose hash may depend on its content")
        return ["dict", [[self.value(k, f"{path} key"), self.value(v, f"{path}[{k!r}]")] for k, v in thing.items()]]

    def _object(self, thing: Any, path: str) -> list[Any]:
        name, state = self._name(type(thing), path), object.__getstate__(thing)  # type: ignore[attr-defined]
        try:
            object.__new__(type(thing))  # refuses what is built into Python and what inherits from it
        except TypeError as error:
            raise TypeError(f"{path} has more state than its fields: {error}") from error
        if not hasattr(thing, "__dict__") or not isinstance(state, dict | None):
            raise TypeError(f"{path} is a {name}, which has __slots__")
        return ["object", name, [[field, self.value(v, f"{path}.{field}")] for field, v in (state or {}).items()]]

    def _name(self, kind: type, path: str) -> str:
        name = f"{kind.__module__}:{kind.__qualname__}"
        if not _inside(kind.__module__, self.packages):
            raise TypeError(f"{path} is or has the type {name}, which is not from {_listed(self.packages)}")
        return name


_FREEZE: dict[type, Callable[[_Freezer, Any, str], list[Any]]] = {
    list: _Freezer._sequence,
    tuple: _Freezer._tuple,
    deque: lambda self, thing, path: [*self._sequence(thing, path), thing.maxlen],
    set: _Freezer._set,
    frozenset: _Freezer._set,
    dict: _Freezer._dict,
    np.ndarray: _Freezer._array,
    Generator: lambda self, thing, path: ["generator", self.value(thing.bit_generator, path)],
    RandomState: _Freezer._random_state,
    **dict.fromkeys(BITS, lambda self, thing, path: ["bits", type(thing).__name__, self.value(thing.state, path)]),
}


def _bits_of(array: np.ndarray, path: str) -> list[Any]:
    """Type, shape and content; as text, since a checkpoint would make an entry of its own of every small array."""
    if array.dtype.kind not in "biufc":
        raise TypeError(f"{path} is an array of {array.dtype}: only numbers can be kept")
    return [array.dtype.str, list(array.shape), array.tobytes().hex()]


def _is_plain(thing: Any) -> bool:
    return type(thing) in PLAIN or isinstance(thing, np.generic | Enum) or (type(thing) is tuple and all(map(_is_plain, thing)))


def _inside(module: str, packages: Sequence[str]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _listed(packages: Sequence[str]) -> str:
    return " or ".join(packages) or "any package"


# -- Nodes to objects --------------------------------------------------------------------------------------------------


class _Thawer:
    def __init__(self, nodes: Sequence[Sequence[Any]], packages: Sequence[str], fixed: Mapping[str, Any]):
        self.nodes, self.packages, self.fixed = nodes, packages, fixed
        self.made: dict[int, Any] = {}

    def value(self, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        (number,) = value
        if number not in self.made:
            kind, *content = self.nodes[number]
            empty = _EMPTY.get(kind)
            if empty is None:
                self.made[number] = _THAW[kind](self, *content)
            else:  # known before it is filled, since what it contains may contain it
                self.made[number] = empty(self, *content)
                _FILL[kind](self, self.made[number], content)
        return self.made[number]

    def values(self, content: Iterable[Any]) -> Iterable[Any]:
        return map(self.value, content)

    def kind(self, name: str) -> type:
        """The class of that name, which its package has defined: nothing is imported for it."""
        module, _, path = name.partition(":")
        found: Any = sys.modules.get(module) if _inside(module, self.packages) else None
        for part in path.split("."):
            found = vars(found).get(part) if isinstance(found, ModuleType | type) else None
        if not isinstance(found, type) or (found.__module__, found.__qualname__) != (module, path):
            raise ValueError(f"{name} is no class from {_listed(self.packages)}")
        return found

    def enum(self, name: str, member: str) -> Any:
        kind = self.kind(name)
        if not issubclass(kind, Enum):
            raise ValueError(f"{name} is no enumeration")
        return kind.__members__[member]

    def bits(self, name: str, state: Any) -> BitGenerator:
        made = {kind.__name__: kind for kind in BITS}[name](0)
        made.state = self.value(state)
        return made

    def random_state(self, state: Any) -> RandomState:
        made = RandomState(0)
        made.set_state(self.value(state))
        return made


def _array(kind: str, shape: Sequence[int], content: str, order: Literal["C", "F"] = "C") -> np.ndarray:
    return np.frombuffer(bytes.fromhex(content), np.dtype(kind)).reshape(shape).copy(order)


_EMPTY: dict[str, Callable[..., Any]] = {
    "list": lambda self, content: [],
    "deque": lambda self, content, maxlen: deque(maxlen=maxlen),
    "dict": lambda self, content: {},
    "object": lambda self, name, content: object.__new__(self.kind(name)),
}
_FILL: dict[str, Callable[[_Thawer, Any, Sequence[Any]], None]] = {
    "list": lambda self, made, content: made.extend(self.values(content[0])),
    "deque": lambda self, made, content: made.extend(self.values(content[0])),
    "dict": lambda self, made, content: made.update(map(self.values, content[0])),
    "object": lambda self, made, content: vars(made).update((field, self.value(value)) for field, value in content[1]),
}
_THAW: dict[str, Callable[..., Any]] = {
    "tuple": lambda self, content: tuple(self.values(content)),
    "set": lambda self, content: set(self.values(content)),
    "frozenset": lambda self, content: frozenset(self.values(content)),
    "fixed": lambda self, name: self.fixed[name],
    "class": _Thawer.kind,
    "enum": _Thawer.enum,
    "array": lambda self, *parts: _array(*parts),
    "scalar": lambda self, *parts: _array(*parts)[()],
    "bits": _Thawer.bits,
    "generator": lambda self, bits: Generator(self.value(bits)),
    "random_state": _Thawer.random_state,
}
