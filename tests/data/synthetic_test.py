"""Tests of random rows."""

import numpy as np

from monolith_tf import data
from monolith_tf.features.columns import ColumnType

COLUMNS = {
    "i": ColumnType(dtype="int64"),
    "f": ColumnType(dtype="float32"),
    "s": ColumnType(dtype="string"),
    "l": ColumnType(dtype="string", is_list=True),
    "v": ColumnType(dtype="float32", is_list=True, length=3),
    "label": ColumnType(dtype="float32", choices=(0, 1)),
    "kind": ColumnType(dtype="string", choices=("good", "")),
}


def table_of(split="train", **arguments):
    spec = data.DataSpec(format="synthetic", **arguments)
    source = data.open_split(spec, split, COLUMNS)
    windows = [window.table for window, _ in source.windows(shuffle=False)]
    assert sum(map(len, windows)) == source.num_rows() == spec.num_rows
    return {name: windows[0][name].to_pylist() for name in COLUMNS}


def test_rows_fit_the_columns_asked_for():
    table = table_of(num_rows=5000)
    assert len(set(table["i"])) > 500 and min(table["i"]) >= 0
    assert abs(np.mean(table["f"])) < 0.1 and abs(np.std(table["f"]) - 1) < 0.1
    assert len(set(table["s"])) > 500
    assert {len(words) for words in table["l"]} == set(range(10))
    assert {len(vector) for vector in table["v"]} == {3}
    assert set(table["label"]) == {0.0, 1.0}
    assert set(table["kind"]) == {b"good", b""}


def test_lists_of_a_row_have_one_length():
    columns = {name: COLUMNS["l"] for name in ("items", "categories")}
    spec = data.DataSpec(format="synthetic", num_rows=100)
    source = data.open_split(spec, "train", columns)
    ((window, _),) = source.windows(shuffle=False)
    lengths = [[len(x) for x in window.table[name].to_pylist()] for name in columns]
    assert lengths[0] == lengths[1]
    assert len(set(lengths[0])) > 5


def test_rows_are_the_same_each_time_and_differ_between_splits():
    table = table_of(num_rows=500)
    assert table == table_of(num_rows=500)
    assert table["i"] != table_of("eval", num_rows=500)["i"]


def test_rows_may_be_held_out():
    spec = data.DataSpec(format="synthetic", validation_fraction=0.5, num_rows=1000)
    sizes = [
        data.open_split(spec, split, COLUMNS).num_rows() for split in ("train", "eval")
    ]
    assert sum(sizes) == 1000 and 400 < sizes[0] < 600
    assert spec.has("test")
