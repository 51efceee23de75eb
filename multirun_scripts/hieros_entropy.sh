#!/bin/sh
# Question: how much should policies be rewarded for being random (the re-evaluation's question)?
# Runs:     6 weights and 2 lists by level, x 3 seeds.
# Cost:     hours on one GPU: JOBS=1.
# Answer:   the table: one row per weight.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/hieros_entropy.sh                 or with other overrides: ... experiment=pinpad_easy_director env.task=three_small
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=pinpad_easy_director hardware=gpu "$@" ;; esac
sweep=outputs/sweeps/hieros_entropy-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" 'agent.actor_entropy=1e-4,3e-4,1e-3,3e-3,3e-2,3e-1,[3e-4,3e-3,3e-2],[3e-2,3e-3,3e-4]' "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
