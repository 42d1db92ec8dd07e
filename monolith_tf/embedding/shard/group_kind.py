"""What groups of one kind share, and the facts in which they differ."""

import dataclasses
from typing import Any

import numpy as np
import tensorflow as tf

from monolith_tf.embedding import initializers
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.optimizers import row_state
from monolith_tf.embedding.shard.bindable import Cell
from monolith_tf.types import Tensor

# Fields that describe the one slice of a table without `slices`.
_NOT_SLICES: Any = dict.fromkeys(
    ("initializer", "optimizer", "clip_norm", "l2", "compressor", "int8_range")
)


def kind_of(group: Group) -> Group:
    """Returns the group without names, widths and slots; equal kinds share a trace."""
    tables = tuple(
        dataclasses.replace(
            table,
            name=f"t{place}",
            slot=place,
            dim=None,
            slices=tuple(
                dataclasses.replace(part, name=f"s{number}", dim=1)
                for number, part in enumerate(table.row_slices())
            ),
            **_NOT_SLICES,
        )
        for place, table in enumerate(group.tables)
    )
    parts = tuple(
        dataclasses.replace(part, name="", dim=1, start=0, state_start=0, state_dims=())
        for part in group.parts
    )
    return dataclasses.replace(group, name="", tables=tables, parts=parts)


def facts_of(group: Group, seed: int) -> dict[str, tf.Variable]:
    """Returns what `BoundGroup` needs of a group besides its kind."""
    slots = ", ".join(f"{table.name}: {table.slot or 0}" for table in group.tables)
    facts = {
        "dims": np.array([part.dim for part in group.parts], np.int32),
        "keys": slice_keys(group, seed),
        "slots": group.slots(),
        "places": group.places(),
        "names": f"Tables and their slots: {slots}.",
    }
    return {name: tf.Variable(value, trainable=False) for name, value in facts.items()}


def slice_keys(group: Group, seed: int) -> np.ndarray:
    """Returns the keys of initial values, `[parts, tables]`, int64."""
    return np.array(
        [
            [initializers.slice_key(seed, t.name, part.name) for t in group.tables]
            for part in group.parts
        ],
        np.int64,
    )


@dataclasses.dataclass(frozen=True)
class BoundGroup(Group):
    """A group whose names, widths and slots are tensors.

    Attributes:
      facts: From `facts_of`.
    """

    facts: Any = None

    @classmethod
    def of(cls, kind: Group, facts: dict[str, Cell]) -> "BoundGroup":
        """Makes a group of a kind.

        Args:
          kind: From `kind_of`.
          facts: From `facts_of`.
        """
        dims = tf.unstack(facts["dims"].read_value(), num=len(kind.parts))
        parts = tuple(
            dataclasses.replace(
                part,
                dim=dim,
                state_dims=tuple(row_state.part_dims(part.kind, dim)[1:]),
            )
            for part, dim in zip(kind.parts, dims, strict=True)
        )
        return cls("", kind.tables, parts, kind.tracks_updates, facts)

    def slots(self) -> Tensor:
        """See base class."""
        return self.facts["slots"].read_value()

    def places(self) -> Tensor:
        """See base class."""
        return self.facts["places"].read_value()
