"""Sweeps: where their runs live, which of them still have to run, how many at once, and what they came to together.

The run folders are the source of truth; Hydra only launches.
"""

from hieros_repro.sweep.layout import Sweep as Sweep
