"""The states of the global generators, as plain data.

Nothing of ours draws from them (a test poisons them and looks), but an environment or a plugin may. So they are seeded at the
start, saved in every checkpoint under four names, and restored last on resume.
"""

import random
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

NAMES = ("torch_rng_state", "numpy_rng_state", "python_rng_state", "cuda_rng_state_all")


def seed_global(seed: int, rank: int = 0) -> None:
    """Seeds python, numpy and torch (all CUDA devices included) with seed + rank."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)


def take() -> dict[str, Any]:
    name, words, position, has_gauss, gauss = np.random.get_state(legacy=True)
    return {
        "torch_rng_state": torch.get_rng_state(),
        "numpy_rng_state": [name, torch.from_numpy(np.asarray(words).astype(np.int64)), position, has_gauss, gauss],
        "python_rng_state": random.getstate(),
        "cuda_rng_state_all": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore(states: Mapping[str, Any] | None) -> None:
    """Restores what `take` returned. Without it global randomness will differ, and the user is told so."""
    if not states:
        warnings.warn(
            "the checkpoint holds no rng_state: global randomness (python, numpy, torch) will differ from the original run",
            stacklevel=2,
        )
        return
    missing = [name for name in NAMES if name not in states]
    if missing:
        raise ValueError(f"rng_state lacks {', '.join(missing)}; it holds {', '.join(states) or 'nothing'}")
    torch.set_rng_state(states["torch_rng_state"])
    name, words, position, has_gauss, gauss = states["numpy_rng_state"]
    np.random.set_state((name, words.numpy().astype(np.uint32), position, has_gauss, gauss))
    version, internal, gauss_next = states["python_rng_state"]
    random.setstate((version, tuple(internal), gauss_next))
    if states["cuda_rng_state_all"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda_rng_state_all"])
