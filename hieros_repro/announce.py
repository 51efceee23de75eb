"""What a run says about itself at its start and its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from hieros_repro.command import conf
from hieros_repro.determinism.numerics import differences
from hieros_repro.log import jsonl, levels
from hieros_repro.log.timing import peak_memory_mb
from hieros_repro.resume import Start
from hieros_repro.run.folder import invocation
from hieros_repro.run.loop import Loop
from hieros_repro.run.recorder import size


def facts(config: Mapping[str, Any], hardware: Any) -> dict[str, str]:
    """The promise and what it rests on, for the terminal."""
    from hieros_repro.build import construct

    numerics = hardware.numerics()
    level = numerics["cpu_level"] + (" with AMX" if numerics["cpu_amx"] else "")
    where = level if numerics["device"] == "cpu" else numerics["device"]
    rests = [f"torch {numerics['packages']['torch']}", where, f"{numerics['threads']} thread(s)", numerics["precision"]]
    rests.append({None: "eager", "record": "recorded"}.get(numerics["compile"], f"compiled ({numerics['compile']})"))
    return {"promise": construct(config["determinism"]).promise(), "rests on": ", ".join(rests)}


def start(start: Start, asked: list[str], loop: Loop) -> str:
    """What runs, where, and which values are not the defaults."""
    plain = start.config
    lines = [f"run folder  {start.folder}"]
    if start.checkpoint is not None:
        lines.append(f"starts from {start.checkpoint}")
    lines += [f"parameters  {_parameters(loop.parts.agent.parts())}", f"size        {size_name(plain['size'])}"]
    lines.append(f"memory      {_memory(loop)}")
    if start.checkpoint is None and loop.plan.collect and (first := _collected_first(plain)):
        lines.append(f"collecting  {first:,} steps first (replay.min_size), then learning")
    for known in (replay.facts() for replay in loop.parts.replays.values()):
        if known:
            part = f", {known['part']}" if known["part"] else ""
            lines.append(f"dataset     {known['path']}{part}, version {known['version']}, {known['share']:.0%} of every batch")
    if start.parent is not None:
        listed = [f"{path}: {old!r} -> {new!r}" for path, (old, new) in start.parent["changes"].items()]
        lines.append("branch      " + f"\n{'':<12}".join(listed or ["of the same configuration"]))
    lines += [f"{name:<11} {text}" for name, text in facts(plain, loop.parts.hardware).items()]
    changed = non_default(plain, asked)
    if changed:
        lines.append("not default " + f"\n{'':<12}".join(f"{path} = {new!r} ({old!r})" for path, (old, new) in changed.items()))
    lines += [f"warning     {text}" for text in loop.parts.hardware.warnings()]
    return "\n".join(lines)


def _collected_first(config: Mapping[str, Any]) -> int:
    """How many steps there must be of its own before an agent learns."""
    replay = config.get("replay") or {}
    recorded = replay.get("dataset") is not None and replay["dataset_share"] == 1
    return 0 if recorded else replay.get("min_size", 0)


def _parameters(parts: Mapping[str, int]) -> str:
    named = ", ".join(f"{name} {count:,}" for name, count in parts.items() if name)
    return f"{sum(parts.values()):,}" + (f": {named}" if named else "")


def size_name(values: Mapping[str, Any]) -> str:
    """The option of the group `size` that has these values, whichever way they were chosen."""
    pages = {path.stem: yaml.safe_load(path.read_text(encoding="utf8")) for path in sorted((conf() / "size").glob("*.yaml"))}
    return next((name for name, page in pages.items() if page == dict(values)), "none of those in conf/size")


def _memory(loop: Loop) -> str:
    """What is known before the first step; batches and what an update computes come on top."""
    program = round(peak_memory_mb() * 2**20)  # with the networks, where they are on the host
    parts = {"the program": program, "replay at the end": sum(r.room(loop.plan.steps) for r in loop.parts.replays.values())}
    listed = ", ".join(f"{name} {_amount(count)}" for name, count in parts.items())
    text, device = f"{_amount(sum(parts.values()))} besides what updates compute: {listed}", loop.parts.hardware.device
    if device == "cpu":
        return text
    learned = 3 * size(loop.parts.agent.parameters())  # each with the two moving averages of its optimiser
    return f"{text}; on {device} networks and optimiser {_amount(learned)}"


def _amount(count: int) -> str:
    return f"{count / 2**30:.1f} GB" if count >= 2**30 else f"{count / 2**20:.0f} MB"


def non_default(plain: dict[str, Any], asked: list[str]) -> dict[str, tuple[Any, Any]]:
    """Values that differ from those of the same groups without any experiment or override: path -> (default, value)."""
    if not GlobalHydra.instance().is_initialized():
        return {}
    known = set(GlobalHydra.instance().config_loader().list_groups("")) - {"experiment"}
    chosen = HydraConfig.get().runtime.choices if HydraConfig.initialized() else {}
    options = {group.partition("@")[0]: option for group, option in chosen.items() if option is not None}
    groups = [f"{group}={option}" for group, option in options.items() if group in known]
    groups += [override for override in asked if override.partition("=")[0] in known - options.keys()]
    default: Any = OmegaConf.to_container(hydra.compose(config_name="train", overrides=groups), resolve=False)
    found = differences(default, plain)
    own = ("run.dir", "run.horizon", "resume", "sweep.")
    return {
        path: (old, new)
        for path, (old, new) in found.items()
        if not path.startswith(own) and not (isinstance(old, str) and "${" in old) and not path.endswith("_target_")
    }


def nothing_to_do(start: Start) -> str:
    """What a finished run says when it is continued as it was."""
    assert start.finished is not None
    results = start.finished["results"]
    return f"finished already, nothing is left to do; run.steps=<more than {results['step']}> extends it\n" + end(
        start.folder, results, start.config
    )


def _latest(folder: Path) -> dict[str, Any]:
    """Of every metric of a run the last value."""
    return {name: value for row in jsonl.read(folder / "metrics.jsonl") for name, value in row.items()}


def end(folder: Path, results: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> str:
    """How each level did last, the score, the folder, and the next useful commands."""
    count = config["agent"].get("max_hierarchy", 0) if config else 0
    lines = [text for text in [levels.table(_latest(folder), count)] if text]
    if "eval/score" in results:
        spread = f" +- {results['eval/score_std']:.1f}" if "eval/score_std" in results else ""
        lines.append(f"final score {results['eval/score']:.1f}{spread} over {results['eval/episodes']} greedy episodes")
    if results.get("updates") == 0:
        lines.append("nothing was learned: there was no update")
    if "convergence_step" in results:
        reached = results["convergence_step"]
        lines.append(f"converged   {'not within this run' if reached is None else f'at step {reached:,}'}")
    lines += [
        f"run folder  {folder}",
        "next        " + f"\n{'':<12}".join(
            [
                f"{invocation('evaluate')} run={folder}",
                f"{invocation('verify')} claim=same_seed run={folder}",
                f"{invocation('train')} resume={folder} run.steps={2 * results['step']}",
            ]
        ),
    ]  # fmt: skip
    return "\n".join(lines)
