"""What the metrics of world-model agents mean, and which of them show that something is wrong.

Subactor-0 is the lowest level. A world model and its goal code go under the name of the lowest level that acts in it.
"""

from collections.abc import Iterator, Sequence

from hieros_repro.agent.goal import Goals
from hieros_repro.agent.tier import Tier
from hieros_repro.records import Hint

MEANINGS = {
    # the world model
    "Subactor-<i>/wm_loss": "sum of the world model's losses, mean over the rows of the batch",
    "Subactor-<i>/reward_loss": "of the rewards it predicts",
    "Subactor-<i>/cont_loss": "of whether the episode goes on, in nats",
    "Subactor-<i>/kl": "how far the posterior is from the prior, in nats, clipped and weighted as in the loss",
    "Subactor-<i>/kl_weight": "that term's weight",
    "Subactor-<i>/prior_entropy": "of the latent before a row is seen, in nats",
    "Subactor-<i>/posterior_entropy": "of the latent once it is seen, in nats",
    "Subactor-<i>/wm_grad_norm": "norm of the world model's gradient before clipping",
    # the goal code
    "Subactor-<i>/subgoal_error": "squared error of states that the goal code rebuilds; agent.goals.error: its sum or its mean",
    "Subactor-<i>/subgoal_kl": "how far its codes are from uniform, in nats, weighted as in the loss",
    "Subactor-<i>/subgoal_grad_norm": "norm of its gradient before clipping",
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
    "Subactor-<i>/<observation>_loss": "squared error of the reconstructed observation, summed over its elements; images by "
    "world.image_scale, anything else as symlog x",
}


def hints(tiers: Sequence[Tier]) -> tuple[Hint, ...]:
    """What to look at, as far as these levels can show it."""
    return tuple(hint for tier in tiers for part in (_of_world, _of_goals, _of_levels) for hint in part(tier))


def _of_world(tier: Tier) -> Iterator[Hint]:
    collapsed = "the posterior has collapsed: the latent says nothing of what is seen"
    blind = "the world model does not learn to see; try another world.image_scale or learning rate"
    least = tier.who.world.least_kl
    if least:
        collapsed += ", or nothing is left that could not be foretold (no row's KL exceeds world.free_nats)"
    yield Hint(tier.metric("kl"), collapsed, low=1.01 * least or 0.1, per=tier.metric("kl_weight"))
    if tier.below is None:
        yield Hint(tier.metric("image_loss"), blind, falls=0.9)


def _of_goals(tier: Tier) -> Iterator[Hint]:
    """An adaptive weight at an end of its range no longer holds the KL where it should be."""
    kl = tier.who.goals.kl if isinstance(tier.who.goals, Goals) else None
    if kl is not None and kl.adaptive:
        alike = "goals are nearly all alike, though nothing holds them back any more"
        far = "some goals are never spoken of, though the weight against it is at its greatest"
        yield Hint(tier.metric("subgoal_kl"), alike, low=kl.low * kl.aim / 1.1)
        yield Hint(tier.metric("subgoal_kl"), far, high=kl.high * kl.aim * 1.1)


def _of_levels(tier: Tier) -> Iterator[Hint]:
    who = tier.who
    for i, level in enumerate(who.levels):
        if "goal" in level.weights:
            steps = 1 if tier.practice.pay.mean else who.clock**i  # over which the reward of one of its actions is summed
            healthy = f"{0.32 * steps:.3g} to {0.46 * steps:.3g} is healthy"
            yield Hint(tier.metric("goal_reward", i), f"goals are not reached ({healthy})", low=0.23 * steps)
        if level.entropy.adaptive:
            yield Hint(tier.metric("entropy", i), "it nearly always does the same", low=0.1)
            # Of levels above the lowest runs that went well had 0.97 to 0.99 in their first 1,300 updates.
            greatest = 0.995 if tier.place + i else 0.98
            yield Hint(tier.metric("entropy", i), "it acts nearly at random", high=greatest)
