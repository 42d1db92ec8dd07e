"""Tests of how Arrow columns are converted to the types of batches."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest

from monolith_tf.data import arrow
from monolith_tf.features.columns import ColumnType

INT = ColumnType(dtype="int64")
FLOAT = ColumnType(dtype="float32")
STRING = ColumnType(dtype="string")


def cleaned(array, type_):
    """Clean values in plain Python, and the bad rows."""
    table, problems = arrow.clean(pa.table({"x": array}), {"x": type_})
    bad = sorted({row for mask, _ in problems for row in np.flatnonzero(mask).tolist()})
    return table["x"].to_pylist(), bad


@pytest.mark.parametrize(
    ("array", "type_", "expected"),
    [
        (pa.array([1, 2], pa.int8()), INT, [1, 2]),
        (pa.array([1, 2], pa.uint32()), INT, [1, 2]),
        (pa.array([2**64 - 1], pa.uint64()), INT, [-1]),
        (pa.array([True, False]), INT, [1, 0]),
        (pa.array([datetime.date(1970, 1, 3)]), INT, [2]),
        (pa.array([7], pa.timestamp("us")), INT, [7]),
        (pa.array([7], pa.time32("s")), INT, [7]),
        (pa.array([7], pa.duration("ms")), INT, [7]),
        (pa.array([3, 3], pa.int16()).dictionary_encode(), INT, [3, 3]),
        (pa.array([1, 2**40]), FLOAT, [1.0, 2.0**40]),
        (pa.array([True]), FLOAT, [1.0]),
        (pa.array([0.1]), FLOAT, [float(np.float32(0.1))]),
        (pa.array([1.5], pa.float16()), FLOAT, [1.5]),
        (pa.array([decimal.Decimal("1.25")]), FLOAT, [1.25]),
        (pa.array(["a", "é"]), STRING, [b"a", "é".encode()]),
        (pa.array(["a"], pa.large_string()), STRING, [b"a"]),
        (pa.array([b"\xff"]), STRING, [b"\xff"]),
        (pa.array([b"ab"], pa.binary(2)), STRING, [b"ab"]),
        (pa.array(["a", "b", "a"]).dictionary_encode(), STRING, [b"a", b"b", b"a"]),
    ],
)
def test_scalars_of_many_types(array, type_, expected):
    assert cleaned(array, type_) == (expected, [])


def test_clean_types_are_the_same_whatever_the_file_has():
    for array in (["a"], pa.array(["a"], pa.large_string()).dictionary_encode()):
        table, _ = arrow.clean(pa.table({"x": array}), {"x": STRING})
        assert table["x"].type == pa.dictionary(pa.int32(), pa.binary())


def test_missing_scalars_without_a_default_are_bad():
    assert cleaned(pa.array([1, None]), INT)[1] == [1]
    assert cleaned(pa.array([None, 1.0, float("nan")]), FLOAT)[1] == [0, 2]
    assert cleaned(pa.array(["a", None]), STRING)[1] == [1]
    assert cleaned(pa.array([None, None], pa.null()), STRING)[1] == [0, 1]


def test_missing_scalars_take_the_default():
    def type_(dtype, default):
        return ColumnType(dtype=dtype, default=default)

    assert cleaned(pa.array([1, None]), type_("int64", 9)) == ([1, 9], [])
    nan = float("nan")
    assert cleaned(pa.array([nan, 1, None]), type_("float32", 9)) == ([9, 1, 9], [])
    strings = pa.array(["a", None])
    for array in (strings, strings.dictionary_encode()):
        assert cleaned(array, type_("string", "z")) == ([b"a", b"z"], [])
    # An empty string and 0 are defaults like any other.
    assert cleaned(pa.array([None, "a"]), type_("string", "")) == ([b"", b"a"], [])
    assert cleaned(pa.array([None, 4]), type_("int64", 0)) == ([0, 4], [])


def test_a_null_inside_a_dictionary_is_missing_too():
    indices = pa.array([0, 1], pa.int32())
    array = pa.DictionaryArray.from_arrays(indices, pa.array(["a", None]))
    assert cleaned(array, STRING)[1] == [1]


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_lists_keep_their_lengths_and_a_missing_one_is_empty(kind):
    array = pa.array([[1, 2], None, [], [3]], kind(pa.int32()))
    type_ = ColumnType(dtype="int64", is_list=True)
    assert cleaned(array, type_) == ([[1, 2], [], [], [3]], [])
    assert cleaned(array.slice(1), type_) == ([[], [], [3]], [])


def test_lists_of_strings_and_of_floats():
    array = pa.array([["a"], ["b", "a"]])
    type_ = ColumnType(dtype="string", is_list=True)
    assert cleaned(array, type_) == ([[b"a"], [b"b", b"a"]], [])
    type_ = ColumnType(dtype="float32", is_list=True)
    assert cleaned(pa.array([[1, 2], []]), type_) == ([[1.0, 2.0], []], [])


def test_a_missing_element_is_bad_or_the_default():
    array = pa.array([[1, 2], [None, 3], []])
    type_ = ColumnType(dtype="int64", is_list=True)
    assert cleaned(array, type_)[1] == [1]
    type_ = ColumnType(dtype="int64", is_list=True, default=8)
    assert cleaned(array, type_) == ([[1, 2], [8, 3], []], [])


def test_lists_of_one_length():
    type_ = ColumnType(dtype="float32", is_list=True, length=2)
    array = pa.array([[1, 2], [3], None, [4, None], [5, 6], [7, 8, 9]])
    values, bad = cleaned(array, type_)
    assert bad == [1, 2, 3, 5]
    assert (values[0], values[4]) == ([1, 2], [5, 6])
    type_ = ColumnType(dtype="float32", is_list=True, length=2, default=-1)
    values, bad = cleaned(array, type_)
    assert bad == [1, 5]
    assert values[2:5] == [[-1, -1], [4, -1], [5, 6]]
    fixed = pa.array([[1, 2], [3, 4]], pa.list_(pa.int8(), 2))
    assert cleaned(fixed, type_) == ([[1, 2], [3, 4]], [])


def test_infinities_that_are_refused():
    inf = float("inf")
    both = {"dtype": "float32", "refused": (-inf, inf)}
    values = [1.0, inf, -inf, 1e39, 3e38]
    assert cleaned(pa.array(values), ColumnType(**both))[1] == [1, 2, 3]
    low = ColumnType(dtype="float32", refused=(-inf,))
    assert cleaned(pa.array(values), low)[1] == [2]
    lists = pa.array([[1.0, inf], [], [2.0], [inf, -inf]])
    assert cleaned(lists, ColumnType(**both, is_list=True))[1] == [0, 3]
    pairs = pa.array([[1.0, 2.0], [2.0, -inf]])
    assert cleaned(pairs, ColumnType(**both, is_list=True, length=2))[1] == [1]


def test_columns_in_several_chunks():
    strings = [pa.array(words).dictionary_encode() for words in (["a"], ["b", "a"])]
    assert cleaned(pa.chunked_array(strings), STRING) == ([b"a", b"b", b"a"], [])
    lists = pa.chunked_array([[[1]], [[2, 3], []]])
    type_ = ColumnType(dtype="int64", is_list=True)
    assert cleaned(lists, type_) == ([[1], [2, 3], []], [])
    assert cleaned(pa.chunked_array([], pa.int64()), INT) == ([], [])


@pytest.mark.parametrize(
    ("array", "type_", "text"),
    [
        (
            pa.array(["1"]),
            INT,
            "`x` has type string and cannot be read as int64.*set `dtype: string`",
        ),
        (
            pa.array([1.0]),
            INT,
            "has type double and cannot be read as int64.*set `dtype: float` of the",
        ),
        (
            pa.array([1]),
            STRING,
            "type int64 and cannot be read as string.*convert it here.*`dtype: int`",
        ),
        (pa.array([[1]]), INT, "cannot be read as int64.*change `kind` .* has a list"),
        (
            pa.array([1]),
            ColumnType(dtype="int64", is_list=True),
            "cannot be read as lists of int64",
        ),
        (pa.array([{"a": 1}]), INT, "cannot be read as int64"),
    ],
)
def test_types_that_do_not_do(array, type_, text):
    with pytest.raises(ValueError, match=text):
        cleaned(array, type_)
