"""The signatures that read the rows of a served model, as they are served."""

import functools
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from monolith_tf import ids as ids_lib
from monolith_tf.embedding.frozen.group import FrozenGroup
from monolith_tf.embedding.frozen.index import HashIndex
from monolith_tf.embedding.frozen.store import FrozenStore
from monolith_tf.export import signatures
from monolith_tf.export import updates as updates_lib
from monolith_tf.export.errors import ExportError
from monolith_tf.types import Tensor

READ_KEY = "read_embeddings"
LIST_KEY = "list_embeddings"


class ReadRows(signatures.Signature):
    """Ids of a table -> their rows.

    Inputs: `table` and `ids` as in `update_embeddings`. Outputs: `rows`, `[n, dim]`,
    float32, zeros for an id without one, such that sending them back changes nothing;
    `has_row`, `[n]`, bool; `step` and `token` as in `update_embeddings`.
    """

    joins_rows = False

    def __init__(self, updates: updates_lib.Updates, store: FrozenStore) -> None:
        self.specs = {
            "table": tf.TensorSpec([], tf.string, name="table"),
            "ids": tf.TensorSpec([None], tf.int64, name="ids"),
        }
        self._updates = updates
        self._store = store

    @tf.autograph.experimental.do_not_convert
    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """See base class."""
        table, ids = tensors["table"], tensors["ids"]
        places = updates_lib.Places(self._store, READ_KEY)
        with tf.control_dependencies(places.check_ids(table, ids)):
            place = places.group_of(table)
        rows, has_row = tf.switch_case(
            place,
            [
                functools.partial(self._read, group, ids)
                for group in range(len(self._store.groups))
            ],
        )
        return {"rows": rows, "has_row": has_row, **_state(self._updates)}

    def _read(self, place: int, ids: Tensor) -> tuple[Tensor, Tensor]:
        group = self._store.groups[place]
        numbers = group.index.find(self._store.keys(group, ids))
        return _rows(group, numbers), numbers > 0

    def request(self, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """See base class."""
        del sample
        name = updates_lib.update_name(self._store.groups[0].group.tables[0])
        return {
            "table": np.array(name.encode(), object),
            "ids": np.zeros([0], np.int64),
        }

    def expected(
        self, sample: Mapping[str, Tensor], answer: signatures.Answer
    ) -> dict[str, np.ndarray]:
        """See base class."""
        del sample, answer
        dim = self._store.groups[0].group.dim
        step = self._updates.step.numpy()
        return {"rows": np.zeros([0, dim], np.float32), "step": step}


class ListRows(signatures.Signature):
    """The ids of a table that have a row, in parts.

    Inputs: `table` as in `update_embeddings`; `part` and `parts`, int64: the ids are
    cut into `parts` of about equal size, and those of part number `part` are returned.
    Outputs: `ids`, `[n]`, without those whose row became zeros; `step` and `token` as
    in `update_embeddings`. A request copies the index of the table's group, 16 bytes
    per row.
    """

    joins_rows = False

    def __init__(self, updates: updates_lib.Updates, store: FrozenStore) -> None:
        self.specs = {
            "table": tf.TensorSpec([], tf.string, name="table"),
            "part": tf.TensorSpec([], tf.int64, name="part"),
            "parts": tf.TensorSpec([], tf.int64, name="parts"),
        }
        self._updates = updates
        self._store = store

    @tf.autograph.experimental.do_not_convert
    def call(self, **tensors: Tensor) -> dict[str, Tensor]:
        """See base class."""
        table, part, parts = tensors["table"], tensors["part"], tensors["parts"]
        places = updates_lib.Places(self._store, LIST_KEY)
        checks = places.check_ids(table, tf.zeros([0], tf.int64))
        with tf.control_dependencies(checks):
            cut = tf.debugging.Assert(
                (part >= 0) & (part < parts),
                [f"{LIST_KEY}: `part` must be in [0, parts). Received:", part, parts],
            )
        with tf.control_dependencies([cut]):
            place, slot = places.group_of(table), places.slot_of(table)
        ids = tf.switch_case(
            place,
            [
                functools.partial(self._list, group, slot, part, parts)
                for group in range(len(self._store.groups))
            ],
        )
        return {"ids": ids, **_state(self._updates)}

    def _list(self, place: int, slot: Tensor, part: Tensor, parts: Tensor) -> Tensor:
        group = self._store.groups[place]
        if not isinstance(group.index, HashIndex):
            raise ExportError("An export that takes updates must have hash indices.")
        keys, numbers = group.index.entries()
        ids = self._store.ids(group, keys)
        mine = tf.math.floormod(keys, parts) == part
        if not group.group.is_exact:
            mine &= ids_lib.slot_of(keys) == slot
        ids, numbers = tf.boolean_mask(ids, mine), tf.boolean_mask(numbers, mine)
        return tf.boolean_mask(ids, tf.reduce_any(_rows(group, numbers) != 0.0, axis=1))

    def request(self, sample: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """See base class; asks for a part without ids."""
        del sample
        name = updates_lib.update_name(self._store.groups[0].group.tables[0])
        return {
            "table": np.array(name.encode(), object),
            "part": np.array(0, np.int64),
            "parts": np.array(1 << 62, np.int64),
        }

    def expected(
        self, sample: Mapping[str, Tensor], answer: signatures.Answer
    ) -> dict[str, np.ndarray]:
        """See base class."""
        del sample, answer
        return {"step": self._updates.step.numpy()}


def _rows(group: FrozenGroup, numbers: Tensor) -> Tensor:
    slices = group.read(numbers)
    return tf.concat([slices[part.name] for part in group.group.parts], axis=1)


def _state(updates: updates_lib.Updates) -> dict[str, Tensor]:
    return {"step": updates.step.read_value(), "token": updates.token.read_value()}
