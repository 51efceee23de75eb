#!/bin/sh
# Question: does it matter which past steps are shown: uniform, time-balanced in three forms, or newest first?
# Runs:     5 replays x 5 seeds of DQN on CartPole.
# Cost:     about 10 minutes of two idle cores. The same for Hieros: hieros_replay.sh.
# Answer:   the report: a replay matters where its interval leaves the others'; the curves tell speed from the end.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/replay_selectors.sh              or with other overrides: ... experiment=pinpad_cpu
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=cartpole_dqn "$@" ;; esac
sweep=outputs/sweeps/replay_selectors-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" replay=uniform,time_balanced,efficient_time_balanced,efficient_time_balanced_capacity,online "seed=${SEEDS:-42,123,456,789,1024}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
./hieros report "$sweep" --out "$sweep/report.html"
