"""python -m hieros_repro.verify claim=same_seed env=... agent=...: is a promise kept here? Real processes find out.

    python -m hieros_repro.verify env=cartpole agent=ppo                    every claim that applies
    python -m hieros_repro.verify claim=resume kills=20 env=cartpole
    python -m hieros_repro.verify claim=same_seed run=<run> verify_steps=null
    python -m hieros_repro.verify claim=complete run=<run>

Exit codes: 0 every claim held, 1 one was broken (where, and both values, are printed), 2 it could not be run.
"""

import shutil
from pathlib import Path
from typing import Literal

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hieros_repro import command
from hieros_repro.check import TRAIN, check
from hieros_repro.records import Count, Natural, UserError

OWN = ("claim", "verify_steps", "kills", "keep", "run")
PAGE = TRAIN._replace(
    settings={
        **TRAIN.settings,
        "claim": Literal["same_seed", "resume", "observers", "workers", "env_backend", "sweep", "hash_seed", "complete", "all"],
        "verify_steps": Count | None,
        "kills": Natural,
        "keep": bool,
    },
    texts=("run",),  # run=<folder>: verify that run's configuration
)


def main() -> None:
    command.run(command.Verb("verify", PAGE, job, about=__doc__ or ""))


def job(config: DictConfig) -> None:
    """Checks the claims one after the other and says of each whether it held."""
    from hieros_repro import claims

    asked = [o for o in HydraConfig.get().overrides.task if o.lstrip("+~").partition("=")[0] not in OWN]
    plain = check(config, PAGE)
    run = Path(plain["run"]) if isinstance(plain["run"], str) else None
    if plain["claim"] == "complete" and run is None:
        raise UserError("claim=complete looks at a run: add run=<run>")
    own = [source.path for source in HydraConfig.get().runtime.config_sources if source.provider == "command-line"]
    bench = claims.Bench(run, asked, plain, [flag for path in own for flag in ("--config-dir", path)])
    missing = claims.missing(bench)
    if reason := missing.get(plain["claim"]):
        raise UserError(f"claim={plain['claim']}: {reason}")
    names = [plain["claim"]] if plain["claim"] != "all" else [name for name in claims.CLAIMS if name not in missing]
    broken = []
    for name in names:
        try:
            print(f"{name:<11} held    {claims.CLAIMS[name](bench)}", flush=True)
        except claims.Broken as error:
            broken.append(name)
            print(f"{name:<11} BROKEN  {error}", flush=True)
    for name, reason in missing.items() if plain["claim"] == "all" else ():
        print(f"{name:<11} -       {reason}")
    if broken or plain["keep"]:
        print(f"the runs are kept in {bench.folder}")
    else:
        shutil.rmtree(bench.folder)
    if broken:
        raise claims.Broken(f"{len(broken)} of {len(names)} claims broken: {', '.join(broken)}")


if __name__ == "__main__":
    main()
