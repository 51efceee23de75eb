"""Run folders with no more in them than a record reads, for tests that need many."""

import json

import yaml

CONFIG = {
    "seed": 0,
    "env": {"_target_": "hieros_repro.env.pinpad.PinPad", "task": "three", "length": 2000, "num_envs": 4},
    "agent": {"_target_": "hieros_repro.agent.hierarchy.Agent", "name": "hieros", "max_hierarchy": 3},
    "run": {"dir": "somewhere", "steps": 1000, "log_every": 10},
    "log": {"terminal": "quiet"},
}


def configured(seed, **changes):
    """The configuration with keys like agent__name changed."""
    config = json.loads(json.dumps({**CONFIG, "seed": seed}))
    for path, value in changes.items():
        group, _, key = path.partition("__")
        config[group][key] = value
    return config


def run(folder, seed, score=None, *, status="finished", typed=(), digest=None, error=None, account=(), scores=None, **changes):
    """A run folder: its score is reached evenly over four evaluations."""
    folder.mkdir(parents=True)
    final = 0.0 if score is None else score
    config = configured(seed, **changes)
    (folder / "config.yaml").write_text(yaml.safe_dump({**config, "run": {**config["run"], "dir": str(folder)}}))
    (folder / "overrides.yaml").write_text(yaml.safe_dump([*typed, f"seed={seed}", f"run.dir={folder}"]))
    facts = {
        "status": status,
        "seed": seed,
        "digests": {"parameters": digest or f"{seed:016x}"},
        "results": {"eval/score": score, "eval/episodes": 2, "step": 1000, "scores": scores or [final, final]},
        "code": {"commit": "c" * 40, "changed": False, "sources": "s" * 32},
        "numerics": {"packages": {"torch": "2.13.0"}, "device": "cpu", "threads": 1},
        "machine": {"cpu": "a CPU", "host": "here"},
        "error": error,
        "wall_seconds": 12.5,
        **dict(account),
    }
    (folder / "run.json").write_text(json.dumps(facts))
    rows = [{"step": 250 * n, "eval/score": final * n / 4} for n in range(1, 5)]
    training = [{"step": 250 * n, "train/reward": 0.1} for n in range(1, 5)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*training, *rows]))
    return folder
