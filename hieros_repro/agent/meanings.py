"""What the metrics of world-model agents mean, and which of them show that something is wrong.

Subactor-0 is the lowest level; world model and goal code, which all levels share, go under its name.
"""

from collections.abc import Iterator

from hieros_repro.agent.dream import Stack
from hieros_repro.agent.goal import Goals
from hieros_repro.records import Hint
from hieros_repro.world.rssm import RSSM

MEANINGS = {
    # the world model
    "Subactor-0/wm_loss": "sum of the world model's losses, mean over the rows of the batch",
    "Subactor-0/reward_loss": "of the rewards it predicts",
    "Subactor-0/cont_loss": "of whether the episode goes on, in nats",
    "Subactor-0/kl": "how far the posterior is from the prior, in nats, clipped and weighted as in the loss",
    "Subactor-0/kl_weight": "that term's weight",
    "Subactor-0/prior_entropy": "of the latent before a row is seen, in nats",
    "Subactor-0/posterior_entropy": "of the latent once it is seen, in nats",
    "Subactor-0/wm_grad_norm": "norm of the world model's gradient before clipping",
    # the goal code
    "Subactor-0/subgoal_error": "squared error with which the goal code rebuilds states, summed over their dimensions",
    "Subactor-0/subgoal_kl": "how far its codes are from uniform, in nats, weighted as in the loss",
    "Subactor-0/subgoal_grad_norm": "norm of its gradient before clipping",
    # every level
    "Subactor-<i>/actor_loss": "of the policy: negative advantage-weighted log-probability and weighted entropy",
    "Subactor-<i>/critic_loss": "of its critics, summed over rewards",
    "Subactor-<i>/entropy": "of the policy; relative to the greatest possible where its weight is adaptive, otherwise in nats",
    "Subactor-<i>/entropy_weight": "the weight with which entropy is rewarded, mean over the parts of an action",
    "Subactor-<i>/advantage": "mean size of the advantages before they are brought to one scale",
    "Subactor-<i>/actor_grad_norm": "norm of the policy's gradient before clipping",
    "Subactor-<i>/replay_value_loss": "loss of the critic on replayed rows, weighted",
    # every reward of a level: extrinsic, goal, novelty
    "Subactor-<i>/<reward>_reward": "mean reward per action of this level in dreams",
    "Subactor-<i>/<reward>_return": "mean lambda-return of that reward in dreams",
    "Subactor-<i>/<reward>_value": "mean value that its critic predicts there",
    "Subactor-<i>/<reward>_return_scale": "what its returns are divided by",
    "Subactor-<i>/<reward>_critic_grad_norm": "norm of its critic's gradient before clipping",
    # every observation
    "Subactor-0/<observation>_loss": "squared error of the reconstructed observation, summed over its elements; images by "
    "world.image_scale, anything else as symlog x",
}


def hints(who: Stack, mean: bool) -> tuple[Hint, ...]:
    """What to look at, as far as these levels can show it. `mean`: a long step's reward is the mean over its steps."""
    return (*_of_world(who), *_of_goals(who), *_of_levels(who, mean))


def _of_world(who: Stack) -> Iterator[Hint]:
    collapsed = "the posterior has collapsed: the latent says nothing of what is seen"
    blind = "the world model does not learn to see; try another world.image_scale or learning rate"
    least = who.world.least_kl if isinstance(who.world, RSSM) else 0.0
    if least:
        collapsed += ", or nothing is left that could not be foretold (no row's KL exceeds world.free_nats)"
    yield Hint("Subactor-0/kl", collapsed, low=1.01 * least or 0.1, per="Subactor-0/kl_weight")
    yield Hint("Subactor-0/image_loss", blind, falls=0.9)


def _of_goals(who: Stack) -> Iterator[Hint]:
    """An adaptive weight at an end of its range no longer holds the KL where it should be."""
    kl = who.goals.kl if isinstance(who.goals, Goals) else None
    if kl is not None and kl.adaptive:
        alike = "goals are nearly all alike, though nothing holds them back any more"
        far = "some goals are never spoken of, though the weight against it is at its greatest"
        yield Hint("Subactor-0/subgoal_kl", alike, low=kl.low * kl.aim / 1.1)
        yield Hint("Subactor-0/subgoal_kl", far, high=kl.high * kl.aim * 1.1)


def _of_levels(who: Stack, mean: bool) -> Iterator[Hint]:
    for i, level in enumerate(who.levels):
        if "goal" in level.weights:
            steps = 1 if mean else who.clock**i  # over which the reward of one of its actions is summed
            healthy = f"{0.32 * steps:.3g} to {0.46 * steps:.3g} is healthy"
            yield Hint(f"Subactor-{i}/goal_reward", f"goals are not reached ({healthy})", low=0.23 * steps)
        if level.entropy.adaptive:
            yield Hint(f"Subactor-{i}/entropy", "it nearly always does the same", low=0.1)
            # Of levels above the lowest runs that went well had 0.97 to 0.99 in their first 1,300 updates.
            yield Hint(f"Subactor-{i}/entropy", "it acts nearly at random", high=0.995 if i else 0.98)
