"""Every key of a config's specs is compared with a checkpoint, or said to be harmless.

Who adds a key decides here what a change of it does to a job that goes on.
"""

import dataclasses

import pytest

from monolith_tf.config import schema
from monolith_tf.data.spec import DataSpec
from monolith_tf.data.spec import NegativesSpec
from monolith_tf.embedding.initializer_spec import ZerosSpec
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.experiment import harmless_settings
from monolith_tf.experiment import resumed_settings
from monolith_tf.features.spec import FeatureSpec
from monolith_tf.features.spec import LabelSpec
from monolith_tf.features.spec import TransformSpec
from monolith_tf.models.spec import BlockSpec
from monolith_tf.models.spec import HeadSpec
from monolith_tf.models.spec import ModelSpec

_BUCKETS = TransformSpec(name="bucketize", boundaries=(1.0,))
_BLOCK = BlockSpec(name="deep", layer="MLP", inputs=("x",))
_HEAD = HeadSpec(label="click", inputs=("deep",))
_MODEL = ModelSpec(blocks=(_BLOCK,), heads=(_HEAD,))

# A spec, and another value of each key that is compared.
_CHANGES = (
    (
        FeatureSpec(name="x", kind="id_list"),
        {
            "kind": "id",
            "column": "y",
            "table": "y",
            "combiner": "sum",
            "max_length": 3,
            "default": 3,
            "transform": (_BUCKETS,),
        },
    ),
    (FeatureSpec(name="x", kind="dense"), {"dim": 2, "default": 1.0}),
    (TransformSpec(name="log1p"), {"name": "zscore"}),
    (TransformSpec(name="clip", min=0.0, max=9.0), {"min": 1.0, "max": 8.0}),
    (TransformSpec(name="zscore", mean=0.0, std=1.0), {"mean": 1.0, "std": 2.0}),
    (_BUCKETS, {"boundaries": (2.0,)}),
    (LabelSpec(name="click"), {"column": "buy", "equals": (1,), "default": 0}),
    (
        DataSpec(),
        {
            "negatives": NegativesSpec(train=1),
            "weight": "w",
            "column_names": ("x", "click"),
            "null_values": ("-",),
            "list_delimiter": ";",
            "reader": "mine:Reader",
            "input_fn": "mine:batches",
        },
    ),
    (
        NegativesSpec(train=1),
        {"train": 2, "user": "u", "item": ("i",), "label": "l"},
    ),
    (TableSpec(name="x", dim=2), {"initializer": ZerosSpec()}),
    (SliceSpec(name="p", dim=2), {"initializer": ZerosSpec()}),
    (ModelSpec(name="dcn"), {"name": "mmoe", "params": {"label": "click"}}),
    (ModelSpec(class_="mine:A"), {"class_": "mine:B"}),
    (
        _MODEL,
        {
            "blocks": (dataclasses.replace(_BLOCK, name="wide"),),
            "heads": (dataclasses.replace(_HEAD, name="h"),),
            "groups": {"g": ("x",)},
        },
    ),
    (
        _BLOCK,
        {
            "name": "wide",
            "layer": "Dense",
            "args": {"units": 1},
            "inputs": ("all",),
            "join": "stack",
        },
    ),
    (
        _HEAD,
        {
            "label": "buy",
            "inputs": ("x",),
            "loss": "mse",
            "weight": 2.0,
            "sample_rate": "rate",
            "name": "h",
        },
    ),
)


def _settings(spec):
    """What a checkpoint says of a config in which a spec has its place."""
    parts = {
        "data": DataSpec(),
        "features": (FeatureSpec(name="x", kind="id"),),
        "labels": (LabelSpec(name="click"),),
        "tables": (TableSpec(name="x", dim=2), TableSpec(name="y", dim=2)),
        "model": _MODEL,
    }
    match spec:
        case FeatureSpec():
            parts["features"] = (spec,)
        case TransformSpec():
            dense = FeatureSpec(name="x", kind="dense", transform=(spec,))
            parts["features"] = (dense,)
        case LabelSpec():
            parts["labels"] = (spec,)
        case DataSpec():
            parts["data"] = spec
        case NegativesSpec():
            parts["data"] = DataSpec(negatives=spec)
        case TableSpec():
            parts["tables"] = (spec,)
        case SliceSpec():
            parts["tables"] = (TableSpec(name="x", slices=(spec,)),)
        case ModelSpec():
            parts["model"] = spec
        case BlockSpec():
            parts["model"] = dataclasses.replace(_MODEL, blocks=(spec,))
        case HeadSpec():
            parts["model"] = dataclasses.replace(_MODEL, heads=(spec,))
    config = schema.ExperimentConfig(model_dir="model", **parts)
    return resumed_settings.of(config)


@pytest.mark.parametrize(
    ("spec", "key", "value"),
    [
        pytest.param(spec, key, value, id=f"{type(spec).__name__}.{key}")
        for spec, values in _CHANGES
        for key, value in values.items()
    ],
)
def test_a_change_of_a_key_is_seen(spec, key, value):
    changed = dataclasses.replace(spec, **{key: value})
    assert _settings(changed) != _settings(spec)


@pytest.mark.parametrize("spec", dict.fromkeys(type(spec) for spec, _ in _CHANGES))
def test_every_key_is_compared_or_said_to_be_harmless(spec):
    compared = {key for one, values in _CHANGES if type(one) is spec for key in values}
    harmless = harmless_settings.HARMLESS.get(spec, {})
    assert not compared & harmless.keys()
    keys = {field.name for field in dataclasses.fields(spec)}
    assert compared | harmless.keys() == keys, "decide what a change of a key does"


@pytest.mark.parametrize("spec", harmless_settings.HARMLESS)
def test_a_harmless_key_has_a_reason(spec):
    assert all(harmless_settings.HARMLESS[spec].values())
