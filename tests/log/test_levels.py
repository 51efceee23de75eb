from hieros_repro.log.levels import table

OF_TWO = {
    "step": 100,
    "Subactor-0/image_loss": 3.0,
    "Subactor-0/wm_loss": 1234.5,
    "Subactor-0/reward_loss": 9.0,
    "Subactor-0/actor_loss": -0.012345,
    "Subactor-0/extrinsic_reward": 0.25,
    "Subactor-0/goal_reward": 0.5,
    "Subactor-0/entropy": 1.5,
    "Subactor-1/actor_loss": 2.0,
    "Subactor-1/extrinsic_reward": 0.75,
    "Subactor-1/novelty_reward": 0.0625,
    "Subactor-1/entropy": 2.0,
}


def test_every_level_has_a_line_with_its_losses_rewards_and_entropy():
    assert table(OF_TWO).split("\n") == [
        "level        wm_loss  actor_loss  extrinsic_reward  goal_reward  novelty_reward  entropy",
        "Subactor-0  1.23e+03     -0.0123              0.25          0.5               -      1.5",
        "Subactor-1         -           2              0.75            -          0.0625        2",
    ]


def test_levels_that_have_not_learned_yet_are_named():
    *_, last = table(OF_TWO, 4).split("\n")
    assert last.startswith("Subactor-2, Subactor-3: no update yet")
    assert table(OF_TWO, 2) == table(OF_TWO)
    assert table({"step": 1}, 3) == ""  # nothing learned: that is said elsewhere


def test_levels_are_in_the_order_of_their_numbers():
    metrics = {f"Subactor-{i}/entropy": float(i) for i in (10, 2, 0)}
    assert [line.split() for line in table(metrics).split("\n")] == [
        ["level", "entropy"],
        ["Subactor-0", "0"],
        ["Subactor-2", "2"],
        ["Subactor-10", "10"],
    ]


def test_where_there_are_no_levels_there_is_no_table():
    assert table({"step": 3, "ppo/entropy": 1.0, "episode/score": 2.0}) == "" == table({})
