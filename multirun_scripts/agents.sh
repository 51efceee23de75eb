#!/bin/sh
# Question: how do the agents that need no world model compare on CartPole: PPO, DQN, and acting at random?
# Runs:     3 agents x 5 seeds.
# Cost:     about 5 minutes of two idle cores. World-model agents: hierarchies.sh.
# Answer:   the report's contrasts: difference with its interval, probability of improvement, Holm's p. The two presets do not take
#           the same number of steps (100,000 and 60,000), as the curves show.
# Seeds:    SEEDS=... are others; with the same overrides they add to the runs that are there.
#
#   multirun_scripts/agents.sh                        or with other overrides: ... env=gymnasium env.id=Acrobot-v1 run.steps=50000
set -eu
cd "$(dirname "$0")/.."
sweep=outputs/sweeps/agents-$(printf '%s ' "$@" | cksum | cut -d ' ' -f 1)
run() {
    name=$1
    shift
    ./hieros train -m "$@" "seed=${SEEDS:-42,123,456,789,1024}" hydra/launcher=joblib hydra.launcher.n_jobs="${JOBS:-2}" log=quiet sweep.dir="$sweep-$name"
}
run ppo experiment=cartpole_baseline "$@"
run dqn experiment=cartpole_dqn "$@"
run random agent=random run.target_score=475 "$@"
./hieros report "$sweep-ppo" "$sweep-dqn" "$sweep-random" --out "$sweep.html"
