#!/bin/sh
# Question: does an S5 world serve Hieros better than a recurrent one (the paper's ablation)?
# Runs:     2 worlds x 3 seeds.
# Cost:     about 10 minutes of one core a run.
# Answer:   the table: one row per world; compare wm_loss in the runs' metrics.jsonl, too.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/hieros_world.sh                 or with other overrides: ... experiment=pinpad_easy_director
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=pinpad_hieros_cpu "$@" ;; esac
sweep=outputs/sweeps/hieros_world-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" world=s5,rssm "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
