import math
from functools import partial

import pytest
import torch
from torch import Tensor

from hieros_repro.agent.actor_critic import Critic
from hieros_repro.agent.level import Level, Replayed, Trajectory
from hieros_repro.agent.scale import Deviation, Percentiles, Unscaled
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.recording import Recorded
from hieros_repro.nn.block import Style
from hieros_repro.nn.control import Weight
from hieros_repro.nn.init import fill
from hieros_repro.ops.action import Actions, Bounded, Codes

STYLE = Style("layer", "elu", "glorot")
WEIGHT = {"start": 1.0, "low": 1e-5, "high": 100.0}
FIXED, STEERED = (partial(Weight, adaptive=adaptive, **WEIGHT) for adaptive in (False, True))
TWO = Codes((2,), 0.0)


def level(
    actions: Actions = TWO, inputs: int = 1, aim: float = 0.0, critic: dict | None = None, fast: bool = True, **changes
) -> Level:
    """By default one that is computed by hand: a bias says everything, and nothing is scaled."""
    bootstrap = "fast" if fast else "slow"
    values = {
        "head": "symlog", "layers": 0, "units": 4, "scale": 0.0, "bootstrap": bootstrap, "slow_weight": 0.0, "slow_rate": 0.5,
        "slow_every": 2, "returns": Unscaled,
    } | (critic or {})  # fmt: skip
    given = {
        "rewards": {"extrinsic": 1.0}, "layers": 0, "units": 4, "actor_scale": 0.0, "entropy": FIXED, "discount": 0.5,
        "trace": 0.5, "advantage": Unscaled, "replay_value": 1.0,
    } | changes  # fmt: skip
    made = Level(inputs, actions, STYLE, aim, critic=partial(Critic, **values), **given)
    fill(made, Key(4)("init"))
    for one in made.critics.values():
        one.followed()
    return made


def values_are(made: Level, fast: float, slow: float, name: str = "extrinsic") -> None:
    """What a critic and its slow copy say of every state."""
    with torch.no_grad():
        made.critics[name].net.out.bias.fill_(math.log(1 + fast))
        made.critics[name].slow.module.out.bias.fill_(math.log(1 + slow))


def column(*numbers: float) -> Tensor:
    return torch.tensor(numbers).unsqueeze(1)


def chosen(*actions: int) -> Tensor:
    return torch.eye(2)[list(actions)].unsqueeze(1)


def bandit(**rewards: tuple[float, float]) -> Trajectory:
    """One state, two actions: the first, then the second; the second step halves the chance of going on."""
    rewards = rewards or {"extrinsic": (1.0, 2.0)}
    paid = {name: column(*values) for name, values in rewards.items()}
    return Trajectory(torch.ones(3, 1, 1), chosen(0, 1), paid, column(1.0, 1.0, 0.5))


def symlog_error(value: float, target: float) -> float:
    return (math.log(1 + value) - math.log(1 + target)) ** 2


def assert_numbers(found: Tensor, *expected: float) -> None:
    assert found.flatten().tolist() == pytest.approx(list(expected), rel=1e-5, abs=1e-6)


# -- A dream, by hand ----------------------------------------------------------------------------------------------------
# discount times proceeds is 1/2, 1/2, 1/4; getting to states 0 and 1 has the weights u = 1, 1/2.


def test_returns_and_losses_of_a_critic_that_knows_nothing():
    # R_1 = 2; R_0 = 1 + 1/2 (1/2 0 + 1/2 2) = 1.5; A = R, log pi = ln 1/2
    found = level().judge(bandit())
    assert_numbers(found.returns["extrinsic"], 1.5, 2.0)
    assert_numbers(found.actor, -(1.5 * math.log(0.5) + 0.5 * 2.0 * math.log(0.5)) / 2)
    assert_numbers(found.critic, (symlog_error(0, 1.5) + 0.5 * symlog_error(0, 2.0)) / 2)


