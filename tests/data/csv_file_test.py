"""Tests of CSV files that cannot be read, or begin with a mark."""

import gzip
import random

import pytest

from monolith_tf import data
from monolith_tf.features.columns import ColumnType

INT = ColumnType(dtype="int64")
STRING = ColumnType(dtype="string")


def test_an_empty_file_and_a_twice_used_name(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("")
    with pytest.raises(ValueError, match=r"x\.csv: not a readable CSV file: Empty"):
        data.read_schema(data.DataSpec(train=str(path)))
    path.write_text("a,b,a\n1,2,3\n")
    with pytest.raises(ValueError, match=r"x\.csv: two columns are named `a`"):
        data.read_schema(data.DataSpec(train=str(path)))
    with pytest.raises(ValueError, match=r"x\.csv: two columns are named `a`"):
        data.open_split(data.DataSpec(train=str(path)), "train", {"b": INT})


def test_a_truncated_archive(tmp_path):
    path = tmp_path / "x.csv.gz"
    draw = random.Random(1)
    lines = "".join(f"{draw.getrandbits(60)},{i}\n" for i in range(100_000))
    content = gzip.compress(("a,b\n" + lines).encode(), 1)
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(ValueError, match=r"x\.csv\.gz: .*Truncated compressed stream"):
        data.open_split(data.DataSpec(train=str(path)), "train", {"a": INT}).num_rows()


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_a_mark_of_utf_8_is_not_part_of_a_name_or_a_value(read_csv, name):
    text = "\N{BYTE ORDER MARK}a,b\nx,1\n"
    expected = {"a": b"x", "b": 1}
    rows, *_ = read_csv(text, {"a": STRING, "b": INT}, name=name)
    assert rows == [expected]
    header = text.splitlines()[0]
    rows, *_ = read_csv(
        f"{header[0]}x,1\n", {"a": STRING}, name, column_names=("a", "b")
    )
    assert rows == [{"a": b"x"}]


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_another_encoding_is_seen_in_archives_too(read_csv, name):
    text = "a,b\n" + "x,1\n" * 100_000
    with pytest.raises(ValueError, match=r"this looks like UTF-16LE, but"):
        read_csv(text.encode("utf-16-le"), {"a": STRING}, name=name)
