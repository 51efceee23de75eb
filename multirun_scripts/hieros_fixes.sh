#!/bin/sh
# Question: what does each fault of the public code change? One at a time, on top of what is right.
# Runs:     the right agent and each of 11 faults and 3 habits alone, x 3 seeds. All of them at once is agent=hieros_compat (hierarchies.sh).
# Cost:     about 10 minutes of one core a run; SEEDS=42 for a first look.
# Answer:   the table: a fault matters where its row leaves that of ablation=none. B11 is not among them: the preset scales advantages. conf/ablation and docs/hieros.md say what each is.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/hieros_fixes.sh                 or with other overrides: ... experiment=pinpad_easy_director
set -eu
cd "$(dirname "$0")/.."
case " $* " in *" experiment="*) ;; *) set -- experiment=pinpad_hieros_cpu "$@" ;; esac
sweep=outputs/sweeps/hieros_fixes-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
./hieros train -m "$@" ablation=none,b1_actions,b2_last_reward,b4_flags,b5_windows,b6_stale,b7_outputs,b8_novelty,b9_meaning,b10_held,b12_decay,b13_replay,mean_reward,carried_clocks,squashed_rewards "seed=${SEEDS:-42,123,456}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep"
cat "$sweep/summary.md"
