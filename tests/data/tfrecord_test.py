"""Tests of features specific to TFRecord files of tf.Example."""

import zlib

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from monolith_tf import data
from monolith_tf.data import tf_example
from monolith_tf.features.columns import ColumnType
from monolith_tf.testing import examples

INT = ColumnType(dtype="int64")
FLOAT = ColumnType(dtype="float32")


def example(**features):
    return examples.example(features).SerializeToString()


@pytest.fixture
def write(tmp_path):
    def write_(records):
        path = tmp_path / "x.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for record in records:
                writer.write(record)
        return path

    return write_


def read(path, columns, **arguments):
    spec = data.DataSpec(train=str(path), **arguments)
    source = data.open_split(spec, "train", columns)
    rows = []
    for window, _ in source.windows(shuffle=False):
        rows += window.table.to_pylist()
    return rows


def test_integers_may_be_read_as_floats_and_missing_ones_by_default(write):
    path = write([example(a=3, b=1.5), example(b=2.5), example(a=[], b=3.5)])
    columns = {"a": ColumnType(dtype="float32", default=9), "b": FLOAT}
    assert read(path, columns) == [
        {"a": 3, "b": 1.5},
        {"a": 9, "b": 2.5},
        {"a": 9, "b": 3.5},
    ]


def test_lists_of_one_length(write):
    path = write([example(v=[1.0, 2.0]), example(x=1), example(v=[3.0])])
    type_ = ColumnType(dtype="float32", is_list=True, length=2, default=0)
    with pytest.raises(ValueError, match=r"row 2 .* `v` does not hold 2 numbers"):
        read(path, {"v": type_})
    assert read(path, {"v": type_}, on_bad_row="skip") == [{"v": [1, 2]}, {"v": [0, 0]}]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (example(a=[1, 2]), "feature `a` has 2 values, not one"),
        (example(a=b"x"), "feature `a` has type string, not int64"),
        (example(b=1), "no value in column `a`, and no default"),
        (b"\x0a\xff\xff\xff", "not a tf.Example: an integer reaches beyond"),
        (example(a=1)[:-1], "not a tf.Example: a field reaches beyond its message"),
    ],
)
def test_bad_records_are_named_or_skipped(write, bad, reason):
    path = write([example(a=5), bad, example(a=6)])
    with pytest.raises(ValueError, match=rf"x\.tfrecord: row 1 .*: {reason}"):
        read(path, {"a": INT})
    assert read(path, {"a": INT}, on_bad_row="skip") == [{"a": 5}, {"a": 6}]


def test_many_bad_records_among_good_ones(write):
    bad = {0, 1, 2, 50, 99}
    path = write([b"\xff" if i in bad else example(a=i) for i in range(100)])
    rows = read(path, {"a": INT}, on_bad_row="skip")
    assert [row["a"] for row in rows] == [i for i in range(100) if i not in bad]
    path = write([b"\xff"] * 5)
    with pytest.raises(ValueError, match="no rows"):
        read(path, {"a": INT}, on_bad_row="skip")


def test_a_damaged_record_ends_the_reading_even_where_bad_rows_are_skipped(write):
    path = write([example(a=i) for i in range(20)])
    content = bytearray(path.read_bytes())
    size = len(content) // 20
    content[size * 7 + 14] ^= 1
    path.write_bytes(content)
    for how in ("error", "skip"):
        with pytest.raises(ValueError, match=r"x\.tfrecord: row 7 .* is damaged"):
            read(path, {"a": INT}, on_bad_row=how)


def test_a_truncated_archive(write, tmp_path):
    content = write([example(a=i) for i in range(20)]).read_bytes()[:-5]
    path = tmp_path / "y.tfrecord.zst"
    path.write_bytes(pa.Codec("zstd").compress(content, asbytes=True))
    with pytest.raises(ValueError, match=r"y\.tfrecord\.zst: row 19 .* truncated"):
        read(path, {"a": INT})


def test_schema_is_reported_by_the_first_records(write):
    path = write([example(a=1, s=[]), example(s=[b"x", b"y"], f=0.5), b"\xff"])
    assert data.read_schema(data.DataSpec(train=str(path))) == {
        "a": INT,
        "s": ColumnType(dtype="string", is_list=True),
        "f": FLOAT,
    }


def test_feature_types_of_packed_and_unpacked_lists():
    assert tf_example.feature_types(example(a=300, b=[1, 2], c=[0.5, 1.5])) == {
        "a": ("int64", False),
        "b": ("int64", True),
        "c": ("float32", True),
    }

    def message(number, content):
        return bytes([number << 3 | 2, len(content)]) + content

    # Two unpacked numbers: field 1 as a varint, twice.
    numbers = message(3, b"\x08\x05\x08\x06")
    entry = message(1, b"a") + message(2, numbers)
    record = message(1, message(1, entry))
    parsed = tf.io.parse_single_example(record, {"a": tf.io.VarLenFeature(tf.int64)})
    assert parsed["a"].values.numpy().tolist() == [5, 6]
    assert tf_example.feature_types(record) == {"a": ("int64", True)}


@pytest.mark.parametrize("record", [b"\x0a", b"\x0a\x05\x01", b"\x0b", b"\x80" * 12])
def test_records_that_are_no_examples(record):
    with pytest.raises(ValueError, match=r"beyond|wire type"):
        tf_example.feature_types(record)


def packed(content, ending):
    """Returns a file's content, compressed as an ending says."""
    if ending == "gz":
        return zlib.compress(content, wbits=31)
    return pa.compress(content, "zstd", asbytes=True) if ending == "zst" else content


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_compressed_file_that_was_cut_is_an_error(write, tmp_path, ending):
    whole = write([example(a=1000 + i) for i in range(300)]).read_bytes()
    path = tmp_path / f"cut.tfrecord.{ending}"
    # A writer flushes its stream behind a record, and ends there.
    end = 200 * len(whole) // 300
    if ending == "gz":
        stream = zlib.compressobj(wbits=31)
        path.write_bytes(stream.compress(whole[:end]) + stream.flush(zlib.Z_SYNC_FLUSH))
    else:
        path.write_bytes(packed(whole, "zst")[:-20])
    with pytest.raises(ValueError, match=rf"cut\.tfrecord\.{ending}: "):
        read(path, {"a": INT}, on_bad_row="skip")


@pytest.mark.parametrize("ending", ["plain", "gz", "zst"])
def test_a_flipped_bit_is_an_error_however_a_file_is_compressed(
    write, tmp_path, ending
):
    whole = write([example(a=1000 + i) for i in range(300)]).read_bytes()
    draw = np.random.default_rng(3)
    name = "x.tfrecord" if ending == "plain" else f"x.tfrecord.{ending}"
    size = len(whole) // 300
    for _ in range(20):
        place = int(draw.integers(250 * size, len(whole)))
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(draw.integers(8))
        (tmp_path / name).write_bytes(packed(bytes(damaged), ending))
        with pytest.raises(ValueError, match=rf"row {place // size} \(counting"):
            read(tmp_path / name, {"a": INT}, on_bad_row="skip")
