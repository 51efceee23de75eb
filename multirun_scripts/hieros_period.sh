#!/bin/sh
# Question: how often should goals change (the re-evaluation's question)?
# Runs:     5 periods x 3 seeds.
# Cost:     hours on one GPU (JOBS=1); with experiment=pinpad_hieros_cpu 10 minutes of one core a run.
# Answer:   the table: one row per period.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/hieros_period.sh                 or with other overrides: ... experiment=pinpad_hieros_cpu
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=pinpad_easy_director hardware=gpu "$@" ;; esac
sweep=outputs/sweeps/hieros_period-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" agent.subactor_train_every=4 agent.subactor_update_every=4,8,12,16,32 "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
