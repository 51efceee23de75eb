import collections
import enum
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import MT19937, PCG64, PCG64DXSM, SFC64, Generator, Philox, RandomState

from hieros_repro.env.graph import fields, freeze, replace, thaw
from hieros_repro.run import checkpoint
from tests.runs import ROOT

HERE = (__name__,)


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Cell:
    """Counts how often it is constructed."""

    made = 0

    def __init__(self, content: Any = None):
        Cell.made += 1
        self.content = content

    class Inner:
        pass


@dataclass
class Point:  # its hash would depend on its content, so it has none
    x: int


class Hashed(Cell):
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Hashed) and other.content == self.content

    def __hash__(self) -> int:
        return hash(self.content)


class Slotted:
    __slots__ = ("x",)


class Half(Slotted):
    """Fields, and a slot beside them."""

    def __init__(self) -> None:
        self.x = self.y = 1


class Named(dict):
    pass


def back(thing: Any, **fixed: Any) -> Any:
    """Through text, in which only plain data survives."""
    return thaw(json.loads(json.dumps(freeze(thing, HERE, fixed))), HERE, fixed)


def same(a: Any, b: Any, met: dict[int, int] | None = None) -> bool:
    """Equal in type, value, order and connections."""
    met = {} if met is None else met
    if type(a) is not type(b):
        return False
    if a is None or isinstance(a, bool | int | str):
        return a == b
    if isinstance(a, float):
        return (a == b and np.signbit(a) == np.signbit(b)) or (a != a and b != b)
    if isinstance(a, type | enum.Enum):
        return a is b
    if id(a) in met or id(b) in met.values():
        return met.get(id(a)) == id(b)
    met[id(a)] = id(b)
    if isinstance(a, np.ndarray | np.generic):
        return (a.dtype, a.shape, a.tobytes(), a.flags.fnc) == (b.dtype, b.shape, b.tobytes(), b.flags.fnc)
    if isinstance(a, set | frozenset):
        return list(a) == list(b)
    if isinstance(a, list | tuple | collections.deque):
        return len(a) == len(b) and all(same(x, y, met) for x, y in zip(a, b, strict=True))
    if not isinstance(a, dict):
        a, b = vars(a), vars(b)
    items = zip(a.items(), b.items(), strict=False)
    return len(a) == len(b) and all(same(k, m, met) and same(v, w, met) for (k, v), (m, w) in items)


plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**140), 2**140), st.floats(), st.text(max_size=5), st.sampled_from(Colour)
)
numbers = st.sampled_from(
    [np.int64(-3), np.float32(0.1), np.bool_(True), np.uint8(200), np.arange(6.0).reshape(2, 3), np.zeros((0, 2), np.int8)]
    + [np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3))]
)
keys = st.one_of(st.integers(), st.text(max_size=3), st.tuples(st.integers(), st.integers()))
sets = st.sets(keys).filter(lambda members: list(members) == list(set(list(members))))  # others are refused


@st.composite
def graphs(draw: Callable) -> Any:
    """Objects of every mutable kind, each filled with plain values and with one another."""
    makers = [list, dict, Cell, lambda: collections.deque(maxlen=4)]
    things = [draw(st.sampled_from(makers))() for _ in range(draw(st.integers(1, 6)))]
    value = st.one_of(plain, numbers, st.sampled_from(things), sets, st.sampled_from(things).map(lambda t: (t, 1)))
    for thing in things:
        for content in draw(st.lists(value, max_size=5)):
            if isinstance(thing, list | collections.deque):
                thing.append(content)
            elif isinstance(thing, dict):
                thing[draw(keys)] = content
            else:
                setattr(thing, draw(st.sampled_from("abc")), content)
    return things


@given(graphs())
def test_what_comes_back_is_equal_and_connected_alike(things):
    assert same(back(things), things)


@given(graphs())
def test_what_came_back_freezes_to_the_same_tree(things):
    assert json.dumps(freeze(back(things), HERE)) == json.dumps(freeze(things, HERE))


def test_what_is_one_object_stays_one_object():
    cell = Cell()
    first, second, other = back([cell, cell, Cell()])
    assert first is second
    assert other is not first


def test_what_contains_itself_still_does():
    loop: list[Any] = []
    loop.append((loop, {"again": loop}))
    (found,) = copy = back(loop)
    assert found[0] is copy and found[1]["again"] is copy


def test_a_tuple_in_what_it_contains_is_kept_if_entered_from_there():
    inner: list[Any] = []
    inner.append((inner,))
    assert back(inner)[0][0][0][0] is not inner
    copy = back(inner)
    assert copy[0][0] is copy


