"""Settings that may change between two runs of a job without a warning, and why.

All other keys of these specs are saved in each checkpoint and compared.
"""

import types
from collections.abc import Mapping

from monolith_tf.data.spec import DataSpec
from monolith_tf.data.spec import NegativesSpec
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.features.spec import FeatureSpec
from monolith_tf.features.spec import LabelSpec

_RULE = "a rule of the steps to come; the rows mean what they meant"
_SERVED = "of the served copy alone, which every export makes from full floats"
_DRAWN = "of what is scored, which `evaluation_set` compares"

_OF_SLICES = {
    "dim": "`fitting_rows` refuses another one",
    "optimizer": "`fitting_rows` refuses other state, `resumed_optimizers` has more",
    "clip_norm": _RULE,
    "l2": _RULE,
    "compressor": _SERVED,
    "int8_range": _SERVED,
}

HARMLESS: Mapping[type, Mapping[str, str]] = types.MappingProxyType(
    {
        FeatureSpec: {
            "name": "what features are compared by; `input_order` compares the names",
            "dtype": "`id_types` refuses ids of another type, and dense features are "
            "float32 whatever their column is",
        },
        LabelSpec: {
            "name": "what labels are compared by; `input_order` compares the names",
        },
        TableSpec: {
            **_OF_SLICES,
            "name": "`dropped_tables` refuses to lose one",
            "slices": "`input_order` compares their names, `SliceSpec` has the rest",
            "slot": "`slots` keeps the checkpoint's and refuses another one",
            "large_integers": "`large_integers` keeps the checkpoint's",
            "unknown": _RULE,
            "update_rows": _RULE,
            "admit_after": _RULE,
            "admission": _RULE,
            "expire_after_days": _RULE,
            "expire_after_steps": _RULE,
            "max_expired_share": _RULE,
            "max_rows": _RULE,
            "max_bytes": _RULE,
            "when_full": _RULE,
        },
        SliceSpec: {
            **_OF_SLICES,
            "name": "`input_order` compares the names",
        },
        DataSpec: {
            "format": "other bytes of the same columns; `id_types` has their types",
            "train": "`resumed_position` compares the files",
            "stream": "`StreamSource` compares the topic, and positions are offsets",
            "eval": _DRAWN,
            "test": "scored only where somebody asks for it",
            "validation_fraction": "`trained_rows` compares it",
            "batch_size": "`resumed_position` converts the position",
            "shuffle_buffer": "`resumed_position` warns of the order",
            "on_bad_row": "rows that are left out are counted and logged",
            "delimiter": "another one than the files' is an error: no column is found",
            "num_rows": "`resumed_position` compares the rows of an epoch",
        },
        NegativesSpec: {"eval": _DRAWN, "test": "scored only where it is asked for"},
    }
)