def test_states_are_valued_by_the_slow_critic_or_by_the_fast():
    # v = 4: R_1 = 2 + 1/4 4 = 3, R_0 = 1 + 1/2 (1/2 4 + 1/2 3) = 2.75, A = -1.25, -1
    # v = 8: R_1 = 2 + 1/4 8 = 4, R_0 = 1 + 1/2 (1/2 8 + 1/2 4) = 4,    A = -4, -4
    for fast, returns, advantages in ((True, (2.75, 3.0), (-1.25, -1.0)), (False, (4.0, 4.0), (-4.0, -4.0))):
        made = level(fast=fast)
        values_are(made, 4.0, 8.0)
        found = made.judge(bandit())
        assert_numbers(found.returns["extrinsic"], *returns)
        assert_numbers(found.actor, -(advantages[0] + 0.5 * advantages[1]) * math.log(0.5) / 2)
        assert_numbers(found.critic, (symlog_error(4, returns[0]) + 0.5 * symlog_error(4, returns[1])) / 2)
        assert_numbers(found.metrics["extrinsic_value"], 4.0 if fast else 8.0)


def test_a_slow_copy_pulls():
    made = level(critic={"slow_weight": 0.25})
    values_are(made, 4.0, 8.0)
    pulled = (1 + 0.5) / 2 * 0.25 * symlog_error(4, 8)
    assert_numbers(made.judge(bandit()).critic, (symlog_error(4, 2.75) + 0.5 * symlog_error(4, 3.0)) / 2 + pulled)


def test_a_start_that_was_an_end_counts_for_nothing():
    dream = bandit()._replace(proceeds=column(0.0, 1.0, 0.5))
    found = level().judge(dream)
    assert_numbers(found.returns["extrinsic"], 1.5, 2.0)
    assert found.actor == 0.0 and found.critic == 0.0


def test_what_lies_behind_an_end_counts_for_nothing():
    # proceeds 1, 0, 1: R_0 = 1, and the second step is never taken
    found = level().judge(bandit()._replace(proceeds=column(1.0, 0.0, 1.0)))
    assert_numbers(found.returns["extrinsic"], 1.0, 2.0)
    assert_numbers(found.actor, -math.log(0.5) / 2)
    assert_numbers(found.critic, symlog_error(0, 1.0) / 2)


def test_with_full_trace_no_discount_and_no_ends_returns_are_sums():
    dream = bandit()._replace(proceeds=torch.ones(3, 1))
    assert_numbers(level(discount=1.0, trace=1.0).judge(dream).returns["extrinsic"], 3.0, 2.0)


def test_rewards_are_weighed_and_each_is_divided_by_its_own_scale():
    # extrinsic as above, R = 1.5, 2; goal: R_1 = 6, R_0 = 4 + 1/2 1/2 6 = 5.5
    # scale: half of max - min from a start at 0, at least 1/8: 0.25 and 0.25; A = 2 R / 0.25 + 1/2 R' / 0.25 = 23, 28
    half = partial(Percentiles, decay=0.5, lower=0.0, upper=1.0, floor=0.125)
    made = level(rewards={"extrinsic": 2.0, "goal": 0.5, "novelty": 0.0}, critic={"returns": half})
    assert set(made.critics) == {"extrinsic", "goal"} and made.weights == {"extrinsic": 2.0, "goal": 0.5}
    found = made.judge(bandit(extrinsic=(1.0, 2.0), goal=(4.0, 6.0)))
    assert_numbers(found.metrics["goal_return_scale"], 0.25)
    assert_numbers(found.metrics["advantage"], (23 + 28) / 2)
    assert_numbers(found.actor, -(23 + 0.5 * 28) * math.log(0.5) / 2)
    own = [symlog_error(0, 1.5) + 0.5 * symlog_error(0, 2.0), symlog_error(0, 5.5) + 0.5 * symlog_error(0, 6.0)]
    assert_numbers(found.critic, sum(own) / 2)


def test_advantages_lose_their_mean_and_are_divided_by_their_deviation():
    # A = 1.5, 2: mean 1.75, deviation 0.25: -1, 1
    made = level(advantage=partial(Deviation, decay=0.9, floor=0.01))
    assert made.judge(bandit()).actor.item() == pytest.approx(-(-1 + 0.5) * math.log(0.5) / 2, rel=1e-3)


def test_the_scale_of_returns_takes_nothing_off():
    # R = 1.5, 2: deviation 0.25, so A = 6, 8
    made = level(critic={"returns": partial(Deviation, decay=0.9, floor=0.01)})
    assert made.judge(bandit()).actor.item() == pytest.approx(-(6 + 0.5 * 8) * math.log(0.5) / 2, rel=1e-3)


# -- Entropy -------------------------------------------------------------------------------------------------------------


def test_a_fixed_weight_multiplies_the_entropy_in_nats():
    plain = level().judge(bandit()).actor
    found = level(aim=0.25).judge(bandit())
    assert_numbers(found.actor, plain.item() - 0.25 * math.log(2) * (1 + 0.5) / 2)
    assert_numbers(found.metrics["entropy"], math.log(2))