def test_a_tuple_that_contains_itself_is_refused():
    inner: list[Any] = []
    outer = (inner,)
    inner.append(outer)
    with pytest.raises(TypeError, match=r"root\[0\]\[0\] is a tuple that contains itself"):
        freeze(outer)


def test_a_mapping_keeps_its_order_and_may_have_objects_as_keys():
    first, second = Cell("a"), Cell("b")
    copy, alone = back([{second: 1, first: 2}, first])
    assert [(key.content, value) for key, value in copy.items()] == [("b", 1), ("a", 2)]
    assert copy[alone] == 2


def test_no_constructor_is_called():
    cell, before = Cell(5), Cell.made
    assert back(cell).content == 5
    assert Cell.made == before


def test_a_fixed_object_is_not_entered_and_not_copied():
    world = Cell(print)  # could not be frozen
    copy = back(Cell(world), world=world)
    assert copy.content is world


def test_classes_are_kept_by_name():
    assert back([Cell, Cell.Inner, Colour.BLUE]) == [Cell, Cell.Inner, Colour.BLUE]


@pytest.mark.parametrize("kind", [MT19937, PCG64, PCG64DXSM, Philox, SFC64])
def test_a_generator_goes_on_where_it_was(kind):
    generator = Generator(kind(3))
    generator.integers(10, dtype=np.uint8), generator.random(dtype=np.float32)  # leave half a word behind
    copy = back(generator)
    for draw in (lambda g: g.random(dtype=np.float32), lambda g: g.integers(2**60), lambda g: g.normal()):
        assert draw(copy) == draw(generator)


def test_a_random_state_goes_on_where_it_was_in_the_middle_of_a_pair_of_normals():
    state = RandomState(MT19937(3))
    state.normal()
    first, second = back([state, state])
    assert first is second
    assert [first.normal(), first.randint(100), first.normal()] == [state.normal(), state.randint(100), state.normal()]


def test_two_generators_over_the_same_bits_still_share_them():
    bits = PCG64(1)
    one, other = back([Generator(bits), Generator(bits)])
    assert one.bit_generator is other.bit_generator


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (lambda: 0, r"root.content is or has the type builtins:function, which is not from tests.env.test_graph"),
        (os, "builtins:module"),
        (os.system, "builtins:builtin_function_or_method"),
        (subprocess.Popen, "subprocess:Popen"),
        (b"bytes", "builtins:bytes"),
        (np.array(["a"]), "array of <U1: only numbers"),
        (np.array([Cell()]), "array of object: only numbers"),
        ({Cell()}, r"root.content is a set whose order cannot be kept"),
        (RandomState(PCG64(3)), r"root.content is a RandomState of PCG64"),
        ({Hashed(1): 2}, "a key of type Hashed, whose hash may depend on its content"),
        (Slotted(), "has __slots__"),
        (Half(), "has __slots__"),
        (Named(), "has more state than its fields"),
        (collections.OrderedDict(), "collections:OrderedDict"),
    ],
)
def test_what_cannot_be_kept_is_refused_by_its_place(thing, message):
    with pytest.raises(TypeError, match=message):
        freeze(Cell(thing), HERE)


def tree(*node: Any) -> dict[str, Any]:
    return {"root": [0], "nodes": [list(node)]}


@pytest.mark.parametrize(
    "name",
    [
        "os:system",
        "posix:system",
        "builtins:eval",
        "subprocess:Popen",
        f"{__name__}:os.system",
        f"{__name__}:subprocess.Popen",
        f"{__name__}:Generator",  # imported here, defined elsewhere
        f"{__name__}:same",
        f"{__name__}:Cell.__init__",
        f"{__name__}:Cell.__class__",
        f"{__name__}:missing",
        f"{__name__}.missing:Cell",
        f"{__name__}_more:Cell",
        "tests.env:Cell",
        ":Cell",
        "",
    ],
)
@pytest.mark.parametrize("kind", ["object", "class", "enum"])
def test_a_foreign_tree_names_no_class_but_those_that_the_packages_define(kind, name):
    content = {"object": [[]], "class": [], "enum": ["RED"]}[kind]
    with pytest.raises(ValueError, match="is no class from"):
        thaw(tree(kind, name, *content), HERE)


@pytest.mark.parametrize("kind", ["__init__", "_init__", "value", "kind", "os", "reduce", ""])
def test_a_foreign_tree_has_no_other_kinds_of_nodes(kind):
    with pytest.raises(KeyError):
        thaw(tree(kind, "os:system", "true"), HERE)


@pytest.mark.parametrize("name", [f"{__name__}:Named"])
def test_a_foreign_tree_makes_no_object_that_is_more_than_its_fields(name):
    with pytest.raises(TypeError, match="not safe"):
        thaw(tree("object", name, []), HERE)


