"""How many jobs of a sweep run at once, under each of Hydra's launchers, and what a launcher must be told for that.

Threads are part of a run's numerics and its jobs' number is not: where both do not fit on the cores, jobs are lowered.
"""

import importlib.util
import os
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hieros_repro.records import ConfigError, Fault, UserError, needs_extra

EXTRAS = {"joblib": "sweep", "submitit_local": "slurm", "submitit_slurm": "slurm", "ray": "ray"}
SWEEPERS = {"optuna": "sweep"}
YEAR = 365 * 24 * 60  # minutes


class Launch(NamedTuple):
    """What Hydra is told besides, how many jobs run at once, and which devices they share (none: nothing to share)."""

    overrides: list[str]
    parallel: int
    devices: list[str]


class Room(NamedTuple):
    """What a job needs and what there is of it."""

    threads: int
    cores: int
    wanted_devices: int  # of one job
    devices: list[str]

    @property
    def jobs(self) -> int:
        """How many jobs fit: threads x jobs <= cores, and every job has devices of its own."""
        fitting = max(1, self.cores // self.threads)
        return min(fitting, max(1, len(self.devices) // self.wanted_devices)) if self.wanted_devices else fitting


def chosen(node: Any) -> str:
    """The launcher's name, from Hydra's own node."""
    return str(node["runtime"]["choices"].get("hydra/launcher") or "basic")


def has_ray() -> bool:
    return (
        importlib.util.find_spec("ray") is not None and importlib.util.find_spec("hydra_plugins.hydra_ray_launcher") is not None
    )


def room(config: Mapping[str, Any]) -> Room:
    hardware = config["hardware"]
    if hardware["device"] != "cuda":
        return Room(hardware["threads"], os.cpu_count() or 1, 0, [])
    from hieros_repro.sweep.devices import visible

    return Room(hardware["threads"], os.cpu_count() or 1, hardware["ranks"], visible())


def fit(launcher: str, typed: Sequence[str], room: Room, node: Mapping[str, Any]) -> Launch:
    """What the launcher is told. What was typed for it stands, unless it would run more jobs at once than fit."""
    given = {override.lstrip("+").partition("=")[0] for override in typed}
    here = launcher in ("joblib", "submitit_local")
    here = here or (launcher == "ray" and node["launcher"]["ray"]["init"].get("address") is None)
    if here and room.wanted_devices > max(len(room.devices), 1):
        raise UserError(
            f"hardware.ranks={room.wanted_devices}: a job takes so many devices, and {len(room.devices)} are visible"
        )
    if launcher == "joblib":
        return _joblib(room, int(node["launcher"].get("n_jobs", -1)))
    if launcher == "ray":
        return _ray(room, given, node)
    if launcher == "submitit_local":
        return _submitit_local(room, given, node)
    if launcher == "submitit_slurm":
        return _submitit_slurm(room, given, node)
    return Launch([], 1, [])


def missing(kind: str, name: str, options: Sequence[str]) -> None:
    """Refuses a launcher or a sweeper that is not installed, and says which extra it comes with."""
    extra = (EXTRAS if kind == "hydra/launcher" else SWEEPERS).get(name)
    how = f"install the extra: pip install 'hieros-repro[{extra}]'" if extra else f"there are {', '.join(options)}"
    if extra == "ray":
        how += ", in an environment of its own: it needs cloudpickle<3 and joblib<1.6, which the extra [sweep] does not take"
    raise ConfigError([Fault(kind, f"{name!r} is not available; {how}")])


def missing_sweeper(error: str) -> str | None:
    """What to say where a preset names a sweeper that is not installed."""
    names = [name for name in SWEEPERS if f"hydra/sweeper/{name}" in error]
    return needs_extra(f"hydra/sweeper={names[0]}", SWEEPERS[names[0]]) if names else None


def _lowered(wanted: int, room: Room) -> int:
    fitting = room.jobs
    if wanted > fitting:
        what = f"on {room.cores} cores" + (f" and {len(room.devices)} devices" if room.wanted_devices else "")
        print(f"{wanted} jobs of {room.threads} thread(s) do not fit {what}: running {fitting} at a time")
    return min(wanted, fitting) if wanted > 0 else fitting


def _joblib(room: Room, wanted: int) -> Launch:
    jobs = _lowered(wanted, room)
    told = [] if jobs == wanted else [f"hydra.launcher.n_jobs={jobs}"]
    return Launch(told, jobs, room.devices)


def _submitit_local(room: Room, given: set[str], node: Mapping[str, Any]) -> Launch:
    """It starts all jobs that it is given at once, so it is given no more than fit; a time limit would only restart them."""
    if "optuna" in node["sweeper"]["_target_"]:
        wanted = int(node["sweeper"]["n_jobs"])
        if wanted > room.jobs:
            raise UserError(
                f"hydra.sweeper.n_jobs={wanted}: submitit_local would run them at once and {room.jobs} fit on this machine; "
                "lower it (which changes the search) or use hydra/launcher=joblib"
            )
        told, jobs = [], wanted
    else:
        jobs = _lowered(int(node["sweeper"].get("max_batch_size") or -1), room)
        told = [f"hydra.sweeper.max_batch_size={jobs}"]
    if "hydra.launcher.timeout_min" not in given:
        told.append(f"hydra.launcher.timeout_min={YEAR}")
    if room.devices:
        told.append(f"hydra.launcher.gpus_per_node={len(room.devices)}")  # each sees all of them and takes its own
    return Launch(told, jobs, room.devices)


def _submitit_slurm(room: Room, given: set[str], node: Mapping[str, Any]) -> Launch:
    """One Slurm job each. Slurm announces the end of its time by a signal; the run then saves itself and is queued again."""
    if shutil.which("srun") is None:
        raise UserError("hydra/launcher=submitit_slurm: there is no srun here; run this on a machine that submits to Slurm")
    wanted = {"cpus_per_task": room.threads, "max_num_timeout": 1000}
    if room.wanted_devices and not given & {"hydra.launcher.gres", "hydra.launcher.gpus_per_task"}:
        wanted["gpus_per_node"] = room.wanted_devices
    told = [f"hydra.launcher.{key}={value}" for key, value in wanted.items() if f"hydra.launcher.{key}" not in given]
    if "hydra.launcher.additional_parameters.requeue" not in given:
        told.append("++hydra.launcher.additional_parameters.requeue=true")
    minutes, notice = node["launcher"]["timeout_min"], node["launcher"]["signal_delay_s"]
    print(f"Slurm ends a job after {minutes} minutes (hydra.launcher.timeout_min); {notice} s before, it is queued anew")
    return Launch(told, int(node["launcher"]["array_parallelism"]), [])


def _ray(room: Room, given: set[str], node: Mapping[str, Any]) -> Launch:
    """Ray runs as many jobs as its processors allow; a local cluster is told how many there are, one elsewhere knows."""
    init = node["launcher"]["ray"]["init"]
    wanted: dict[str, Any] = {"remote.num_cpus": room.threads}
    if room.wanted_devices:
        wanted["remote.num_gpus"] = room.wanted_devices
    if init.get("address") is None:
        wanted |= {"init.num_cpus": min(room.cores, int(init.get("num_cpus") or room.cores)), "init.include_dashboard": "false"}
        wanted |= {"init.num_gpus": len(room.devices)} if room.devices else {}
    always = {"remote.num_cpus", "init.num_cpus"}
    told = [f"++hydra.launcher.ray.{k}={v}" for k, v in wanted.items() if k in always or f"hydra.launcher.ray.{k}" not in given]
    return Launch(told, room.jobs, [])
