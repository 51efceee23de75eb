"""What every environment of dm_control shares: exact state, observation by camera and joints, and drawing without a screen."""

import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np

from hieros_repro.env.base import Env, Outcome
from hieros_repro.records import CannotRender, Fault, Space, Spaces, Tree, UserError, needs_extra

WAYS = ("egl", "osmesa") if sys.platform == "linux" else ("glfw",)  # to draw, on the GPU or the CPU, without a screen
UNBOUNDED = 1e10  # MuJoCo's word for it
PICTURE = 256  # height and width of what render() shows


class Eye(NamedTuple):
    """What is observed, and the camera: its pictures' height and width, and its number or name in the model."""

    observe: Literal["vision", "proprio", "both"]
    size: int
    camera: int | str


class Simulation(Env):
    """A dm_control.rl.control.Environment without a time limit. Its task draws at resets only, as `reseed` tells it before.

    Its vectors are shown flat under their own names, the camera's picture is `image`. An action is held for `action_repeat`
    ticks, whose rewards are summed; only the last is drawn. After `limit` ticks the episode is over for lack of time.
    """

    def __init__(self, env: Any, reseed: Callable[[int], Any], eye: Eye, action_repeat: int, limit: float):
        self.env, self.physics, self.task, self._reseed = env, env.physics, env.task, reseed
        self.observe, self.size, self.camera = eye
        self.action_repeat, self.limit = action_repeat, limit
        self.ticks = 0
        self._eyes: dict[int, Any] = {}  # cameras by the size of their pictures
        self._prepare_to_draw()
        self.spaces = Spaces(self._looks(), self._acts())

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        self.ticks = 0
        self._reseed(seed)
        return self._see(self.env.reset().observation)

    def step(self, action: np.ndarray | int) -> Outcome:
        reward = 0.0
        for _ in range(self.action_repeat):
            now = self.env.step(action)
            self.ticks += 1
            reward += float(now.reward)
            timeout = self.ticks >= self.limit
            if now.last() or timeout:
                break
        terminated = bool(now.last() and now.discount == 0)
        return self._see(now.observation), reward, terminated, not terminated and bool(now.last() or timeout)

    # -- State ---------------------------------------------------------------------------------------------------------

    def snapshot(self) -> Tree:
        """What MuJoCo integrates, the solver's warm start included; the sensors, since some are older than the state."""
        return {
            "physics": self.physics.get_state(_integration()),
            "sensors": np.array(self.physics.data.sensordata),
            "ticks": self.ticks,
        }

    def restore(self, seed: int, snapshot: Tree) -> dict[str, np.ndarray]:
        """The reset changes the model as the seed says; the rest of the state is then overwritten."""
        import mujoco

        self._reseed(seed)
        self.env.reset()
        self.physics.set_state(snapshot["physics"], _integration())
        mujoco.mj_step1(self.physics.model.ptr, self.physics.data.ptr)  # what follows from it: the first half of a step
        self.physics.data.sensordata[:] = snapshot["sensors"]
        self.ticks = snapshot["ticks"]
        return self._see(self.task.get_observation(self.physics))

    # -- What is seen --------------------------------------------------------------------------------------------------

    def render(self) -> np.ndarray:
        if not draws():
            raise CannotRender(_no_pictures("a picture"))
        return self._picture(PICTURE)

    def close(self) -> None:
        self._eyes.clear()
        self.physics.free()

    def _prepare_to_draw(self) -> None:
        """Makes room for the pictures, or sees to it that none is asked for."""
        if not draws():
            if self.observe != "proprio":
                raise UserError(_no_pictures(f"env.observe={self.observe}"))
            self.physics._make_rendering_contexts = lambda: None  # quadruped_escape would, at every reset
            return
        room = self.physics.model.vis.global_
        room.offwidth = room.offheight = max(self.size, PICTURE)

    def _picture(self, size: int) -> np.ndarray:
        if size not in self._eyes:
            from dm_control.mujoco import Camera

            self._eyes[size] = Camera(self.physics, size, size, self.camera)
        return np.array(self._eyes[size].render())

    def _see(self, vectors: Mapping[str, Any]) -> dict[str, np.ndarray]:
        seen = {"image": self._picture(self.size)} if self.observe != "proprio" else {}
        if self.observe != "vision":
            seen |= {name: np.ravel(value).astype(np.float32) for name, value in vectors.items()}
        return seen

    def _looks(self) -> dict[str, Space]:
        looks = {"image": Space("image", (self.size, self.size, 3))} if self.observe != "proprio" else {}
        if self.observe != "vision":
            sizes = {name: int(np.prod(spec.shape)) for name, spec in self.env.observation_spec().items()}
            looks |= {name: Space("vector", (size,)) for name, size in sizes.items()}
        return looks

    def _acts(self) -> Space:
        spec = self.env.action_spec()
        bounds = (np.where(abs(bound) < UNBOUNDED, bound, np.sign(bound) * np.inf) for bound in (spec.minimum, spec.maximum))
        low, high = (tuple(float(x) for x in bound) for bound in bounds)
        return Space("continuous", spec.shape, low=low, high=high)

    @classmethod
    def numerics(cls, **values: Any) -> dict[str, Any]:
        """Which library draws, where pictures are seen."""
        return {} if values["observe"] == "proprio" else {"drawn_by": library()[1]}


# -- The library -------------------------------------------------------------------------------------------------------


@functools.cache
def library() -> tuple[Any, str]:
    """dm_control.suite, and why it cannot draw. How it draws is decided when it is imported: as MUJOCO_GL says, else by
    what is found to work here; without any of it, everything but drawing works."""
    asked, tried = os.environ.get("MUJOCO_GL"), []
    for way in [asked] if asked else WAYS:
        os.environ["MUJOCO_GL"] = way
        try:
            return importlib.import_module("dm_control.suite"), f"MUJOCO_GL={way}"
        except (ImportError, AttributeError, RuntimeError) as error:  # as dm_control and PyOpenGL say that there is none
            tried.append(f"{way}: {error}")
            os.environ.pop("PYOPENGL_PLATFORM", None)
            for module in [name for name in sys.modules if name.partition(".")[0] == "OpenGL"]:
                del sys.modules[module]
    os.environ["MUJOCO_GL"] = "off"
    return importlib.import_module("dm_control.suite"), "; ".join(tried)


def _integration() -> int:
    import mujoco

    return int(mujoco.mjtState.mjSTATE_INTEGRATION)


def draws() -> bool:
    """Whether dm_control found a way to draw."""
    from dm_control import _render

    return _render.BACKEND is not None and _render.BACKEND not in _render.constants.NO_RENDERER


def installed(key: str, value: str) -> Iterator[Fault]:
    """A fault if dm_control is not."""
    if importlib.util.find_spec("dm_control") is None:
        yield Fault(key, needs_extra(repr(value), "dmc"))


def _no_pictures(wanted: str) -> str:
    return (
        f"{wanted} needs OpenGL, and none can be loaded here ({library()[1]}). On Debian and Ubuntu: apt-get install libegl1"
        " libgl1 libgl1-mesa-dri; with an NVIDIA driver its own EGL will do. Or take env.observe=proprio, which needs none"
    )