def test_a_foreign_tree_names_no_other_bits_than_those_of_numpy():
    with pytest.raises(KeyError):
        thaw(tree("bits", "Cell", {}), HERE)


def test_a_package_that_is_not_loaded_is_not_loaded_for_a_tree():
    assert "this" not in sys.modules
    with pytest.raises(ValueError, match="is no class from this"):
        thaw(tree("object", "this:Cell", []), ("this",))
    assert "this" not in sys.modules


def test_a_checkpoint_holds_a_tree(tmp_path):
    things = [Cell({"map": np.arange(300, dtype=np.uint32), "at": np.int64(4)}), Generator(Philox(2**100)), float("nan")]
    path = checkpoint.save(tmp_path, "step_1", {"env": freeze(things, HERE)}, {})
    copy = thaw(checkpoint.load(path)[0]["env"], HERE)
    assert same(copy[0], things[0])
    assert copy[1].random() == things[1].random()


# Sets and arrays


@pytest.mark.parametrize("kind", [set, frozenset])
@pytest.mark.parametrize("members", [[1, 9], [9, 1], [17, 9, 1], [(1, 9), (9, 1)]])
def test_a_set_keeps_the_order_in_which_it_is_iterated_over(kind, members):
    """Numbers that are equal modulo 8 lie in a small set as they came."""
    assert list(back(kind(members))) == list(kind(members))


def test_a_set_of_texts_keeps_its_order_in_a_fresh_process_that_hashes_alike():
    """What is iterated over is in an order that depends on PYTHONHASHSEED, and on nothing else."""
    say = "import json; from hieros_repro.env.graph import freeze, thaw; "
    choice = "next(s for s in (set(f'word {i + n}' for i in range(4)) for n in range(9)) if list(set(list(s))) == list(s))"
    for seed in ("1", "2", "3"):
        shell = {"env": {**os.environ, "PYTHONHASHSEED": seed}, "cwd": ROOT, "check": True, "stdout": subprocess.PIPE}
        first = f"{say} s = {choice}; print(json.dumps([list(s), freeze([s])]))"
        told, tree = json.loads(subprocess.run([sys.executable, "-c", first], **shell).stdout)
        second = f"{say} print(json.dumps(list(thaw({tree!r})[0])))"
        assert json.loads(subprocess.run([sys.executable, "-c", second], **shell).stdout) == told


def test_a_set_whose_order_tells_of_its_past_is_refused():
    """It has been large: in a small one 9 lies beside 1."""
    shrunk = set(range(100))
    shrunk.difference_update(set(range(100)) - {1, 7, 9})
    assert list(shrunk) == [1, 7, 9] and list(back({1, 7, 9})) == [1, 9, 7]
    with pytest.raises(TypeError, match=r"root\[0\] is a set whose order cannot be kept"):
        freeze([shrunk])


@pytest.mark.parametrize("shared", [lambda a: a[1:], lambda a: a.T, lambda a: a.view(np.int64), lambda a: a[0]])
def test_arrays_that_share_their_memory_are_refused(shared):
    """Apart, a change of one would no longer be seen in the other."""
    whole = np.arange(6.0).reshape(2, 3).copy()
    for things in ([whole, shared(whole)], [shared(whole), whole], [whole[:1], shared(whole)]):
        with pytest.raises(TypeError, match=r"root\[1\] shares its memory with another array"):
            freeze(things)
    alone, again = back([shared(whole)] * 2)  # the same one twice
    assert np.array_equal(alone, shared(whole)) and again is alone


def test_an_array_keeps_the_order_in_which_it_lies():
    """As which a view of its memory, or a sum of floats, may depend on it."""
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    copy, plain = back([fortran, np.arange(6.0).reshape(2, 3)])
    assert np.array_equal(copy, fortran) and np.array_equal(plain, fortran)
    assert (copy.flags.f_contiguous, copy.flags.c_contiguous) == (True, False)
    assert (plain.flags.f_contiguous, plain.flags.c_contiguous) == (False, True)
    assert copy.ravel("K").tolist() == [0, 3, 1, 4, 2, 5]


def test_replacing_fields_removes_what_is_new_and_leaves_what_is_left_out():
    cell = Cell(1)
    cell.textures = "kept"  # type: ignore[attr-defined]
    before = fields(cell, {"textures"})
    assert before == {"content": 1}
    cell.content, cell.late = 2, 3  # type: ignore[attr-defined]
    replace(cell, before, {"textures"})
    assert vars(cell) == {"content": 1, "textures": "kept"}


def test_a_point_that_has_no_hash_is_an_object_like_any_other():
    assert back([Point(3)]) == [Point(3)]
