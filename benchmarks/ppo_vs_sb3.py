"""PPO on the recipe's CartPole baseline: ours against stable-baselines3, both on one thread, in turn, in one run.

    python benchmarks/ppo_vs_sb3.py --pairs 5

The first call installs stable-baselines3 into benchmarks/.venv-sb3, with the same torch. Both train 100,000 steps without
evaluations; imports are excluded. Ours runs as users run it: strict, with its ledger, logs and checkpoints.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from pairs import alternate, ratios
from ppo_run import BASELINE, ROOT, train

HERE = Path(__file__).resolve().parent
VENV = HERE / ".venv-sb3"
SB3 = "stable-baselines3==2.9.2"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    python = installed()

    def sb3() -> float:
        done = subprocess.run([python, HERE / "peers" / "sb3_cartpole.py"], check=True, capture_output=True, text=True)
        return float(done.stdout)

    def ours() -> float:
        return train(*BASELINE)

    theirs, mine = alternate(sb3, ours, parser.parse_args().pairs)
    print(f"{SB3}: median {sorted(theirs)[len(theirs) // 2]:.2f} s; ours: median {sorted(mine)[len(mine) // 2]:.2f} s")
    print(f"ours is faster by {ratios(theirs, mine)}")


def installed() -> Path:
    """The interpreter that has stable-baselines3."""
    python = VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
        torch = re.findall(r"^torch==.*$", (ROOT / "requirements.lock").read_text(), re.M)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *torch], check=True)
        subprocess.run([*pip, *torch, SB3], check=True)
    return python


if __name__ == "__main__":
    main()
