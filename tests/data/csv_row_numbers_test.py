"""Tests of the numbers of rows, among them bad ones."""

from monolith_tf.features.columns import ColumnType

INT = ColumnType(dtype="int64")


def test_bad_cells_and_bad_widths_are_told_apart_and_numbered(read_csv):
    text = 'a,b\n1,2\n\n3,4,5\nx,6\n"7\n","8"\n9\n1_0,y\n11,12\n\n13\n14\n'
    rows, numbers, bad = read_csv(text, {"a": INT, "b": INT})
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


def test_rows_are_numbered_over_many_blocks(read_csv):
    # Blocks are of a megabyte.
    lines = [f"{i},{'x' * 90}" if i % 1000 else "bad" for i in range(40_000)]
    rows, numbers, bad = read_csv("i,text\n" + "\n".join(lines), {"i": INT})
    assert numbers == [i for i in range(40_000) if i % 1000]
    assert [row["i"] for row in rows] == numbers
    assert [row for row, _ in bad] == list(range(0, 40_000, 1000))
