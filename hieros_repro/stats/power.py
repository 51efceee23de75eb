"""How many seeds a difference needs to be seen, before they are run.

Effects are in standard deviations of a seed's score: a difference of 30 points with a deviation of 20 is 1.5. The numbers are
those of a two-sided t-test of two groups of equal size and spread.
"""

import math

from scipy import optimize, stats

ENOUGH = 1_000_000  # seeds that nobody runs


def t_test_power(effect: float, n: int, alpha: float = 0.05) -> float:
    """The probability that a test at level alpha, of n seeds a group, sees a true difference of this effect.

        power = P( |T| > t_{df, 1 - alpha / 2} ),  T noncentral t with df = 2 n - 2 and noncentrality effect sqrt(n / 2)

    reckoned as T^2, which is noncentral F with 1 and df degrees of freedom.
    """
    _check(alpha, n)
    df, noncentrality = 2 * n - 2, effect**2 * n / 2
    critical = float(stats.t.isf(alpha / 2, df))
    if effect == 0:
        return alpha
    if math.sqrt(noncentrality) > 40 * max(critical, 1):  # 1 to the last digit, and beyond what the series can add up
        return 1.0
    return float(stats.ncf.sf(critical**2, 1, df, noncentrality))


def seeds_needed(effect: float, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """The fewest seeds in each of two groups with t_test_power(effect, n) >= power; None if a million are not enough."""
    _check(alpha, share=power)
    if t_test_power(effect, ENOUGH, alpha) < power:
        return None
    few, many = 1, 2  # power grows with n; `few` are never enough
    while t_test_power(effect, many, alpha) < power:
        few, many = many, min(2 * many, ENOUGH)
    while many - few > 1:
        half = (few + many) // 2
        few, many = (few, half) if t_test_power(effect, half, alpha) >= power else (half, many)
    return many


def detectable(n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The difference, in standard deviations, that n seeds a group see with this power: t_test_power(d, n) = power."""
    _check(alpha, n, power)
    if power <= alpha:
        return 0.0
    high = 1.0
    while t_test_power(high, n, alpha) < power:
        high *= 2
    return float(optimize.brentq(lambda effect: t_test_power(effect, n, alpha) - power, 0.0, high, xtol=1e-10))


def _check(alpha: float, n: int = 2, share: float = 0.5) -> None:
    if n < 2:
        raise ValueError(f"a t-test needs 2 seeds a group at least, not {n}")
    for name, value in (("alpha", alpha), ("power", share)):
        if not 0 < value < 1:
            raise ValueError(f"{name} is a share between 0 and 1, not {value}")
