"""Scores on a common scale."""


def human_normalised(score: float, random: float, human: float) -> float:
    """(score - random) / (human - random): 0 is a player who acts at random, 1 a human."""
    if human == random:
        raise ValueError(f"a human and a random player both score {human}: there is no scale")
    return (score - random) / (human - random)
