#!/bin/sh
# Question: does Hieros' hierarchy help? Returns at depth 1, 2, 3 and 4.
# Runs:     4 depths x 3 seeds.
# Cost:     about 10 minutes of one core a run at the default preset; two runs at a time.
# Answer:   the table, one row per depth: intervals over seeds that do not overlap answer it, and only for this task and budget.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/hieros_depth.sh                 or with other overrides: ... experiment=pinpad_easy_director
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=pinpad_hieros_cpu "$@" ;; esac
sweep=outputs/sweeps/hieros_depth-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" agent.max_hierarchy=1,2,3,4 "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
