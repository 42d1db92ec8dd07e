"""Tests of finding the reader, and of a reader of one's own."""

import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from monolith_tf import data
from monolith_tf.data import formats
from monolith_tf.features.columns import ColumnType

COLUMNS = {"x": ColumnType(dtype="int64")}


class Squares(data.Reader):
    """Two files of square numbers, where no file is."""

    def files(self, split):
        return [f"{split}-0", f"{split}-1"]

    def schema(self, file):
        return {"x": ColumnType(dtype="int64")}

    def read(self, piece, columns):
        numbers = np.arange(5) + 5 * int(piece.file[-1])
        yield data.Block(pa.table({"x": numbers**2}), np.arange(5))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        ("a/*.parquet", "ParquetReader"),
        ("a.csv", "CsvReader"),
        ("A.CSV.gz", "CsvReader"),
        ("a-*.tfrecord", "TFRecordReader"),
        ("a.tfrecords.zst", "TFRecordReader"),
    ],
)
def test_auto_goes_by_the_ending(pattern, name):
    reader = formats.make_reader(data.DataSpec(train=pattern), "train")
    assert type(reader).__name__ == name


@pytest.mark.parametrize("train", ["a.txt", ("a.csv", "b.parquet")])
def test_auto_without_an_answer(train):
    with pytest.raises(ValueError, match=r"`data\.format` is auto, and .* do not"):
        formats.make_reader(data.DataSpec(train=train), "train")


def test_a_declared_format_goes_before_the_ending():
    reader = formats.make_reader(data.DataSpec(train="a.txt", format="csv"), "train")
    assert type(reader).__name__ == "CsvReader"


def test_a_reader_of_ones_own(monkeypatch):
    monkeypatch.setitem(sys.modules, "my_module", sys.modules[__name__])
    spec = data.DataSpec(reader="my_module:Squares", batch_size=4)
    source = data.open_split(spec, "train", COLUMNS)
    assert source.num_rows() == 10
    (window, _), *_ = source.windows(shuffle=False)
    assert window.table["x"].to_pylist() == [i * i for i in range(10)]
    assert source.locate(0, 1, shuffle=False)[0].file == "train-0"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("no_such_module:X", "there is no module `no_such_module`"),
        ("json:NoSuchName", "module `json` has no `NoSuchName`"),
        ("json:JSONDecoder", "'json:JSONDecoder' is not a class derived from `data.R"),
    ],
)
def test_readers_that_are_none(path, text):
    with pytest.raises(ValueError, match=f"`data.reader`: {text}"):
        formats.make_reader(data.DataSpec(reader=path), "train")


def test_a_type_that_the_file_does_not_have(write_rows, columns):
    spec = data.DataSpec(train=write_rows("x.parquet", range(3)))
    for name, wanted, text in (
        ("name", ColumnType(dtype="int64"), "holds string and cannot be read as int64"),
        ("tags", ColumnType(dtype="int64"), "holds lists of int64 and cannot be"),
        ("price", ColumnType(dtype="int64"), "holds float32 and cannot be read as"),
        (
            "id",
            ColumnType(dtype="float32", is_list=True, length=2),
            "cannot be read as lists of 2 float32",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            data.check_columns(spec, {name: wanted})
    data.check_columns(spec, columns | {"id": ColumnType(dtype="float32")})


def test_reading_schemas_and_counting_rows_needs_no_tensorflow(write_rows, tmp_path):
    paths = [write_rows(name, range(30)) for name in ("x.parquet", "x.csv")]
    records = write_rows("x.tfrecord", range(3))
    program = f"""
import sys
from monolith_tf import data
from monolith_tf.features import required_columns
from monolith_tf.features import FeatureSpec
features = [FeatureSpec(name="id", kind="id"), FeatureSpec(name="price", kind="dense")]
for path in {paths}:
    spec = data.DataSpec(train=path)
    columns = required_columns(features, schema=data.read_schema(spec))
    assert data.open_split(spec, "train", columns).num_rows() == 30
assert data.read_schema(data.DataSpec(train={records!r}))["id"].dtype == "int64"
assert "tensorflow" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_split_without_files_is_named():
    with pytest.raises(
        ValueError, match=r"no files for .* `test`\. Set `data\.test`\."
    ):
        formats.make_reader(data.DataSpec(train="x.csv"), "test")
