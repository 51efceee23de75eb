"""Whether an update left everything finite."""

from collections.abc import Mapping

import torch

from hieros_repro.records import Metrics


def not_finite(metrics: Metrics, parameters: Mapping[str, torch.Tensor]) -> str:
    """What is NaN or infinite, in words: the metrics, and the first tensor in the network's order. Empty if nothing is."""
    losses = [name for name, value in metrics.items() if not torch.isfinite(torch.as_tensor(value, dtype=torch.float64))]
    tensors = [name for name, tensor in parameters.items() if not bool(torch.isfinite(tensor).all())]
    first = f"; first in the network: {tensors[0]} (of {len(tensors)} tensors)" if tensors else ""
    return f"{', '.join(losses) or 'weights'}{first}" if losses or tensors else ""
