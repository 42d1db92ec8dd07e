import io

import pytest

from monolith_tf.cli import tables


class Terminal(io.StringIO):
    def isatty(self):
        return True


ROWS = [["user", 16, 0.5, None, ("a", "b")], ["item", 4096, 12.0, "x", ()]]
HEADERS = ["table", "rows", "auc", "note", "features"]


def test_plain_text_where_there_is_no_terminal():
    stream = io.StringIO()
    tables.show("Tables", HEADERS, ROWS, stream)
    assert stream.getvalue() == (
        "Tables\n"
        "table   rows       auc  note  features\n"
        "-----  -----  --------  ----  --------\n"
        "user      16   0.50000  -     a, b\n"
        "item   4,096  12.00000  x\n"
        "\n"
    )


def test_a_drawn_table_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    tables.show("Tables", HEADERS, ROWS, stream)
    text = stream.getvalue()
    assert "Tables" in text
    assert "4,096" in text
    assert "─" in text


def test_a_table_without_rows():
    stream = io.StringIO()
    tables.show("Nothing", ["a", "bc"], [], stream)
    assert stream.getvalue() == "Nothing\na  bc\n-  --\n\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (1234567, "1,234,567"),
        (0.123456789, "0.12346"),
        (["a", 1], "a, 1"),
        ("x", "x"),
    ],
)
def test_cells(value, text):
    assert tables.cell(value) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1,023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (5 * 2**30, "5.0 GiB"),
        (2**60, "1,024.0 PiB"),
    ],
)
def test_sizes(num_bytes, text):
    assert tables.size(num_bytes) == text