def test_an_adaptive_weight_multiplies_the_entropy_relative_to_the_greatest():
    # the entropy is the greatest, 1 > 1.1 1/2: the weight falls from 1 to 1 / 1.1
    plain = level().judge(bandit()).actor
    judged = level(aim=0.5, entropy=STEERED).judge(bandit())
    assert_numbers(judged.actor, plain.item() - 1 / 1.1 * (1 + 0.5) / 2)
    assert_numbers(judged.metrics["entropy"], 1.0)
    assert_numbers(judged.metrics["entropy_weight"], 1 / 1.1)


def test_every_group_has_an_entropy_weight_of_its_own():
    # groups of 2 and 4 classes; the first is near certain (raise its weight), the second uniform (lower it)
    acts = Codes((2, 4), 0.0)
    made = level(acts, aim=0.5, entropy=STEERED)
    with torch.no_grad():
        made.actor.out.bias[0] = 5.0
    p = 1 / (1 + math.exp(-5.0))
    sharp = -(p * math.log(p) + (1 - p) * math.log(1 - p)) / math.log(2)
    actions = torch.zeros(2, 1, 8)
    actions[..., 0] = actions[..., 4] = 1.0
    dream = bandit(extrinsic=(0.0, 0.0))._replace(action=actions)  # no advantage: what is left is the entropy
    found = made.judge(dream)
    assert_numbers(made.entropy.weight, 1.1, 1 / 1.1)
    assert_numbers(found.actor, -(1.1 * sharp + 1 / 1.1) * (1 + 0.5) / 2)
    assert_numbers(found.metrics["entropy"], (sharp + 1) / 2)


def test_the_entropy_of_continuous_actions_is_told_between_its_least_and_its_greatest():
    # s = 0: std = 0.1 + 0.4 / 2 = 0.3, of [0.1, 0.5]: (ln 0.3 - ln 0.1) / (ln 0.5 - ln 0.1) = 0.682606
    acts = Bounded(3, 0.1, 0.5, 0.0, [-1.0] * 3, [1.0] * 3)
    dream = bandit(extrinsic=(0.0, 0.0))._replace(action=torch.zeros(2, 1, 3))
    found = level(acts, aim=0.5, entropy=STEERED).judge(dream)
    assert_numbers(found.metrics["entropy"], math.log(3) / math.log(5))
    assert_numbers(found.actor, -1 / 1.1 * math.log(3) / math.log(5) * (1 + 0.5) / 2)
    fixed = level(acts, aim=0.5).judge(dream)  # in nats: 3 (ln 0.3 + 1/2 ln(2 pi e))
    assert_numbers(fixed.metrics["entropy"], 3 * (math.log(0.3) + 0.5 * math.log(2 * math.pi * math.e)))


@pytest.mark.parametrize(
    ("actions", "action"),
    [
        (Codes((2, 1), 0.0), [1.0, 0.0, 1.0, 0.0]),
        (Bounded(1, 0.5, 0.5, 0.0, [-1.0], [1.0]), [0.0]),
    ],
    ids=["one class", "one deviation"],
)
def test_where_there_is_nothing_to_choose_entropy_is_a_number_all_the_same(actions, action):
    made = level(actions, aim=0.5, entropy=STEERED)
    found = made.judge(bandit()._replace(action=torch.tensor(action).expand(2, 1, -1)))
    found.actor.backward()
    assert found.actor.isfinite() and made.actor.out.bias.grad.isfinite().all()


# -- Gradients -----------------------------------------------------------------------------------------------------------


def test_the_gradient_of_the_policy_by_hand():
    # of the loss -(u log pi A)/2 towards the logits: -u A (chosen - p) / 2
    # -(1.5 (1/2, -1/2) + 1/2 2 (-1/2, 1/2)) / 2 = (-1/8, 1/8): the first action becomes likelier
    made = level()
    made.judge(bandit()).actor.backward()
    assert_numbers(made.actor.out.bias.grad, -0.125, 0.125)
    assert all(parameter.grad is None for parameter in made.critics.parameters())


def test_the_gradient_of_entropy_makes_a_policy_evener():
    made = level(aim=1.0)
    with torch.no_grad():
        made.actor.out.bias[0] = math.log(3)
    made.judge(bandit(extrinsic=(0.0, 0.0))).actor.backward()
    # d H / d logit_c = -p_c (log p_c + H); p = (3/4, 1/4), H = 0.562335: -(3/4)(-0.287682 + 0.562335) = -0.205990
    assert_numbers(made.actor.out.bias.grad, 0.205990 * 0.75, -0.205990 * 0.75)


