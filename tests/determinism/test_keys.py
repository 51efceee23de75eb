import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from hieros_repro.determinism.keys import STREAMS, Key, normal_quantile
from tests.runs import ROOT, environment

PARTS = st.one_of(st.integers(-(2**40), 2**40), st.text(max_size=6))
PATHS = st.tuples(st.sampled_from(list(STREAMS)), st.lists(PARTS, max_size=4)).map(lambda drawn: (drawn[0], *drawn[1]))

# What was drawn when the first run was recorded. None of these may ever change.


def test_the_bits_of_a_path_never_change():
    words = [6053879598870014519, 5074446661414092594, 12670914196391041288]
    assert Key(42)("init", "towers", "layers", 0).bits(3).tolist() == words


def test_the_uniforms_of_a_path_never_change():
    grid = [7870833, 7952072, 14528598, 6908057, 6178428]
    assert Key(42)("learn", 17).uniform((5,)).tolist() == [point / 2**24 for point in grid]


def test_the_double_uniforms_of_a_path_never_change():
    words = [6053879598870014519, 5074446661414092594, 12670914196391041288]
    found = Key(42)("init", "towers", "layers", 0).uniform64((3,))
    assert found.tolist() == [(word >> 11) / 2**53 for word in words]


def test_the_normals_of_a_path_never_change():
    hexes = ["-0x1.23b1040000000p-1", "0x1.1d8fc40000000p-4", "-0x1.9199ee0000000p+0", "0x1.0cc15c0000000p-1"]
    assert [float(x).hex() for x in Key(42)("act", 0).normal((4,))] == hexes


def test_the_integers_of_a_path_never_change():
    assert Key(42)("replay", 3).integers(1000, (6,)).tolist() == [296, 655, 85, 602, 579, 659]
    assert Key(1)("stats", "bootstrap").integers(7, (2, 3)).tolist() == [[0, 6, 4], [0, 0, 4]]


def test_the_permutation_of_a_path_never_changes():
    assert Key(42)("data", "split").permutation(10).tolist() == [5, 1, 9, 7, 2, 8, 4, 3, 6, 0]


@pytest.mark.parametrize(
    ("seed", "path", "expected"),
    [
        (0, ("env", 0, 0), 2106132964),
        (42, ("env", 3, 0), 427622365),
        (42, ("eval", 1000, 2, 5), 63261846),
        (-1, ("env", 1, 1), 57964765),
        (2**70, ("env", 0, 1), 913067955),
    ],
)
def test_the_seed_of_a_path_never_changes(seed, path, expected):
    assert Key(seed)(*path).seed() == expected


def test_another_process_draws_the_same_numbers():
    script = (
        "from hieros_repro.determinism.keys import Key; k = Key(7)('learn', 3); print(k.normal((9,)).tobytes().hex(), k.seed())"
    )
    shell = environment(PYTHONHASHSEED="12345")
    done = subprocess.run([sys.executable, "-c", script], env=shell, cwd=ROOT, capture_output=True, text=True, check=True)
    key = Key(7)("learn", 3)
    assert done.stdout.split() == [key.normal((9,)).tobytes().hex(), str(key.seed())]


# Names


def test_an_unknown_stream_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match=r"'lern'.*init, env, world, act, replay, learn.*did you mean 'learn'\?"):
        Key(1)("lern", 3)


def test_a_bare_seed_is_not_a_stream():
    with pytest.raises(ValueError, match="name one"):
        Key(1).uniform((3,))


@pytest.mark.parametrize("seed", [1.0, "1", True, None, np.int64(3)])
def test_a_seed_that_is_no_integer_is_refused(seed):
    with pytest.raises(ValueError, match="a seed is an integer"):
        Key(seed)


def test_a_counter_that_is_no_integer_is_refused():
    with pytest.raises(TypeError):
        Key(1)("learn", 1.5).bits(1)


@given(PATHS, PATHS)
def test_different_paths_draw_different_bits(a, b):
    same = [(type(part), part) for part in a] == [(type(part), part) for part in b]
    assert (Key(1)(*a).bits(2).tolist() == Key(1)(*b).bits(2).tolist()) == same


@pytest.mark.parametrize(
    ("a", "b"),
    [(("act", "a", "b"), ("act", "ab")), (("act", 1), ("act", "1")), (("act", 1, 2), ("act", 12)), (("act",), ("act", ""))],
)
def test_paths_that_look_alike_are_different(a, b):
    assert Key(1)(*a).bits(2).tolist() != Key(1)(*b).bits(2).tolist()


def test_neighbouring_seeds_share_nothing():
    drawn = [Key(seed)("act", 0).bits(4) for seed in (-1, 0, 1, 2**32, 2**32 + 1, 2**64)]
    assert len(np.unique(np.concatenate(drawn))) == 24


def test_going_down_the_path_in_one_step_or_in_several_is_the_same():
    assert Key(5)("env", 2, 7).bits(2).tolist() == Key(5)("env")(2)(7).bits(2).tolist()


