"""The recipe's CartPole baseline with stable-baselines3 on one thread. Prints the seconds of building and training."""

import time

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

torch.set_num_threads(1)
started = time.perf_counter()
model = PPO(
    "MlpPolicy",
    make_vec_env("CartPole-v1", n_envs=8, seed=42),
    learning_rate=3e-4,
    n_steps=128,
    batch_size=256,
    n_epochs=10,
    gamma=0.99,
    gae_lambda=0.95,
    clip_range=0.2,
    ent_coef=0.0,
    vf_coef=0.5,
    max_grad_norm=0.5,
    policy_kwargs={"net_arch": [64, 64]},
    seed=42,
    device="cpu",
)
model.learn(100_000)
print(time.perf_counter() - started)
