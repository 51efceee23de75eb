"""Executes a run again in this process, as a request says, and can trace single moments of it: every operation on tensors
with its place and digests of what went in and came out.

    python -P hieros_repro/proof/tracing.py request.json

It is started as a script: the package that it imports is the first on PYTHONPATH, which may be another version's. So it relies
on little of it (train, build.loop, the loop's `_learn_once` and `_collect`) and brings its own digest along.
"""

import importlib.util
import json
import re
import sys
import sysconfig
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

HEAD = 4  # leading values that a note shows of a tensor
KEPT_BYTES = 64 << 20  # of the tensors that are kept beside the notes
DEPTH = 7  # of an agent's parts, when its tensors are named
CALLERS = 4  # places that a note names: of the operation, and of who called it
LIBRARIES = tuple(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))


class Reached(BaseException):
    """Everything that was asked for has been executed. Not an Exception: nobody handles it on the way out."""


# -- Executing ---------------------------------------------------------------------------------------------------------


def main(path: str) -> None:
    """Executes a request.

    run, folder      the run folder to execute again, and the one to write
    resume           what to start from, <run>@<checkpoint>, or null: from step 0
    changes, asked   values that differ from the run's configuration, by path; what counts as typed
    until_update, until_tick, fresh_ledger, tried      where to stop; no ledger of before; the environment needs no trial
    trace            null, or which update and tick to trace: {"update": ..., "tick": ...}
    """
    request = json.loads(Path(path).read_text(encoding="utf8"))
    from omegaconf import DictConfig

    from hieros_repro import build, train

    folder = Path(request["folder"])
    config = configured(request)
    made, seen = build.loop, list[Watch]()

    def watched(*parts: Any, **named: Any) -> Any:
        seen.append(Watch(made(*parts, **named), request))
        return seen[0].loop

    build.loop = watched
    if request.get("tried"):  # the run itself is proof enough that the environment may be used
        from hieros_repro import exactness

        exactness.require = lambda recipe: None
    try:
        train.train(DictConfig(config), request["asked"])
    except Reached:
        pass
    finally:
        if seen and folder.is_dir():
            (folder / "ticks.json").write_text(json.dumps({**seen[0].ticks, "end": seen[0].loop.tick}), encoding="utf8")


def configured(request: Mapping[str, Any]) -> dict[str, Any]:
    """The run's configuration with the changes, to be started as the request says."""
    from hieros_repro import policy

    config = policy.read_config(Path(request["run"]))
    for name, value in {**request["changes"], "run.dir": request["folder"], "resume": request["resume"]}.items():
        node, (*parents, last) = config, name.split(".")
        for parent in parents:
            node = node[parent]
        if last in node:
            node[last] = value
    return config


class Watch:
    """Stops a loop where the request says, and traces in it what the request says. Nothing it does changes what is computed."""

    def __init__(self, loop: Any, request: Mapping[str, Any]):
        self.loop, self.request, self.folder = loop, request, Path(request["folder"])
        self.ticks: dict[str, int] = {}  # at which tick an update was made: update -> ticks so far
        self.trace: dict[str, Any] = request.get("trace") or {}
        self.tracer = Tracer(self.folder, loop) if self.trace else None
        self._learn_once, self._collect, self._take = loop._learn_once, loop._collect, loop.feed.take
        loop._learn_once, loop._collect, loop.feed.take = self.learn_once, self.collect, self.take
        if request.get("fresh_ledger"):
            loop.ledger.load = lambda state: None
        if self.trace:
            self._begin, self._act, self._learn = loop._begin, loop.parts.agent.act, loop.parts.agent.learn
            loop._begin, loop.parts.agent.act, loop.parts.agent.learn = self.begin, self.act, self.learn

    def take(self, *arguments: Any) -> Any:
        if self.request.get("fresh_ledger"):
            self.loop._looked["fingerprint"] = -1  # so that of several updates in a tick each has its entry
        return self._take(*arguments)

    def learn_once(self) -> Any:
        learned = self._learn_once()
        if learned:
            self.ticks[str(self.loop.update)] = self.loop.tick
            if self.loop.update == self.request.get("until_update"):
                self._end()
        return learned

    def begin(self, first: Any) -> None:
        self._begin(first)
        if self.trace["tick"] == -1:
            self.keep("observation", _shown(self.loop.now))

    def collect(self) -> Any:
        here = self.loop.tick == self.trace.get("tick")
        if here and self.loop.now is not None:
            self.keep("before", _shown(self.loop.now))
        found = self._collect()
        if here:
            self.keep("observation", _shown(self.loop.now))
        if self.request.get("until_tick") is not None and self.loop.tick >= self.request["until_tick"]:
            self._end()
        return found

    def act(self, now: Any, carry: Any, noise: Any, greedy: bool = False) -> Any:
        if greedy or self.loop.tick != self.trace["tick"]:
            return self._act(now, carry, noise, greedy)
        assert self.tracer is not None
        given = {"observation": _shown(now), "carry": carry, "noise": noise}
        with self.tracer.part("act", given):
            found = self._act(now, carry, noise, greedy)
        self.keep("action", {"action": found[0]})
        return found

    def learn(self, batches: Any, noise: Any, *others: Any) -> Any:
        if self.loop.update + 1 != self.trace["update"]:
            return self._learn(batches, noise, *others)
        assert self.tracer is not None
        given = {"batch": batches, "noise": noise}
        for name, tree in {**given, "weights": self.loop.parts.agent.parameters()}.items():
            self.keep(name, dict(_leaves(tree)))
        with self.tracer.part("learn", given):
            return self._learn(batches, noise, *others)

    def keep(self, name: str, tensors: Mapping[str, Any]) -> None:
        """Writes what the loop shows at this moment, to be looked at beside another run's."""
        copies = {key: torch.as_tensor(value).detach().cpu().clone() for key, value in tensors.items()}
        torch.save(copies, self.folder / f"{name}.pt")

    def _end(self) -> None:
        if self.tracer is not None:
            self.tracer.close()
        raise Reached


