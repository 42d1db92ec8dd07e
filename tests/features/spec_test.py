"""Tests of features, transforms and labels as data."""

import subprocess
import sys

import pydantic
import pytest

from monolith_tf.features import FeatureSpec
from monolith_tf.features import LabelSpec
from monolith_tf.features import TransformSpec


def validated(kind, value):
    return pydantic.TypeAdapter(kind).validate_python(value)


def error_of(kind, value):
    """Returns the path and the message of a config value's only error."""
    with pytest.raises(pydantic.ValidationError) as raised:
        validated(kind, value)
    ((error),) = raised.value.errors()
    return error["loc"], error["msg"]


def test_names_stand_for_column_and_table():
    feature = FeatureSpec(name="user", kind="id")
    assert (feature.source_column, feature.table_name) == ("user", "user")
    feature = FeatureSpec(name="user", kind="id", column="uid", table="people")
    assert (feature.source_column, feature.table_name) == ("uid", "people")
    assert LabelSpec(name="click").source_column == "click"
    assert LabelSpec(name="click", column="action").source_column == "action"


def test_width_of_dense_features():
    buckets = TransformSpec(name="bucketize", boundaries=(1, 2, 3))
    assert FeatureSpec(name="x", kind="dense").width == 1
    assert FeatureSpec(name="x", kind="dense", dim=5).width == 5
    assert FeatureSpec(name="x", kind="dense", transform=(buckets,)).width == 4
    assert FeatureSpec(name="x", kind="dense", dim=2, transform=(buckets,)).width == 8


def test_transforms_have_short_forms():
    log = TransformSpec(name="log1p")
    clip = TransformSpec(name="clip", min=0)
    for given, expected in (
        ("log1p", (log,)),
        (["log1p", {"name": "clip", "min": 0}], (log, clip)),
        ({"name": "clip", "min": 0}, (clip,)),
    ):
        value = {"name": "x", "kind": "dense", "transform": given}
        assert validated(FeatureSpec, value).transform == expected
    assert FeatureSpec(name="x", kind="dense", transform="log1p").transform == (log,)
    assert FeatureSpec(name="x", kind="dense", transform=clip).transform == (clip,)


def test_labels_have_short_forms():
    labels = validated(tuple[LabelSpec, ...], ["click", {"name": "a", "equals": "x"}])
    assert labels == (LabelSpec(name="click"), LabelSpec(name="a", equals=("x",)))
    assert LabelSpec(name="a", equals="x") == labels[1]
    assert LabelSpec(name="a", equals=[1, 2]).equals == (1, 2)
    assert LabelSpec(name="a", equals=0).equals == (0,)
    assert validated(LabelSpec, {"name": "a", "equals": [1, 2.5]}).equals == (1, 2.5)


def test_short_forms_are_in_the_json_schema():
    schema = pydantic.TypeAdapter(FeatureSpec).json_schema()
    one, many = schema["properties"]["transform"]["anyOf"]
    assert {"type": "string"} in one["anyOf"]
    assert many["type"] == "array" and many["items"] == one


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": "log2"}, "one of log1p, zscore, bucketize, clip. .*'log2'"),
        ({"name": "log1p", "min": 1}, "`log1p` takes no `min`. Received: min=1"),
        ({"name": "clip", "boundaries": (1,)}, "`clip` takes no `boundaries`"),
        ({"name": "clip"}, "`clip` needs `min`, `max` or both"),
        ({"name": "clip", "min": 2, "max": 1}, "`min` not above `max`"),
        ({"name": "bucketize"}, "`boundaries` must hold at least one number"),
        ({"name": "bucketize", "boundaries": (1, 1)}, r"increasing order\. .*\(1, 1\)"),
        ({"name": "zscore", "mean": 1}, "`mean` and `std` must be set together"),
        ({"name": "zscore", "mean": 1, "std": 0}, "`std` above 0"),
    ],
)
def test_errors_of_transforms(arguments, text):
    with pytest.raises(ValueError, match=text):
        TransformSpec(**arguments)


BUCKETS = TransformSpec(name="bucketize", boundaries=(1,))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": ""}, "`name` must not be empty"),
        ({"max_length": -1}, "`max_length` must be at least 0"),
        ({"kind": "dense", "dim": 0}, "`dim` at least 1"),
        ({"kind": "dense", "table": "t"}, "not allowed with kind dense.*table='t'"),
        ({"kind": "dense", "combiner": "sum"}, "combiner='sum'. Remove it"),
        ({"kind": "dense", "dtype": "string"}, "dtype='string'"),
        ({"kind": "id", "dim": 2}, "not allowed with kind id. Received: dim=2"),
        ({"kind": "id", "combiner": "sum"}, "combiner='sum'"),
        ({"kind": "id", "max_length": 3}, "max_length=3"),
        ({"kind": "id_list", "combiner": "first_n"}, "`first_n` needs `max_length`"),
        ({"kind": "id", "transform": "log1p"}, "only if the last one is `bucketize`"),
        (
            {"kind": "id", "transform": BUCKETS, "dtype": "string"},
            "dtype='string'",
        ),
        (
            {"kind": "dense", "transform": (BUCKETS, "log1p")},
            "`bucketize` must be the last transform",
        ),
        ({"kind": "dense", "transform": ("zscore", "zscore")}, "can have one `zscore`"),
        ({"dtype": "int", "default": 1.5}, "must be of its dtype, int. .*1.5"),
        ({"dtype": "string", "default": 1}, "must be of its dtype, string"),
        ({"kind": "dense", "dtype": "float", "default": "a"}, "its dtype, float"),
    ],
)
def test_errors_of_features(arguments, text):
    with pytest.raises(ValueError, match=text):
        FeatureSpec(**({"name": "x", "kind": "id"} | arguments))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"name": ""}, "`name` must not be empty"),
        ({"equals": ["a", 1]}, r"numbers or strings, not both\. .*\('a', 1\)"),
        ({"equals": "a", "default": 1}, "`default` of `x` must be of its dtype"),
    ],
)
def test_errors_of_labels(arguments, text):
    with pytest.raises(ValueError, match=text):
        LabelSpec(**({"name": "x"} | arguments))


def test_an_error_in_a_config_has_one_path_and_one_message():
    path, message = error_of(FeatureSpec, {"name": "x", "kind": "dens"})
    assert path == ("kind",) and "'id', 'id_list' or 'dense'" in message
    value = {"name": "x", "kind": "dense", "transform": "log2"}
    path, message = error_of(FeatureSpec, value)
    assert path == ("transform", 0, "name") and "'log1p', 'zscore'" in message
    value["transform"] = {"name": "clip", "mni": 2}
    assert error_of(FeatureSpec, value)[0] == ("transform", 0, "mni")


def test_specs_need_neither_tensorflow_nor_pydantic():
    program = """
import sys
from monolith_tf.features import FeatureSpec, LabelSpec, SlotRegistry, assign
from monolith_tf.features import required_columns
FeatureSpec(name="x", kind="dense", transform="log1p")
assign({"a": None})
assert "tensorflow" not in sys.modules and "pydantic" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
