import pytest

from hieros_repro.stats.label import shortened, wrapped


def test_a_key_is_its_last_part():
    names = ["agent.max_hierarchy=1", "agent.max_hierarchy=2"]
    assert list(shortened(names).values()) == ["max_hierarchy=1", "max_hierarchy=2"]


def test_keys_that_end_alike_stay_apart():
    names = ["agent.actor.scale=1 agent.critic.scale=2", "agent.actor.scale=2 agent.critic.scale=2"]
    assert list(shortened(names).values()) == ["scale=1", "scale=2"]  # the other is shared
    names = ["agent.actor.scale=1 agent.critic.scale=2", "agent.actor.scale=2 agent.critic.scale=3"]
    assert list(shortened(names).values()) == ["actor.scale=1 critic.scale=2", "actor.scale=2 critic.scale=3"]


def test_what_all_share_is_left_out_unless_nothing_would_be_left():
    assert list(shortened(["hieros on three", "hieros on four"]).values()) == ["three", "four"]
    assert list(shortened(["a=1", "a=1 b=2"]).values()) == ["a=1", "a=1 b=2"]
    assert shortened(["agent.clip=0.2"]) == {"agent.clip=0.2": "clip=0.2"} and shortened(["all"]) == {"all": "all"}


def test_long_numbers_are_rounded_unless_that_makes_them_equal():
    names = ["agent.learning_rate=0.00034523412", "agent.learning_rate=0.0012"]
    assert list(shortened(names).values()) == ["learning_rate=0.0003452", "learning_rate=0.0012"]
    assert list(shortened(["a=0.1234561", "a=0.1234562"]).values()) == ["a=0.1234561", "a=0.1234562"]


@pytest.mark.parametrize(
    "name, width, lines",
    [
        ("learning_rate=0.001 hidden=[64,64]", 20, ["learning_rate=0.001", "hidden=[64,64]"]),
        ("learning_rate=0.0003 hidden=[32,32]", 34, ["learning_rate=0.0003", "hidden=[32,32]"]),
        ("learning_rate=0.001", 10, ["learning_rate=", "0.001"]),
        ("hidden=[256,256,256]", 14, ["hidden=[256,", "256,256]"]),
        ("averylongwordthatnobodycuts", 5, ["averylongwordthatnobodycuts"]),
        ("short", 30, ["short"]),
        ("", 30, [""]),
    ],
)
def test_lines_end_at_spaces_commas_and_equal_signs_only(name, width, lines):
    assert wrapped(name, width).split("\n") == lines
