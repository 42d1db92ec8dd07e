"""Sharded embedding tables with one row per id and no collisions."""

from monolith_tf import _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    {
        "ColumnSpec": "spec",
        "Embedding": "keras.layer",
        "EmbeddingStore": "store",
        "FrozenStore": "frozen.store",
        "Placement": "placement",
        "Pulled": "lookup.pulled",
        "SharedEmbedding": "keras.shared",
        "SharedFeature": "keras.shared_spec",
        "SharedTable": "keras.shared_spec",
        "SliceSpec": "spec",
        "TableFullError": "shard.expiry",
        "TableSpec": "spec",
        "frozen_store": "frozen.store",
        "initializer_spec": "",
        "optimizer_spec": "",
    },
)
