#!/bin/sh
# Question: how much does PPO's result on CartPole depend on the seed?
# Runs:     the five seeds of the recipe, each a run of 100,000 steps with 100 greedy final episodes.
# Cost:     about a minute on 2 cores, two seeds at a time. Running it again skips what is finished.
# Answer:   the table: n, mean, sample standard deviation and 95 % t-interval over seeds; then, of the experiment as it is, the same
#           against the numbers that references/<experiment>.yaml expects, if there are any. Five seeds say little about
#           a spread: look at the interval first.
#
#   multirun_scripts/seed_robustness.sh                    or with other overrides: ... experiment=cartpole_tuned
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=cartpole_baseline "$@" ;; esac
sweep=outputs/sweeps/seed_robustness-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" seed=42,123,456,789,1024 hydra/launcher=joblib hydra.launcher.n_jobs=2 log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
reference=references/${1#experiment=}.yaml  # of the experiment as it is
[ $# -gt 1 ] || [ ! -f "$reference" ] || ./hieros compare "$sweep" --expected "$reference"
