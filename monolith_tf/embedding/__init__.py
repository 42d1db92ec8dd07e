"""Embedding tables with one row per id, no collisions, spread over shards."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "ColumnSpec": "spec",
        "Embedding": "keras_layer",
        "EmbeddingStore": "store",
        "FrozenStore": "frozen",
        "Placement": "placement",
        "Pulled": "pulled",
        "SharedEmbedding": "shared_embedding",
        "SharedFeature": "shared_spec",
        "SharedTable": "shared_spec",
        "SliceSpec": "spec",
        "TableFullError": "expiry",
        "TableSpec": "spec",
        "frozen_store": "frozen",
        "initializer_spec": "",
        "optimizer_spec": "",
    },
)
