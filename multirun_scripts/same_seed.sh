#!/bin/sh
# Question: are two runs of the same seed the same, bit by bit - here, today, under these settings?
# Runs:     one configuration, one seed, twice, in processes of their own.
# Cost:     twice a run: under a minute for the default.
# Answer:   `equal` and the number of digests compared; else the first step, component and tensor that differ, and with
#           ./hieros compare <A> <B> --narrow the operation. One seed says nothing about spread: that is seed_robustness.sh.
#
#   multirun_scripts/same_seed.sh                     or with other overrides: ... experiment=pinpad_cpu run.steps=12000
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=cartpole_baseline "$@" ;; esac
folder=outputs/same_seed-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
for name in first second; do
    rm -rf "$folder/$name"
    ./hieros train "$@" log=quiet run.dir="$folder/$name"
done
cmp "$folder/first/metrics.jsonl" "$folder/second/metrics.jsonl"
./hieros compare "$folder/first" "$folder/second"
