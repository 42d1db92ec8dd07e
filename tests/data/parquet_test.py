"""Tests of features specific to Parquet."""

import datetime
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monolith_tf import data
from monolith_tf.data import formats
from monolith_tf.data.parquet import ParquetReader
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.columns import required_columns
from monolith_tf.features.spec import FeatureSpec


def may_be_bad(path, **types):
    reader = ParquetReader(data.DataSpec(train=str(path)))
    (piece,) = reader.pieces(str(path))
    return reader.may_have_bad_rows(piece, types)


def test_bad_rows_are_ruled_out_by_the_metadata(tmp_path):
    path = tmp_path / "x.parquet"
    columns = {"i": [1, 2], "n": [1, None], "f": [1.0, 2.0], "l": [[1], [2, 3]]}
    pq.write_table(pa.table(columns | {"n.m": [1, None]}), path)

    def type_(dtype="int64", **arguments):
        return ColumnType(dtype=dtype, **arguments)

    assert not may_be_bad(path, i=type_())
    assert may_be_bad(path, i=type_(), n=type_())
    assert not may_be_bad(path, n=type_(default=0))
    assert may_be_bad(path, f=type_("float32"))  # may hold NaN
    assert not may_be_bad(path, f=type_("float32", default=0))
    assert not may_be_bad(path, l=type_(is_list=True))
    assert may_be_bad(path, l=type_(is_list=True, length=1, default=0))
    assert may_be_bad(path, **{"n.m": type_()})
    pq.write_table(pa.table({"i": [1, 2]}), path, write_statistics=False)
    assert may_be_bad(path, i=type_())


def test_rows_are_counted_by_the_metadata_alone(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"i": range(1000)}), path, row_group_size=100)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)  # no row can be read
    path.write_bytes(content)
    types = {"i": ColumnType(dtype="int64")}
    for how in ("error", "skip"):
        spec = data.DataSpec(train=str(path), on_bad_row=how)
        assert data.open_split(spec, "train", types).num_rows() == 1000


def test_a_file_that_is_no_parquet(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"x\.parquet: not a readable Parquet file"):
        data.read_schema(data.DataSpec(train=str(path)))


def test_names_with_dots_and_lists_of_strings(tmp_path):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"a.b": [1, 2], "a": [["x"], ["y", "z"]]}), path)
    columns = {
        "a.b": ColumnType(dtype="int64"),
        "a": ColumnType(dtype="string", is_list=True),
    }
    source = data.open_split(data.DataSpec(train=str(path)), "train", columns)
    ((window, _),) = source.windows(shuffle=False)
    assert window.table.to_pylist() == [
        {"a.b": 1, "a": [b"x"]},
        {"a.b": 2, "a": [b"y", b"z"]},
    ]


def test_lists_of_one_length_are_lists(tmp_path):
    type_ = pa.list_(pa.int32(), 2)
    lists = [[1, 2], None, [3, 4], [5, 6]]
    pq.write_table(pa.table({"a": pa.array(lists, type_)}), tmp_path / "x.parquet")
    columns = {"a": ColumnType(dtype="int64", is_list=True)}
    spec = data.DataSpec(train=str(tmp_path / "x.parquet"))
    formats.check_columns(spec, columns)
    source = data.open_split(spec, "train", columns)
    found = [
        row
        for window, _ in source.windows(shuffle=False)
        for row in window.table["a"].to_pylist()
    ]
    assert found == [[1, 2], [], [3, 4], [5, 6]]


def _two_files(tmp_path, first, second):
    for name, column in (("a", first), ("b", second)):
        pq.write_table(pa.table({"x": column}), tmp_path / f"{name}.parquet")
    return data.DataSpec(train=str(tmp_path / "*.parquet"), shuffle_buffer=0)


def _read(spec, dtype, is_list=False):
    use = {"kind": "dense"} if dtype == "float32" else {"kind": "id"}
    if is_list:
        use = {"kind": "id_list"}
    schema = data.read_schema(spec)
    columns = required_columns([FeatureSpec(name="x", **use)], schema=schema)
    source = data.open_split(spec, "train", columns)
    return [
        value
        for window, _ in source.windows()
        for value in window.table["x"].to_pylist()
    ]


_MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5)


def _moment(type_):
    return pa.array([_MOMENT], type_)


@pytest.mark.parametrize(
    "first, second, types",
    [
        (
            _moment(pa.timestamp("us")),
            _moment(pa.timestamp("ms")),
            ["timestamp[us]", "timestamp[ms]"],
        ),
        (
            pa.array([_MOMENT.date()], pa.date32()),
            _moment(pa.timestamp("ms")),
            ["date32[day]", "timestamp[ms]"],
        ),
        (
            _moment(pa.timestamp("ms")),
            pa.array([1767323045000], pa.int64()),
            ["timestamp[ms]", "int64"],
        ),
        (
            pa.array([1.5], pa.float32()),
            _moment(pa.timestamp("ms")),
            ["float", "timestamp[ms]"],
        ),
        (pa.array([2]), pa.array([True]), ["int64", "bool"]),
        (
            pa.array([[True]], pa.list_(pa.bool_())),
            pa.array([[2]], pa.list_(pa.int8())),
            ["list<element: bool>", "list<element: int8>"],
        ),
        (
            pa.array([_MOMENT], pa.timestamp("us")).dictionary_encode(),
            _moment(pa.timestamp("ns")),
            ["timestamp[us]", "timestamp[ns]"],
        ),
    ],
)
def test_a_column_whose_numbers_mean_two_things_is_refused(
    tmp_path, first, second, types
):
    spec = _two_files(tmp_path, first, second)
    dtype = "float32" if types[0] == "float" else "int64"
    message = re.escape(
        f"{tmp_path}/b.parquet: column `x` has type {types[1]}, but type "
        f"{types[0]} in {tmp_path}/a.parquet: one value would become two numbers"
    )
    with pytest.raises(ValueError, match=message):
        _read(spec, dtype, is_list=types[0].startswith("list"))


