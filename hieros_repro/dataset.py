"""python -m hieros_repro.dataset record|verify|stats|split|folds|preprocess|...: recorded episodes as versioned data.

    python -m hieros_repro.dataset record out=data/cartpole env=cartpole agent=random episodes=100 seed=1
    python -m hieros_repro.dataset record out=data/expert run=<run> checkpoint=best greedy=true
    python -m hieros_repro.dataset verify data/cartpole
    python -m hieros_repro.dataset stats data/cartpole
    python -m hieros_repro.dataset split data/cartpole --train 0.8 --val 0.1 --test 0.1 --seed 1
    python -m hieros_repro.dataset folds data/cartpole --k 5 --repeats 3 --seed 1
    python -m hieros_repro.dataset preprocess data/cartpole --out data/clean --steps pipeline.yaml
    python -m hieros_repro.dataset preprocess --again data/clean
    python -m hieros_repro.dataset import-minari <id> --out data/theirs
    python -m hieros_repro.dataset export-minari data/cartpole --id cartpole/random-v0

Exit codes: 0 done, 1 damaged (verify) or different (preprocess --again), 2 bad input. `<command> --help` says more.
"""

import argparse
import inspect
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from hieros_repro import command
from hieros_repro.records import ConfigError, Damaged, Fault, UserError
from hieros_repro.replay.dataset import Dataset

RECORD = """\
python -m hieros_repro.dataset record out=<folder>: episodes of any agent, as a dataset.

python -m hieros_repro.dataset record out=data/random env=cartpole agent=random episodes=100 seed=1
python -m hieros_repro.dataset record out=data/expert run=<run> checkpoint=best greedy=true
"""