def _shown(now: Any) -> dict[str, Any]:
    return {**now.obs, "step.reward": now.reward, "step.is_last": now.is_last, "step.is_terminal": now.is_terminal}


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Arrays and tensors of nested mappings and sequences, by their path."""
    if isinstance(tree, Tensor | np.ndarray):
        yield prefix, tree
    elif isinstance(tree, Mapping):
        for name, child in tree.items():
            yield from _leaves(child, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(tree, list | tuple):
        for number, child in enumerate(tree):
            yield from _leaves(child, f"{prefix}.{number}" if prefix else str(number))


# -- Tracing -----------------------------------------------------------------------------------------------------------


class Tracer(TorchDispatchMode):
    """Notes every operation below autograd, those of backward passes included, as lines of trace.jsonl."""

    def __init__(self, folder: Path, loop: Any):
        super().__init__()
        self._file = (folder / "trace.jsonl").open("w", encoding="utf8")
        self._kept, self._path = dict[str, Tensor](), folder / "tensors.pt"
        self._agent, self._digest = loop.parts.agent, _own_digest()
        self._number, self._bytes, self._part = 0, 0, ""
        self._names: dict[int, str] = {}  # tensors that there were before, by identity and by the address of their content
        self._alive: list[Any] = []  # they live as long as their names
        self._modules: dict[int, str] = {}
        self._made: dict[int, weakref.ref[Tensor]] = {}
        self._forward: dict[int, Any] = {}  # sequence number of a node of the graph -> where its forward operation was

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else entering the mode imports the compiler

    def part(self, name: str, given: Mapping[str, Any]) -> "Tracer":
        """What follows is part of this. `given`: what it is handed."""
        self._part, net = name, getattr(self._agent, "net", None)
        modules = dict(net.named_modules()) if isinstance(net, torch.nn.Module) else {}
        self._modules = {id(module): path for path, module in modules.items() if path}
        self._names.clear()
        named = [*_leaves(given), *((f"parameter {n}", p) for n, p in self._agent.parameters().items())]
        for path, tensor in [*named, *_owned(self._agent, "agent", DEPTH, set())]:
            self._alive.append(tensor)
            address = tensor.ctypes.data if isinstance(tensor, np.ndarray) else tensor.data_ptr()
            for key in (id(tensor), address) if address else (id(tensor),):
                self._names.setdefault(key, path)
        return self

    def close(self) -> None:
        self._file.close()
        torch.save(self._kept, self._path)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = dict(_arguments(func, args, kwargs or {}))
        inputs = [self._input(name, tensor) for name, tensors in given.items() for tensor in _tensors(tensors)]
        self._keep("input", [None if told["inside"] else tensor for told, tensor in zip(inputs, _tensors(given), strict=True)])
        place = self._place(sys._getframe(1))
        result = func(*args, **(kwargs or {}))
        outputs = list(_tensors(result))
        note = {
            "number": self._number,
            "part": self._part,
            "operation": str(func).removesuffix(".default"),
            **place,
            "constants": {name: repr(value) for name, value in given.items() if not any(True for _ in _tensors(value))},
            "inputs": inputs,
            "outputs": [self._described(tensor) for tensor in outputs],
        }
        self._file.write(json.dumps(note) + "\n")
        for tensor in outputs:
            self._made[id(tensor)] = weakref.ref(tensor)
        self._keep("output", outputs)
        self._number += 1
        return result

    def _keep(self, kind: str, tensors: Sequence[Tensor | None]) -> None:
        """Some tensors themselves, as long as there is room: what came from outside, and what was made of it."""
        for number, tensor in enumerate(tensors):
            if tensor is not None and self._bytes + tensor.nbytes <= KEPT_BYTES:
                self._kept[f"{self._number} {kind} {number}"] = tensor.detach().clone().cpu()
                self._bytes += tensor.nbytes

    def _input(self, name: str, tensor: Tensor) -> dict[str, Any]:
        made = self._made.get(id(tensor))
        inside = made is not None and made() is tensor
        known = None if inside else self._names.get(id(tensor)) or self._names.get(tensor.data_ptr())
        return {"argument": name, "inside": inside, "name": known, **self._described(tensor)}

    def _described(self, tensor: Tensor) -> dict[str, Any]:
        plain = tensor.detach().resolve_conj().resolve_neg()
        head = plain.flatten()[:HEAD].cpu()
        values = torch.view_as_real(head).flatten() if head.is_complex() else head
        kind = str(tensor.dtype).removeprefix("torch.")
        return {"shape": list(tensor.shape), "dtype": kind, "digest": self._digest(plain), "head": values.tolist()}

    def _place(self, frame: FrameType | None) -> dict[str, Any]:
        """Module and source of an operation; of one in a backward pass, those of the forward operation that it belongs to."""
        module, source = self._walked(frame)
        node = torch._C._current_autograd_node()
        if node is None:
            place = {"module": module, "source": source}
            self._forward.setdefault(torch._C._autograd._get_sequence_nr() - 1, place)
            return {**place, "backward": None}
        forward = self._forward.get(node._sequence_nr(), {"module": module, "source": source})
        return {**forward, "backward": node.name()}

    def _walked(self, frame: FrameType | None) -> tuple[str | None, list[str]]:
        """The innermost module on the stack, and the innermost places outside libraries."""
        module, source = None, list[str]()
        while frame is not None and (frame.f_code.co_filename != __file__ or not source):
            file = frame.f_code.co_filename
            if len(source) < CALLERS and file != __file__ and _ours(file):
                line = f"{_short(file)}:{frame.f_lineno} {frame.f_code.co_qualname.partition('.<locals>')[0]}"
                source += [line] if line not in source else []
            if module is None and "self" in frame.f_code.co_varnames:
                module = self._modules.get(id(frame.f_locals.get("self")))
            frame = frame.f_back
        return module, source


def _own_digest() -> Callable[[Tensor], str]:
    """The digest of the version that this file belongs to: two versions may digest otherwise."""
    spec = importlib.util.spec_from_file_location(
        "own_fingerprint", Path(__file__).parents[1] / "determinism" / "fingerprint.py"
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.digest  # type: ignore[no-any-return]


def _arguments(func: Any, args: Any, kwargs: Any) -> Iterator[tuple[str, Any]]:
    """Every argument under the name that the operation's schema gives it."""
    names = [argument.name for argument in func._schema.arguments]
    yield from zip(names, args, strict=False)
    yield from kwargs.items()


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor))


