"""Tests of the types of CSV columns."""

import pytest

from monolith_tf import data
from monolith_tf.features.columns import ColumnType

INT = ColumnType(dtype="int64")
STRING = ColumnType(dtype="string")


def test_types_are_guessed_and_may_be_declared_otherwise(read_csv, tmp_path):
    rows, *_ = read_csv("zip\n01234\n", {"zip": INT})
    assert rows == [{"zip": 1234}]
    spec = data.DataSpec(train=str(tmp_path / "x.csv"))
    assert data.read_schema(spec) == {"zip": STRING}


def test_guesses(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("i,f,s,b,d,e\n1,1.5,x,true,2020-01-01,\n")
    schema = data.read_schema(data.DataSpec(train=str(path)))
    assert {name: type_.dtype for name, type_ in schema.items()} == {
        "i": "int64",
        "f": "float32",
        "s": "string",
        "b": "int64",
        "d": "string",
        "e": "string",
    }


@pytest.mark.parametrize(
    ("cells", "elements"),
    [
        (["1|2", "3", ""], "int64"),
        (["", "", " 4 | 5"], "int64"),
        (["1|2.5"], "float32"),
        (["1|x", "2"], "int64"),
        (["1|x"], None),
        (["1|x|2", "2.5"], "float32"),
        (["a", "b|c"], None),
        (["true|false"], "int64"),
        (["NA|1", "NA"], "int64"),
        (["", ""], None),
        (["12345678901234567890|1"], "int64"),
        (["1|2", "3|04"], None),
    ],
)
def test_elements_of_lists_are_guessed(tmp_path, cells, elements):
    path = tmp_path / "x.csv"
    path.write_text("\n".join(["a,b", *(f"0,{cell}" for cell in cells)]) + "\n")
    schema = data.read_schema(data.DataSpec(train=str(path), null_values=("NA",)))
    assert schema["b"] == ColumnType(dtype="string", elements=elements)


def test_lists_that_are_empty_for_long(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + f"{'x' * 1000},\n" * 3000 + "y,7|8\n")
    schema = data.read_schema(data.DataSpec(train=str(path)))
    assert schema["b"].elements == "int64"
