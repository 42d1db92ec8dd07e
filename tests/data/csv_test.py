"""Tests of reading CSV files."""

import pytest

from monolith_tf import data
from monolith_tf.features.columns import ColumnType

INT = ColumnType(dtype="int64")
STRING = ColumnType(dtype="string")


def test_columns_are_found_by_name_in_any_order(read_csv):
    rows, *_ = read_csv("c,b,a\n3,2,1\n", {"a": INT, "c": INT})
    assert rows == [{"a": 1, "c": 3}]


def test_files_without_a_header(read_csv):
    rows, numbers, bad = read_csv(
        "1\t2\nx\t3\n", {"q": INT}, delimiter="\t", column_names=("p", "q")
    )
    assert (rows, numbers, bad) == ([{"q": 2}, {"q": 3}], [0, 1], [])


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_quoted_newlines_across_blocks(read_csv, name):
    cell = '"' + "line\n" * 100 + '"'
    text = "i,text\n" + "".join(f"{i},{cell}\n" for i in range(5000))
    rows, _, bad = read_csv(text, {"i": INT, "text": STRING}, name=name)
    assert [row["i"] for row in rows] == list(range(5000)) and not bad
    assert {row["text"] for row in rows} == {b"line\n" * 100}


def test_rows_are_counted_without_converting_them(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('a,b\n"x\n1",y\nz,w\n')
    source = data.open_split(data.DataSpec(train=str(path)), "train", {"b": INT})
    assert source.num_rows() == 2
