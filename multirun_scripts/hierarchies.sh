#!/bin/sh
# Question: which hierarchy learns a small PinPad, and does one at all beat none? Hieros at depth 1, 2 and 3, its public code's ways
#           at depth 3, Director and Dreamer: as many steps and updates of the lowest level for each.
# Runs:     6 agents x 3 seeds.
# Cost:     8 to 25 minutes of one core a run, Director's least, Dreamer's most: four to five hours of one core.
# Answer:   one table and one page with its curves: intervals over seeds that do not overlap, tests with Holm's correction. The
#           presets differ in more than depth (docs/hieros.md); SEEDS="42" first.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/hierarchies.sh                 or with other overrides: ... run.steps=40000
set -eu
cd "$(dirname "$0")/.."
folder=outputs/sweeps/hierarchies-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
run() {
    name=$1
    shift
    ./hieros train -m "$@" "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$folder-$name"
}
run depths experiment=pinpad_hieros_cpu agent.max_hierarchy=1,2,3 "$@"
run compat experiment=pinpad_hieros_cpu agent=hieros_compat "$@"
run others experiment=pinpad_cpu,pinpad_dreamer_cpu "$@"
./hieros report "$folder-depths" "$folder-compat" "$folder-others" --out "$folder.html" --question "Does a hierarchy help?"