def test_a_numpy_counter_is_the_same_as_an_integer():
    assert Key(5)("env", np.int64(2)).seed() == Key(5)("env", 2).seed()


def test_a_key_is_immutable():
    key = Key(3)("act", 1)
    before = key.bits(2).tolist()
    key(5), key.normal((3,)), key("x", 9)
    assert repr(key) == "Key(3)('act', 1)"
    assert key.bits(2).tolist() == before
    with pytest.raises(AttributeError):
        key.counter = 1


def test_what_is_drawn_depends_on_nothing_drawn_before():
    alone = Key(3)("act", 1).normal((5,)).tolist()
    Key(3)("learn", 0).normal((100,)), Key(3)("act", 0).uniform((7,))
    assert Key(3)("act", 1).normal((5,)).tolist() == alone


def test_a_longer_draw_starts_with_the_shorter_one():
    key = Key(3)("act", 1)
    assert key.uniform((7, 3)).ravel()[:10].tolist() == key.uniform((10,)).tolist()


def test_equal_keys_are_one_entry_of_a_dictionary():
    assert len({Key(3)("act", 1), Key(3)("act")(1), Key(3)("act", 2), Key(4)("act", 1)}) == 3


# Distributions


def test_uniforms_lie_on_a_grid_of_24_bits_below_one():
    drawn = Key(0)("act", 0).uniform((200_000,))
    grid = drawn.astype(np.float64) * 2**24
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0
    assert drawn.max() <= 1 - 2**-24
    assert np.array_equal(grid, np.round(grid))
    assert np.unique(grid.astype(np.int64) % 2).tolist() == [0, 1]


def test_double_uniforms_lie_on_a_grid_of_53_bits_below_one():
    drawn = Key(0)("act", 0).uniform64((200, 1000))
    grid = drawn * 2**53
    assert (drawn.dtype, drawn.shape) == (np.float64, (200, 1000))
    assert 0 <= drawn.min() <= drawn.max() < 1
    assert np.array_equal(grid, np.round(grid))
    assert np.unique(grid.astype(np.int64) % 2).tolist() == [0, 1]


@pytest.mark.parametrize("path", [("act", 0), ("learn", 123), ("eval", 5, 1)])
def test_uniforms_are_uniform(path):
    assert stats.kstest(Key(11)(*path).uniform((50_000,)), "uniform").pvalue > 0.01
    assert stats.kstest(Key(11)(*path).uniform64((50_000,)), "uniform").pvalue > 0.01


@pytest.mark.parametrize("path", [("act", 0), ("learn", 123), ("init", "actor")])
def test_normals_are_normal(path):
    drawn = Key(11)(*path).normal((50_000,)).astype(np.float64)
    assert drawn.mean() == pytest.approx(0, abs=0.015)
    assert drawn.var() == pytest.approx(1, abs=0.03)
    assert stats.kurtosis(drawn) == pytest.approx(0, abs=0.1)
    assert stats.kstest(drawn, "norm").pvalue > 0.01


def test_integers_are_uniform_and_in_range():
    drawn = Key(2)("replay", 0).integers(10, (50_000,))
    assert drawn.dtype == np.int64
    assert stats.chisquare(np.bincount(drawn, minlength=11)[:10]).pvalue > 0.01
    assert (drawn.min(), drawn.max()) == (0, 9)


@pytest.mark.parametrize("high", [1, 2, 3, 2**31, 2**53])
def test_integers_stay_below_any_bound(high):
    drawn = Key(2)("replay", 0).integers(high, (1000,))
    assert 0 <= drawn.min() <= drawn.max() < high


def test_integers_from_an_empty_range_are_refused():
    with pytest.raises(ValueError, match="high >= 1, not 0"):
        Key(1)("replay", 0).integers(0, (1,))


@pytest.mark.parametrize("count", [0, 1, 2, 1000])
def test_a_permutation_holds_every_index_once(count):
    assert sorted(Key(1)("learn", 0).permutation(count)) == list(range(count))


def test_every_order_is_equally_likely():
    orders = [tuple(Key(1)("learn", n).permutation(3)) for n in range(6000)]
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 0.01


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3, 5)])
@pytest.mark.parametrize("draw", ["uniform", "normal"])
def test_draws_have_the_shape_asked_for(draw, shape):
    assert getattr(Key(1)("act", 0), draw)(shape).shape == shape


def test_the_normal_quantile_is_that_of_scipy():
    centre = np.linspace(0.001, 0.999, 5001)
    p = np.concatenate([np.logspace(-300, -3, 3001), centre, 1 - np.logspace(-16, -3, 1001)])
    p = p[(p > 0) & (p < 1)]
    assert np.allclose(normal_quantile(p), special.ndtri(p), rtol=2e-14, atol=1e-15)


def test_the_normal_quantile_is_odd():
    p = np.arange(1, 512) / 1024
    assert np.array_equal(normal_quantile(p), -normal_quantile(1 - p))
