"""Tests of features specific to CSV."""

import gzip
import random

import pytest

from monolith_tf import data
from monolith_tf.data.csv import CsvReader
from monolith_tf.features.columns import ColumnType

INT = ColumnType(dtype="int64")
FLOAT = ColumnType(dtype="float32")
STRING = ColumnType(dtype="string")


@pytest.fixture
def read(tmp_path):
    """Reads text as a CSV file: the clean rows, and the bad ones."""

    def read_(text, columns, name="x.csv", **arguments):
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

    return read_


def test_numbers_may_have_spaces_around_and_strings_keep_theirs(read):
    rows, *_ = read("a,b,c\n 1 , 2.5, x \n", {"a": INT, "b": FLOAT, "c": STRING})
    assert rows == [{"a": 1, "b": 2.5, "c": b" x "}]


def test_columns_are_found_by_name_in_any_order(read):
    rows, *_ = read("c,b,a\n3,2,1\n", {"a": INT, "c": INT})
    assert rows == [{"a": 1, "c": 3}]


def test_files_without_a_header(read):
    rows, numbers, bad = read(
        "1\t2\nx\t3\n", {"q": INT}, delimiter="\t", column_names=("p", "q")
    )
    assert (rows, numbers, bad) == ([{"q": 2}, {"q": 3}], [0, 1], [])


def test_bad_cells_and_bad_widths_are_told_apart_and_numbered(read):
    text = 'a,b\n1,2\n\n3,4,5\nx,6\n"7\n","8"\n9\n1_0,y\n11,12\n\n13\n14\n'
    rows, numbers, bad = read(text, {"a": INT, "b": INT})
    assert [row["a"] for row in rows] == [1, 7, 11]
    assert numbers == [0, 4, 7]
    assert sorted(bad) == [
        (1, "a blank line"),
        (2, "3 cells instead of 2"),
        (3, "column `a`: 'x' is not an integer"),
        (5, "1 cells instead of 2"),
        (6, "column `a`: '1_0' is not an integer"),
        (8, "a blank line"),
        (9, "1 cells instead of 2"),
        (10, "1 cells instead of 2"),
    ]


def test_rows_are_numbered_over_many_blocks(read):
    # Blocks are of a megabyte.
    lines = [f"{i},{'x' * 90}" if i % 1000 else "bad" for i in range(40_000)]
    rows, numbers, bad = read("i,text\n" + "\n".join(lines), {"i": INT})
    assert numbers == [i for i in range(40_000) if i % 1000]
    assert [row["i"] for row in rows] == numbers
    assert [row for row, _ in bad] == list(range(0, 40_000, 1000))


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_quoted_newlines_across_blocks(read, name):
    cell = '"' + "line\n" * 100 + '"'
    text = "i,text\n" + "".join(f"{i},{cell}\n" for i in range(5000))
    rows, _, bad = read(text, {"i": INT, "text": STRING}, name=name)
    assert [row["i"] for row in rows] == list(range(5000)) and not bad
    assert {row["text"] for row in rows} == {b"line\n" * 100}


def test_missing_values(read):
    text = "i,f,s\n,1,a\n2,,\nNA,3,NA\n4,nan,c\n5,6,d\n"
    columns = {"i": INT, "f": FLOAT, "s": STRING}
    rows, numbers, _ = read(text, columns, null_values=("NA",))
    # Without a default, an empty string is a string; an empty number is missing.
    assert numbers == [4]
    defaults = {
        name: ColumnType(dtype=type_.dtype, default=default)
        for (name, type_), default in zip(columns.items(), (-1, -2, "-"), strict=True)
    }
    rows, *_ = read(text, defaults, null_values=("NA",))
    assert [tuple(row.values()) for row in rows] == [
        (-1, 1, b"a"),
        (2, -2, b"-"),
        (-1, 3, b"-"),
        (4, -2, b"c"),
        (5, 6, b"d"),
    ]


def test_strings_without_a_default_are_taken_as_they_are(read):
    rows, *_ = read("s,t\n,1\nNA,2\n", {"s": STRING}, null_values=("NA",))
    assert [row["s"] for row in rows] == [b"", b"NA"]


def test_truth_values_are_numbers_in_columns_of_them_only(read):
    text = "a,b,c,d\ntrue,False,0,3|4\n1,TRUE,true,true\n7,x,8,5\nfalse,0,FALSE,6\n"
    columns = {"a": INT, "b": FLOAT}
    rows, *_, bad = read(text.replace("\n7,x,8,5", ""), columns)
    assert rows == [{"a": 1, "b": 0}, {"a": 1, "b": 1}, {"a": 0, "b": 0}]
    assert not bad
    # The type of a column, where it knows, goes before what most cells of a file are.
    truth = {"a": ColumnType(dtype="int64", is_truth=True)}
    rows, *_, bad = read(text, truth)
    assert [row["a"] for row in rows] == [1, 1, 0]
    assert bad == [(2, "column `a`: '7' is not true, false, 1 or 0")]
    numbers = {"b": ColumnType(dtype="float32", is_truth=False)}
    rows, *_, bad = read(text, numbers)
    assert [row["b"] for row in rows] == [0]
    assert [row for row, _ in bad] == [0, 1, 2]


