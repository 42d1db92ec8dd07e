"""Tests of lines of CSV files that the parser would drop silently."""

import csv
import gzip
import io
import random
import unittest

import pytest

from monolith_tf import data
from monolith_tf.data import csv_lines
from monolith_tf.features.columns import ColumnType

INT = ColumnType(dtype="int64")
STRING = ColumnType(dtype="string")


def write(path, text):
    content = text.encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def good_rows(file, columns, **arguments):
    """Returns the good rows, their numbers, and how many rows are bad."""
    spec = data.DataSpec(train=file, format="csv", **arguments)
    source = data.open_split(spec, "train", columns)
    rows, numbers = [], []
    for window, _ in source.windows(shuffle=False):
        rows += [tuple(row.values()) for row in window.table.to_pylist()]
        numbers += window.rows.tolist()
    return rows, numbers, source.counts()["bad_rows"]


@pytest.mark.parametrize("name", ["x.csv", "x.csv.gz"])
@pytest.mark.parametrize(
    ("cells", "later", "reason"),
    [
        # The last cell of a row, the first, and one that is closed by a later quote.
        ('500,"x', "w", r"is never closed, and the cell includes all 499 lines below"),
        ('"500,x', "w", r"is never closed, and the cell includes all 499 lines below"),
        ('500,"x', '"w"', r"includes 200 lines below, and the next quote does not end"),
    ],
)
def test_a_quote_that_is_not_closed(tmp_path, name, cells, later, reason):
    lines = [f"{i},x" for i in range(1000)]
    lines[500] = cells
    lines[700] = f"700,{later}"
    file = write(tmp_path / name, "a,b\n" + "\n".join(lines) + "\n")
    for columns in ({"a": INT, "b": STRING}, {"a": INT}):
        with pytest.raises(ValueError, match=rf"{name}: row 500 \(.*{reason}.*Close"):
            good_rows(file, columns)
    source = data.open_split(data.DataSpec(train=file), "train", {"a": INT})
    assert source.num_rows() == (800 if later == '"w"' else 501)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_lines, "_CHUNK_BYTES", 999)
        rows, numbers, bad = good_rows(file, {"a": INT}, on_bad_row="skip")
    parsed = list(csv.reader(io.StringIO("\n".join(lines) + "\n")))
    expected = [int(row[0]) for row in parsed[:500] + parsed[501:]]
    assert [row[0] for row in rows] == expected
    assert bad == 1 and numbers == list(range(500)) + list(range(501, len(parsed)))


def test_what_went_into_the_cell_is_logged(tmp_path):
    file = write(tmp_path / "x.csv", 'a,b\n1,w\n1,"x\n2,y\n3,z\n')
    with unittest.TestCase().assertLogs("absl", "WARNING") as logs:
        assert good_rows(file, {"a": INT}, on_bad_row="skip") == ([(1,)], [0], 1)
    assert "row 1 is skipped: the quote that opens a cell is never" in logs.output[0]
    assert "includes all 2 lines below" in logs.output[0]


def test_a_quote_that_is_not_closed_for_a_block(tmp_path):
    lines = "".join(f"{i},{'x' * 90}\n" for i in range(40_000))
    file = write(tmp_path / "x.csv", 'a,b\n1,y\n2,"z\n' + lines)
    with pytest.raises(
        ValueError, match=r"Row 1 \(counting from 0\): the quote .*4000"
    ):
        good_rows(file, {"a": INT}, on_bad_row="skip")


def test_a_quote_that_is_not_closed_in_the_first_row(tmp_path):
    file = write(tmp_path / "x.csv", 'a,b\n"1,x\n2,y\n')
    with pytest.raises(
        ValueError,
        match=r"no row shows the types of the columns\. Row 0 .*never closed",
    ):
        data.read_schema(data.DataSpec(train=file))


