"""Writes rliable.json: fixed scores, and what rliable 1.2.0 and statsmodels 0.15 say about them, for tests to compare with.

Both are needed only here, in an environment of their own, since rliable cannot work with pandas 3:

    python -m venv oracle && oracle/bin/pip install rliable==1.2.0 "pandas<3" "setuptools<81" arch statsmodels
    oracle/bin/python tests/stats/make_rliable.py
"""

import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
from rliable import library, metrics
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import ttost_ind

# Task -> runs. Values are tied, above 1, below 0, equal in both groups, and spread differently.
A = {
    "asterix": [0.31, 0.44, 0.52, 0.29, 0.61, 0.38],
    "breakout": [1.20, 0.95, 1.75, 1.10, 0.40, 1.31],
    "freeway": [1.0, 1.0, 1.0, 1.0, 0.0, 1.0],
    "hero": [0.25, 0.25, 0.24, 0.26, 0.30, 0.25],
    "pong": [0.90, 1.05, 1.10, 1.18, 1.00, 0.97],
    "seaquest": [-0.02, 0.01, 0.03, 0.00, 0.02, 0.01],
    "up_n_down": [2.40, 0.80, 5.10, 1.60, 3.30, 0.95],
}
B = {
    "asterix": [0.30, 0.35, 0.41, 0.22, 0.28],
    "breakout": [0.45, 0.90, 1.05, 0.33, 0.71],
    "freeway": [1.0, 0.0, 0.0, 1.0, 0.0],
    "hero": [0.25, 0.33, 0.12, 0.25, 0.41],
    "pong": [1.15, 1.12, 1.19, 1.10, 1.16],
    "seaquest": [0.00, 0.01, 0.00, 0.02, -0.01],
    "up_n_down": [1.20, 0.70, 2.20, 0.50, 1.10],
}
THRESHOLDS = [-0.1, 0.0, 0.01, 0.25, 0.5, 0.95, 1.0, 1.5, 2.0, 5.1]
REPETITIONS = 50_000
PS = [0.01, 0.04, 0.03, 0.005, 0.5, 0.03]
POWERS = [(0.5, 64), (0.8, 26), (1.0, 3), (1.5, 9), (2.0, 2), (0.2, 1000)]


def matrix(scores: dict[str, list[float]]) -> np.ndarray:
    return np.array(list(scores.values())).T  # [run, task]


def estimates(a: np.ndarray, b: np.ndarray) -> dict[str, dict[str, object]]:
    """Points and intervals, of A, of B, and of A against B."""

    def of_one(scores: np.ndarray) -> np.ndarray:
        return np.array([
            metrics.aggregate_iqm(scores), metrics.aggregate_mean(scores), metrics.aggregate_median(scores),
            metrics.aggregate_optimality_gap(scores, gamma=1.0),
        ])  # fmt: skip

    np.random.seed(0)  # rliable draws from the global generator, whatever random state it is given
    points, intervals = library.get_interval_estimates({"a": a, "b": b}, of_one, reps=REPETITIONS)
    names = ("iqm", "mean", "median", "gap")
    found = {
        group: {name: {"value": points[group][i], "interval": list(intervals[group][:, i])} for i, name in enumerate(names)}
        for group in points
    }
    over = lambda x, y: np.array([metrics.probability_of_improvement(x, y)])  # noqa: E731
    points, intervals = library.get_interval_estimates({"a,b": (a, b)}, over, reps=2000)
    found["improvement"] = {"value": points["a,b"][0], "interval": list(intervals["a,b"][:, 0])}
    return found


def profile(scores: np.ndarray) -> dict[str, list[float]]:
    found, bands = library.create_performance_profile({"x": scores}, np.array(THRESHOLDS), reps=REPETITIONS // 10)
    return {"shares": list(found["x"]), "lows": list(bands["x"][0]), "highs": list(bands["x"][1])}


def statsmodels() -> dict[str, object]:
    power = TTestIndPower()
    pairs = [(A[task], B[task], margin) for task, margin in (("asterix", 0.2), ("pong", 0.3), ("up_n_down", 1.0))]
    return {
        "holm": {"ps": PS, "adjusted": list(multipletests(PS, method="holm")[1])},
        "tost": [
            {"a": a, "b": b, "margin": margin, "p": ttost_ind(a, b, -margin, margin, usevar="unequal")[0]}
            for a, b, margin in pairs
        ],
        "power": [{"effect": d, "n": n, "power": power.power(d, n, 0.05)} for d, n in POWERS],
        "detectable": [{"n": n, "effect": power.solve_power(None, n, 0.05, 0.8)} for n in (2, 3, 5, 10, 30)],
    }


def main() -> None:
    a, b = matrix(A), matrix(B)
    found = {
        "versions": {package: version(package) for package in ("rliable", "statsmodels", "arch", "numpy", "scipy")},
        "scores": {"a": A, "b": B},
        "thresholds": THRESHOLDS,
        "estimates": estimates(a, b),
        "profiles": {"a": profile(a), "b": profile(b)},
        "statsmodels": statsmodels(),
    }
    text = json.dumps(found, indent=1, default=float)
    Path(__file__).with_name("rliable.json").write_text(text + "\n", encoding="utf8")


if __name__ == "__main__":
    main()
