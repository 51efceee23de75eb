#!/bin/sh
# Question: does learning in bfloat16 change the result, and is it faster here?
# Runs:     2 precisions x 3 seeds of Director on a small PinPad.
# Cost:     about an hour of one core; SEEDS=42 first. A CPU without AMX or AVX512-BF16 is slower in bf16, and says so.
# Answer:   the report's contrast - equivalence within MARGIN if the difference and its interval are small - and its table of speed.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/precision.sh                     or with other overrides: ... experiment=pinpad_gpu hardware=gpu
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=pinpad_cpu "$@" ;; esac
sweep=outputs/sweeps/precision-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" hardware.precision=fp32,bf16 "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
./hieros report "$sweep" --margin "${MARGIN:-10}" --out "$sweep/report.html"
