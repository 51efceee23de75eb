"""The DeepMind Control suite: bodies in MuJoCo, seen by a camera, by their joints, or both."""

import inspect
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, Literal

from hieros_repro.env.simulation import Eye, Simulation, installed, library
from hieros_repro.records import Count, Fault, Natural, UserError

CAMERAS = {"quadruped": 2, "dog_fetch": 2}  # the camera that follows the body, where it is not the first


class DMC(Simulation):
    """One task of the suite, "walker_walk"."""

    def __init__(
        self,
        render: bool = False,
        *,
        task: str,
        observe: Literal["vision", "proprio", "both"],
        size: Count,
        camera: Natural | None,
        action_repeat: Count,
        length: Count | None,
    ):
        suite, _ = library()
        domain, name = tasks(suite)[task]
        drawn = {"random": 0}  # by which lqr builds its body, so that it is always the same; resets are seeded anew
        with _quiet():
            env = suite.load(domain, name, task_kwargs=drawn | {"time_limit": float("inf")})
        usual = next((number for start, number in CAMERAS.items() if task.startswith(start)), 0)
        chosen = usual if camera is None else camera
        if chosen >= env.physics.model.ncam:
            raise UserError(f"env.camera={camera} is not there: {task} has the cameras 0 to {env.physics.model.ncam - 1}")
        limit = length * action_repeat if length else _own_limit(suite, domain, name) / env.control_timestep()
        super().__init__(env, env.task.random.seed, Eye(observe, size, chosen), action_repeat, limit)

    @classmethod
    def check(cls, *, task: str, **values: Any) -> Iterator[Fault]:
        """Is the suite installed, and has it this task?"""
        missing = list(installed("task", task))
        yield from missing
        known = {} if missing else tasks(library()[0])
        if known and task not in known:
            near = get_close_matches(task, known, n=3, cutoff=0.4)
            yield Fault("task", f"{task!r} is no task of the DeepMind Control suite; nearest: {', '.join(near) or 'none'}")


def tasks(suite: Any) -> dict[str, tuple[str, str]]:
    """Domain and task by the name one types; "cup" is short for "ball_in_cup"."""
    known = {f"{domain}_{name}": (domain, name) for domain, name in suite.ALL_TASKS}
    return known | {full.replace("ball_in_cup", "cup"): pair for full, pair in known.items()}


def _own_limit(suite: Any, domain: str, name: str) -> float:
    """Seconds until the suite gives an episode up: 1000 ticks nearly everywhere, never with lqr."""
    return inspect.signature(getattr(suite, domain).SUITE[name]).parameters["time_limit"].default


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings that compiling one of the suite's own models brings, once per environment."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