def main() -> None:
    if sys.argv[1:2] == ["record"]:
        from hieros_repro.recording import PAGE

        del sys.argv[1]
        command.run(command.Verb("dataset", PAGE, record, about=RECORD))
    arguments = parser().parse_args()
    try:
        sys.exit(arguments.job(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(command.BAD_INPUT)


def record(config: DictConfig) -> None:
    """What Hydra calls."""
    from hieros_repro import recording

    told(recording.record(config, list(HydraConfig.get().overrides.task)))


def parser() -> argparse.ArgumentParser:
    """Everything but `record`, whose options are Hydra's."""
    plain = argparse.RawDescriptionHelpFormatter
    root = argparse.ArgumentParser("hieros-dataset", description=__doc__, formatter_class=plain)
    verbs = root.add_subparsers(metavar="command", required=True)

    def verb(name: str, job: Callable[..., int], about: str, path: str | None = "?") -> argparse.ArgumentParser:
        own = verbs.add_parser(name, help=about.splitlines()[0], description=about, formatter_class=plain)
        own.set_defaults(job=job)
        if path is not None:
            own.add_argument("path", type=Path, metavar="PATH", help="the dataset's folder", nargs=path or None)
        return own

    verb("record", verify, "record episodes of any agent; its options: record --help", None)
    verb("verify", verify, "read every byte and name the file that is not what it was: exit code 1", "")
    own = verb("stats", stats, "episodes, returns, every key's range; what is constant, missing, not finite or an outlier", "")
    own.add_argument("--part", help="of a part: train, fold-1/val, ...")
    own.add_argument("--json", action="store_true", help="as JSON")
    own = verb("split", split, "parts by episode, drawn from a seed and kept in splits.json", "")
    for name, share in (("train", 0.8), ("val", 0.1), ("test", 0.1)):
        own.add_argument(f"--{name}", type=float, default=share, metavar="SHARE", help=f"0: no such part (default {share})")
    _drawn(own)
    own = verb("folds", folds, "k folds by episode, repeated, drawn from a seed and kept in folds.json", "")
    own.add_argument("--k", type=int, required=True, help="folds")
    own.add_argument("--repeats", type=int, default=1, help="times that the episodes are folded anew (default 1: k-fold)")
    _drawn(own)
    own = verb("preprocess", preprocess, _pipeline_help())
    own.add_argument("--out", type=Path, help="the new dataset's folder, which must not exist")
    own.add_argument("--steps", type=Path, metavar="YAML", help="the pipeline")
    own.add_argument(
        "--again", type=Path, metavar="NEW", help="make NEW again from its parent: is it the same? else exit code 1"
    )
    own.add_argument("--parent", type=Path, help="where NEW's parent is now, if it was moved")
    own = verb("import-minari", import_minari, "a Minari dataset of this machine as one of ours", None)
    own.add_argument("id", help="its name, as in `minari list local`; MINARI_DATASETS_PATH says where they are")
    own.add_argument("--out", type=Path, required=True, help="the dataset's folder, which must not exist")
    own.add_argument("--rows-per-file", type=int, default=10_000, help="rows past which a file is closed (default 10000)")
    own = verb("export-minari", export_minari, "a dataset as a Minari dataset of this machine, losslessly", "")
    own.add_argument("--id", required=True, help="its name there: <namespace>/<name>-v<number>, the namespace optional")
    return root


def _drawn(own: argparse.ArgumentParser) -> None:
    own.add_argument("--seed", type=int, default=0, help="what they are drawn from (default 0)")
    own.add_argument("--replace", action="store_true", help="replace others that are there")


def told(dataset: Dataset) -> None:
    """Says what has come to be."""
    from hieros_repro.run.folder import invocation

    print(f"{dataset.path}: {dataset.count:,} episodes, {dataset.steps:,} steps")
    print(f"version {dataset.version}, SHA-256 {dataset.digest}")
    print(f"next: {invocation('dataset')} stats {dataset.path}")


# -- The commands ------------------------------------------------------------------------------------------------------


def verify(arguments: argparse.Namespace) -> int:
    try:
        dataset = Dataset.open(arguments.path)
        dataset.verify()
    except Damaged as error:
        print(f"damaged: {error}")
        return command.FAILED
    files, parts = len(dataset.manifest["files"]), len(dataset.parts())
    print(f"{dataset.path}: intact, version {dataset.version}, {dataset.count:,} episodes, {dataset.steps:,} steps")
    print(f"{files} files" + (f", {parts} parts" if parts else "") + f", SHA-256 {dataset.digest}")
    return command.FINISHED


def stats(arguments: argparse.Namespace) -> int:
    from hieros_repro.replay.survey import RULE, survey

    facts = survey(Dataset.open(arguments.path), arguments.part)
    if arguments.json:
        print(json.dumps(facts, indent=1))
        return command.FINISHED
    part = f", part {facts['part']}" if facts["part"] else ""
    print(f"{facts['name']}, version {facts['version']}{part}: {facts['episodes']:,} episodes, {facts['steps']:,} steps")
    print(f"{facts['ended']['terminal']:,} episodes ended, {facts['ended']['time_out']:,} timed out\n")
    print(_tables(facts))
    print("\n".join(f"! {finding}" for finding in facts["findings"]) or "nothing looks wrong")
    print(f"({RULE})")
    return command.FINISHED


def _tables(facts: Mapping[str, Any]) -> str:
    from hieros_repro.stats.table import markdown

    def shown(value: Any) -> str:
        return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.6g}"

    columns = list(facts["return"])
    episodes = [[what, *(shown(facts[what][name]) for name in columns)] for what in ("return", "length")]
    keys = [
        [name, told["dtype"], "x".join(map(str, told["shape"])) or "-", *(shown(told[n]) for n in ("min", "mean", "max"))]
        for name, told in facts["keys"].items()
    ]
    return f"{markdown(('episodes', *columns), episodes)}\n{markdown(('rows', 'type', 'shape', 'min', 'mean', 'max'), keys)}"


def split(arguments: argparse.Namespace) -> int:
    from hieros_repro.replay import parts

    dataset = Dataset.open(arguments.path)
    shares = {name: getattr(arguments, name) for name in ("train", "val", "test")}
    found = parts.split(dataset.count, shares, arguments.seed)
    return _keep(dataset, parts.SPLITS, {**shares, "seed": arguments.seed}, found, arguments.replace)


def folds(arguments: argparse.Namespace) -> int:
    from hieros_repro.replay import parts

    dataset = Dataset.open(arguments.path)
    found = parts.folds(dataset.count, arguments.k, arguments.repeats, arguments.seed)
    how = {"k": arguments.k, "repeats": arguments.repeats, "seed": arguments.seed}
    return _keep(dataset, parts.FOLDS, how, found, arguments.replace)


def _keep(dataset: Dataset, file: str, how: Mapping[str, Any], found: Mapping[str, list[int]], replace: bool) -> int:
    from hieros_repro.replay import parts

    new = parts.write(dataset.path, file, dataset.digest, how, dict(found), replace)
    for name, members in list(found.items())[:6]:
        print(f"{name:<13} {len(members):>7,} episodes, {sum(dataset.episodes[i].length for i in members):,} steps")
    print(f"{'...' if len(found) > 6 else ''}{dataset.path / file}" + ("" if new else " was there already, the same"))
    return command.FINISHED


def preprocess(arguments: argparse.Namespace) -> int:
    from hieros_repro.provenance.made import made
    from hieros_repro.replay import preprocess as library

    if arguments.again:
        return again(arguments.again, arguments.parent)
    missing = [name for name in ("path", "out", "steps") if getattr(arguments, name) is None]
    if missing:
        raise UserError(f"preprocess needs PATH, --out and --steps, or --again; missing: {', '.join(missing)}")
    parent = Dataset.open(arguments.path)
    new = library.preprocess(parent, arguments.out, pipeline(arguments.steps), made())
    print(f"{parent.count - new.count:,} of {parent.count:,} episodes were left out")
    told(new)
    return command.FINISHED


def again(path: Path, moved: Path | None) -> int:
    """Whether a dataset is what its recorded pipeline makes of its parent."""
    from hieros_repro.replay.preprocess import preprocess

    was = Dataset.open(path)
    if not was.content["pipeline"] or "parent" not in was.manifest["made"]:
        raise UserError(f"{path}: it was not made by preprocess, so there is nothing to make again")
    last = was.content["pipeline"][-1]
    parent = Dataset.open(moved or path.resolve() / was.manifest["made"]["parent"])
    if parent.digest != last["parent"]:
        raise UserError(f"{parent.path}: version {parent.version}, but {path} was made from version {last['parent'][:12]}")
    with tempfile.TemporaryDirectory(dir=path.resolve().parent, prefix=".again-") as folder:
        new = preprocess(parent, Path(folder) / path.name, last["steps"], {})
    if new.digest == was.digest:
        print(f"{path}: the same again, version {new.version}")
        return command.FINISHED
    old, made = was.manifest["files"], new.manifest["files"]
    differ = [name for name in {**old, **made} if name not in old or name not in made or old[name] != made[name]]
    print(f"{path}: NOT the same: version {was.version}, now {new.version}; first difference: {(differ or ['spaces'])[0]}")
    return command.FAILED


def import_minari(arguments: argparse.Namespace) -> int:
    from hieros_repro.provenance.made import made
    from hieros_repro.replay.minari import imported

    if arguments.rows_per_file < 1:
        raise UserError(f"--rows-per-file={arguments.rows_per_file}: it is at least 1")
    told(imported(arguments.id, arguments.out, arguments.rows_per_file, made()))
    return command.FINISHED


def export_minari(arguments: argparse.Namespace) -> int:
    from hieros_repro.replay.minari import exported

    print(f"{exported(Dataset.open(arguments.path), arguments.id)}: Minari dataset {arguments.id}")
    return command.FINISHED


# -- Pipelines ---------------------------------------------------------------------------------------------------------


def pipeline(path: Path) -> list[dict[str, Any]]:
    """The steps a YAML file lists, checked: every fault at once."""
    from hieros_repro.check import nearest
    from hieros_repro.replay.preprocess import CHANGES

    try:
        listed = yaml.safe_load(path.read_text(encoding="utf8"))
    except OSError as error:
        raise UserError(f"--steps={path}: cannot be read ({error.strerror})") from None
    except yaml.YAMLError as error:
        raise UserError(f"--steps={path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(listed, list) or not listed:
        raise UserError(f"--steps={path}: a list of steps is needed, as in `- shrink: {{height: 32, width: 32}}`")
    steps, faults = [], []
    for i, step in enumerate(listed):
        named = {step: {}} if isinstance(step, str) else step
        if not isinstance(named, dict) or len(named) != 1:
            faults.append(Fault(f"step {i + 1}", f"{step!r} is not one name with its parameters"))
            continue
        [(name, parameters)] = named.items()
        if name not in CHANGES:
            there = f"there are {', '.join(CHANGES)}{nearest(str(name), CHANGES)}"
            faults.append(Fault(f"step {i + 1}", f"there is no step {name!r}; {there}"))
            continue
        parameters = {} if parameters is None else parameters
        faults += _parameter_faults(f"step {i + 1} {name}", CHANGES[name], parameters)
        steps.append({name: parameters})
    if faults:
        raise ConfigError(faults)
    return steps


def _parameter_faults(where: str, change: Any, given: Any) -> Iterator[Fault]:
    from hieros_repro import check

    if not isinstance(given, dict):
        yield Fault(where, f"{given!r} is not a mapping of parameters")
        return
    known, signature = check.parameters(change), inspect.signature(change).parameters
    yield from (Fault(f"{where}.{name}", check.unknown(str(name), known)) for name in given if name not in known)
    for name, annotation in known.items():
        if name in given and not check.fits(given[name], annotation):
            yield Fault(f"{where}.{name}", check.mismatch(given[name], annotation))
        elif name not in given and signature[name].default is inspect.Parameter.empty:
            yield Fault(f"{where}.{name}", f"missing; it must be {check.describe(annotation)}")


def _pipeline_help() -> str:
    """Every step with its parameters."""
    from hieros_repro.check import describe, parameters
    from hieros_repro.replay.preprocess import CHANGES

    lines = ["another dataset from one, by recorded steps", "", "Steps of a pipeline (--steps), with their parameters:"]
    for name, change in CHANGES.items():
        taken = ", ".join(f"{key}: {describe(annotation)}" for key, annotation in parameters(change).items())
        lines += [f"  {name:<13} {change.about}", *([f"  {'':<13}   {taken}"] if taken else [])]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
