"""Tests of the types that CSV cells are read as."""

import pyarrow as pa
import pytest

from monolith_tf.data import csv_guess


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["true", "FALSE", None, "True"], "int64"),
        (["true", "False", "yes", "7"], "string"),  # No more of one than of others.
        (["true", "False", "true", "yes", "007"], "int64"),
        (["1", "-2", "true", "FALSE"], "string"),
        (["1", "2.5"], "float32"),
        (["1", "2", "12,50"], "int64"),
        (["1.5", "2", "12,50"], "float32"),
        (["1e3", ".5", "5.", "+7", "inf", "nan"], "float32"),
        (["1", None, None, "x", "2"], "int64"),
        (["1", "x"], "string"),  # Not more numbers than words.
        (["68fd1e64", "80e26c9b", "12345678"], "string"),
        (["2020-01-01", "1_0", "1 2", "--1", "1.2.3"], "string"),
        ([None, None], "string"),
        ([], "string"),
        (["12345678901234567890"], "int64"),  # Beyond 64 bits.
        (["7", "007"], "string"),
        (["7", "8", "-07"], "string"),
        (["7", "8", "0x10"], "string"),
        (["0", "7", "false"], "int64"),
        (["0.5", "00.5"], "float32"),
        (["0.5", "1", "true"], "float32"),
    ],
)
def test_most_cells_decide(cells, expected):
    assert csv_guess.guess(pa.array(cells, pa.string())) == expected


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["7", "007", None], "int64"),
        (["7", str(2**63 - 1), "true"], "int64"),
        (["7", str(2**63)], "float32"),
        (["7", "x"], "string"),
        ([None], "string"),
    ],
)
def test_what_is_read_where_numbers_are_wanted(cells, expected):
    assert csv_guess.guess_number(pa.array(cells, pa.string())) == expected
