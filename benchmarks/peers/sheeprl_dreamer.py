"""SheepRL's DreamerV3 (PyTorch) with given widths. Each line it reads is one update on random data: it answers with
[seconds by the clock, seconds of CPU time]. Its first line tells its parameters and what it counts of operations.

Its configuration is its own `exp=dreamer_v3` but for the widths; metrics are off. An update is what its loop does for one
batch: the slow critic follows, then `train`.
"""

import json
import sys
import time

import gymnasium
import hydra
import numpy as np
import torch
from hydra import compose, initialize_config_module
from lightning.fabric import Fabric
from omegaconf import OmegaConf
from sheeprl.algos.dreamer_v3.agent import build_agent
from sheeprl.algos.dreamer_v3.dreamer_v3 import train
from sheeprl.algos.dreamer_v3.utils import Moments
from sheeprl.utils.metric import MetricAggregator
from sheeprl.utils.utils import dotdict
from torch.distributions import Distribution
from torch.utils.flop_counter import FlopCounterMode


def config(sizes):
    world = "algo.world_model"
    changed = {
        "algo.dense_units": sizes["units"],
        "algo.mlp_layers": sizes["layers"],
        "algo.horizon": sizes["horizon"],
        "algo.per_rank_batch_size": sizes["batch"],
        "algo.per_rank_sequence_length": sizes["length"],
        f"{world}.encoder.cnn_channels_multiplier": sizes["depth"],
        f"{world}.recurrent_model.recurrent_state_size": sizes["deter"],
        f"{world}.transition_model.hidden_size": sizes["units"],
        f"{world}.representation_model.hidden_size": sizes["units"],
        f"{world}.stochastic_size": sizes["stoch"],
        f"{world}.discrete_size": sizes["classes"],
        "env.screen_size": sizes["side"],
        "metric.log_level": 0,
    }
    with initialize_config_module("sheeprl.configs", version_base="1.3"):
        given = [f"{name}={value}" for name, value in changed.items()]
        composed = compose("config", ["exp=dreamer_v3", "env=dummy", *given])
    return dotdict(OmegaConf.to_container(composed, resolve=True))


def update(sizes):
    """An update as a function without arguments, and how many parameters it trains."""
    cfg, fabric = config(sizes), Fabric(accelerator="cpu", devices=1, precision=sizes["precision"])
    MetricAggregator.disabled = True
    Distribution.set_default_validate_args(False)  # as its command line sets it
    space = gymnasium.spaces.Dict({"rgb": gymnasium.spaces.Box(0, 255, (3, sizes["side"], sizes["side"]), np.uint8)})
    actions = (sizes["actions"],)
    world, actor, critic, slow, _ = build_agent(fabric, actions, False, cfg, space)
    parts = ((world, cfg.algo.world_model), (actor, cfg.algo.actor), (critic, cfg.algo.critic))
    optimisers = fabric.setup_optimizers(
        *(hydra.utils.instantiate(part.optimizer, params=net.parameters(), _convert_="all") for net, part in parts)
    )
    moved = cfg.algo.actor.moments
    moments = Moments(moved.decay, moved.max, moved.percentile.low, moved.percentile.high)
    data = batch(sizes)

    def once():
        with torch.no_grad():
            for fast, target in zip(critic.module.parameters(), slow.parameters(), strict=True):
                target.data.copy_(cfg.algo.critic.tau * fast.data + (1 - cfg.algo.critic.tau) * target.data)
        train(fabric, world, actor, critic, slow, *optimisers, data, None, cfg, False, actions, moments)

    return once, sum(p.numel() for net, _ in parts for p in net.parameters())


def batch(sizes):
    """Time first, all in float32, as its replay gives it."""
    draw, shape = np.random.default_rng(0), (sizes["length"], sizes["batch"])
    data = {
        "rgb": draw.integers(0, 256, (*shape, 3, sizes["side"], sizes["side"])),
        "actions": np.eye(sizes["actions"])[draw.integers(0, sizes["actions"], shape)],
        "rewards": draw.normal(size=(*shape, 1)),
        "is_first": draw.random((*shape, 1)) < 0.05,
        "terminated": np.zeros((*shape, 1)),
    }
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in data.items()}


def main():
    sizes = json.loads(sys.argv[1])
    torch.set_num_threads(sizes["threads"])
    once, parameters = update(sizes)
    with FlopCounterMode(display=False) as counter:
        once()
    once()
    print(json.dumps({"parameters": parameters, "flop": counter.get_total_flops()}), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        once()
        print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


if __name__ == "__main__":
    main()
