#!/bin/sh
# Question: how much should a goal be able to say? Codes of 2, 4, 6 and 8 categoricals with 8 classes.
# Runs:     4 shapes x 3 seeds.
# Cost:     about 10 minutes of one core a run.
# Answer:   the table: one row per number of categoricals.
#
#   multirun_scripts/hieros_subgoals.sh                 or with other overrides: ... experiment=pinpad_easy_director
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- experiment=pinpad_hieros_cpu
sweep=outputs/sweeps/hieros_subgoals-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" agent.goals.codes=2,4,6,8 "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs=2 log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
