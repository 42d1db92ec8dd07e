"""Tests of what CSV cells are read as."""

import pyarrow as pa
import pytest

from monolith_tf.data import csv_guess


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "-2", "true", "FALSE"], "int64"),
        (["1", "2.5"], "float32"),
        (["1", "2", "12,50"], "int64"),
        (["1.5", "2", "12,50"], "float32"),
        (["1e3", ".5", "5.", "+7", "inf", "nan"], "float32"),
        (["1", None, None, "x", "2"], "int64"),
        (["1", "x"], "string"),  # No more numbers than words.
        (["68fd1e64", "80e26c9b", "12345678"], "string"),
        (["2020-01-01", "1_0", "1 2", "--1", "1.2.3"], "string"),
        ([None, None], "string"),
        ([], "string"),
        (["12345678901234567890"], "float32"),  # Beyond 64 bits.
    ],
)
def test_most_cells_decide(cells, expected):
    assert csv_guess.guess(pa.array(cells, pa.string())) == expected
