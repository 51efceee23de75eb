"""Where PPO's time on CartPole goes, against the least each part could cost with the same libraries.

    python benchmarks/ppo_floor.py

Counts the baseline's work (100,000 environment steps, 12,500 batched acts, 3,910 minibatches), times each unit bare, and sets
it beside what a whole run spent, as its own timing.jsonl tells.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium
import torch
from ppo_run import BASELINE, run
from torch import nn


def main() -> None:
    torch.set_num_threads(1)
    units = {
        "env": (100_000, per_call(bare_env(), 20_000)),
        "act": (12_500, per_call(bare_act(), 3_000)),
        "learn": (3_910, per_call(bare_minibatch(), 500)),
    }
    spent = whole_run()
    print(f"{'part':<8}{'units':>9}{'bare unit':>12}{'floor':>9}{'spent':>9}")
    for name, (count, seconds) in units.items():
        print(f"{name:<8}{count:>9,}{seconds * 1e6:>9.1f} us{count * seconds:>7.2f} s{spent.get(name, 0.0):>7.2f} s")
    others = sum(value for name, value in spent.items() if name not in units)
    print(f"{'others':<8}{'':>9}{'':>12}{'':>9}{others:>7.2f} s")


def per_call(call: Callable[[], object], count: int) -> float:
    """The best of five repeats."""
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(count // 5):
            call()
        best = min(best, (time.perf_counter() - started) / (count // 5))
    return best


def bare_env() -> Callable[[], object]:
    env = gymnasium.make("CartPole-v1").unwrapped
    state = env.reset(seed=0)[0]
    actions = [0, 1]

    def step() -> None:
        actions.reverse()
        env.state = state.astype(float)
        env.step(actions[0])

    return step


def network() -> nn.Module:
    def tower(out: int) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, out))

    return nn.ModuleList([tower(2), tower(1)])


def bare_act() -> Callable[[], object]:
    """The actor's forward pass over 8 environments and one comparison: no reading, no writing."""
    actor, obs, noise = network()[0], torch.zeros(8, 4), torch.rand(8)
    return torch.inference_mode()(lambda: (actor(obs).softmax(-1)[:, 0] <= noise).numpy())


def bare_minibatch() -> Callable[[], object]:
    """Forward and backward of both networks on 256 rows with the least loss that has a gradient, and a fused Adam step."""
    model, obs = network(), torch.randn(256, 4)
    optimiser = torch.optim.Adam(model.parameters(), fused=True)

    def minibatch() -> None:
        (model[0](obs).sum() + model[1](obs).sum()).backward()
        optimiser.step()
        optimiser.zero_grad()

    return minibatch


def whole_run() -> dict[str, float]:
    """Seconds per part of one baseline run."""
    with tempfile.TemporaryDirectory() as folder:
        path = run(Path(folder, "run"), *BASELINE) / "timing.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    spent: dict[str, float] = {}
    before = 0.0
    for row in rows:
        for name, share in row.items():
            if name.startswith("share/"):
                spent[name[6:]] = spent.get(name[6:], 0.0) + share * (row["elapsed"] - before)
        before = row["elapsed"]
    return spent


if __name__ == "__main__":
    main()
