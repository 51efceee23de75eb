"""Deep reinforcement learning in which a run is a function of (code, config, seed, numerics)."""

from typing import Any

__version__ = "0.1.0"
_PUBLIC = {
    "seed_everything": "hieros_repro.determinism.api",
    "verify_determinism": "hieros_repro.determinism.api",
    "load": "hieros_repro.policy",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """The public functions need torch, which takes seconds to import: they are fetched when first named."""
    if name in _PUBLIC:
        import importlib

        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'hieros_repro' has no attribute {name!r}; it offers {', '.join(__all__)}")
