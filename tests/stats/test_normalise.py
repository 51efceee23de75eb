import pytest

from hieros_repro.stats.normalise import human_normalised


@pytest.mark.parametrize(
    ("score", "expected"),
    [(-20.7, 0.0), (14.6, 1.0), (-3.05, 0.5), (21.0, 41.7 / 35.3), (-21.0, -0.3 / 35.3)],
)
def test_a_random_player_has_0_and_a_human_1(score, expected):
    """Pong: random -20.7, human 14.6, so a point is 1 / 35.3."""
    assert human_normalised(score, random=-20.7, human=14.6) == pytest.approx(expected, abs=1e-12)


def test_a_game_without_a_scale_is_refused():
    with pytest.raises(ValueError, match="both score 7"):
        human_normalised(3.0, random=7.0, human=7.0)