@pytest.mark.parametrize(
    ("type_", "noun"),
    [
        (INT, "an integer"),
        (FLOAT, "a number"),
        (ColumnType(dtype="int64", is_list=True), "an integer"),
        (ColumnType(dtype="float32", is_list=True), "a number"),
    ],
)
def test_truth_values_among_numbers_are_bad(read, type_, noun):
    rows, *_, bad = read("a\n3\ntrue\n4\nFALSE\n5\n", {"a": type_})
    of_lists = [[3], [4], [5]] if type_.is_list else [3, 4, 5]
    assert [row["a"] for row in rows] == of_lists
    assert bad == [
        (1, f"column `a`: 'true' is not {noun}"),
        (3, f"column `a`: 'FALSE' is not {noun}"),
    ]


def test_lists(read):
    lists = {
        "i": ColumnType(dtype="int64", is_list=True),
        "s": ColumnType(dtype="string", is_list=True),
        "v": ColumnType(dtype="float32", is_list=True, length=2),
    }
    text = "i,s,v\n1| 2,a|b,1|2\n,,3|4\n5,c||d,5|x\n6|y,e,7|8\n"
    rows, numbers, bad = read(text, lists)
    assert numbers == [0, 1]
    assert rows[0] == {"i": [1, 2], "s": [b"a", b"b"], "v": [1, 2]}
    assert rows[1] == {"i": [], "s": [], "v": [3, 4]}
    assert bad == [
        (2, "column `v`: 'x' is not a number"),
        (3, "column `i`: 'y' is not an integer"),
    ]
    rows, *_ = read("s\na;b\n", {"s": lists["s"]}, list_delimiter=";")
    assert rows == [{"s": [b"a", b"b"]}]


def test_integers_that_are_too_large_or_no_integers_are_bad(read):
    *_, bad = read(f"a\n1\n{2**70}\n1.0\n+5\n{-(2**70)}\n", {"a": INT})
    assert bad == [
        (1, f"column `a`: '{2**70}' is not an integer of 64 bits"),
        (2, "column `a`: '1.0' is not an integer"),
        (3, "column `a`: '+5' is not an integer"),
        (4, f"column `a`: '{-(2**70)}' is not an integer of 64 bits"),
    ]


def test_integers_that_are_guessed_are_read_as_they_are_written_only(read):
    text = "a,l\n0,0|1\n007,2\n7,3\n0x10,4\n-07,5\n8,6|07\n 9 ,7\n-1,8\n"
    guessed = ColumnType(dtype="int64", is_guess=True)
    lists = ColumnType(dtype="int64", is_guess=True, is_list=True)
    rows, numbers, bad = read(text, {"a": guessed, "l": lists})
    assert numbers == [0, 2, 6, 7] and [row["a"] for row in rows] == [0, 7, 9, -1]
    assert bad == [
        (
            row,
            f"column `{name}`: '{cell}' is an integer with leading zeros or in hexadecimal",  # noqa: E501
        )
        for row, name, cell in [
            (1, "a", "007"),
            (3, "a", "0x10"),
            (4, "a", "-07"),
            (5, "l", "07"),
        ]
    ]
    declared = {"a": INT, "l": ColumnType(dtype="int64", is_list=True)}
    rows, _, bad = read(text, declared)
    assert [row["a"] for row in rows] == [0, 7, 7, 16, -7, 8, 9, -1] and not bad


def test_bytes_that_are_no_text(read):
    content = b"a,s,l\n1,caf\xe9,\n2,caf\xc3\xa9,x|y\n\xff,x,\n4,n\0,\n5,,x|\xe9\n6,,\n"
    columns = {"a": INT, "s": STRING, "l": ColumnType(dtype="string", is_list=True)}
    rows, numbers, bad = read(content, columns)
    assert [tuple(row.values()) for row in rows] == [
        (2, "café".encode(), [b"x", b"y"]),
        (6, b"", []),
    ]
    assert numbers == [1, 5]
    assert bad == [
        (0, r"column `s`: b'caf\xe9' is not UTF-8 text"),
        (2, "column `a`: '\N{REPLACEMENT CHARACTER}' is not an integer"),
        (3, r"column `s`: b'n\x00' has a NUL byte"),
        (4, r"column `l`: b'\xe9' is not UTF-8 text"),
    ]


def test_types_are_guessed_and_may_be_declared_otherwise(read, tmp_path):
    rows, *_ = read("zip\n01234\n", {"zip": INT})
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


def test_rows_are_counted_without_converting_them(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('a,b\n"x\n1",y\nz,w\n')
    source = data.open_split(data.DataSpec(train=str(path)), "train", {"b": INT})
    assert source.num_rows() == 2


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
def test_a_mark_of_utf_8_is_not_part_of_a_name_or_a_value(read, name):
    text = "\N{BYTE ORDER MARK}a,b\nx,1\n"
    expected = {"a": b"x", "b": 1}
    rows, *_ = read(text, {"a": STRING, "b": INT}, name=name)
    assert rows == [expected]
    header = text.splitlines()[0]
    rows, *_ = read(f"{header[0]}x,1\n", {"a": STRING}, name, column_names=("a", "b"))
    assert rows == [{"a": b"x"}]


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
def test_another_encoding_is_seen_in_archives_too(read, name):
    text = "a,b\n" + "x,1\n" * 100_000
    with pytest.raises(ValueError, match=r"this looks like UTF-16LE, but"):
        read(text.encode("utf-16-le"), {"a": STRING}, name=name)
