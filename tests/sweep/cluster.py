"""A Slurm for tests: sbatch, srun, scontrol, sacct and scancel on one machine, as far as submitit uses them.

Jobs of an array run one after the other. A job for which `scontrol requeue` was called starts again when it has ended, without
the variables that had it die the first time.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

VERBS = ("sbatch", "srun", "scontrol", "sacct", "scancel")
STATE = "FAKE_SLURM"  # names the folder in which the cluster keeps what it was given
MOST_STARTS = 20


def install(folder: Path) -> dict[str, str]:
    """Puts the commands into folder/bin; returns the variables under which they are found."""
    (folder / "bin").mkdir(parents=True)
    for verb in VERBS:
        path = folder / "bin" / verb
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(__file__)} {verb} "$@"\n')
        path.chmod(0o755)
    return {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", STATE: str(folder)}


def sbatch(state: Path, script: str) -> None:
    number = 1000 + len(list(state.glob("*.sh")))
    copy = state / f"{number}.sh"
    copy.write_text(Path(script).read_text())
    subprocess.Popen(
        [sys.executable, __file__, "run", str(number)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    print(f"Submitted batch job {number}")


def run(state: Path, number: str) -> None:
    script = state / f"{number}.sh"
    found = re.search(r"--array=0-(\d+)", script.read_text())
    for task in range(int(found[1]) + 1) if found else (None,):
        job = number if task is None else f"{number}_{task}"
        environment = {**os.environ, "SLURM_JOB_ID": number, "SLURM_JOB_NUM_NODES": "1", "SLURM_NTASKS": "1", "FAKE_JOB": job}
        if task is not None:
            environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": str(task)}
        for start in range(MOST_STARTS):
            with (state / "starts").open("a") as starts:
                starts.write(f"{job}\n")
            subprocess.run(["bash", str(script)], env=environment)
            queued = state / f"requeue-{job}"
            if not queued.exists():
                break
            queued.rename(state / f"requeued-{job}-{start}")
            environment.pop("DIE_AT", None)


def srun(*arguments: str) -> int:
    """Runs the command that follows the options --unbuffered, --output FILE and --error FILE."""
    rest, files = list(arguments), {}
    while rest[0].startswith("--"):
        option = rest.pop(0)
        if option in ("--output", "--error"):
            array, _, task = os.environ["FAKE_JOB"].partition("_")
            name = rest.pop(0).replace("%A", array).replace("%a", task).replace("%j", array).replace("%t", "0")
            files[option] = open(name, "a")  # noqa: SIM115
    ranks = dict.fromkeys(("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"), "0")
    return subprocess.run(
        rest, env={**os.environ, **ranks}, stdout=files.get("--output"), stderr=files.get("--error")
    ).returncode


def main(verb: str, *arguments: str) -> int:
    state = Path(os.environ[STATE])
    if verb == "srun":
        return srun(*arguments)
    if verb == "sbatch":
        sbatch(state, arguments[0])
    elif verb == "run":
        run(state, arguments[0])
    elif verb == "scontrol":
        assert arguments[0] == "requeue"
        (state / f"requeue-{arguments[1]}").touch()
    elif verb == "sacct":
        print("JobID|State|NodeList")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