@pytest.mark.parametrize(
    "first, second, dtype, values",
    [
        (pa.array([2]), pa.array([True, False]), "float32", [2.0, 1.0, 0.0]),
        (pa.array([0.5]), pa.array([True]), "float32", [0.5, 1.0]),
        (pa.array([7], pa.int8()), pa.array([9], pa.uint32()), "int64", [7, 9]),
        (pa.array([7], pa.int8()), pa.nulls(0), "int64", [7]),
        (
            pa.array([_MOMENT], pa.timestamp("s")),  # Parquet has milliseconds.
            pa.array([_MOMENT], pa.timestamp("ms", "UTC")),
            "int64",
            [1767323045000, 1767323045000],
        ),
    ],
)
def test_columns_that_mean_the_same_are_read_together(
    tmp_path, first, second, dtype, values
):
    assert _read(_two_files(tmp_path, first, second), dtype) == values


def _of_bytes(values, type_):
    """An array of a text type over any bytes, as careless writers write it."""
    binary = pa.array(values, pa.large_binary() if "large" in type_ else pa.binary())
    return pa.Array.from_buffers(
        pa.large_string() if "large" in type_ else pa.string(),
        len(binary),
        binary.buffers(),
        null_count=binary.null_count,
    )


_WORDS = [b"a", b"\xff\xfe", None, "é".encode(), b"\xff\xfe", b"b"]


def _written(tmp_path, kind):
    words = _of_bytes(_WORDS, kind)
    if kind == "binary":
        words = pa.array(_WORDS, pa.binary())
    if kind == "list":
        lists = pa.array([0, 2, 3, 5, 5, 6], pa.int32())
        words = pa.ListArray.from_arrays(lists, _of_bytes(_WORDS[:3] + _WORDS[3:], ""))
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"x": words}), path, row_group_size=4)
    return path


def _words_of(path, on_bad_row, is_list=False):
    type_ = ColumnType(dtype="string", default="none", is_list=is_list)
    spec = data.DataSpec(train=str(path), on_bad_row=on_bad_row)
    source = data.open_split(spec, "train", {"x": type_})
    num_rows = source.num_rows()
    found = [
        value
        for window, _ in source.windows(shuffle=False)
        for value in window.table["x"].to_pylist()
    ]
    assert on_bad_row == "error" or num_rows == len(found)
    return found, source.bad_rows


@pytest.mark.parametrize("kind", ["string", "large_string"])
def test_text_that_is_not_utf8_makes_a_row_bad(tmp_path, kind):
    path = _written(tmp_path, kind)
    message = re.escape(
        f"{path}: row 1 (counting from 0): column `x`: b'\\xff\\xfe' is not UTF-8 text"
    )
    with pytest.raises(ValueError, match=message):
        _words_of(path, "error")
    assert _words_of(path, "skip") == ([b"a", b"none", "é".encode(), b"b"], 2)


def test_text_in_lists_that_is_not_utf8_makes_a_row_bad(tmp_path):
    path = _written(tmp_path, "list")
    message = re.escape(
        "row 0 (counting from 0): column `x`: b'\\xff\\xfe' is not UTF-8"
    )
    with pytest.raises(ValueError, match=message):
        _words_of(path, "error", is_list=True)
    assert _words_of(path, "skip", is_list=True) == ([[b"none"], [], [b"b"]], 2)


def test_binary_columns_take_any_bytes(tmp_path):
    path = _written(tmp_path, "binary")
    expected = [word or b"none" for word in _WORDS]
    assert _words_of(path, "error") == (expected, 0)


@pytest.mark.parametrize(
    "column, type_",
    [
        ([[[1]], [[2, 3]]], "list<element: list<element: int64>>"),
        ([{"a": 1}, {"a": 2}], "struct<a: int64>"),
    ],
)
def test_a_column_of_a_type_that_cannot_be_read(tmp_path, column, type_):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"hist": column, "user": [1, 2]}), path)
    spec = data.DataSpec(train=str(path))
    message = (
        f"Column `hist` for feature `hist` is of type {type_} in {path}, which cannot "
        "be read. Each row must hold one number, string, date or time, or a list"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        required_columns(
            [FeatureSpec(name="hist", kind="id_list")], schema=data.read_schema(spec)
        )
    with pytest.raises(ValueError, match=r"Column `hist` for `data` \(.*is of type"):
        formats.check_columns(spec, {"hist": ColumnType(dtype="int64", is_list=True)})
    others = {"user": ColumnType(dtype="int64")}
    assert data.open_split(spec, "train", others).num_rows() == 2
