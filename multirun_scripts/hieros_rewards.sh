#!/bin/sh
# Question: how should task, goal and novelty be weighed (the re-evaluation's question)?
# Runs:     4 x 4 weights x 3 seeds.
# Cost:     hours on one GPU: JOBS=1.
# Answer:   the table: one row per pair of weights; the task's own weight is 1.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/hieros_rewards.sh                 or with other overrides: ... experiment=pinpad_easy_director env.task=three_small
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=pinpad_easy_director hardware=gpu "$@" ;; esac
sweep=outputs/sweeps/hieros_rewards-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" agent.levels.level_0.rewards.goal=0.1,0.3,0.5,1.0 agent.levels.level_0.rewards.novelty=0.1,0.3,0.5,1.0 "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
