import ast
import inspect
import math
import warnings
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hieros_repro.determinism import arithmetic
from hieros_repro.determinism.arithmetic import exp, log, power

# What was computed when the first run was recorded. None of these may ever change, on any machine.
LOGS = ["-0x1.25e4f7b2737fap+5", "-0x1.ba18a998fffa0p+2", "-0x1.34378fcbda720p+0", "-0x1.a3738d2cf1cc2p-14"]
EXPS = ["0x1.fffffffffffe2p-1", "0x1.f0de3caa47bcfp-1", "0x1.02cf22526545ap-13", "0x1.a6b2310f8b55cp-44"]
POWERS = ["0x1.965fea53d6e46p-36", "0x1.47ae147ae147cp-7", "0x1.cae5562aa4108p-2", "0x1.fff7430026298p-1"]

NORMAL = st.floats(min_value=2.3e-308, max_value=1.7e308)
UNIT = st.integers(1, 2**53 - 1).map(lambda word: word / 2**53)  # what Key.uniform64 draws, 0 apart


def relative(found: np.ndarray, exact: Decimal) -> float:
    """How far a float is from an exact number, relative to it."""
    with localcontext(prec=60):
        return float(abs(Decimal(float(found)) - exact) / abs(exact))


def decimal_log(x: float) -> Decimal:
    with localcontext(prec=60):
        return Decimal(x).ln()


def decimal_exp(x: float) -> Decimal:
    with localcontext(prec=60):
        return Decimal(x).exp()


def decimal_power(x: float, p: float) -> Decimal:
    with localcontext(prec=60):
        return (Decimal(x).ln() * Decimal(p)).exp()


@given(NORMAL)
def test_the_logarithm_is_right_to_the_last_digits(x):
    if x == 1:
        assert log(np.array(x)) == 0
    else:
        assert relative(log(np.array(x)), decimal_log(x)) < 1e-15


@given(st.floats(-708, 709))
def test_the_exponential_is_right_to_the_last_digits(x):
    assert relative(exp(np.array(x)), decimal_exp(x)) < 1e-15


@given(UNIT, st.floats(0.05, 2))
def test_a_power_of_a_uniform_is_right_to_the_last_digits(x, p):
    assert relative(power(np.array(x), p), decimal_power(x, p)) < 1.5e-15


@given(st.floats(0.5, 2), st.floats(2, 100))
def test_a_high_power_loses_digits_in_proportion(x, p):
    assert relative(power(np.array(x), p), decimal_power(x, p)) < 1e-15 * p


def test_numbers_that_are_known():
    x = np.array([1.0, 2.0, 0.5, 1024.0])
    assert log(x).tolist() == [0.0, math.log(2), -math.log(2), pytest.approx(10 * math.log(2), rel=1e-15)]
    assert exp(np.array([0.0, 1.0, -1.0])) == pytest.approx([1, math.e, 1 / math.e], rel=3e-16)
    assert exp(np.array([0.0]))[0] == 1
    assert power(np.array([0.25, 4.0, 1.0, 0.0]), 0.5).tolist() == [0.5, 2.0, 1.0, 0.0]
    assert power(np.array([0.125, 8.0]), 1.0).tolist() == [0.125, 8.0]


def test_the_exponential_ends_in_zero_and_in_infinity():
    with np.errstate(over="ignore"):
        assert exp(np.array([-np.inf, -1e300, -746.0, 710.0, 1e300])).tolist() == [0, 0, 0, math.inf, math.inf]
    assert exp(np.array([-745.0]))[0] == 5e-324


@pytest.mark.parametrize("p", [1500.0, 2140.0, 1e12, 1e37])
def test_a_power_beyond_all_bounds_is_zero_below_one(p):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = power(np.array([0.0, 2.0**-53, 0.5000001, 0.55, 0.6, 0.7]), p)
    expected = [0.0 if x == 0 else float(decimal_power(x, p)) for x in (0.0, 2.0**-53, 0.5000001, 0.55, 0.6, 0.7)]
    assert found == pytest.approx(expected, rel=1e-11, abs=1e-300)


@given(st.lists(UNIT, min_size=2, max_size=20), st.sampled_from([0.1, 1 / 1.5, 1.0, 2.0]))
def test_a_power_keeps_the_order(x, p):
    x = np.sort(np.array(x))
    assert (np.diff(power(x, p)) >= -1e-15).all()


def test_no_number_ever_changes():
    x = np.array([2.0**-53, 1e-3, 0.3, 0.9999])
    assert [float(y).hex() for y in log(x)] == LOGS
    assert [float(y).hex() for y in exp(-30 * x)] == EXPS
    assert [float(y).hex() for y in power(x, 1 / 1.5)] == POWERS


def test_only_operations_that_are_exactly_rounded_are_used():
    nodes = ast.walk(ast.parse(inspect.getsource(arithmetic)))
    named = {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "np"}
    assert named - {"ndarray", "int32"} == {"frexp", "ldexp", "polyval", "floor", "clip", "where", "float32"}


@pytest.mark.parametrize("function", [log, exp, lambda x: power(x, 1 / 1.5)])
def test_a_number_does_not_depend_on_its_neighbours(function):
    """Vectorised loops treat the ends of an array apart."""
    x = np.linspace(0.01, 5, 77)
    alone = [float(function(x[i : i + 1])[0]) for i in range(77)]
    assert function(x).tolist() == alone
    assert function(x[::-1])[::-1].tolist() == alone
    assert function(x.reshape(7, 11)).ravel().tolist() == alone
