"""python -m hieros_repro.train env=... agent=...: one run, or with -m a sweep of runs.

python -m hieros_repro.train env=cartpole agent=ppo
python -m hieros_repro.train -m seed=42,123,456
python -m hieros_repro.train resume=outputs/cartpole-v1-ppo/<run>
"""

import contextlib

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from hieros_repro import command
from hieros_repro.check import TRAIN, check


def main() -> None:
    """The program. Only Hydra is imported here; torch waits until the configuration has passed."""
    command.run(command.Verb("train", TRAIN, job, about=__doc__ or ""))


def job(config: DictConfig) -> float | None:
    """What Hydra calls, once per run."""
    asked = command.typed(list(HydraConfig.get().overrides.task))
    if HydraConfig.get().mode is not RunMode.MULTIRUN:
        return train(config, asked)
    from hieros_repro.sweep.job import member

    return member(config, asked, train)


def train(config: DictConfig, asked: list[str]) -> float | None:
    """One run from its configuration to its score. `asked`: the overrides as typed."""
    from hieros_repro import announce, build, exactness, resume
    from hieros_repro.determinism import settings, snapshot
    from hieros_repro.log.base import Log
    from hieros_repro.run.folder import RunFolder
    from hieros_repro.run.recorder import Recorder
    from hieros_repro.run.stop import stop_on_signal

    asked = resume.spelt_out(asked)
    start = resume.start(check(config), asked)
    if start.finished is not None:
        print(announce.nothing_to_do(start))
        return start.finished["results"].get(start.config["sweep"]["metric"])
    plain = start.config
    determinism, hardware = build.construct(plain["determinism"]), build.construct(plain["hardware"])
    determinism.apply()
    hardware.apply()
    snapshot.seed_global(plain["seed"])
    if plain["determinism"]["resume"] == "exact" and plain["determinism"]["algorithms"] != "off":
        exactness.require(build.recipe(plain["env"]))
    numerics = build.numerics(plain, hardware)
    state, marks = resume.restored(start, numerics)
    with stop_on_signal() as stop, RunFolder(start.folder).held() as folder:
        recorder = Recorder(folder, build.construct(plain["run"]), numerics)
        with recorder.refusing():
            recorder.begin(plain, asked, start.parent, marks, state)
            log = Log(folder.path, build.construct(plain["log"]), plain, announce.facts(plain, hardware))
        try:
            made = contextlib.closing(build.loop(plain, log, recorder, stop))
            with settings.nondeterministic_operations() as operations, made as loop:
                recorder.opened(loop)
                log.say(announce.start(start, asked, loop))
                log.watch(loop.parts.agent.hints())
                resume.load(start, loop, state) if state else log.load(None)
                recorder.loaded(loop)
                results = recorder.finish(loop, loop.run(), operations)
            log.say(announce.end(folder.path, results, plain))
        except BaseException as error:
            log.say(recorder.close(error))
            raise
        finally:
            log.close()
    return results.get(plain["sweep"]["metric"])


if __name__ == "__main__":
    from hieros_repro.train import main as program  # by its real name, under which a sweep's workers import it

    program()