def test_a_quote_that_is_not_closed_among_the_names(tmp_path):
    file = write(tmp_path / "x.csv", 'a,"b\n1,x\n')
    with pytest.raises(ValueError, match=r"in the header: the quote that opens a cell"):
        good_rows(file, {"a": STRING})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_quotes_that_are_fine(tmp_path, end):
    text = (
        'a,b\n1,"two\nlines"\n2,5" pipe\n3,"a ""word"""\n4,""\n5,"\n\n"\n6,"x"y\n'
        '7," ""\n"","""\n8,"last\n"'
    ).replace("\n", end)
    file = write(tmp_path / "x.csv", text)
    rows, numbers, bad = good_rows(file, {"a": INT, "b": STRING})
    assert numbers == list(range(8)) and not bad
    assert [row[1].decode() for row in rows] == [
        text.replace("\n", end)
        for text in ("two\nlines", '5" pipe', 'a "word"', "", "\n\n", "xy")
    ] + [f' "{end}","', f"last{end}"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1 << 22])
def test_files_at_random(monkeypatch, end, chunk):
    monkeypatch.setattr(csv_lines, "_CHUNK_BYTES", chunk)
    draw = random.Random(chunk)
    for _ in range(200):
        lines, blank = [], []
        for row in range(draw.randrange(1, 12)):
            cells = [draw.choice(["", "x", 'q"', ",", "\n", '"', "\n\n"]) for _ in "ab"]
            if draw.random() < 0.2:
                blank.append(row)
                lines.append("")
            else:
                lines.append(
                    ",".join(
                        f'"{cell.replace(chr(34), chr(34) * 2)}"'
                        if set(cell) & set('\n,"') or draw.random() < 0.3
                        else cell
                        for cell in cells
                    )
                )
        spoilt = draw.random() < 0.5
        last = 0
        while blank and blank[-1] == len(lines) - 1 - last:
            blank.pop()
            last += 1
        if spoilt:
            lines.append('x,"y')
            blank += range(len(lines) - 1 - last, len(lines) - 1)
            last = 0
        text = ("\n".join(lines) + "\n").replace("\n", end)
        found = csv_lines.scan(lambda t=text: io.BytesIO(t.encode()), ",", False)
        assert found.blank.tolist() == blank
        assert found.num_last_blank == last
        assert list(found.spoilt) == ([len(lines) - 1] if spoilt else [])


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_blank_line_of_one_column_is_a_row_without_a_value(tmp_path, end):
    text = end.join(["", "", "s", "x", "", "y", "1,2", "", ""])
    file = write(tmp_path / "x.csv", text)
    rows, numbers, bad = good_rows(file, {"s": STRING}, on_bad_row="skip")
    assert rows == [(b"x",), (b"",), (b"y",), (b"",)]
    assert numbers == [0, 1, 2, 4] and bad == 1
    file = write(tmp_path / "x.csv", end.join(["a", "1", "", "3", ""]))
    with pytest.raises(ValueError, match=r"row 1 \(counting from 0\): no value in col"):
        good_rows(file, {"a": INT})
    missing = ColumnType(dtype="int64", default=7)
    assert good_rows(file, {"a": missing})[0] == [(1,), (7,), (3,)]
    assert good_rows(file, {"n": missing}, column_names=("n",), on_bad_row="skip") == (
        [(1,), (7,), (3,)],
        [1, 2, 3],
        1,
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_blank_line_of_several_columns_is_a_bad_row(tmp_path, end):
    lines = ["", "a,b", "1,x", "", "", "2,y", "3", "", "4,z", "", ""]
    file = write(tmp_path / "x.csv", end.join(lines))
    with pytest.raises(
        ValueError, match=r"row 1 \(counting from 0\): a blank line\. B"
    ):
        good_rows(file, {"a": INT})
    rows, numbers, bad = good_rows(file, {"a": INT}, on_bad_row="skip")
    assert (rows, numbers, bad) == ([(1,), (2,), (4,)], [0, 3, 6], 4)


def test_blank_lines_at_the_end_of_several_columns_are_passed_over(tmp_path):
    file = write(tmp_path / "x.csv", "a,b\n1,x\n2,y\n\n\n")
    with unittest.TestCase().assertLogs("absl", "INFO") as logs:
        assert good_rows(file, {"a": INT}) == ([(1,), (2,)], [0, 1], 0)
    assert "x.csv: skipped 2 blank lines at its end" in logs.output[0]
