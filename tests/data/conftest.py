"""Small files of distinct rows, in every format."""

import csv
import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from monolith_tf import data
from monolith_tf.data.csv import CsvReader
from monolith_tf.features.columns import ColumnType

COLUMNS = {
    "id": ColumnType(dtype="int64"),
    "price": ColumnType(dtype="float32"),
    "name": ColumnType(dtype="string"),
    "tags": ColumnType(dtype="int64", is_list=True),
}

FORMATS = ["parquet", "csv", "csv.gz", "csv.zst"]
FORMATS += ["tfrecord", "tfrecord.gz", "tfrecord.zst"]


def row(number):
    """The row with a number, from which every value follows."""
    return {
        "id": number,
        "price": number / 4,
        "name": f"name-{number % 7}" if number % 5 else 'é, "quoted"\nline',
        "tags": [number * 10 + place for place in range(number % 4)],
    }


def _compressed(path, content):
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(content, mtime=0))
    elif path.name.endswith(".zst"):
        path.write_bytes(pa.Codec("zstd").compress(content, asbytes=True))
    else:
        path.write_bytes(content)


def _write_parquet(path, rows, bad):
    rows = [dict(r, price=None) if r["id"] in bad else r for r in rows]
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("price", pa.float64()),
            ("name", pa.string()),
            ("tags", pa.list_(pa.int32())),
            ("unused", pa.struct([("x", pa.int8())])),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=16)


def _write_csv(path, rows, bad):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["unused", "id", "price", "name", "tags"])
    for r in rows:
        tags = "|".join(map(str, r["tags"]))
        cells = ["u", r["id"], r["price"], r["name"], tags]
        if r["id"] in bad:
            # Two kinds of bad rows: a cell that is not a number, and a missing cell.
            cells = ["u", r["id"], "cheap", "x", tags] if r["id"] % 2 else ["u"]
        writer.writerow(cells)
    _compressed(path, text.getvalue().encode())


def _write_tfrecord(path, rows, bad):
    import tensorflow as tf

    from monolith_tf.testing import examples

    records = []
    for r in rows:
        no_price = r["id"] in bad and r["id"] % 2
        record = examples.example(r | ({"price": None} if no_price else {}))
        record = record.SerializeToString()
        records.append(record[:-3] if r["id"] in bad and not r["id"] % 2 else record)
    plain = path.with_name("plain")
    with tf.io.TFRecordWriter(str(plain)) as writer:
        for record in records:
            writer.write(record)
    content = plain.read_bytes()
    plain.unlink()
    _compressed(path, content)


@pytest.fixture
def write_rows(tmp_path):
    """Writes rows with the given numbers to a file; bad ones cannot be read."""

    def write(name, numbers, bad=()):
        path = tmp_path / name
        rows = [row(number) for number in numbers]
        kind = path.name.split(".")[1]
        writers = {"parquet": _write_parquet, "csv": _write_csv}
        writers.get(kind, _write_tfrecord)(path, rows, set(bad))
        return str(path)

    return write


@pytest.fixture
def read_csv(tmp_path):
    """Reads text as a CSV file: the clean rows, and the bad ones."""

    def read(text, columns, name="x.csv", **arguments):
        path = tmp_path / name
        content = text if isinstance(text, bytes) else text.encode()
        path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
        spec = data.DataSpec(train=str(path), on_bad_row="skip", **arguments)
        rows, numbers = [], []
        source = data.open_split(spec, "train", columns)
        for window, _ in source.windows(shuffle=False):
            rows += window.table.to_pylist()
            numbers += window.rows.tolist()
        bad = []
        (piece,) = CsvReader(spec).pieces(str(path))
        for block in CsvReader(spec).read(piece, columns):
            bad += [(row.row, row.reason) for row in block.bad]
        return rows, numbers, bad

    return read


@pytest.fixture
def row_of():
    return row


@pytest.fixture
def columns():
    return dict(COLUMNS)


@pytest.fixture(params=FORMATS)
def file_format(request):
    return request.param
