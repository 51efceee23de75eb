"""Does an environment come back exactly? Tried at first use, in processes of its own; the verdict is remembered.

Two equally seeded vectors of it are stepped side by side until two episodes of each environment have ended (long ones are given
up). The state of one is then saved, both go on, and a fresh process restores it and goes on too. All must show the same.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hieros_repro import atomic
from hieros_repro.determinism.keys import Key
from hieros_repro.env.base import Env
from hieros_repro.env.making import Recipe
from hieros_repro.env.vector import Vector
from hieros_repro.records import Failed, Step, UserError

LONGEST = 4000  # ticks in which two episodes of every environment should end
PATIENCE = 10.0  # seconds after which they are given up, whether they have ended or not
GROWN = 20  # ticks of an episode that is given up
BEFORE = 20  # ticks until the state is saved, in the middle of an episode
AFTER = 80  # ticks that are compared after it
HANGS = 900.0  # seconds after which one part of the trial is given up
MOST = 8  # environments, of those that are stepped together
PACKAGE = Path(__file__).resolve().parent
INEXACT = "does not come back exactly, so exact resume is refused"


class Inexact(UserError):
    """The environment is no function of its seed and actions, or its state does not tell all."""


class Verdict(NamedTuple):
    exact: bool
    account: str  # what differed; or what was seen


class Differs(Exception):
    """What should be the same is not."""


def require(recipe: Recipe) -> None:
    """Raises Inexact where a run in this environment could not be resumed exactly."""
    found = verdict(recipe)
    if not found.exact:
        raise Inexact(
            f"env: {_name(recipe)} {INEXACT}: {found.account}\n"
            f"mend the environment, or accept that a resumed run starts new episodes: determinism.resume=episode_boundary\n"
            f"(the verdict is remembered in {_memory(recipe)})"
        )


def verdict(recipe: Recipe) -> Verdict:
    """What the trial says, or said earlier of the same environment in the same versions."""
    memory, make = _memory(recipe), recipe.make
    try:
        return Verdict(**json.loads(memory.read_text(encoding="utf8"))["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
        print(f"trying whether {_name(recipe)} comes back exactly (once; the verdict is remembered)", flush=True)
        found = trial(recipe)
    _remember(memory, {"environment": make.kind.__qualname__, "values": dict(make.values), "verdict": found._asdict()})
    return found


def trial(recipe: Recipe) -> Verdict:
    """The self-test, in two processes one after the other."""
    with tempfile.TemporaryDirectory(prefix="hieros-trial-") as folder:
        recorded = _process("record", recipe, Path(folder))
        return _process("restore", recipe, Path(folder)) if recorded.exact else recorded


# -- In the processes --------------------------------------------------------------------------------------------------


def record(recipe: Recipe, folder: Path) -> Verdict:
    """Two equally seeded vectors side by side; leaves a state and what followed it in the folder."""
    pair, tick, until = [_vector(recipe), _vector(recipe)], 0, time.monotonic() + PATIENCE
    ended = np.zeros(pair[0].num_envs, int)
    _alike([envs.reset() for envs in pair], tick)
    while ended.min() < 2 and tick < LONGEST and time.monotonic() < until:
        ended += _step(pair, tick).is_last
        tick += 1
    for _ in range(2 - min(int(ended.min()), 2)):
        _alike([envs.reset() for envs in pair], tick)
        tick = _steps(pair, tick, GROWN)[1]
    tick = _steps(pair, tick, BEFORE)[1]
    try:
        state = pair[0].state()
    except (TypeError, ValueError) as error:
        return Verdict(False, f"its state cannot be saved: {error}")
    shown, followed = pair[0].now, _steps(pair, tick, AFTER)[0]
    (folder / "state.pkl").write_bytes(pickle.dumps((tick, state, shown, followed)))
    return Verdict(True, f"{int(ended.min())} episodes were played to their end")


def restore(recipe: Recipe, folder: Path) -> Verdict:
    """The state restored in this process, and the same actions again."""
    tick, state, shown, followed = pickle.loads((folder / "state.pkl").read_bytes())
    envs = _vector(recipe)
    if difference := unequal(shown, shown._replace(obs=envs.restored(state))):
        raise Differs(f"restored in a fresh process at step {tick} it differs: {difference}")
    envs.load(state)
    for number, then in enumerate(followed):
        if difference := unequal(then, _step([envs], tick + number)):
            raise Differs(f"{number + 1} steps after it was restored in a fresh process it differs: {difference}")
    return Verdict(True, f"restored at step {tick}, and the same for {AFTER} steps")


def unequal(a: Step, b: Step) -> str | None:
    """The first thing in which two rows differ, and both values."""
    fields = [(name, a.obs[name], b.obs[name]) for name in a.obs]
    fields += [(name, getattr(a, name), getattr(b, name)) for name in ("reward", "is_first", "is_last", "is_terminal")]
    for name, left, right in fields:
        wrong = np.argwhere(~((left == right) | ((left != left) & (right != right))))
        if len(wrong):
            env, *place = (int(i) for i in wrong[0])
            values = f"{left[env][tuple(place)]} and {right[env][tuple(place)]}"
            return f"{name}{place or ''} of environment {env} is {values} ({len(wrong)} of {left.size} values differ)"
    return None


def _vector(recipe: Recipe) -> Vector:
    """As a run makes it, in this process. Of environments that are stepped one by one, one will do."""
    count = min(recipe.vector["num_envs"], MOST) if _together(recipe) else 1
    return Vector(recipe.make, lambda i, n: Key(0)("env", i, n).seed(), num_envs=count, processes=0, worker_timeout=1.0)


def _together(recipe: Recipe) -> bool:
    return recipe.make.kind.batch is not Env.batch


def _steps(pair: list[Vector], tick: int, ticks: int) -> tuple[list[Step], int]:
    """What is shown, and the tick after it."""
    return [_step(pair, t) for t in range(tick, tick + ticks)], tick + ticks


def _step(vectors: list[Vector], tick: int) -> Step:
    """One tick of them all, under actions that depend on the tick alone."""
    space, count = vectors[0].spaces.action, vectors[0].num_envs
    action = space.draw(Key(0)("act", tick).uniform((count, *space.shape)))
    return _alike([envs.step(action) for envs in vectors], tick)


def _alike(rows: list[Step], tick: int) -> Step:
    for other in rows[1:]:
        if difference := unequal(rows[0], other):
            raise Differs(f"two equally seeded copies side by side differ at step {tick}: {difference}")
    return rows[0]


def main() -> None:
    """`python -m hieros_repro.exactness <part> <folder>`: one part of the trial."""
    part, folder = sys.argv[1], Path(sys.argv[2])
    recipe = pickle.loads((folder / "recipe.pkl").read_bytes())
    answer: Verdict | UserError
    try:
        answer = {"record": record, "restore": restore}[part](recipe, folder)
    except Differs as difference:
        answer = Verdict(False, str(difference))
    except UserError as error:
        answer = error
    (folder / "answer.pkl").write_bytes(pickle.dumps(answer))


# -- In the process that asks ------------------------------------------------------------------------------------------


def _process(part: str, recipe: Recipe, folder: Path) -> Verdict:
    (folder / "recipe.pkl").write_bytes(pickle.dumps(recipe))
    path = os.pathsep.join(filter(None, [*sys.path, os.getcwd()]))
    command = [sys.executable, "-m", "hieros_repro.exactness", part, str(folder)]
    shell = {**os.environ, "PYTHONPATH": path}
    try:
        done = subprocess.run(command, env=shell, capture_output=True, text=True, errors="replace", timeout=HANGS)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"env: {_name(recipe)} hung when it was tried: no answer for {HANGS:g} s") from error
    if done.returncode:
        text = f"env: {_name(recipe)} failed when it was tried (exit code {done.returncode}):"
        raise Failed(f"{text}\n{done.stderr.rstrip()}")
    answer = pickle.loads((folder / "answer.pkl").read_bytes())
    if isinstance(answer, UserError):
        raise answer
    return answer  # type: ignore[no-any-return]


def _name(recipe: Recipe) -> str:
    """The class, and which of its environments."""
    values = recipe.make.values
    which = str(values.get("id") or values.get("task") or "").split()
    return " ".join([recipe.make.kind.__name__, *which])


def _memory(recipe: Recipe) -> Path:
    """Where the verdict is: in HIEROS_CACHE, or in a folder among the user's caches."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hieros_repro"
    return Path(os.environ.get("HIEROS_CACHE") or cache) / "exactness" / f"{_identity(recipe)}.json"


