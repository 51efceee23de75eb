"""What is wrong with the folder of a run, or of a sweep: checkpoints, logs, ranges of metrics, and whether its accounts agree.

One line for each problem, which names the file, the line, the value and what is allowed.
"""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hieros_repro.log import jsonl
from hieros_repro.log.base import FILES, meaning
from hieros_repro.records import Damaged
from hieros_repro.run import checkpoint
from hieros_repro.run.folder import RunFolder

ROUNDING = 1e-5  # by which a float32 may miss a bound
ANY, NONE = math.inf, -math.inf
RANGES = {  # of metrics whose meaning gives them bounds; <...> stands for what varies
    "step": (0, ANY), "frames": (0, ANY), "updates": (0, ANY),
    "replay/<name>/steps": (0, ANY), "replay/<name>/windows": (0, ANY), "replay/<name>/replayed": (0, ANY),
    "episode/count": (1, ANY), "episode/length": (1, ANY),
    "eval/episodes": (1, ANY), "eval/length": (1, ANY), "eval/score_std": (0, ANY),
    "ppo/value_loss": (0, ANY), "ppo/approx_kl": (0, ANY), "ppo/clip_fraction": (0, 1), "ppo/grad_norm": (0, ANY),
    "ppo/learning_rate": (0, ANY), "ppo/epochs": (1, ANY), "ppo/explained_variance": (NONE, 1),
    "dqn/loss": (0, ANY), "dqn/error": (0, ANY), "dqn/valid": (0, 1), "dqn/grad_norm": (0, ANY),
    "dqn/learning_rate": (0, ANY), "dqn/epsilon": (0, 1),
    "Subactor-<i>/kl": (0, ANY), "Subactor-<i>/kl_weight": (0, ANY), "Subactor-<i>/cont_loss": (0, ANY),
    "Subactor-<i>/prior_entropy": (0, ANY), "Subactor-<i>/posterior_entropy": (0, ANY),
    "Subactor-<i>/image_loss": (0, ANY), "Subactor-<i>/subgoal_error": (0, ANY), "Subactor-<i>/entropy_weight": (0, ANY),
    "Subactor-<i>/<reward>_grad_norm": (0, ANY), "Subactor-<i>/<reward>_return_scale": (0, ANY),
}  # fmt: skip
OF_CHOICES = ("ppo/entropy", "Subactor-<i>/entropy")  # of policies that choose among a number of actions


def complete(run: Path) -> str:
    """What there is of a run without problems."""
    facts, rows = RunFolder(run).read(), sum(1 for _ in jsonl.read(run / "metrics.jsonl"))
    return f"{facts['status']}; {len(checkpoint.steps(run / 'checkpoints'))} checkpoints intact, {rows} rows whole"


def problems(run: Path) -> list[str]:
    """Everything that is wrong with a run."""
    if not (run / "config.yaml").exists():
        return [f"{run}: there is no run in it"]
    facts = RunFolder(run).read()
    found = [*_checkpoint_problems(run), *_log_problems(run), *_account_problems(run, facts)]
    return found or [*_range_problems(run, facts), *_episode_problems(run, facts), *_score_problems(run, facts)]


def jobs(sweep: Path) -> list[Path]:
    """The folders of a sweep's runs, those that have none yet included."""
    return [sweep / name for name in json.loads((sweep / "sweep.json").read_text(encoding="utf8"))["jobs"]]


def is_sweep(folder: Path) -> bool:
    return (folder / "sweep.json").exists()


# -- Files -------------------------------------------------------------------------------------------------------------


def _checkpoint_problems(run: Path) -> Iterator[str]:
    folder = run / "checkpoints"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        try:
            checkpoint.manifest(path)
        except Damaged as error:
            yield str(error)
    yield from sorted({problem for path in folder.glob("step_*") for problem in checkpoint.replay_problems(path)})


def _log_problems(run: Path) -> Iterator[str]:
    for name in (f"{name}.jsonl" for name in FILES):
        if not (run / name).exists():
            yield f"{run / name}: missing"
            continue
        if (run / name).read_bytes()[-1:] not in (b"", b"\n"):
            yield f"{run / name}: its last line is cut short"
        last = 0
        for number, row in enumerate(jsonl.read(run / name), start=1):
            if row["step"] < last:
                yield f"{run / name}, line {number}: step {row['step']} after {last}"
            last = row["step"]
            bad = [key for key, value in row.items() if isinstance(value, float) and not math.isfinite(value)]
            if bad:
                yield f"{run / name}, line {number}: {bad[0]} is {row[bad[0]]}"


