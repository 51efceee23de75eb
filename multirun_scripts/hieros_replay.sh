#!/bin/sh
# Question: does time-balanced sampling matter (the paper's ablation; B13)?
# Runs:     4 replays x 3 seeds.
# Cost:     about 10 minutes of one core a run.
# Answer:   the table: one row per replay; the paper itself shows no clear difference.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/hieros_replay.sh                 or with other overrides: ... experiment=pinpad_easy_director
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=pinpad_hieros_cpu "$@" ;; esac
sweep=outputs/sweeps/hieros_replay-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" replay=efficient_time_balanced,uniform,time_balanced,efficient_time_balanced_capacity "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
