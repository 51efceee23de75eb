"""Updates and acting of this checkout against those of another one: what a change has saved.

    git worktree add ../before <commit>
    python benchmarks/before_and_after.py ../before nano "director nano" "act small" --pairs 9
    python benchmarks/before_and_after.py ../before nano experiment=pinpad_dreamer_cpu     what is given changes every case

Two processes stand ready, one per tree, each with the case built and warmed up, and are asked in turn, every second time in
the other order. CPU time of one thread, recorded, fp32: medians in milliseconds; then the median over pairs of after / before,
with its range. Cases are those of hieros.py and world_models.py, each of an agent's replays by itself;
"act <case>" is a period of acting.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve().parent


def stand_ready(name: str, overrides: Sequence[str]) -> None:
    """In a process of its own: tells what there is to be timed, then times all of it once for every line that is read."""
    import hieros
    import world_models

    given = ("hardware.threads=1", *overrides)
    calls: dict[str, Callable[[], object]]
    if name.startswith("act "):
        [case] = [case for case in hieros.ACTING if case.name == name.removeprefix("act ")]
        calls = {name: hieros.Acting((*case.overrides, *given)).warm().period}
    else:
        case = next(case for case in (*world_models.CASES, *hieros.CASES) if case.name == name)
        update = hieros.Update((*case.overrides, *given)).warm()
        calls = {f"{name}, {replay}": partial(update.part, replay) for replay in update.given[0]}
    for call in calls.values():
        call()
    print(json.dumps(list(calls)), flush=True)
    for _ in sys.stdin:
        found = {}
        for what, call in calls.items():
            start = time.process_time()
            call()
            found[what] = time.process_time() - start
        print(json.dumps(found), flush=True)


class Side:
    """One of the trees."""

    def __init__(self, tree: Path, asked: Sequence[str]):
        # the benchmarks of this tree, the package of that one
        environment = {**os.environ, "PYTHONPATH": f"{tree.resolve()}{os.pathsep}{HERE}"}
        command = [sys.executable, str(HERE / "before_and_after.py"), "--ready", str(tree), *asked]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.names: list[str] = self.answer()

    def answer(self) -> list[str] | dict[str, float]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(("[", "{")):
                return json.loads(line)
        raise SystemExit(f"error: {' '.join(map(str, self.process.args))} ended without an answer")  # type: ignore[arg-type]

    def ask(self) -> dict[str, float]:
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        return self.answer()  # type: ignore[return-value]


def compare(before: Path, name: str, overrides: Sequence[str], pairs: int) -> None:
    sides = [Side(tree, [name, *overrides]) for tree in (before, HERE.parent)]
    rounds = []
    for turn in range(pairs):
        found = {place: sides[place].ask() for place in ((0, 1) if turn % 2 == 0 else (1, 0))}
        rounds.append((found[0], found[1]))
    for what in sides[0].names:
        old, new = ([1000 * pair[place][what] for pair in rounds] for place in (0, 1))
        ratios = [b / a for a, b in zip(old, new, strict=True)]
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"| {what} | {pairs} | {statistics.median(old):,.0f} | {statistics.median(new):,.0f} | {shown} |", flush=True)
    for side in sides:
        side.process.communicate("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path, help="another checkout")
    parser.add_argument("asked", nargs="+", metavar="CASE or override")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--ready", action="store_true", help="one case, timed whenever asked; used by this script itself")
    arguments = parser.parse_args()
    cases = [word for word in arguments.asked if "=" not in word]
    overrides = [word for word in arguments.asked if "=" in word]
    if arguments.ready:
        return stand_ready(cases[0], overrides)
    print("| one thread, recorded, fp32 | pairs | before, ms | after, ms | after / before |\n|---|---|---|---|---|", flush=True)
    for name in cases:
        compare(arguments.before, name, overrides, arguments.pairs)


if __name__ == "__main__":
    main()
