"""What tests of films have in common."""

from typing import Any

from hieros_repro.agent.hierarchy import Hierarchy
from hieros_repro.determinism.keys import Key
from hieros_repro.records import Spaces
from tests.agent import making

SEES = Spaces({"vector": making.VECTOR, "camera": making.IMAGE}, making.DISCRETE)


def noise_of(agent: Hierarchy, batch: dict[str, Any]) -> dict[str, Any]:
    return agent.hardware.to_device(agent.film_noise(Key(5)("eval", 100, "dream"), batch))
