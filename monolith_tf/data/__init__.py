"""Readers of training data, and the batches made from them."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "BadRow": "reader",
        "Block": "reader",
        "DataSpec": "spec",
        "InputFn": "input_fn",
        "NegativesSpec": "spec",
        "Piece": "reader",
        "Reader": "reader",
        "RowRange": "batch_source",
        "Source": "source",
        "check_columns": "formats",
        "open_split": "source",
        "read_schema": "formats",
    },
)
