"""python -m hieros_repro.evaluate run=<run> episodes=100: scores and a video of a trained policy.

    python -m hieros_repro.evaluate run=outputs/cartpole-v1-ppo/<run>
    python -m hieros_repro.evaluate run=... checkpoint=best episodes=20 greedy=false

The run itself is never changed. At the newest checkpoint of a finished run this repeats the run's own final evaluation.
"""

import json
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig

from hieros_repro import atomic, command
from hieros_repro.check import Page, check
from hieros_repro.records import CannotRender, Count

PAGE = Page(
    settings={
        "run": str,
        "checkpoint": int | Literal["best"] | None,
        "episodes": Count,
        "greedy": bool,
        "video": bool,
        "video_fps": Count,
        "video_format": Literal["auto", "mp4", "gif"],
        "device": Literal["cpu", "cuda", "tpu"] | None,
        "out": str | None,
    }
)


def main() -> None:
    command.run(command.Verb("evaluate", PAGE, evaluate, about=__doc__ or ""))


def evaluate(config: DictConfig) -> float:
    """Plays, prints and writes; returns the mean score."""
    from hieros_repro import build, policy
    from hieros_repro.determinism.keys import Key
    from hieros_repro.log.video import write_video
    from hieros_repro.run.evaluation import Evaluator

    plain = check(config, PAGE)
    run = Path(plain["run"])
    settings = policy.read_config(run, plain["device"])
    build.construct(settings["determinism"]).apply()
    build.construct(settings["hardware"]).apply()
    trained = policy.load(run, plain["checkpoint"], plain["device"])
    world = build.recipe(settings["env"])
    evaluator = Evaluator(world.evaluation, settings["run"]["eval_envs"], Key(settings["seed"])("eval"), world.references())
    result = evaluator(trained.agent, trained.normaliser, trained.step, plain["episodes"], plain["greedy"])
    assert result is not None  # nothing stops it
    row = result.metrics()
    out = Path(plain["out"] or f"outputs/evaluations/{_name(run)}-{plain['checkpoint'] or trained.step}")
    out = out if plain["greedy"] or plain["out"] else out.with_name(f"{out.name}-sampled")
    out.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"run": str(run), "step": trained.step, "greedy": plain["greedy"], **row, "scores": result.scores}
    atomic.write(out / "evaluation.json", json.dumps(facts, indent=1) + "\n", shared=True)
    spread = f" +- {row['eval/score_std']:.2f}" if "eval/score_std" in row else ""
    print(f"step {trained.step:,}: {row['eval/score']:.2f}{spread} over {len(result.scores)} episodes", end="")
    print(f" (min {row['eval/score_min']:.2f}, max {row['eval/score_max']:.2f})")
    if plain["video"]:
        try:
            frames = evaluator.film(trained.agent, trained.normaliser, trained.step)
            print(f"video  {write_video(out / 'episode', frames, plain['video_fps'], plain['video_format'])}")
        except CannotRender as error:
            print(f"video  none: {error}")
    print(f"scores {out / 'evaluation.json'}")
    return row["eval/score"]


def _name(run: Path) -> str:
    """A run's folder below outputs/, or its last two parts: runs of different sweeps have equal last names."""
    parts = run.resolve().parts
    return "-".join(parts[parts.index("outputs") + 1 :] if "outputs" in parts else parts[-2:])


if __name__ == "__main__":
    main()