def _identity(recipe: Recipe) -> str:
    """What the verdict is about: the configuration, the versions of all packages, the hash seed, the code."""
    make = recipe.make
    told: list[Any] = [make.kind.__module__, make.kind.__qualname__, dict(make.values), dict(make.wrappers)]
    told += [recipe.vector["num_envs"] if _together(recipe) else 1]
    told += [platform.python_version(), platform.machine(), os.environ.get("PYTHONHASHSEED"), _installed()]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    ours = [path for part in ("env", "determinism/keys.py", "records.py") for path in _sources(PACKAGE / part)]
    modules = {cls.__module__ for cls in make.kind.__mro__} | set(make.kind.sources(**make.values))
    for path in sorted({*ours, *(path for module in modules for path in _package(module))}):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:32]


@cache
def _installed() -> tuple[str, ...]:
    read = (package.metadata for package in importlib.metadata.distributions())  # each file once: it takes a while
    return tuple(sorted(f"{about['Name']}=={about['Version']}" for about in read))


def _package(module: str) -> list[Path]:
    """The sources of a user's package that a module lies in; of installed packages the version tells."""
    spec = importlib.util.find_spec(module.partition(".")[0])
    found = Path(spec.origin) if spec is not None and spec.origin not in (None, "built-in", "frozen") else None
    if found is None or "site-packages" in found.parts or found.is_relative_to(sys.base_prefix) or PACKAGE in found.parents:
        return []
    return _sources(found.parent if found.name == "__init__.py" else found)


def _sources(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _remember(path: Path, facts: dict[str, Any]) -> None:
    """Complete or absent; where nothing can be written, the next run tries again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, json.dumps(facts, indent=1), shared=True)
    except OSError:
        return


if __name__ == "__main__":
    from hieros_repro.exactness import main as program  # by its real name, as which its classes are pickled

    program()
