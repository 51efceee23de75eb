"""Measuring in turn, and telling what was measured as Markdown."""

import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

SIDE = 2048  # of the matrices whose product is the peak


class Seconds(NamedTuple):
    """What something took."""

    wall: float
    cpu: float


Found = TypeVar("Found")
Rounds = dict[str, list[Seconds]]


def seconds(call: Callable[[], object]) -> Seconds:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def rounds(questions: Mapping[str, Callable[[], Found]], count: int) -> dict[str, list[Found]]:
    """All in turn, every second time backwards."""
    found: dict[str, list[Found]] = {name: [] for name in questions}
    for turn in range(count):
        for name in list(questions)[:: -1 if turn % 2 else 1]:
            found[name].append(questions[name]())
    return found


def middle(values: list[float]) -> str:
    """In milliseconds."""
    low, median, high = (1000 * value for value in (min(values), statistics.median(values), max(values)))
    digits = 0 if median >= 100 else 1
    return f"{median:,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def told(found: list[Seconds]) -> str:
    """By the clock; of CPU time."""
    return f"{middle([s.wall for s in found])}; {middle([s.cpu for s in found])}"


def clock(found: list[Seconds]) -> float:
    return statistics.median(s.wall for s in found)


def against(found: list[Seconds], others: list[Seconds]) -> str:
    """The median over rounds of the ratio, and its range: by the clock; of CPU time."""
    texts = []
    for field in Seconds._fields:
        ratios = sorted(getattr(a, field) / getattr(b, field) for a, b in zip(found, others, strict=True))
        texts.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
    return "; ".join(texts)


def line(cells: Sequence[object]) -> None:
    print(f"| {' | '.join(map(str, cells))} |", flush=True)


def head(*names: str) -> None:
    print()
    line(names)
    print("|" + "---|" * len(names))


def peak(precision: torch.dtype) -> float:
    """FLOP per second of a product of two big matrices."""
    a, b = (torch.ones(SIDE, SIDE, dtype=precision) for _ in range(2))
    torch.mm(a, b)
    return 2 * SIDE**3 / statistics.median(seconds(lambda: torch.mm(a, b)).wall for _ in range(9))


def peaks() -> dict[str, float]:
    return {precision: peak(dtype) for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}


def counted(call: Callable[[], object]) -> tuple[int, int]:
    """FLOP, and bytes of all that is made on the way. Of an update nothing is computed or changed but the agent's number of
    them."""
    with FakeTensorMode(allow_non_fake_inputs=True), Made() as made, FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops(), made.bytes


class Made(TorchDispatchMode):
    """Sums the bytes of new tensors, views and changes in place left out."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if all(returned.alias_info is None for returned in func._schema.returns):
            self.bytes += sum(tensor.nbytes for tensor in tree_iter(result) if isinstance(tensor, torch.Tensor))
        return result


def opening(threads: int, pairs: int) -> None:
    """Of what the tables tell."""
    print(f"torch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, {threads} threads, {pairs} rounds;")
    print(f"milliseconds by the clock; of CPU time; load {os.getloadavg()[0]:.1f}")
