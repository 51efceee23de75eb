"""What strict determinism costs: determinism=strict against determinism=off, in turn, in one run.

python benchmarks/determinism_cost.py --pairs 9
"""

import argparse

from pairs import alternate, ratios
from ppo_run import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument(
        "overrides", nargs="*", default=["experiment=cartpole_baseline", "run.eval_every=0", "run.final_episodes=0"]
    )
    arguments = parser.parse_args()
    strict, off = alternate(
        lambda: train("determinism=strict", *arguments.overrides),
        lambda: train("determinism=off", *arguments.overrides),
        arguments.pairs,
    )
    print(f"strict takes {ratios(strict, off)} times as long as off")


if __name__ == "__main__":
    main()
