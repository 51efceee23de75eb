"""Elementary functions of float64 arrays, from +, -, *, / and powers of two only.

Libraries round their own log, exp and pow differently; these operations are exactly rounded everywhere, so every machine
computes the same numbers.
"""

import math

import numpy as np

LN2 = 0.6931471805599453
_LN2_HIGH = 0.693147180369123816490  # 32 bits, so that its product with an exponent is exact
_LN2_LOW = 1.90821492927058770002e-10  # ln 2 - _LN2_HIGH
_ARTANH = [2.0 / n for n in range(21, 0, -2)]
_TAYLOR = [1.0 / math.factorial(n) for n in range(13, -1, -1)]


def log(x: np.ndarray) -> np.ndarray:
    """ln x for normal positive x, as k ln 2 + ln m with m near 1."""
    mantissa, exponent = _near_one(x)
    return exponent * LN2 + _log_near_one(mantissa)


def exp(x: np.ndarray) -> np.ndarray:
    """e^x."""
    return _scaled(*_split_exp(np.clip(x, -746.0, 710.0)))  # beyond, it is 0 or infinite


def power(x: np.ndarray, p: float) -> np.ndarray:
    """x^p for x that are normal and positive or zero, and 0 < p < 1e38.

    With x = m 2^e it is m^p 2^(pe): the part of pe that is no integer is found exactly, so that small x lose no digits.
    """
    zero = x == 0
    mantissa, exponent = _near_one(np.where(zero, 1.0, x))
    coarse = float(np.float32(p))  # 24 bits, so that its product with an exponent is exact
    whole = np.floor(coarse * exponent + 0.5)
    rest = (coarse * exponent - whole) + (p - coarse) * exponent
    factor, shift = _split_exp(rest * LN2 + p * _log_near_one(mantissa))
    return np.where(zero, 0.0, _scaled(factor, whole + shift))


def _split_exp(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """y near 1 and a whole k with e^x = y 2^k."""
    k = np.floor(x / LN2 + 0.5)
    return np.polyval(_TAYLOR, (x - k * _LN2_HIGH) - k * _LN2_LOW), k


def _scaled(y: np.ndarray, k: np.ndarray) -> np.ndarray:
    """y 2^k."""
    return np.ldexp(y, np.clip(k, -4000, 4000).astype(np.int32))


def _near_one(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """m between sqrt(1/2) and sqrt(2), and the integer k with x = m 2^k."""
    mantissa, exponent = np.frexp(x)
    small = mantissa < 0.7071067811865476
    return np.where(small, 2 * mantissa, mantissa), exponent - small


def _log_near_one(m: np.ndarray) -> np.ndarray:
    """ln m = 2 artanh((m - 1) / (m + 1)), by its series."""
    ratio = (m - 1.0) / (m + 1.0)
    return ratio * np.polyval(_ARTANH, ratio * ratio)