def test_the_gradient_of_a_critic_by_hand():
    # d (b - symlog R)^2 / d b = 2 (b - symlog R): -(2 ln 2.5 + 1/2 2 ln 3) / 2
    made = level()
    made.judge(bandit()).critic.backward()
    assert_numbers(made.critics["extrinsic"].net.out.bias.grad, -(2 * math.log(2.5) + math.log(3)) / 2)
    assert all(parameter.grad is None for parameter in made.actor.parameters())
    assert all(parameter.grad is None for parameter in made.critics["extrinsic"].slow.module.parameters())


def test_returns_and_advantages_are_constants():
    made = level(fast=True, critic={"scale": 1.0}, rewards={"extrinsic": 1.0, "goal": 1.0}, inputs=3, layers=1)
    draw = torch.from_numpy(Key(0)("data", "x").normal((3, 4, 3)))
    actions = torch.eye(2).repeat(4, 1).view(2, 4, 2)
    paid = {"extrinsic": draw[:2, :, 0], "goal": draw[:2, :, 1]}
    found = made.judge(Trajectory(draw, actions, paid, torch.ones(3, 4)))
    assert not any(value.requires_grad for value in found.returns.values())
    assert not any(value.requires_grad for value in found.metrics.values())
    actor, critics = list(made.actor.parameters()), list(made.critics.parameters())
    for loss, owners, others in ((found.actor, actor, critics), (found.critic, critics, actor)):
        grads = torch.autograd.grad(loss, [*owners, *others], allow_unused=True, retain_graph=True)
        assert any(grad is not None and grad.any() for grad in grads[: len(owners)])
        assert all(grad is None for grad in grads[len(owners) :])


def test_a_policy_learns_which_of_two_actions_pays():
    made = level()
    optimiser = torch.optim.SGD(made.actor.parameters(), 1.0)
    dream = Trajectory(
        torch.ones(2, 2, 1), torch.eye(2).unsqueeze(0), {"extrinsic": torch.tensor([[1.0, -1.0]])}, torch.ones(2, 2)
    )
    for _ in range(20):
        optimiser.zero_grad()
        made.judge(dream).actor.backward()
        optimiser.step()
    assert made.actor(torch.ones(1, 1)).softmax(-1)[0, 0] > 0.95


# -- Slow copies ---------------------------------------------------------------------------------------------------------


def test_a_slow_copy_follows_every_so_many_updates():
    critic = level(critic={"slow_every": 3, "slow_rate": 0.25}).critics["extrinsic"]
    assert [critic.mix(update) for update in range(1, 8)] == [0.0, 0.0, 0.25, 0.0, 0.0, 0.25, 0.0]


def test_a_slow_copy_starts_equal_and_is_no_part_of_what_is_learned():
    made = level(critic={"scale": 1.0}, inputs=3)
    critic, states = made.critics["extrinsic"], torch.from_numpy(Key(0)("data", "x").normal((2, 4, 3)))
    values = critic.values(states)
    assert torch.equal(values.slow, critic.net.mean(values.outputs)) and not values.slow.requires_grad
    assert not any("slow" in name for name, _ in made.named_parameters())
    with torch.no_grad():
        critic.net.out.bias.add_(1.0)
    assert torch.equal(critic.values(states).slow, values.slow)


# -- What really happened, by hand ---------------------------------------------------------------------------------------


def replayed(last: tuple[int, ...] = (), terminal: tuple[int, ...] = (), leaf: bool = False) -> Replayed:
    """Four rows of one state, with rewards 9, 1, 2, 3."""
    flags = [torch.tensor([[t in rows] for t in range(4)]) for rows in ((*last, *terminal), terminal)]
    return Replayed(torch.ones(4, 1, 1, requires_grad=leaf), column(9.0, 1.0, 2.0, 3.0), *flags)


BOOT = column(100.0, 4.0, 8.0, 2.0)  # what dreams returned; that of the first row is for nobody


