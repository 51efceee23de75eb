"""python -m hieros_repro.compare RUN_A RUN_B: are two runs equal, and if not, where do they part first?

    python -m hieros_repro.compare outputs/a outputs/b
    python -m hieros_repro.compare outputs/a outputs/b --narrow         executes both again: the operation that differs first
    python -m hieros_repro.compare outputs/a outputs/b --checkpoints    how far apart they are at every common checkpoint
    python -m hieros_repro.compare outputs/sweeps/cartpole-v1-ppo-1f0c2a9e --expected references/cartpole_baseline.yaml
    python -m hieros_repro.compare outputs/sweeps/old -- outputs/sweeps/new --margin 10

Exit codes: 0 equal (or as expected; of two groups: no difference was found), 1 different, 2 could not compare. Two groups with
a margin (--margin, or the sweep.margin that their runs were made with): 0 only if equivalence within it was shown, 1 if it was
not - which is no proof of a difference.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hieros_repro.records import UserError
from hieros_repro.stats.table import markdown

if TYPE_CHECKING:
    from hieros_repro.findings.record import Record


def main() -> None:
    parser = argparse.ArgumentParser(
        "hieros-compare",
        usage="%(prog)s [options] RUN_A RUN_B | RUNS --expected FILE | RUNS_A... -- RUNS_B...",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders; with --expected also a sweep's folder")
    parser.add_argument("--expected", type=Path, help="a references file to hold the results against")
    parser.add_argument("--tolerance", type=float, help="relative tolerance instead of the references file's own")
    parser.add_argument("--metric", default="eval/score", help="of two groups, RUNS_A -- RUNS_B: what is compared")
    parser.add_argument(
        "--margin",
        type=float,
        help="of two groups: the largest difference that counts as none; default: the runs' sweep.margin. Exit code 0 only if "
        "equivalence within it was shown",
    )
    parser.add_argument("--narrow", action="store_true", help="execute both again, to the operation in which they part first")
    parser.add_argument("--checkpoints", action="store_true", help="how far apart the two are at every common checkpoint")
    arguments, second = _sides(parser, sys.argv[1:])
    try:
        if arguments.expected:
            sys.exit(expected([*arguments.runs, *second], arguments.expected, arguments.tolerance))
        if arguments.margin is not None and not 0 < arguments.margin < float("inf"):
            raise UserError(f"--margin {arguments.margin}: it must be a positive number")
        if second:
            equal, text = groups(arguments.runs, second, arguments.metric, arguments.margin)
        elif len(arguments.runs) != 2:
            raise UserError(
                f"two run folders are compared, {len(arguments.runs)} were given; two groups of runs: RUNS_A... -- RUNS_B..."
            )
        else:
            equal, text = _two(*arguments.runs[:2], narrowed=arguments.narrow, apart=arguments.checkpoints)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(text)
    sys.exit(0 if equal else 1)


def _sides(parser: argparse.ArgumentParser, typed: list[str]) -> tuple[argparse.Namespace, list[Path]]:
    """What was typed, and the runs after `--`; options may be on either side of it."""
    if "--" not in typed:
        return parser.parse_args(typed), []
    middle = typed.index("--")
    arguments = parser.parse_args(typed[:middle])
    first = arguments.runs
    second = parser.parse_args(typed[middle + 1 :], arguments).runs
    arguments.runs = first
    return arguments, second


# -- Two runs ----------------------------------------------------------------------------------------------------------


def _two(a: Path, b: Path, *, narrowed: bool, apart: bool) -> tuple[bool, str]:
    """What was asked of two runs."""
    from hieros_repro.proof import difference, drift, narrow

    if apart:
        return drift.drift(a, b)
    equal, text = difference.compare(a, b)
    return equal, text if equal or not narrowed else "\n".join([text, *narrow.narrow(a, b)])


# -- Against references, and groups of runs ----------------------------------------------------------------------------


def expected(runs: list[Path], reference: Path, tolerance: float | None) -> int:
    """Holds the seeds' results against a references file: a table, and 0 if every expectation is met."""
    from hieros_repro.findings import archive
    from hieros_repro.findings import expected as references

    wanted = references.read(reference)
    records = archive.read(runs)
    finished = [run for run in records if run.status == "finished"]
    if not finished:
        raise UserError(f"{', '.join(map(str, runs))}: no finished run was found")
    if other := references.differing(wanted, finished):
        listed = "\n".join(f"  {line}" for line in other)
        raise UserError(f"{reference} is about another configuration, so that its numbers say nothing of these runs:\n{listed}")
    verdicts = references.judge(wanted, records, tolerance)
    print(f"{len(finished)} finished run(s) against {reference}\n")
    print(markdown(references.HEADER, [verdict.cells() for verdict in verdicts]))
    for run in records:
        if run.status != "finished":
            print(f"left out: {run.folder} is {run.status}{f' ({run.error})' if run.error else ''}")
    for line in otherwise(reference.stem, finished):
        print(line)
    for source, numbers in wanted.sources.items():
        print(f"{source}: {', '.join(f'{k} {v}' for k, v in numbers.items())}")
    return int(not all(verdict.met for verdict in verdicts))


def otherwise(experiment: str, runs: Sequence["Record"]) -> Iterator[str]:
    """Which runs are not just the experiment that a references file is named after: what is expected may not be of them."""
    from hieros_repro.command import conf
    from hieros_repro.findings.group import NOT_NAMING
    from hieros_repro.findings.record import NOT_THE_RUN

    if not (conf() / "experiment" / f"{experiment}.yaml").exists():
        return
    found: dict[str, int] = {}
    for run in runs:
        asked = [o for o in run.typed if not o.lstrip("+~").startswith((*NOT_NAMING, *NOT_THE_RUN))]
        missing = [] if f"experiment={experiment}" in asked else [f"without experiment={experiment}"]
        words = " ".join([*missing, *(o for o in asked if o != f"experiment={experiment}")])
        found[words] = found.get(words, 0) + 1
    for words, count in found.items():
        if words:
            yield f"note: {count} run(s) are not experiment={experiment} alone: {words}"


def groups(first: list[Path], second: list[Path], metric: str, margin: float | None) -> tuple[bool, str]:
    """Two groups of runs, RUNS_A -- RUNS_B: whether nothing tells them apart, and an account of it."""
    from hieros_repro.findings import archive, sides

    return sides.compare(archive.read(first), archive.read(second), metric, margin)


if __name__ == "__main__":
    main()
