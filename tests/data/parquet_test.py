"""Tests of what is particular to Parquet."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monolith_tf import data
from monolith_tf.data import formats
from monolith_tf.data.parquet import ParquetReader
from monolith_tf.features.columns import ColumnType


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
