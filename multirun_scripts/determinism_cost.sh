#!/bin/sh
# Question: what does determinism cost, and does it change what is learned?
# Runs:     5 seeds with determinism=strict and 5 with determinism=off; then strict and off in turn, timed in pairs.
# Cost:     about 3 minutes of two cores, then of one.
# Answer:   the two groups' difference (none on one CPU thread: the same bits) and the ratio of their times. Times of a sweep with
#           two jobs at a time are no benchmark: believe the ratio that the pairs give.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/determinism_cost.sh              or with other overrides: ... hardware=gpu with JOBS=1
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=cartpole_baseline "$@" ;; esac
sweep=outputs/sweeps/determinism_cost-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
for level in strict off; do
    ./hieros train -m "$@" determinism=$level "seed=${SEEDS:-42,123,456,789,1024}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep-$level"
done
./hieros compare "$sweep-strict" -- "$sweep-off" || true
.venv/bin/python benchmarks/determinism_cost.py --pairs "${PAIRS:-5}" "$@" run.eval_every=0 run.final_episodes=0
