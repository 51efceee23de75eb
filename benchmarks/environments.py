"""Steps per second of every environment: ours as a run steps it, against the raw package doing the same work.

python benchmarks/environments.py --pairs 5 --seconds 2
python benchmarks/environments.py --only pinpad atari

Ours is a Vector of one environment, with resets, flags, scores and whatever restoring needs: what a run sees. Raw is the least
that shows the same observations: the package's own environment, its pictures reduced as ours are, reset where an episode ends.
The overhead is the time that ours takes longer per step; negative where ours is faster. Both act at random, in turn.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MUJOCO_GL", "egl")

import numpy as np

from hieros_repro.build import recipe
from hieros_repro.check import check
from hieros_repro.command import composer
from hieros_repro.determinism.keys import Key

Player = Callable[[int], int]  # takes at least so many steps, returns how many it took


class Row(NamedTuple):
    """One line of the table."""

    name: str
    overrides: tuple[str, ...]
    raw: Callable[[], Player] | None = None
    against: str = ""


# -- Ours --------------------------------------------------------------------------------------------------------------


def ours(overrides: tuple[str, ...], num_envs: int = 1, processes: int = 0) -> Player:
    with composer() as compose:
        overrides = (*overrides, f"env.num_envs={num_envs}", f"env.processes={processes}")
        config = check(compose(config_name="train", overrides=list(overrides)))
    envs = recipe(config["env"]).training(lambda i, n: Key(0)("env", i, n).seed())
    space = envs.spaces.action
    actions = [space.draw(Key(0)("act", t).uniform((num_envs, *space.shape))) for t in range(997)]
    envs.reset()
    ticks = 0

    def play(steps: int) -> int:
        nonlocal ticks
        for _ in range(-(-steps // num_envs)):
            envs.step(actions[ticks % len(actions)])
            ticks += 1
        envs.take_finished()
        return -(-steps // num_envs) * num_envs

    return play


# -- The raw packages --------------------------------------------------------------------------------------------------


def looped(reset: Callable[[], Any], step: Callable[[Any], bool], actions: list[Any]) -> Player:
    """Steps, and resets where `step` says that the episode is over."""
    reset()
    source = _forever(actions)

    def play(steps: int) -> int:
        for _ in range(steps):
            if step(next(source)):
                reset()
        return steps

    return play


def _forever(actions: list[Any]) -> Iterator[Any]:
    while True:
        yield from actions


def drawn(count: int) -> list[int]:
    return (Key(0)("act", 0).uniform((997,)) * count).astype(int).tolist()


def gymnasium_raw(id: str, **kwargs: Any) -> Player:
    import gymnasium

    env = gymnasium.make(id, **kwargs)
    count = int(env.action_space.n)
    return looped(env.reset, lambda action: any(env.step(action)[2:4]), drawn(count))


def atari_raw() -> Player:
    """The emulator four times, the last two screens merged and reduced."""
    import ale_py
    import cv2

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    cv2.setNumThreads(0)
    ale = ale_py.ALEInterface()
    ale.loadROM(ale_py.roms.get_rom_path("pong"))
    buttons = ale.getLegalActionSet()
    before, now = np.empty((2, *ale.getScreenDims(), 3), np.uint8)

    def step(action: int) -> bool:
        for left in (3, 2, 1, 0):
            ale.act(buttons[action])
            if left == 1:
                ale.getScreenRGB(before)
        ale.getScreenRGB(now)
        cv2.resize(np.maximum(before, now), (64, 64), interpolation=cv2.INTER_AREA)
        return ale.game_over()

    return looped(ale.reset_game, step, drawn(len(buttons)))


def atari_gymnasium() -> Player:
    """Gymnasium's own preprocessing, gray as it does it best."""
    import ale_py
    import gymnasium

    gymnasium.register_envs(ale_py)
    env = gymnasium.make("ALE/Pong-v5", frameskip=1, full_action_space=True)
    env = gymnasium.wrappers.AtariPreprocessing(env, noop_max=0, frame_skip=4, screen_size=84, grayscale_obs=True)
    return looped(env.reset, lambda action: any(env.step(action)[2:4]), drawn(18))


def dmc_raw(vision: bool) -> Callable[[], Player]:
    def make() -> Player:
        from dm_control import suite

        env = suite.load("walker", "walk", task_kwargs={"random": 0})
        actions = list(Key(0)("act", 0).uniform((997, 6)) * 2 - 1)

        def step(action: np.ndarray) -> bool:
            env.step(action)
            last = env.step(action).last()
            if vision:
                env.physics.render(64, 64, camera_id=0)
            return last

        return looped(env.reset, step, actions)

    return make


