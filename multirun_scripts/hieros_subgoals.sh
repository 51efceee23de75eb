#!/bin/sh
# Question: how much should a goal be able to say? Codes of 2x2, 3x3, 4x4, 6x6 and 8x8.
# Runs:     5 shapes x 3 seeds.
# Cost:     about 10 minutes of one core a run.
# Answer:   the table: one row per shape; ablation=none is 8x8.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/hieros_subgoals.sh                 or with other overrides: ... experiment=pinpad_easy_director
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=pinpad_hieros_cpu "$@" ;; esac
sweep=outputs/sweeps/hieros_subgoals-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" ablation=none,codes_2x2,codes_3x3,codes_4x4,codes_6x6 "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