def _owned(node: Any, path: str, depth: int, seen: set[int]) -> Iterator[tuple[str, Tensor]]:
    """The tensors that an object holds, by the way to them."""
    if isinstance(node, Tensor):
        yield path, node
        return
    if depth == 0 or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, Mapping):
        children = [(f"{path}.{name}", child) for name, child in node.items()]
    elif isinstance(node, list | tuple):
        children = [(f"{path}.{number}", child) for number, child in enumerate(node)]
    else:
        own = getattr(node, "__dict__", {})
        ours = type(node).__module__.split(".")[0] not in ("torch", "numpy", "builtins") or isinstance(node, torch.nn.Module)
        children = [(f"{path}.{name}", child) for name, child in own.items()] if ours and not isinstance(node, type) else []
    for name, child in children:
        yield from _owned(child, re.sub(r"\._(parameters|modules|buffers)\b", "", name), depth - 1, seen)


def _ours(file: str) -> bool:
    return not file.startswith(("<", *LIBRARIES)) or "/hieros_repro/" in file


def _short(file: str) -> str:
    """From the package on, where it is the package's."""
    _, package, rest = file.rpartition("/hieros_repro/")
    return f"hieros_repro/{rest}" if package else file


if __name__ == "__main__":
    main(sys.argv[1])
