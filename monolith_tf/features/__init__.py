"""Features, labels and slots: from raw columns to the inputs of a model."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "ColumnType": "columns",
        "FeatureBatch": "encode",
        "FeatureEncoder": "encode",
        "FeatureSpec": "spec",
        "LabelSpec": "spec",
        "SlotRegistry": "slots",
        "StringCodes": "strings",
        "TransformSpec": "spec",
        "assign": "slots",
        "compute": "statistics",
        "encode_labels": "labels",
        "encode_weights": "labels",
        "required_columns": "columns",
    },
)
