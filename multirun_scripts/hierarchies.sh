#!/bin/sh
# Question: which hierarchy learns a small PinPad, and does one at all beat none? Hieros at depth 1, 2 and 3, its public code's ways at depth 3, Director, Dreamer: same steps, same updates.
# Runs:     6 agents x 3 seeds.
# Cost:     8 to 15 minutes of one core a run, two at a time.
# Answer:   the table and summary.png: intervals over seeds; the agents' presets differ in more than depth (docs/results.md).
#
#   multirun_scripts/hierarchies.sh                 or with other overrides: ... run.steps=40000
set -eu
cd "$(dirname "$0")/.."
sweep=outputs/sweeps/hierarchies-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
run() {
    ./hieros train -m "$@" "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs=2 log=quiet sweep.dir="$sweep"
}
run experiment=pinpad_hieros_cpu agent.max_hierarchy=1,2,3 "$@"
run experiment=pinpad_hieros_cpu agent=hieros_compat "$@"
run experiment=pinpad_cpu "$@"
run experiment=pinpad_dreamer_cpu "$@"
cat "$sweep/summary.md"
