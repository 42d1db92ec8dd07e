"""Tests of the values of cells."""

import pytest

from monolith_tf.features.columns import ColumnType

INT = ColumnType(dtype="int64")
FLOAT = ColumnType(dtype="float32")
STRING = ColumnType(dtype="string")


def test_numbers_may_have_spaces_around_and_strings_keep_theirs(read_csv):
    rows, *_ = read_csv("a,b,c\n 1 , 2.5, x \n", {"a": INT, "b": FLOAT, "c": STRING})
    assert rows == [{"a": 1, "b": 2.5, "c": b" x "}]


def test_missing_values(read_csv):
    text = "i,f,s\n,1,a\n2,,\nNA,3,NA\n4,nan,c\n5,6,d\n"
    columns = {"i": INT, "f": FLOAT, "s": STRING}
    rows, numbers, _ = read_csv(text, columns, null_values=("NA",))
    # Without a default, an empty string is a string; an empty number is missing.
    assert numbers == [4]
    defaults = {
        name: ColumnType(dtype=type_.dtype, default=default)
        for (name, type_), default in zip(columns.items(), (-1, -2, "-"), strict=True)
    }
    rows, *_ = read_csv(text, defaults, null_values=("NA",))
    assert [tuple(row.values()) for row in rows] == [
        (-1, 1, b"a"),
        (2, -2, b"-"),
        (-1, 3, b"-"),
        (4, -2, b"c"),
        (5, 6, b"d"),
    ]


def test_strings_without_a_default_are_taken_as_they_are(read_csv):
    rows, *_ = read_csv("s,t\n,1\nNA,2\n", {"s": STRING}, null_values=("NA",))
    assert [row["s"] for row in rows] == [b"", b"NA"]


def test_truth_values_are_numbers_in_columns_of_them_only(read_csv):
    text = "a,b,c,d\ntrue,False,0,3|4\n1,TRUE,true,true\n7,x,8,5\nfalse,0,FALSE,6\n"
    columns = {"a": INT, "b": FLOAT}
    rows, *_, bad = read_csv(text.replace("\n7,x,8,5", ""), columns)
    assert rows == [{"a": 1, "b": 0}, {"a": 1, "b": 1}, {"a": 0, "b": 0}]
    assert not bad
    # The type of a column, where it knows, goes before what most cells of a file are.
    truth = {"a": ColumnType(dtype="int64", is_truth=True)}
    rows, *_, bad = read_csv(text, truth)
    assert [row["a"] for row in rows] == [1, 1, 0]
    assert bad == [(2, "column `a`: '7' is not true, false, 1 or 0")]
    numbers = {"b": ColumnType(dtype="float32", is_truth=False)}
    rows, *_, bad = read_csv(text, numbers)
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
def test_truth_values_among_numbers_are_bad(read_csv, type_, noun):
    rows, *_, bad = read_csv("a\n3\ntrue\n4\nFALSE\n5\n", {"a": type_})
    of_lists = [[3], [4], [5]] if type_.is_list else [3, 4, 5]
    assert [row["a"] for row in rows] == of_lists
    assert bad == [
        (1, f"column `a`: 'true' is not {noun}"),
        (3, f"column `a`: 'FALSE' is not {noun}"),
    ]


def test_lists(read_csv):
    lists = {
        "i": ColumnType(dtype="int64", is_list=True),
        "s": ColumnType(dtype="string", is_list=True),
        "v": ColumnType(dtype="float32", is_list=True, length=2),
    }
    text = "i,s,v\n1| 2,a|b,1|2\n,,3|4\n5,c||d,5|x\n6|y,e,7|8\n"
    rows, numbers, bad = read_csv(text, lists)
    assert numbers == [0, 1]
    assert rows[0] == {"i": [1, 2], "s": [b"a", b"b"], "v": [1, 2]}
    assert rows[1] == {"i": [], "s": [], "v": [3, 4]}
    assert bad == [
        (2, "column `v`: 'x' is not a number"),
        (3, "column `i`: 'y' is not an integer"),
    ]
    rows, *_ = read_csv("s\na;b\n", {"s": lists["s"]}, list_delimiter=";")
    assert rows == [{"s": [b"a", b"b"]}]


def test_integers_that_are_too_large_or_no_integers_are_bad(read_csv):
    *_, bad = read_csv(f"a\n1\n{2**70}\n1.0\n+5\n{-(2**70)}\n", {"a": INT})
    assert bad == [
        (1, f"column `a`: '{2**70}' is not an integer of 64 bits"),
        (2, "column `a`: '1.0' is not an integer"),
        (3, "column `a`: '+5' is not an integer"),
        (4, f"column `a`: '{-(2**70)}' is not an integer of 64 bits"),
    ]


def test_integers_that_are_guessed_are_read_as_they_are_written_only(read_csv):
    text = "a,l\n0,0|1\n007,2\n7,3\n0x10,4\n-07,5\n8,6|07\n 9 ,7\n-1,8\n"
    guessed = ColumnType(dtype="int64", is_guess=True)
    lists = ColumnType(dtype="int64", is_guess=True, is_list=True)
    rows, numbers, bad = read_csv(text, {"a": guessed, "l": lists})
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
    rows, _, bad = read_csv(text, declared)
    assert [row["a"] for row in rows] == [0, 7, 7, 16, -7, 8, 9, -1] and not bad


def test_bytes_that_are_no_text(read_csv):
    content = b"a,s,l\n1,caf\xe9,\n2,caf\xc3\xa9,x|y\n\xff,x,\n4,n\0,\n5,,x|\xe9\n6,,\n"
    columns = {"a": INT, "s": STRING, "l": ColumnType(dtype="string", is_list=True)}
    rows, numbers, bad = read_csv(content, columns)
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