@pytest.mark.parametrize(
    ("last", "terminal", "targets"),
    [
        # gamma = 1/2, lambda = 1/2: G_2 = 3 + 1/2 2 = 4; G_1 = 2 + 1/2 (1/2 8 + 1/2 4) = 5; G_0 = 1 + 1/4 (4 + 5) = 3.25
        ((), (), (3.25, 5.0, 4.0)),
        # row 1 ends its episode by a time-out: G_0 = 1 + 1/2 4 = 3; nothing is learned at row 1
        ((1,), (), (3.0, None, 4.0)),
        # it is terminal: G_0 = 1
        ((), (1,), (1.0, None, 4.0)),
        # the last row is terminal: G_2 = 3, G_1 = 2 + 1/2 (4 + 3/2) = 4.75, G_0 = 1 + 1/2 (2 + 4.75/2) = 3.1875
        ((), (3,), (3.1875, 4.75, 3.0)),
    ],
)
def test_the_value_of_replayed_rows(last, terminal, targets):
    found = level(replay_value=0.25).replay_loss(replayed(last, terminal), BOOT, 1.0)
    assert_numbers(found, 0.25 * sum(symlog_error(0, g) for g in targets if g is not None) / 3)


def test_the_value_of_replayed_rows_holds_what_the_world_says_of_going_on():
    # a discount of 1 and proceeds 1/2 are a discount of 1/2
    made = level(discount=1.0)
    assert_numbers(made.replay_loss(replayed(), BOOT, 0.5), sum(symlog_error(0, g) for g in (3.25, 5.0, 4.0)) / 3)


def test_the_value_of_replayed_rows_is_pulled_towards_the_slow_copy():
    made = level(critic={"slow_weight": 1.0})
    values_are(made, 0.0, 8.0)
    own = sum(symlog_error(0, g) for g in (3.0, 4.0)) / 3
    assert_numbers(made.replay_loss(replayed((1,)), BOOT, 1.0), own + 2 / 3 * symlog_error(0, 8))


def test_the_gradient_of_replayed_rows_reaches_states_and_critic_but_no_target_and_no_last_row():
    made, rows, boot = level(critic={"scale": 1.0}), replayed((1,), leaf=True), BOOT.clone().requires_grad_()
    reward = rows.reward.requires_grad_()
    made.replay_loss(rows, boot, 1.0).backward()
    reached = rows.state.grad.flatten() != 0
    assert reached.tolist() == [True, False, True, False]
    assert boot.grad is None and reward.grad is None
    assert made.critics["extrinsic"].net.out.weight.grad.any()
    assert all(parameter.grad is None for parameter in made.actor.parameters())


# -- Shapes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["symlog", "two_hot"])
@pytest.mark.parametrize(
    "actions",
    [Codes((3, 2), 0.01, "multidiscrete"), Bounded(2, 0.1, 1.0, 0.0, [-1.0] * 2, [1.0] * 2)],
    ids=["codes", "bounded"],
)
def test_a_recorded_level_judges_with_equal_bits(actions, head):
    key = Key(0)("data")
    critic = {"head": head, "layers": 1, "returns": partial(Percentiles, decay=0.9, lower=0.05, upper=0.95, floor=1.0)}
    made, other = (level(actions, 5, 0.5, critic, layers=1, entropy=STEERED, actor_scale=1.0) for _ in range(2))

    def judged(one: Level, state: Tensor, action: Tensor, reward: Tensor, proceeds: Tensor) -> tuple[Tensor, ...]:
        found = one.judge(Trajectory(state, action, {"extrinsic": reward}, proceeds))
        grads = torch.autograd.grad(found.actor + found.critic, list(one.parameters()))
        return found.actor.detach(), found.critic.detach(), *grads

    held = [*other.parameters(), *other.buffers(), *other.critics["extrinsic"].slow.held()]
    recorded = Recorded(partial(judged, other), held)
    for update in range(2):
        state = torch.from_numpy(key("state", update).normal((4, 6, 5)))
        params = torch.from_numpy(key("params", update).normal((3, 6, actions.width)))
        action = actions.sample(params, torch.from_numpy(actions.noise(key("noise", update), (3, 6))))
        rest = (torch.from_numpy(key("reward", update).normal((3, 6))), torch.from_numpy(key("on", update).uniform((4, 6))))
        for a, b in zip(judged(made, state, action, *rest), recorded(state, action, *rest), strict=True):
            assert torch.equal(a, b)


def test_under_autocast_losses_are_float32():
    made = level(layers=1, critic={"layers": 1})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = made.judge(bandit())
        assert found.actor.dtype == found.critic.dtype == torch.float32
        assert made.replay_loss(replayed(), BOOT, 1.0).dtype == torch.float32
