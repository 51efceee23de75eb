"""Determinism for code outside this project: seed everything, and find out whether a model trains the same way twice."""

import copy
import os
import warnings
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from typing import Any, NamedTuple

import torch

from hieros_repro.determinism import snapshot
from hieros_repro.determinism.fingerprint import digest
from hieros_repro.determinism.settings import Settings, environment


def seed_everything(seed: int, rank: int = 0) -> int:
    """Seeds every global generator with seed + rank and switches strict determinism on. Returns seed + rank.

    What acts only before the interpreter starts (PYTHONHASHSEED, CUBLAS_WORKSPACE_CONFIG) cannot be set from inside: a
    warning says what to export.
    """
    settings = Settings(
        algorithms="error", hash_seed=0, env_seeds="offset", save_rng=True, resume="exact", fill_uninitialized=False
    )
    _warn_about_environment(environment("error", 0))
    settings.apply()
    snapshot.seed_global(seed, rank)
    return seed + rank


class Verdict(NamedTuple):
    """Whether two trainings from the same start were equal, and if not, the first tensor that differed."""

    equal: bool
    step: int | None
    tensor: str | None
    message: str


def verify_determinism(
    model: torch.nn.Module,
    batches: Iterable[Any],
    steps: int = 10,
    loss: Callable[[torch.nn.Module, Any], torch.Tensor] | None = None,
) -> Verdict:
    """Trains copies of `model` twice on the same batches and compares loss, gradients and parameters bit by bit.

    `loss(model, batch)` defaults to the mean square of what the model returns for the batch. Batches repeat if there are fewer
    than `steps`. The model itself is not changed, and the global generators are left as they were.
    """
    batches = list(islice(cycle(list(batches)), steps))
    before = snapshot.take()
    records = []
    for _ in range(2):
        snapshot.restore(before)
        records.append(list(_train(copy.deepcopy(model), batches, loss or _mean_square)))
    snapshot.restore(before)
    for (step, name, first), (_, _, second) in zip(*records, strict=True):
        if digest(first) != digest(second):
            gap = (first.double() - second.double()).abs().max().item()
            return Verdict(False, step, name, f"step {step}: {name} differs first, by at most {gap:.3g}")
    return Verdict(True, None, None, f"equal: {len(records[0])} tensors over {len(batches)} steps")


def _train(model: torch.nn.Module, batches: list[Any], loss: Callable[..., torch.Tensor]) -> Iterable[Any]:
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)
    for step, batch in enumerate(batches):
        optimiser.zero_grad()
        value = loss(model, batch)
        yield step, "loss", value.detach().clone()
        value.backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                yield step, f"gradient of {name}", parameter.grad.clone()
        optimiser.step()
        for name, parameter in model.named_parameters():
            yield step, f"parameter {name}", parameter.detach().clone()


def _mean_square(model: torch.nn.Module, batch: Any) -> torch.Tensor:
    output = model(**batch) if isinstance(batch, dict) else model(*batch) if isinstance(batch, tuple) else model(batch)
    return output.float().square().mean()


def _warn_about_environment(wanted: dict[str, str]) -> None:
    unset = {name: value for name, value in wanted.items() if os.environ.get(name) != value}
    if unset:
        exports = " ".join(f"{name}={value}" for name, value in unset.items())
        warnings.warn(f"start Python with {exports}: these act only before the interpreter starts", stacklevel=3)
