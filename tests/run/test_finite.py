import torch

from hieros_repro.run.finite import not_finite

FINE = {"a.weight": torch.zeros(2), "b.weight": torch.ones(2)}


def test_finite_numbers_are_not_spoken_of():
    assert not_finite({"loss": 1.0, "norm": torch.tensor(2.0), "epochs": 3}, FINE) == ""


def test_the_metric_and_the_first_tensor_are_named():
    broken = {**FINE, "b.weight": torch.tensor([1.0, float("inf")]), "c.weight": torch.tensor([float("nan")])}
    assert not_finite({"loss": float("nan"), "norm": 1.0}, broken) == "loss; first in the network: b.weight (of 2 tensors)"


def test_a_broken_weight_behind_finite_metrics_is_seen():
    assert not_finite({"loss": 0.0}, {"a": torch.tensor([float("-inf")])}) == "weights; first in the network: a (of 1 tensors)"
