"""LocoNav: an ant or a quadruped that looks for the goal of a maze, seeing what lies before it."""

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from hieros_repro.determinism.keys import Key
from hieros_repro.env.simulation import Eye, Simulation, installed, library
from hieros_repro.records import Count, Fault

# * wall, P where the body starts, G the goal. From s to xxl the way is 10, 18, 28, 42, 60 cells long.
MAZES: Mapping[str, Sequence[str]] = {
    "empty": ("*********", "*P      *", "*       *", "*       *", "*       *", "*      G*", "*********"),
    "s": ("*******", "*P    *", "***** *", "*G    *", "*******"),
    "m": (
        "*********",
        "*P*   * *",
        "* * * * *",
        "* * * * *",
        "* * * * *",
        "*   *  G*",
        "*********",
    ),
    "l": (
        "*************",
        "*P    *     *",
        "***** ***** *",
        "*   *   *   *",
        "* * *** * * *",
        "* * *   * * *",
        "* *** *** * *",
        "*         *G*",
        "*************",
    ),
    "xl": (
        "***************",
        "*P    *   *   *",
        "***** * * * * *",
        "*   * * *   * *",
        "* * * * *******",
        "* *   *       *",
        "* ******* *** *",
        "* *     * *   *",
        "* *** * *** * *",
        "*     *     * *",
        "************* *",
        "*            G*",
        "***************",
    ),
    "xxl": (
        "*********************",
        "*P*           *     *",
        "* * ********* ***** *",
        "* *         *       *",
        "* * ******* * ***** *",
        "* * *   *   * *   * *",
        "* *** * * ***** * ***",
        "*     * *       *   *",
        "******* * ********* *",
        "*     * * *         *",
        "* * * * *** ******* *",
        "* * * *   *   *     *",
        "*** * *** *** * *****",
        "*   *   * *   *   * *",
        "* ******* * ***** * *",
        "*           *      G*",
        "*********************",
    ),
}
CELL, HEIGHT = 2.0, 1.5  # metres: a cell's side, a wall's height
RADIUS = 1.2  # metres around the goal's centre within which the body's centre is paid for
COLOURS = ((0.8, 0.3, 0.2), (0.2, 0.6, 0.3), (0.2, 0.4, 0.8), (0.8, 0.7, 0.2), (0.6, 0.3, 0.7), (0.3, 0.7, 0.7))  # landmarks
HERTZ, SECONDS = 50, 60


class LocoNav(Simulation):
    """Every tick at the goal brings 1, nothing else brings anything, and only the time-out ends an episode.

    The walls are landmarks by their colours. A reset draws the way the body faces.
    """

    def __init__(
        self,
        render: bool = False,
        *,
        body: Literal["ant", "quadruped"],
        maze: Literal["empty", "s", "m", "l", "xl", "xxl"],
        observe: Literal["vision", "proprio", "both"],
        size: Count,
        action_repeat: Count,
        length: Count | None,
    ):
        library()
        from dm_control.mujoco import Physics
        from dm_control.mujoco.wrapper import MjModel
        from dm_control.rl.control import Environment

        physics = Physics.from_model(MjModel(_world(body, MAZES[maze])))
        task = Search(places(MAZES[maze], "P")[0], places(MAZES[maze], "G")[0])
        env = Environment(physics, task, control_timestep=1 / HERTZ)
        limit = length * action_repeat if length else SECONDS * HERTZ
        super().__init__(env, task.reseed, Eye(observe, size, "egocentric"), action_repeat, limit)

    @classmethod
    def check(cls, *, body: str, **values: Any) -> Iterator[Fault]:
        """Is dm_control installed, which brings the bodies?"""
        yield from installed("body", body)


