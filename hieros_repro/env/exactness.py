"""Does an environment come back exactly? Tried at first use, in processes of its own; the verdict is remembered.

Two equally seeded vectors of it are stepped side by side until they are more than two episodes old. The state of one is then
saved, both go on, and a fresh process restores it and goes on too. All must show the same.
"""

import hashlib
import importlib.metadata
import inspect
import json
import os
import pickle
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hieros_repro.determinism.keys import Key
from hieros_repro.env.making import Maker
from hieros_repro.env.vector import Vector
from hieros_repro.records import Failed, Step, UserError

ENVS = 1
GROWN = 64  # ticks of each of the two episodes before
BEFORE = 20  # ticks until the state is saved, in the middle of an episode
AFTER = 80  # ticks that are compared after it
INEXACT = "does not come back exactly"  # what every refusal says
PACKAGE = Path(__file__).resolve().parents[1]


class Inexact(UserError):
    """The environment is no function of its seed and actions, or its state does not tell all."""


class Verdict(NamedTuple):
    exact: bool
    account: str  # what differed, where it is not


def require(make: Maker) -> None:
    """Raises Inexact where a run in this environment could not be resumed exactly."""
    found = verdict(make)
    if not found.exact:
        raise Inexact(
            f"env: {make.kind.__name__} {INEXACT}, so exact resume is refused: {found.account}\n"
            "mend the environment, or accept that a resumed run starts new episodes: determinism.resume=episode_boundary"
        )


def verdict(make: Maker) -> Verdict:
    """What the trial says, or said earlier of the same environment in the same versions."""
    memory = _folder() / f"{_identity(make)}.json"
    try:
        return Verdict(**json.loads(memory.read_text(encoding="utf8"))["verdict"])
    except (OSError, ValueError, KeyError, TypeError):
        print(f"trying whether {make.kind.__name__} comes back exactly (once; the verdict is remembered)", flush=True)
        found = trial(make)
    _remember(memory, {"environment": make.kind.__qualname__, "values": dict(make.values), "verdict": found._asdict()})
    return found


def trial(make: Maker) -> Verdict:
    """The self-test, in two processes one after the other."""
    with tempfile.TemporaryDirectory(prefix="hieros-trial-") as folder:
        for part in ("record", "restore"):
            found = _process(part, make, Path(folder))
            if found is not None:
                return found
    return Verdict(True, "")


# -- In the processes --------------------------------------------------------------------------------------------------


def record(make: Maker, folder: Path) -> Verdict | None:
    """Two equally seeded vectors side by side; leaves a state and what followed it in the folder."""
    one, other = _vector(make), _vector(make)
    tick = 0
    for ticks in (GROWN, GROWN, BEFORE):
        for rows in zip(_rows(one, tick, ticks), _rows(other, tick, ticks), strict=True):
            if difference := unequal(*rows):
                return Verdict(False, f"two equally seeded copies side by side differ at step {tick}: {difference}")
            tick += 1
    assert one.now is not None
    state, shown, followed = one.state(), one.now, []
    for rows in zip(_rows(one, tick, AFTER, False), _rows(other, tick, AFTER, False), strict=True):
        if difference := unequal(*rows):
            return Verdict(False, f"two equally seeded copies side by side differ at step {tick}: {difference}")
        followed.append(rows[0])
        tick += 1
    (folder / "state.pkl").write_bytes(pickle.dumps((state, shown, followed)))
    one.close()
    other.close()
    return None


def restore(make: Maker, folder: Path) -> Verdict | None:
    """The state restored in this process, and the same actions again."""
    state, shown, followed = pickle.loads((folder / "state.pkl").read_bytes())
    tick, envs = 2 * GROWN + BEFORE, _vector(make)
    if difference := unequal(shown, shown._replace(obs=envs.restored(state))):
        return Verdict(False, f"restored in a fresh process at step {tick} it differs: {difference}")
    envs.load(state)
    for number, (then, now) in enumerate(zip(followed, _rows(envs, tick, AFTER, False), strict=True), start=1):
        if difference := unequal(then, now):
            return Verdict(False, f"{number} steps after it was restored in a fresh process it differs: {difference}")
    envs.close()
    return None