def crafter_raw() -> Player:
    import crafter

    env = crafter.Env(size=(64, 64), seed=0)
    return looped(env.reset, lambda action: env.step(action)[2], drawn(17))


def minigrid_raw() -> Player:
    """The package's picture of the whole map, unreduced."""
    import gymnasium
    import minigrid

    env = minigrid.wrappers.RGBImgObsWrapper(gymnasium.make("MiniGrid-Empty-8x8-v0"), tile_size=8)
    return looped(env.reset, lambda action: any(env.step(action)[2:4]), drawn(7))


def minigrid_symbols() -> Player:
    import gymnasium
    import minigrid  # noqa: F401

    env = gymnasium.make("MiniGrid-Empty-8x8-v0")
    return looped(env.reset, lambda action: any(env.step(action)[2:4]), drawn(7))


def pinpad_single() -> Player:
    from hieros_repro.env.pinpad import PinPad

    env = PinPad(task="three", length=2000)
    return looped(lambda: env.reset(seed=0), lambda action: env.step(action)[3], drawn(5))


ROWS = [
    Row("CartPole", ("env=cartpole",), lambda: gymnasium_raw("CartPole-v1"), "gymnasium.make"),
    Row("Pong 64x64 colour", ("env=atari",), atari_raw, "ale-py x 4, maximum, area resize"),
    Row("Pong 84x84 gray", ("env=atari", "env.size=84", "env.gray=true"), atari_gymnasium, "AtariPreprocessing"),
    Row("walker_walk proprio", ("env=dmc", "env.observe=proprio"), dmc_raw(False), "dm_control x 2"),
    Row("walker_walk vision", ("env=dmc",), dmc_raw(True), "dm_control x 2, one picture"),
    Row("LocoNav, proprio", ("env=loconav", "env.observe=proprio")),
    Row("MiniGrid-Empty-8x8, full picture", ("env=minigrid",), minigrid_raw, "RGBImgObsWrapper"),
    Row("MiniGrid-Empty-8x8, symbols", ("env=minigrid", "env.observe=symbolic"), minigrid_symbols, "gymnasium.make"),
    Row("Crafter", ("env=crafter",), crafter_raw, "crafter.Env"),
    Row("PinPad three", ("env=pinpad",), pinpad_single, "our Gymnasium class"),
    Row("PinPad eight, guided", ("env=pinpad_easy", "env.task=eight", "env.reward_mode=dense_guidance")),
    Row("Dummy", ("env=dummy",)),
]


# -- Measuring ---------------------------------------------------------------------------------------------------------


def rate(play: Player, seconds: float) -> float:
    """Steps per second, over at least so many seconds."""
    taken, chunk, start = 0, 64, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        taken += play(chunk)
    return taken / spent


def line(row: Row, pairs: int, seconds: float) -> str:
    """Ours and raw in turn; then many at once."""
    one, raw = ours(row.overrides), row.raw() if row.raw else None
    rates: dict[str, list[float]] = {"ours": [], "raw": [], "many": [], "workers": []}
    many, workers = ours(row.overrides, 64), ours(row.overrides, 8, 2)
    for player in filter(None, (one, raw, many, workers)):
        player(64)
    for pair in range(pairs):
        for name in ("ours", "raw") if pair % 2 else ("raw", "ours"):
            player = {"ours": one, "raw": raw}[name]
            if player is not None:
                rates[name].append(rate(player, seconds))
        rates["many"].append(rate(many, seconds))
        rates["workers"].append(rate(workers, seconds))
    middle = {name: statistics.median(found) if found else 0.0 for name, found in rates.items()}
    overheads = sorted(r / o - 1 for r, o in zip(rates["raw"], rates["ours"], strict=False))
    overhead = f"{statistics.median(overheads):+.0%} ({overheads[0]:+.0%} to {overheads[-1]:+.0%})" if overheads else "-"
    raw_rate = f"{middle['raw']:,.0f} ({row.against})" if raw else "-"
    alone, together, apart = (f"{middle[name]:,.0f}" for name in ("ours", "many", "workers"))
    return f"| {row.name} | {raw_rate} | {alone} | {overhead} | {together} | {apart} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--only", nargs="*", help="rows whose name or overrides contain one of these")
    arguments = parser.parse_args()
    print("| environment | raw steps/s | ours, 1 | overhead (pairs) | ours, 64 at once | ours, 8 in 2 processes |")
    print("|---|---|---|---|---|---|", flush=True)
    for row in ROWS:
        if not arguments.only or any(word.lower() in f"{row.name} {row.overrides}".lower() for word in arguments.only):
            print(line(row, arguments.pairs, arguments.seconds), flush=True)


if __name__ == "__main__":
    main()
