"""Tests of how columns of Arrow types are read."""

import pyarrow as pa

from monolith_tf.data import arrow_types
from monolith_tf.features.columns import ColumnType


def test_column_types_of_a_schema():
    schema = pa.schema(
        [
            ("i", pa.uint16()),
            ("d", pa.decimal128(9, 2)),
            ("s", pa.dictionary(pa.int8(), pa.large_string())),
            ("l", pa.large_list(pa.string())),
            ("v", pa.list_(pa.float64(), 3)),
            ("struct", pa.struct([("x", pa.int8())])),
        ]
    )
    assert arrow_types.column_types(schema, "x.parquet") == {
        "i": ColumnType(dtype="int64"),
        "d": ColumnType(dtype="float32"),
        "s": ColumnType(dtype="string"),
        "l": ColumnType(dtype="string", is_list=True),
        "v": ColumnType(dtype="float32", is_list=True, length=3),
        "struct": ColumnType(dtype="string", is_readable=False),
    }