def unequal(a: Step, b: Step) -> str | None:
    """The first thing in which two rows differ, and both values."""
    fields = [(name, a.obs[name], b.obs[name]) for name in a.obs]
    fields += [(name, getattr(a, name), getattr(b, name)) for name in ("reward", "is_first", "is_last", "is_terminal")]
    for name, left, right in fields:
        wrong = np.argwhere(~((left == right) | ((left != left) & (right != right))))
        if len(wrong):
            env, *place = (int(i) for i in wrong[0])
            where = f"{name}{place or ''} of environment {env}"
            values = f"{left[env][tuple(place)]} and {right[env][tuple(place)]}"
            return f"{where} is {values} ({len(wrong)} of {left.size} values differ)"
    return None


def _vector(make: Maker) -> Vector:
    return Vector(make, lambda i, n: Key(0)("env", i, n).seed(), num_envs=ENVS, processes=0, worker_timeout=1.0)


def _rows(envs: Vector, tick: int, ticks: int, reset: bool = True) -> Iterator[Step]:
    """What is shown under actions that depend on the tick alone."""
    space = envs.spaces.action
    if reset:
        envs.reset()
    for t in range(tick, tick + ticks):
        yield envs.step(space.draw(Key(0)("act", t).uniform((ENVS, *space.shape))))


def main() -> None:
    """`python -m hieros_repro.env.exactness <part> <folder>`: one part of the trial."""
    part, folder = sys.argv[1], Path(sys.argv[2])
    make = pickle.loads((folder / "make.pkl").read_bytes())
    try:
        answer: Any = {"record": record, "restore": restore}[part](make, folder)
    except UserError as error:
        answer = error
    (folder / "answer.pkl").write_bytes(pickle.dumps(answer))


# -- In the process that asks ------------------------------------------------------------------------------------------


def _process(part: str, make: Maker, folder: Path) -> Verdict | None:
    (folder / "make.pkl").write_bytes(pickle.dumps(make))
    path = os.pathsep.join(filter(None, [*sys.path, os.getcwd()]))
    command = [sys.executable, "-m", "hieros_repro.env.exactness", part, str(folder)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise Failed(
            f"env: {make.kind.__name__} failed when it was tried (exit code {done.returncode}):\n{done.stderr.rstrip()}"
        )
    answer = pickle.loads((folder / "answer.pkl").read_bytes())
    if isinstance(answer, UserError):
        raise answer
    return answer  # type: ignore[no-any-return]


def _folder() -> Path:
    """HIEROS_CACHE, or a folder among the user's caches."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hieros_repro"
    return Path(os.environ.get("HIEROS_CACHE") or cache) / "exactness"


def _identity(make: Maker) -> str:
    """What the verdict is about: the configuration, the versions of all packages, the hash seed, the code."""
    packages = sorted(f"{d.metadata['Name']}=={d.version}" for d in importlib.metadata.distributions())
    told: list[Any] = [make.kind.__module__, make.kind.__qualname__, dict(make.values), dict(make.wrappers)]
    told += [platform.python_version(), platform.machine(), os.environ.get("PYTHONHASHSEED"), packages]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode())
    files = {inspect.getsourcefile(cls) for cls in make.kind.__mro__[:-1] if cls.__module__ not in sys.stdlib_module_names}
    ours = {str(path) for part in ("env", "determinism/keys.py", "records.py") for path in _sources(PACKAGE / part)}
    for path in sorted({*filter(None, files), *ours, *make.kind.sources(**make.values)}):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()[:32]


def _sources(path: Path) -> list[Path]:
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


def _remember(path: Path, facts: dict[str, Any]) -> None:
    """Complete or absent; where nothing can be written, the next run tries again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".partial", delete=False, encoding="utf8") as file:
            json.dump(facts, file, indent=1)
        os.replace(file.name, path)
    except OSError:
        return


if __name__ == "__main__":
    from hieros_repro.env.exactness import main as program  # by its real name, as which its classes are pickled

    program()
