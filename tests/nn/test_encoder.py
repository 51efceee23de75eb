"""Observations as features: pictures through encoders, everything else as it is, in a fixed order."""

import pytest
import torch

from hieros_repro.determinism.keys import Key
from hieros_repro.nn.encoder import Observing
from hieros_repro.nn.init import fill
from hieros_repro.records import Space

SPACES = {"speed": Space("vector", (3,)), "view": Space("image", (16, 16, 3)), "map": Space("vector", (2, 2))}


@pytest.fixture
def observing():
    module = Observing(SPACES, 2)
    fill(module, Key(0)("init"))
    return module


def test_it_knows_how_many_features_there_are(observing):
    obs = {"speed": torch.ones(5, 3), "view": torch.zeros(5, 16, 16, 3, dtype=torch.uint8), "map": torch.ones(5, 2, 2)}
    assert observing.features(obs).shape == (5, observing.inputs)
    assert observing.inputs == observing.encoders["view"].features + 3 + 4


def test_vectors_follow_pictures_unchanged_in_the_order_of_the_spaces(observing):
    obs = {"map": torch.arange(4.0).view(1, 2, 2), "view": torch.zeros(1, 16, 16, 3, dtype=torch.uint8)}
    obs["speed"] = torch.tensor([[7.0, 8.0, 9.0]])
    assert observing.features(obs)[0, -7:].tolist() == [7, 8, 9, 0, 1, 2, 3]


def test_one_vector_alone_is_not_copied():
    speed = torch.ones(5, 3)
    assert Observing({"speed": SPACES["speed"]}, 2).features({"speed": speed}).data_ptr() == speed.data_ptr()
