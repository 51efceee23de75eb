import pytest
import torch

from hieros_repro.ops.sequence import every, following, product_steps, split_states, split_steps, summed_steps


def numbered(ticks: int, width: int) -> torch.Tensor:
    """Row t of trajectory n is 10 t + n."""
    return 10 * torch.arange(ticks).unsqueeze(1) + torch.arange(width)


def test_pieces_of_states_share_their_borders_and_stand_side_by_side():
    # H = 4, k = 2, trajectories 0 and 1: pieces [0 1 2] and [2 3 4]
    assert split_states(numbered(5, 2), 2).tolist() == [[0, 1, 20, 21], [10, 11, 30, 31], [20, 21, 40, 41]]


def test_pieces_of_steps_share_nothing():
    assert split_steps(numbered(4, 2), 2).tolist() == [[0, 1, 20, 21], [10, 11, 30, 31]]


def test_every_takes_the_borders():
    assert every(numbered(7, 2), 3).tolist() == [[0, 1], [30, 31], [60, 61]]


@pytest.mark.parametrize(("function", "ticks"), [(split_states, 7), (split_steps, 6)])
def test_further_axes_come_along(function, ticks):
    x = numbered(ticks, 2)
    vectors = torch.stack([x, -x, 2 * x], -1).unsqueeze(2)
    found = function(vectors, 3)
    flat = function(x, 3)
    assert torch.equal(found, torch.stack([flat, -flat, 2 * flat], -1).unsqueeze(2))


def test_one_piece_is_the_trajectory_itself():
    assert torch.equal(split_states(numbered(5, 3), 4), numbered(5, 3))
    assert torch.equal(split_steps(numbered(4, 3), 4), numbered(4, 3))


def test_a_border_state_collects_the_gradient_of_both_pieces():
    x = torch.zeros(5, 1, requires_grad=True)
    split_states(x, 2).sum().backward()
    assert x.grad.flatten().tolist() == [1, 1, 2, 1, 1]


def test_what_follows_a_row_is_of_its_sequence_and_then_of_the_next_from_its_beginning():
    # T = 3 rows of B = 2 sequences, 0 10 20 and 1 11 21; after the last sequence comes the first
    x = numbered(3, 2)
    expected = [[0, 1, 10, 11, 20, 21], [10, 11, 20, 21, 1, 0], [20, 21, 1, 0, 11, 10]]
    assert following(x, 2).tolist() == expected
    assert following(x, 1).tolist() == expected[:2] and following(x, 0).tolist() == expected[:1]


def test_what_follows_may_be_longer_than_a_sequence():
    # 0 10 1 11 2 12 0 10: two rows each
    found = following(numbered(2, 3), 6)
    assert found[:, 0].tolist() == [0, 10, 1, 11, 2, 12, 0]
    assert found[:, 4].tolist() == [11, 2, 12, 0, 10, 1, 11]  # row 1 of sequence 1 is column 1 * 3 + 1
    assert following(numbered(1, 1), 3).flatten().tolist() == [0, 0, 0, 0]


def test_what_follows_has_its_further_axes_and_type():
    x = numbered(3, 2)
    vectors = torch.stack([x, -x, 2 * x], -1)
    flat = following(x, 4)
    assert torch.equal(following(vectors, 4), torch.stack([flat, -flat, 2 * flat], -1))
    assert following(x.to(torch.uint8), 4).dtype == torch.uint8


REWARD = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0, 32.0]).unsqueeze(1)
CONT = torch.tensor([0.5, 0.5, 0.25, 1.0, 0.0, 0.5]).unsqueeze(1)


@pytest.mark.parametrize(
    ("mean", "expected"),
    # 1 + 0.5 * 2 + 0.25 * 4 = 3: the 0.25 that comes with the last reward does not count;  8 + 1 * 16 + 0 * 32 = 24
    [(False, [3.0, 24.0]), (True, [1.0, 8.0])],
)
def test_long_rewards_are_those_computed_by_hand(mean, expected):
    assert summed_steps(REWARD, CONT, 3, mean).flatten().tolist() == expected


def test_long_continuations_are_those_computed_by_hand():
    assert product_steps(CONT, 3).flatten().tolist() == [0.0625, 0.0]  # 0.5 * 0.5 * 0.25 and 1 * 0 * 0.5


def test_trajectories_do_not_touch_each_other():
    reward, cont = torch.cat([REWARD, -REWARD], 1), torch.cat([CONT, torch.ones_like(CONT)], 1)
    assert summed_steps(reward, cont, 3, mean=False).tolist() == [[3.0, -7.0], [24.0, -56.0]]
    assert product_steps(cont, 3).tolist() == [[0.0625, 1.0], [0.0, 1.0]]


def test_long_steps_of_one_are_the_steps():
    assert torch.equal(summed_steps(REWARD, CONT, 1, mean=True), REWARD)
    assert torch.equal(product_steps(CONT, 1), CONT)


def test_long_steps_pass_gradients_even_where_nothing_goes_on():
    reward, cont = REWARD.clone().requires_grad_(), CONT.clone().requires_grad_()
    summed_steps(reward, cont, 3, mean=False).sum().backward()
    assert reward.grad.flatten().tolist() == [1.0, 0.5, 0.25, 1.0, 1.0, 0.0]
    # by c_0: 2 + 0.5 * 4;  by c_1: 0.5 * 4;  by c_3: 16 + 0 * 32;  by c_4: 1 * 32;  none by the last ones
    assert (torch.zeros_like(CONT) if cont.grad is None else cont.grad).flatten().tolist() == [4.0, 2.0, 0.0, 16.0, 32.0, 0.0]
    cont.grad = None
    product_steps(cont, 3).sum().backward()
    # 0.5 * 0.25, 0.5 * 0.25, 0.5 * 0.5;  0 * 0.5, 1 * 0.5, 1 * 0
    assert cont.grad.flatten().tolist() == [0.125, 0.125, 0.25, 0.0, 0.5, 0.0]


@pytest.mark.parametrize(
    "cut",
    [
        lambda: split_states(numbered(6, 1), 2),
        lambda: split_steps(numbered(5, 1), 2),
        lambda: every(numbered(6, 1), 2),
        lambda: summed_steps(REWARD, CONT, 4, mean=True),
        lambda: product_steps(CONT, 4),
    ],
)
def test_what_does_not_divide_is_refused(cut):
    with pytest.raises(AssertionError, match="do not divide into pieces"):
        cut()
