"""python -m hieros_repro.verify claim=same_seed env=... agent=...: is a promise kept here? Real processes find out.

    python -m hieros_repro.verify env=cartpole agent=ppo                    every claim that applies
    python -m hieros_repro.verify claim=resume kills=20 env=cartpole
    python -m hieros_repro.verify run=<run> verify_steps=null               does this run come out again here?
    python -m hieros_repro.verify claim=all run=<run>                       every claim, for that run's configuration
    python -m hieros_repro.verify claim=complete run=<run or sweep>

Exit codes: 0 every claim held, 1 one was broken (where, and both values, are printed), 2 it could not be run.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hieros_repro import command
from hieros_repro.check import TRAIN, check
from hieros_repro.determinism.numerics import differences
from hieros_repro.proof.difference import NOT_COMPARED
from hieros_repro.records import Count, Natural, UserError

if TYPE_CHECKING:
    from hieros_repro.proof.claims import Bench

OWN = ("claim", "verify_steps", "kills", "keep", "run")
PAGE = TRAIN._replace(
    settings={
        **TRAIN.settings,
        "claim": Literal["same_seed", "resume", "observers", "workers", "env_backend", "sweep", "hash_seed", "complete", "all"]
        | None,
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
    from hieros_repro.proof import claims

    asked = [o for o in HydraConfig.get().overrides.task if o.lstrip("+~").partition("=")[0] not in OWN]
    plain = check(config, PAGE)
    run = Path(plain["run"]) if isinstance(plain["run"], str) else None
    if plain["claim"] == "complete" and run is None:
        raise UserError("claim=complete looks at a run: add run=<run>")
    own = [source.path for source in HydraConfig.get().runtime.config_sources if source.provider == "command-line"]
    bench = claims.Bench(run, asked, plain, [flag for path in own for flag in ("--config-dir", path)])
    broken: list[str] = []
    try:
        missing = claims.missing(bench)
        if reason := missing.get(plain["claim"] or ""):
            raise UserError(f"claim={plain['claim']}: {reason}")
        if run is not None and "same_seed" not in missing:
            bench.composition = composition(run)
        names = [plain["claim"] or "same_seed"] if plain["claim"] or run else list(claims.CLAIMS)
        names = [name for name in (claims.CLAIMS if names == ["all"] else names) if name not in missing]
        judge(bench, names, broken)
        for name, reason in missing.items() if len(names) > 1 else ():
            print(f"{name:<11} -       {reason}")
    finally:
        if (plain["keep"] or broken) and any(bench.folder.iterdir()):
            print(f"the runs are kept in {bench.folder}")
        else:
            shutil.rmtree(bench.folder)
    if broken:
        raise claims.Broken(f"{len(broken)} of {len(names)} claims broken: {', '.join(broken)}")


def judge(bench: "Bench", names: list[str], broken: list[str]) -> None:
    """Says of each claim whether it held, and adds those that did not to `broken`: a later one that cannot be looked at does
    not take back what an earlier one has shown."""
    from hieros_repro.proof import claims

    for name in names:
        claims.say(f"claim {name}: {(claims.CLAIMS[name].__doc__ or '').partition(chr(10))[0]}")
        try:
            print(f"{name:<11} held    {claims.CLAIMS[name](bench)}", flush=True)
        except claims.Broken as error:
            broken.append(name)
            print(f"{name:<11} BROKEN  {error}", flush=True)


def composition(run: Path) -> list[list[str]]:
    """What was typed for a run and comes out otherwise by now: key, in the run, here. Refuses a configuration that would not
    pass the check any more."""
    from hieros_repro.policy import read_config
    from hieros_repro.proof import claims

    stored = read_config(run)
    if json.loads((run / "run.json").read_text(encoding="utf8")).get("parent"):
        return []  # most of a branch was typed for its parent
    try:
        composed: Any = OmegaConf.to_container(compose(config_name="train", overrides=claims.typed(run)), resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        return [["configuration", "was composed of what was typed", str(error).splitlines()[0]]]
    found = differences(stored, composed)
    return [[path, str(a), str(b)] for path, (a, b) in found.items() if not path.startswith((*NOT_COMPARED, "run.horizon"))]


if __name__ == "__main__":
    main()
