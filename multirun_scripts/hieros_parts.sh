#!/bin/sh
# Question: which parts of Hieros matter (the paper's ablations)?
# Runs:     the whole agent and 5 without a part, x 3 seeds.
# Cost:     about 10 minutes of one core a run.
# Answer:   the table: a part matters where the interval of its row leaves that of ablation=none. conf/ablation says what each is.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/hieros_parts.sh                 or with other overrides: ... experiment=pinpad_easy_director
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=pinpad_hieros_cpu "$@" ;; esac
sweep=outputs/sweeps/hieros_parts-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" ablation=none,newest_state,told_states,deter_from_output,nothing_drawn,one_world "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
