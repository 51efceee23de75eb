#!/bin/sh
# Question: which shaping of PinPad-easy can be learned (the re-evaluation's eight)?
# Runs:     8 modes x 3 seeds.
# Cost:     hours on one GPU: JOBS=1.
# Answer:   the table: returns of different modes are paid differently: compare completions (episode/completions in metrics.jsonl).
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/hieros_reward_modes.sh                 or with other overrides: ... experiment=pinpad_easy_director env.task=three_small
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=pinpad_easy_director hardware=gpu "$@" ;; esac
sweep=outputs/sweeps/hieros_reward_modes-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" env.reward_mode=flat,progress_any,progressive,progressive_steep,sequence_bonus,decaying,sparse,dense_guidance "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
