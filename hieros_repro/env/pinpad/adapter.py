"""PinPad in a configuration: env=pinpad and env=pinpad_easy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np

from hieros_repro.env.base import Batch, Env, Outcome
from hieros_repro.env.pinpad import single
from hieros_repro.env.pinpad.layout import ACTIONS, layout_of
from hieros_repro.env.pinpad.native import PICTURE, Native
from hieros_repro.env.pinpad.picture import GRID, canvas, enlarged, heat_map
from hieros_repro.env.pinpad.rules import Mode
from hieros_repro.records import Between, Count, Fault, Space, Spaces, Tree

FEW = 6  # below that, one after the other takes less time than many at once
Size = Annotated[int, Between(GRID)]


class PinPadEasy(Env):
    """A reward mode pays for parts of the sequence, too. Pictures cost nothing extra, so `render` changes nothing."""

    meanings: ClassVar[Mapping[str, str]] = {
        "completions": "sequences completed in the episode",
        "coverage": "share of the free cells that this environment has ever stood on",
    }

    def __init__(self, render: bool = False, *, task: str, length: Count, size: Size, reward_mode: Mode):
        self.env = single.PinPadEasy(task, length, size, reward_mode)
        self.spaces = Spaces({"image": Space("image", (size, size, 3))}, Space("discrete", (), sizes=(ACTIONS,)))

    @classmethod
    def check(cls, *, task: str, size: int, **others: object) -> Iterator[Fault]:
        """Is the task a layout, and can a cell be as large as the others?"""
        try:
            layout_of(task)
        except ValueError as error:
            yield Fault("task", str(error))
        if size % GRID:
            yield Fault("size", f"{size} is no multiple of {GRID}, the number of cells across a picture")

    def reset(self, seed: int) -> dict[str, np.ndarray]:
        return {"image": self.env.reset(seed=seed)[0]}

    def step(self, action: np.ndarray | int) -> Outcome:
        image, reward, terminated, truncated, _ = self.env.step(int(action))
        return {"image": image}, reward, terminated, truncated

    def account(self) -> Mapping[str, float]:
        return self.env.account()

    def snapshot(self) -> Tree:
        return self.env.snapshot()

    def restore(self, seed: int, snapshot: Tree) -> dict[str, np.ndarray]:
        return {"image": self.env.restore(seed, snapshot)}

    def render(self) -> np.ndarray:
        return self.env.picture(PICTURE)

    def pictures(self, snapshots: Sequence[Tree]) -> Mapping[str, np.ndarray]:
        """The map, and beside it how often players were in each of its cells."""
        visits = np.sum([snapshot["visits"] for snapshot in snapshots], axis=0)
        drawn = [enlarged(canvas(self.env.layout, 0, False), PICTURE), heat_map(self.env.layout, visits, PICTURE)]
        return {"visits": np.concatenate(drawn, axis=1)}

    def batch(self, make: Callable[[], Env], count: int) -> Batch:
        if count < FEW:
            return super().batch(make, count)
        return Native(self.env.rules, self.env.length, self.env.size, self.spaces, count)


class PinPad(PinPadEasy):
    """Nothing is paid but 10 for the whole sequence."""

    def __init__(self, render: bool = False, *, task: str, length: Count, size: Size):
        super().__init__(render, task=task, length=length, size=size, reward_mode="sparse")
