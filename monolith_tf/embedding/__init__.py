"""Embedding tables with one row per id, no collisions, spread over shards."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "ColumnSpec": "spec",
        "EmbeddingStore": "store",
        "FrozenStore": "frozen",
        "Placement": "placement",
        "Pulled": "pulled",
        "SliceSpec": "spec",
        "TableSpec": "spec",
        "frozen_store": "frozen",
    },
)
