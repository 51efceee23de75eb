"""Recording the operations of a pure function of tensors, to run them again without Python and without autograd.

Small networks on a CPU cost their overhead, not their arithmetic. A function is run once per signature (shapes and types of
what it is given) while every operation that reaches a kernel is noted, those of its backward pass included. The notes, without
those that nothing comes of, become a TorchScript graph: the same kernels in the same order, so the same bits, which is checked
once before a recording is used.

What cannot be recorded is refused by name: a value read back into Python, a random draw, a tensor that was not handed in.
"""

import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Recorded:
    """`function`, recorded per signature. `held`: tensors it reads or changes in place besides its arguments."""

    def __init__(self, function: Callable[..., Any], held: Sequence[Tensor] = ()):
        self._function = function
        self._originals = list({id(tensor): tensor for tensor in held}.values())
        self._held = [tensor.detach() for tensor in self._originals]
        self._recordings: dict[Any, tuple[Callable[..., Any], Any]] = {}

    def __call__(self, *arguments: Any) -> Any:
        names: list[str] = []
        given = _tensors(arguments, [], names)
        signature = (*names, *[(tensor.shape, tensor.dtype, tensor.device) for tensor in given])
        if signature not in self._recordings:
            self._recordings[signature], outputs = self._record(arguments, given)
        else:
            outputs = _as_it_is(self._recordings[signature][0], self._held + given)
        return _rebuild(self._recordings[signature][1], iter(outputs))

    @torch.no_grad()
    def _record(self, arguments: Any, given: list[Tensor]) -> tuple[tuple[Callable[..., Any], Any], Sequence[Tensor]]:
        """The recording, and what it gave: like the function it was run once, and changed once what is held."""
        before = [tensor.clone() for tensor in self._held]
        with _Tape(self._originals + given) as tape, torch.enable_grad():
            result = self._function(*arguments)
        outputs = _tensors([result], [], [])
        expected = [tensor.detach().clone() for tensor in outputs + self._held]
        for tensor, value in zip(self._held, before, strict=True):
            tensor.copy_(value)
        replay = _replayer(tape.notes, [tape.place(tensor) for tensor in outputs])
        inputs = [*self._held, *(tensor.detach() for tensor in given)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes and numbers becoming constants, which is what a signature is for
            graph = _compiled(replay, inputs)
        for tensor, value in zip(self._held, before, strict=True):  # tracing ran it too
            tensor.copy_(value)
        found = _as_it_is(graph, inputs)
        if not all(_same(a, b) for a, b in zip(expected, [*found, *self._held], strict=True)):
            raise RuntimeError(f"the recording of {self._function!r} gives other bits than the function: use compile=null")
        return (graph, result), found


class _Slot(int):
    """The place of a tensor among all that a recording has handled."""


class _Tape(TorchDispatchMode):
    """Notes every operation below autograd, with slots in place of tensors, so that what the function lets go is gone."""

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        super().__init__()
        self.notes: list[tuple[Any, Any, Any, list[_Slot]]] = []
        self._inputs = list(inputs)
        self._slots = {id(tensor): _Slot(number) for number, tensor in enumerate(inputs)}
        self._alive: dict[int, weakref.ref[Tensor]] = {}  # a tensor's slot is known as long as it lives: its id may come again
        self._fresh = map(_Slot, count(len(inputs)))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else entering the mode imports the compiler, which takes a second

    def place(self, tensor: Tensor) -> _Slot:
        if id(tensor) not in self._slots:
            raise ValueError(f"a recorded function read a tensor {list(tensor.shape)} that is neither an argument nor held")
        return self._slots[id(tensor)]

    def _met(self, tensor: Tensor, slot: _Slot) -> _Slot:
        """From now on the tensor is known by this slot."""
        key = id(tensor)

        def gone(reference: Any) -> None:
            if self._alive.get(key) is reference:
                del self._alive[key], self._slots[key]

        self._slots[key], self._alive[key] = slot, weakref.ref(tensor, gone)
        return slot

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            raise ValueError(f"{func} draws random numbers: noise is handed over as data")
        if torch.Tag.data_dependent_output in func.tags:
            raise ValueError(f"{func} reads a value back into Python, where a recording cannot follow: use compile=null")
        where, named = _placed(args, self.place), {name: _placed(value, self.place) for name, value in (kwargs or {}).items()}
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.detach.default:  # means something to autograd only
            self._met(result, where[0])
            return result
        given = {id(tensor) for tensor in _of(Tensor, (args, *(kwargs or {}).values()))}
        tensors = _of(Tensor, result)
        made = [self.place(t) if id(t) in given else self._met(t, next(self._fresh)) for t in tensors]
        self.notes.append((func, where, named, made))
        return result


def _replayer(notes: list[Any], last: list[_Slot]) -> Callable[..., Any]:
    """A function that does what was noted, on other inputs."""
    steps = []
    for func, args, kwargs, made in _of_use(notes, last):
        if args and isinstance(args[-1], list | tuple) and args[-1] and type(args[-1][0]) is bool:
            func, args = _script(func, args)
        steps.append((func, args, kwargs, made))
    ends: list[list[_Slot]] = [[] for _ in steps]  # after which step nobody needs a tensor any more
    needed = set(last)
    for number in reversed(range(len(steps))):
        _, args, kwargs, made = steps[number]
        touched = set(_of(_Slot, (args, *kwargs.values(), made)))
        ends[number] = list(touched - needed)
        needed |= touched

    def replay(*values: Tensor) -> tuple[Tensor, ...]:
        known: dict[int, Tensor] = dict(enumerate(values))
        for (func, args, kwargs, made), over in zip(steps, ends, strict=True):
            result = func(*_filled(args, known), **dict(zip(kwargs, _filled(kwargs.values(), known), strict=True)))
            tensors = [result] if isinstance(result, Tensor) else [t for t in result or () if isinstance(t, Tensor)]
            known.update(zip(made, tensors, strict=True))
            for slot in over:
                del known[slot]
        return tuple(known[slot] for slot in last)

    return replay


def _compiled(replay: Callable[..., Any], inputs: Sequence[Tensor]) -> Callable[..., Any]:
    """As torch.jit.trace does it, but for where the function is kept: there all are kept for good, here as long as they are
    needed, so that a process may run one job after the other."""
    graph, _ = torch._C._create_graph_by_tracing(replay, list(inputs), lambda tensor: "", True, False)
    torch._C._jit_pass_inline(graph)  # what `_script` made goes with `replay`
    return torch._C._create_function_from_graph("recorded", graph)


def _of_use(notes: list[Any], last: list[_Slot]) -> list[Any]:
    """The notes whose result is among the last ones or goes into one that is of use, and those that do something else: change
    what was there, or have no result at all."""
    used, needed = [], set(last)
    for note in reversed(notes):
        func, args, kwargs, made = note
        if func._schema.is_mutable or not made or not needed.isdisjoint(made):
            needed.update(_of(_Slot, (args, *kwargs.values())))
            used.append(note)
    return used[::-1]


def _script(func: Any, arguments: Sequence[Any]) -> tuple[Callable[..., Any], list[Any]]:
    """The same with all but its tensors written into it: tracing knows no lists of booleans (which gradients are wanted)."""
    names = [f"x{i}" if type(a) is _Slot else repr(list(a) if isinstance(a, tuple) else a) for i, a in enumerate(arguments)]
    given = [name for name, a in zip(names, arguments, strict=True) if type(a) is _Slot]
    found = ", ".join(f"found[{i}]" for i, wanted in enumerate(arguments[-1]) if wanted)
    source = f"""
def run({", ".join(given)}):
    found = torch.ops.aten.{func.overloadpacket.__name__}({", ".join(names)})
    return {found}
"""
    return torch.jit.CompilationUnit(source).run, [a for a in arguments if type(a) is _Slot]


def _placed(argument: Any, place: Callable[[Tensor], _Slot]) -> Any:
    """An argument of an operation with slots in place of tensors."""
    if isinstance(argument, Tensor):
        return place(argument)
    return type(argument)(_placed(a, place) for a in argument) if type(argument) in (list, tuple) else argument


def _of(kind: type, tree: Any) -> list[Any]:
    """What is of a kind in an operation's arguments or results: one of it, or lists and tuples, nested or not."""
    if isinstance(tree, kind):
        return [tree]
    return [found for child in tree for found in _of(kind, child)] if isinstance(tree, list | tuple) else []


def _filled(arguments: Iterable[Any], known: Mapping[int, Tensor]) -> list[Any]:
    """Arguments of an operation with tensors in their slots."""
    return [known[a] if type(a) is _Slot else _filled(a, known) if type(a) in (list, tuple) else a for a in arguments]


def _as_it_is(graph: Callable[..., Any], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Runs a graph's operations as they stand. Optimising them would gain nothing and cost a warm-up per signature."""
    before = torch._C._get_graph_executor_optimize()
    torch._C._set_graph_executor_optimize(False)
    try:
        return graph(*inputs)
    finally:
        torch._C._set_graph_executor_optimize(before)


def _tensors(tree: Any, found: list[Tensor], names: list[str]) -> list[Tensor]:
    """The tensors of nested tuples, lists and dicts, in order; `names` collects the keys of the dicts."""
    if type(tree) is dict:
        names.extend(tree)
    for child in tree.values() if type(tree) is dict else tree:
        if isinstance(child, Tensor):
            found.append(child)
        else:
            _tensors(child, found, names)
    return found


def _rebuild(shape: Any, tensors: Iterator[Tensor]) -> Any:
    """The same nest with other tensors."""
    if isinstance(shape, Tensor):
        return next(tensors)
    if type(shape) is dict:
        return {name: _rebuild(child, tensors) for name, child in shape.items()}
    children = [_rebuild(child, tensors) for child in shape]
    return type(shape)(*children) if hasattr(shape, "_fields") else type(shape)(children)


def _same(a: Tensor, b: Tensor) -> bool:
    """Equal everywhere, NaN included."""
    numbers = [torch.where(t.isnan(), torch.zeros_like(t), t) for t in (a, b)]
    return a.dtype == b.dtype and torch.equal(a.isnan(), b.isnan()) and torch.equal(*numbers)
