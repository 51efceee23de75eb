"""From a configuration to the tiers of a hierarchy: worlds over worlds, and the levels that act in each."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from hieros_repro.agent.dream import Pay, Stack
from hieros_repro.agent.goal import Code
from hieros_repro.agent.level import Level
from hieros_repro.agent.tier import Downward, Practice, Tier
from hieros_repro.agent.upward import Upward
from hieros_repro.hardware.device import Hardware
from hieros_repro.nn.block import Style
from hieros_repro.ops.action import actions
from hieros_repro.records import Count, Fraction, NonNegative, Positive, Spaces
from hieros_repro.world.base import World


def assembled(
    spaces: Spaces,
    hardware: Hardware,
    upward: Upward,
    *,
    batch_size: Count,
    batch_length: Count,
    replay_context: Literal[0, 1],
    imag_horizon: Count,
    imag_starts: Count | None,
    max_hierarchy: Count,
    subactor_update_every: Count,
    hierarchy_decrease_sizes: Count,
    actor_entropy: NonNegative | Sequence[NonNegative],
    actor_inputs: Sequence[Literal["reward", "continue", "entropy"]],
    norm: Literal["layer", "rms"],
    activation: Literal["tanh", "relu", "silu", "elu"],
    init: Literal["glorot", "fan_in"],
    unimix: Fraction,
    min_std: Positive,
    max_std: Positive,
    std_shift: float,
    world: Callable[..., World],
    upper_world: Callable[..., World] | None,
    world_action: Literal["led_there", "chosen_there"],
    goals: Callable[..., Code],
    levels: Mapping[str, Callable[..., Level]],
    downward: Downward,
    goal_reward: Literal["kept", "renewed"],
    long_step_reward: Literal["sum", "mean"],
) -> list[Tier]:
    """From the lowest up: all levels in one tier, or each in its own."""
    starts, aligned = min(imag_starts or batch_size * batch_length, batch_size * batch_length), world_action == "led_there"
    pay = Pay(goal_reward == "renewed", long_step_reward == "mean")
    practice = Practice(batch_size, batch_length, replay_context, imag_horizon, starts, pay, downward, aligned)
    names, style, inputs = list(levels)[:max_hierarchy], Style(norm, activation, init), tuple(actor_inputs)
    acts, entropies = actions(spaces.action, unimix, min_std, max_std, std_shift), iter(by_level(actor_entropy, len(names)))
    observed, make, found = spaces.observation, world, list[Tier]()
    for group in [names] if upper_world is None else [[name] for name in names]:
        model = make(observed, acts.size, style)
        code, told = goals(model.deter, style), group[-1] != names[-1]
        made = [
            heeding(levels[name], name != names[-1])(
                model.feature + len(inputs) + code.width * (told or name != group[-1]), acts, style, next(entropies)
            )
            for name, acts in zip(group, [acts, *(code.actions(unimix) for _ in group[1:])], strict=True)
        ]
        who = Stack(model, code, made, subactor_update_every, inputs, told)
        found.append(Tier(len(found), who, group, acts, found[-1].who.world if found else None, practice, hardware))
        if told and upper_world is not None:
            acts, observed = code.actions(unimix), upward.space(model, subactor_update_every)
            make = narrowed(upper_world, hierarchy_decrease_sizes)
    return found


def by_level(value: Any, count: int) -> list[Any]:
    """A value for each level: its own, or the last there is."""
    values = value if isinstance(value, list) else [value]
    return [values[min(i, len(values) - 1)] for i in range(count)]


def heeding(make: Callable[..., Level], told: bool) -> Callable[..., Level]:
    """The highest level of all has no goal to be rewarded for."""
    rewards = make.keywords["rewards"]  # type: ignore[attr-defined]
    return make if told else partial(make, rewards={name: weight for name, weight in rewards.items() if name != "goal"})


def narrowed(make: Callable[..., World], by: int) -> Callable[..., World]:
    """A world of less width, still in as many blocks."""
    given, blocks = make.keywords, make.keywords["blocks"]  # type: ignore[attr-defined]
    widths = {name: max(1, given[name] // by // blocks) * blocks for name in make.func.narrow}  # type: ignore[attr-defined]
    return partial(make, **widths) if by > 1 else make
