"""The claims that `verify` checks, each with real processes. A claim returns what was seen, or raises Broken."""

import contextlib
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hieros_repro.determinism.settings import environment
from hieros_repro.exactness import INEXACT
from hieros_repro.log import jsonl
from hieros_repro.proof import completeness
from hieros_repro.proof.difference import compare, existing
from hieros_repro.proof.reexecution import Broken, reexecute
from hieros_repro.records import UserError
from hieros_repro.run.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
FILES = ("metrics.jsonl", "episodes.jsonl", "ledger.jsonl")
STOPPED = 75


def say(text: str) -> None:
    """What is being done, for who waits; standard output has the results alone."""
    print(f"  {text}", file=sys.stderr, flush=True)


class Bench:
    """Makes runs of one configuration, as a user would, in a folder of its own."""

    def __init__(self, run: Path | None, asked: Sequence[str], plain: Mapping[str, Any], flags: Sequence[str] = ()):
        self.composition: list[list[str]] = []  # what was typed for the run and comes out otherwise now: key, then, now
        self.run, self.kills, self.flags, self.asked = run, plain["kills"], flags, asked
        self.steps = self.limit = plain["verify_steps"]
        if run is not None and not completeness.is_sweep(run):
            if not (existing(run, "run=") / "config.yaml").exists():
                raise UserError(f"run={run}: not a run folder (it has no config.yaml)")
            asked = [*typed(run), *asked]
            plain = yaml.safe_load((run / "config.yaml").read_text(encoding="utf8"))
        seeds = [int(override[5:]) for override in asked if override.startswith("seed=")]  # the last one typed counts
        self.seed, self.replay = [plain["seed"], *seeds][-1], plain.get("replay") or {}
        pinned = plain.get("determinism") or {}
        self.pinned = environment(pinned.get("algorithms", "off"), pinned.get("hash_seed"))  # so a run starts without a restart
        self.overrides = [*(self._short() if self.steps else ()), *asked, "log=quiet"]
        self.steps = self.steps or plain["run"]["steps"]
        self._baseline: Path | None = None
        self.seconds = 0.0
        self.folder = Path(tempfile.mkdtemp(prefix="hieros-verify-"))  # last: there is none where something was refused

    def _short(self) -> list[str]:
        """A run that is short and yet evaluates, logs and saves at many points in the middle of things."""
        n = self.steps
        cadences = {"checkpoint": n // 9, "eval": n // 3, "log": n // 8, "fingerprint": 1}
        episodes = ["run.eval_episodes=3", "run.final_episodes=3", "run.eval_envs=2"]
        return [f"run.steps={n}", *(f"run.{k}_every={max(v, 1)}" for k, v in cadences.items()), *episodes]

    def baseline(self) -> Path:
        """The run that the others are compared with; made once."""
        if self._baseline is None:
            self._baseline = self.make("baseline")
            self.seconds = float(list(jsonl.read(self._baseline / "timing.jsonl"))[-1]["elapsed"])
        return self._baseline

    def make(self, name: str, *overrides: str, cwd: Path | None = None, **variables: str) -> Path:
        """One run, from start to end."""
        folder = self.folder / name
        say(f"run {name}: {self.steps:,} steps{' with ' if overrides else ''}{' '.join(overrides)}")
        done = subprocess.run(
            self.command(f"run.dir={folder}", *overrides), cwd=cwd or self.folder, env=_shell({**self.pinned, **variables}),
            capture_output=True, text=True,
        )  # fmt: skip
        if INEXACT in done.stderr:
            raise Broken(done.stderr.strip().removeprefix("error: "))
        if done.returncode:
            raise UserError(f"the run {name!r} could not be made (exit code {done.returncode}):\n{done.stderr.strip()[-2000:]}")
        return folder

    def having(self, key: str, value: int) -> Path:
        """A run with this value of a key: the baseline, where it has it anyhow."""
        group, _, name = key.partition(".")
        made = yaml.safe_load((self.baseline() / "config.yaml").read_text(encoding="utf8"))
        same = (made.get(group) or {}).get(name) == value
        return self.baseline() if same else self.make(f"{name}-{value}", f"{key}={value}")

    def command(self, *overrides: str, sweep: bool = False) -> list[str]:
        flags = [*self.flags, *(["-m"] if sweep else [])]
        return [sys.executable, "-m", "hieros_repro.train", *flags, *self.overrides, *overrides]


# -- The claims --------------------------------------------------------------------------------------------------------


def same_seed(bench: Bench) -> str:
    """Two fresh processes: another shell, working directory and folder, the machine under load. Or a run comes out again."""
    if bench.run is not None and not bench.asked:
        return reexecute(bench.run, bench.folder / "again", bench.limit, bench.composition)
    elsewhere = bench.folder / "some" / "where else"
    elsewhere.mkdir(parents=True)
    first = bench.baseline()
    with machine_load():
        second = bench.make("again", cwd=elsewhere, **dict.fromkeys(bench.pinned, "1"))  # which it has to put right
    return _must_be_equal_files(first, second)


def resume(bench: Bench) -> str:
    """Killed at random instants and continued, by the same command or by the run's name; every fourth time asked to stop."""
    whole, pieces = bench.baseline(), bench.folder / "pieces"
    ends = []
    for number in range(bench.kills):
        by_name = number % 2 and (pieces / "config.yaml").exists()
        command = bench.command(f"resume={pieces}") if by_name else bench.command(f"run.dir={pieces}", "resume=auto")
        say(f"run pieces: start {number + 1}, to be interrupted at some instant")
        process = subprocess.Popen(
            command, cwd=bench.folder, env=_shell(bench.pinned), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        _wait_until_running(process, pieces)
        time.sleep(random.uniform(0.0, 1.6 * bench.seconds / bench.kills))
        process.send_signal(signal.SIGTERM if number % 4 == 3 else signal.SIGKILL)
        _, errors = process.communicate()
        if process.returncode not in (-signal.SIGKILL, STOPPED, 0):
            raise Broken(f"after {number} interruptions the run ended with code {process.returncode}:\n{errors[-2000:]}")
        ends.append({-signal.SIGKILL: "killed", STOPPED: "stopped", 0: "finished"}[process.returncode])
        if process.returncode == 0:
            break
    if "finished" not in ends:
        bench.make("pieces", "resume=auto")
    counts = ", ".join(f"{ends.count(end)} times {end}" for end in ("killed", "stopped") if end in ends)
    return f"{counts or 'never interrupted'}; {_must_be_equal_files(whole, pieces)}"


def observers(bench: Bench) -> str:
    """Nothing watched at all, and everything watched all the time."""
    n = bench.steps
    nothing = [f"run.{name}_every=0" for name in ("eval", "log", "checkpoint", "video")] + ["run.final_episodes=0"]
    much = [f"run.{name}_every={max(n // 20, 1)}" for name in ("eval", "log", "checkpoint")]
    much += [f"run.fingerprint_every={max(n // 3, 1)}", "log.tensorboard=true", "run.eval_episodes=1"]
    if importlib.util.find_spec("wandb"):
        much.append("log.wandb=offline")
    accounts = []
    for name, overrides in (("unwatched", nothing), ("watched", much)):
        equal, text = compare(bench.baseline(), bench.make(name, *overrides, WANDB_SILENT="true"))
        if not equal:
            raise Broken(f"{name}:\n{text}")
        accounts.append(f"{name}: {text.splitlines()[-1]}")
    return "; ".join(accounts)


def sweep(bench: Bench) -> str:
    """Alone, in a sweep one after the other, and in sweeps under the other launchers that are installed."""
    other = bench.seed + 1000
    alone = [bench.baseline(), bench.make("other", f"seed={other}")]
    launchers: dict[str, list[str]] = {"basic": []}
    if importlib.util.find_spec("hydra_plugins.hydra_joblib_launcher"):
        launchers["joblib"] = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    if importlib.util.find_spec("hydra_plugins.hydra_submitit_launcher"):
        launchers["submitit_local"] = ["hydra/launcher=submitit_local"]
    for name, arguments in launchers.items():
        folder = bench.folder / f"sweep-{name}"
        command = bench.command(f"seed={bench.seed},{other}", f"sweep.dir={folder}", *arguments, sweep=True)
        say(f"sweep {name}: 2 seeds")
        done = subprocess.run(command, cwd=bench.folder, env=_shell(bench.pinned), capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"the {name} sweep ended with code {done.returncode}:\n{done.stderr.strip()[-2000:]}")
        for seed, run in zip((bench.seed, other), alone, strict=True):
            _must_be_equal_files(run, folder / f"seed-{seed}")
    return f"2 seeds alone and in sweeps under {', '.join(launchers)}: every file equal"


def env_backend(bench: Bench) -> str:
    """Environments in this process, in one worker process, in three."""
    counts = (0, 1, 3)
    runs = [bench.having("env.processes", count) for count in counts]
    for run in runs[1:]:
        _must_be_equal_files(runs[0], run)
    return f"{', '.join(map(str, counts))} worker processes: every file equal"


def workers(bench: Bench) -> str:
    """Batches gathered by no thread ahead of time, by one, by four, by eight."""
    counts = (0, 1, 4, 8)
    runs = [bench.having("replay.workers", count) for count in counts]
    for run in runs[1:]:
        _must_be_equal_files(runs[0], run)
    return f"{', '.join(map(str, counts))} replay workers: every file equal"


def hash_seed(bench: Bench) -> str:
    """PYTHONHASHSEED varied, with nothing that pins it."""
    runs = [bench.make(f"hash-{value}", "determinism.hash_seed=null", PYTHONHASHSEED=value) for value in ("1", "2", "random")]
    for run in runs[1:]:
        _must_be_equal_files(runs[0], run)
    return "3 hash seeds: every file equal"


def complete(bench: Bench) -> str:
    """Of an existing run, or of every run of a sweep: nothing is wrong with its checkpoints, logs, metrics and account."""
    run = bench.run
    assert run is not None, "verify asks for a run first"
    runs = completeness.jobs(run) if completeness.is_sweep(run) else [run]
    found = {str(one): completeness.problems(one) for one in runs}
    if wrong := [line for one, problems in found.items() if problems for line in (one, *(f"  {p}" for p in problems))]:
        raise Broken("\n".join(wrong))
    accounts = [completeness.complete(one) for one in runs]
    return "\n            ".join(accounts if len(runs) == 1 else [f"{len(runs)} runs", *accounts])


CLAIMS: dict[str, Callable[[Bench], str]] = {
    "same_seed": same_seed,
    "resume": resume,
    "observers": observers,
    "workers": workers,
    "env_backend": env_backend,
    "sweep": sweep,
    "hash_seed": hash_seed,
    "complete": complete,
}


def missing(bench: Bench) -> dict[str, str]:
    """Claims that say nothing about this configuration, and why."""
    if bench.run is not None and completeness.is_sweep(bench.run):
        return dict.fromkeys((name for name in CLAIMS if name != "complete"), "it looks at one run, and a sweep was named")
    reasons = {} if "workers" in bench.replay else {"workers": "this agent's replay gathers nothing in the background"}
    return reasons | ({} if bench.run is not None else {"complete": "it looks at a run, and none was named"})


# -- How ---------------------------------------------------------------------------------------------------------------


def _must_be_equal_files(a: Path, b: Path) -> str:
    """Byte for byte; where not, `compare` says what differs first."""
    unequal = [name for name in FILES if (a / name).read_bytes() != (b / name).read_bytes()]
    digests = [json.loads((run / "run.json").read_text())["digests"]["parameters"] for run in (a, b)]
    if unequal or digests[0] != digests[1]:
        raise Broken(f"{', '.join(unequal) or 'parameters'} differ\n{compare(a, b)[1]}")
    return f"{', '.join(FILES)} equal byte for byte, parameters {digests[0]}"


def _shell(changes: Mapping[str, str]) -> dict[str, str]:
    """What a user's shell would have: nothing that this process set for itself."""
    own = ("HIEROS_RESTARTED", "PYTHONHASHSEED", "CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS", "MKL_NUM_THREADS",
           "OPENBLAS_NUM_THREADS")  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name not in own}
    path = os.pathsep.join(filter(None, [str(ROOT), os.getcwd(), kept.get("PYTHONPATH")]))
    return {**kept, "PYTHONPATH": path, **changes}


@contextlib.contextmanager
def machine_load() -> Iterator[None]:
    """Every core busy with something else."""
    spin = "while True: sum(range(10_000))"
    busy = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def _wait_until_running(process: subprocess.Popen[str], folder: Path) -> None:
    """Until this very process holds the run folder, or has ended."""
    while process.poll() is None:
        if (folder / "config.yaml").exists() and RunFolder(folder).is_held():
            return
        time.sleep(0.02)


def typed(run: Path) -> list[str]:
    """The overrides of a run as they were typed, without what belongs to that one folder."""
    typed = yaml.safe_load((run / "overrides.yaml").read_text(encoding="utf8")) or []
    return [o for o in typed if not o.startswith(("run.dir=", "resume", "log", "sweep.", "++sweep."))]