class Search:
    """A task as dm_control.rl.control.Environment asks for one. Positions are in metres."""

    def __init__(self, start: tuple[float, float], goal: tuple[float, float]):
        self.start, self.goal = start, goal
        self.seed = 0

    def reseed(self, seed: int) -> None:
        self.seed = seed

    def initialize_episode(self, physics: Any) -> None:
        """A little above the ground, so that no leg is in it."""
        half = math.pi * float(Key(self.seed)("world", "loconav", 0).uniform(()))  # of the angle
        root = physics.named.data.qpos["root"]
        root[:2], root[2] = self.start, root[2] + 0.1
        root[3:] = math.cos(half), 0.0, 0.0, math.sin(half)

    def before_step(self, action: Any, physics: Any) -> None:
        physics.set_control(action)

    def after_step(self, physics: Any) -> None:
        """The state is all there is."""

    def get_observation(self, physics: Any) -> dict[str, np.ndarray]:
        """What the body feels: nothing of it tells where in the maze it is."""
        data, torso = physics.data, physics.named.data
        seen = {
            "joints_pos": data.qpos[7:],
            "joints_vel": data.qvel[6:],
            "actuators": data.act,
            "sensors": data.sensordata,
            "height": torso.xpos["torso", "z"],
            "zaxis": torso.xmat["torso", ["zx", "zy", "zz"]],
        }
        return {name: np.array(value) for name, value in seen.items() if np.size(value)}

    observation_spec = get_observation  # which has the same shapes

    def get_reward(self, physics: Any) -> float:
        return float(math.dist(physics.named.data.xpos["torso", ["x", "y"]], self.goal) < RADIUS)

    def get_termination(self, physics: Any) -> None:
        """Never."""

    def action_spec(self, physics: Any) -> Any:
        from dm_control.mujoco import action_spec

        return action_spec(physics)


# -- The world ---------------------------------------------------------------------------------------------------------


def places(maze: Sequence[str], token: str) -> list[tuple[float, float]]:
    """The centres of the cells that hold it; the maze's centre is (0, 0)."""
    middle = ((len(maze[0]) - 1) / 2, (len(maze) - 1) / 2)
    found = [(x, y) for y, row in enumerate(maze) for x, cell in enumerate(row) if cell == token]
    return [((x - middle[0]) * CELL, (middle[1] - y) * CELL) for x, y in found]


def _world(body: str, maze: Sequence[str]) -> Any:
    """The compiled model: a body in a maze."""
    import mujoco

    spec = {"ant": _ant, "quadruped": _quadruped}[body](mujoco)
    spec.option.timestep = 0.005
    spec.visual.headlight.ambient, spec.visual.headlight.diffuse = [0.4] * 3, [0.4] * 3
    ground, box, sphere = mujoco.mjtGeom.mjGEOM_PLANE, mujoco.mjtGeom.mjGEOM_BOX, mujoco.mjtGeom.mjGEOM_SPHERE
    checker = {"builtin": mujoco.mjtBuiltin.mjBUILTIN_CHECKER, "width": 64, "height": 64}
    spec.add_texture(name="ground", type=mujoco.mjtTexture.mjTEXTURE_2D, rgb1=[0.3] * 3, rgb2=[0.45] * 3, **checker)
    tiles = spec.add_material(name="ground", texrepeat=[1 / CELL, 1 / CELL], texuniform=True)
    tiles.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "ground"
    width, depth = CELL / 2 * len(maze[0]), CELL / 2 * len(maze)
    spec.worldbody.add_geom(name="ground", type=ground, size=[width, depth, 1], material="ground")
    for i, (x, y) in enumerate(places(maze, "*")):
        colour = COLOURS[(int(x // (3 * CELL)) + 2 * int(y // (3 * CELL))) % len(COLOURS)]
        half = [CELL / 2, CELL / 2, HEIGHT / 2]
        spec.worldbody.add_geom(name=f"wall_{i}", type=box, size=half, pos=[x, y, HEIGHT / 2], rgba=[*colour, 1])
    goal = [*places(maze, "G")[0], RADIUS]
    spec.worldbody.add_geom(
        name="goal", type=sphere, size=[RADIUS, 0, 0], pos=goal, rgba=[0, 0.7, 0, 1], contype=0, conaffinity=0, density=0
    )
    return spec.compile()


def _ant(mujoco: Any) -> Any:
    from dm_control.locomotion.walkers import ant

    spec = mujoco.MjSpec.from_file(os.path.join(ant._XML_DIRNAME, ant._XML_FILENAME))
    spec.body("torso").add_freejoint(name="root")
    spec.body("torso").add_light(pos=[0, 0, 4], mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM)
    sky = {"rgb1": [0.4, 0.6, 0.8], "rgb2": [0, 0, 0], "width": 64, "height": 384}
    gradient = mujoco.mjtBuiltin.mjBUILTIN_GRADIENT
    spec.add_texture(name="sky", type=mujoco.mjtTexture.mjTEXTURE_SKYBOX, builtin=gradient, **sky)
    return spec


def _quadruped(mujoco: Any) -> Any:
    from dm_control.suite import common, quadruped

    spec = mujoco.MjSpec.from_string(quadruped.make_model().decode(), include=common.ASSETS)
    spec.delete(spec.geom("floor"))
    return spec
