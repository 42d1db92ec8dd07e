"""Tests of the description of the data."""

import pydantic
import pytest

from monolith_tf import data

ADAPTER = pydantic.TypeAdapter(data.DataSpec)


def test_one_pattern_or_many():
    assert ADAPTER.validate_python({"train": "a"}).train == ("a",)
    assert ADAPTER.validate_python({"train": ["a", "b"]}).train == ("a", "b")
    assert data.DataSpec(train="").train == ()
    assert data.DataSpec(train="a") == ADAPTER.validate_python({"train": "a"})


def test_which_split_has_which_files():
    spec = data.DataSpec(train="t.csv", test="x.csv")
    assert (spec.has("train"), spec.has("eval"), spec.has("test")) == (1, 0, 1)
    spec = data.DataSpec(train="t.csv", validation_fraction=0.1)
    assert spec.has("eval") and spec.file_split("eval") == "train"
    assert spec.patterns("train") == ("t.csv",)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"validation_fraction": 1.0}, r"must be in \[0, 1\)\. Received: .*=1\.0"),
        (
            {"eval": "e", "validation_fraction": 0.1},
            r"set only one of them\. Received: eval=\('e',\)",
        ),
        ({"batch_size": 0}, "at least 1 .* Received: batch_size=0"),
        ({"shuffle_buffer": -1}, "shuffle_buffer=-1"),
        ({"num_rows": 0}, "num_rows=0"),
        ({"delimiter": "ab"}, "`delimiter` must be one character.*'ab'"),
        ({"list_delimiter": ""}, "`list_delimiter` must be one character"),
        ({"reader": "module"}, "`reader` must have the form `module:Name`"),
    ],
)
def test_errors(arguments, text):
    with pytest.raises(ValueError, match=text):
        data.DataSpec(**arguments)


def test_unknown_keys_are_refused():
    with pytest.raises(pydantic.ValidationError, match="batchsize"):
        ADAPTER.validate_python({"batchsize": 3})