def _account_problems(run: Path, facts: Mapping[str, Any]) -> Iterator[str]:
    status = facts.get("status")
    if status not in ("finished", "stopped", "running"):
        yield f"{run / 'run.json'}: the run is {status}, not finished"
    if status == "finished":
        scores = [row["eval/score"] for row in jsonl.read(run / "metrics.jsonl") if "eval/score" in row]
        if scores and facts["results"].get("eval/score", scores[-1]) != scores[-1]:
            yield f"{run / 'run.json'}: its score {facts['results']['eval/score']} is not the last row's {scores[-1]}"


# -- Numbers -----------------------------------------------------------------------------------------------------------


def _range_problems(run: Path, facts: Mapping[str, Any]) -> Iterator[str]:
    """Metrics outside what they can be; counts that go back."""
    action = facts.get("spaces", {}).get("action", {}).get("kind")
    bounds = RANGES | (dict.fromkeys(OF_CHOICES, (0, ANY)) if action in ("discrete", "multidiscrete") else {})
    ends = {name: {"low": low, "high": high} for name, (low, high) in bounds.items()}
    updates = 0
    for number, row in enumerate(jsonl.read(run / "metrics.jsonl"), start=1):
        where = f"{run / 'metrics.jsonl'}, line {number}"
        for name, value in row.items():
            allowed: Any = meaning(name, ends)  # type: ignore[arg-type]
            if allowed is not None and not allowed["low"] - ROUNDING <= value <= allowed["high"] + ROUNDING:
                yield f"{where}: {name} is {value}; it must be {_wording(**allowed)}"
        if row.get("updates", updates) < updates:
            yield f"{where}: updates {row['updates']} after {updates}"
        updates = row.get("updates", updates)


def _wording(low: float, high: float) -> str:
    if high == ANY:
        return f"at least {low}"
    return f"at most {high}" if low == NONE else f"between {low} and {high}"


def _episode_problems(run: Path, facts: Mapping[str, Any]) -> Iterator[str]:
    """Rows of metrics say how many episodes ended since the row before, and what they scored: are these the ones listed?

    What a branch says first includes episodes of its parent.
    """
    if facts.get("bit_comparable") is False:
        return  # episodes may have been given up
    episodes = [(row["step"], row["return"]) for row in jsonl.read(run / "episodes.jsonl")]
    before, skip = 0, bool(facts.get("parent"))
    for number, row in enumerate(jsonl.read(run / "metrics.jsonl"), start=1):
        if "eval/score" in row:
            continue
        scores = [score for step, score in episodes if before < step <= row["step"]]
        before, where = row["step"], f"{run / 'metrics.jsonl'}, line {number}"
        told, mean = row.get("episode/count", 0), row.get("episode/score", 0.0)
        if not skip and told != len(scores):
            yield f"{where}: episode/count is {told}, but episodes.jsonl lists {len(scores)} since the row before"
        elif not skip and scores and not math.isclose(mean, sum(scores) / len(scores), rel_tol=1e-9, abs_tol=1e-9):
            yield f"{where}: episode/score is {mean}, but those in episodes.jsonl have a mean of {sum(scores) / len(scores)}"
        skip = False


def _score_problems(run: Path, facts: Mapping[str, Any]) -> Iterator[str]:
    """Every evaluation by itself; the results; the best checkpoint's score."""
    seen = []
    for number, row in enumerate(jsonl.read(run / "metrics.jsonl"), start=1):
        if "eval/score" in row:
            seen.append(row["eval/score"])
            low, high = (row[f"eval/score_{end}"] for end in ("min", "max"))
            if not low - ROUNDING <= row["eval/score"] <= high + ROUNDING:
                yield f"{run / 'metrics.jsonl'}, line {number}: eval/score is {row['eval/score']}, episodes {low} to {high}"
    results = facts.get("results") or {}
    scores = results.get("scores")
    if scores and not math.isclose(sum(scores) / len(scores), results["eval/score"], rel_tol=1e-9, abs_tol=1e-9):
        yield f"{run / 'run.json'}: its score {results['eval/score']} is not the mean {sum(scores) / len(scores)} of its scores"
    if scores and results["eval/score"] not in seen:
        yield f"{run / 'run.json'}: its score {results['eval/score']} is in no row of metrics.jsonl"
    best = run / "checkpoints" / "best"
    if best.is_dir() and not facts.get("parent") and checkpoint.manifest(best)["score"] not in seen:
        yield f"{best}: its score {checkpoint.manifest(best)['score']} is in no row of metrics.jsonl"
