"""Tables with the same storage: an index and read-only rows."""

import dataclasses
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.frozen.index import HashIndex
from monolith_tf.embedding.frozen.index import Places
from monolith_tf.embedding.lookup import layout
from monolith_tf.embedding.lookup.layout import Group
from monolith_tf.embedding.shard.scatter import scatter
from monolith_tf.embedding.spec import SliceSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.types import Tensor

# fp16 is stored as bits in int16: TensorFlow cannot read back a half tensor that was
# written in slices.
_DTYPES = {"fp32": tf.float32, "fp16": tf.int16, "int8": tf.int8}
_INT8_STEPS = 127


class FrozenGroup(tf.Module):
    """An index and, for each slice, a variable of the stored type.

    Keys without a row read row 0, which is zero.

    Attributes:
      group: The tables and the layout of their rows.
      slot: Slot of the first table.
      index: Maps keys to row numbers.
      slices: One variable per slice, `[rows, dim]` with an unknown number of rows.

    Args:
      group: The tables.
      exact: Whether to store all slices as fp32.
      ranges: As in `FrozenStore`; for all of the tables, or for none.
    """

    def __init__(self, group: Group, exact: bool, ranges: Mapping[str, int]) -> None:
        super().__init__(name="frozen_group")
        self.group = group
        self._specs = group.tables[0].row_slices()
        self._compressors = ["fp32" if exact else s.compressor for s in self._specs]
        self.slot = group.tables[0].slot or 0
        self.index: HashIndex | Places = HashIndex(is_exact=group.is_exact)
        if group.tables[0].name in ranges:
            self.index = Places({t.slot or 0: ranges[t.name] for t in group.tables})
        self.slices = [
            tf.Variable(
                tf.zeros([1, spec.dim], _DTYPES[compressor]),
                shape=tf.TensorShape([None, spec.dim]),
                trainable=False,
                name=spec.name,
            )
            for spec, compressor in zip(self._specs, self._compressors, strict=True)
        ]

    def add(self, keys: np.ndarray, weights: np.ndarray) -> None:
        """Appends the rows that the index takes."""
        taken = self.index.takes(keys)
        keys, weights = keys[taken], weights[taken]
        start = self.capacity()
        for variable, values in zip(self.slices, self.compress(weights), strict=True):
            variable.assign(tf.concat([variable, values], axis=0))
        self.index.insert(keys, tf.range(start, start + len(keys), dtype=tf.int64))

    def capacity(self) -> Tensor:
        """Returns the number of rows there is room for, including row 0; int64."""
        # Asks for the shape only: reading the variable would copy all rows.
        return tf.raw_ops.VariableShape(input=self.slices[0].handle, out_type=tf.int64)[
            0
        ]

    def largest(self) -> np.ndarray:
        """Returns the largest number that each column can hold, `[dim]`, float32."""
        return self._by_column([spec.largest_served for spec in self._specs])

    def largest_taken(self) -> np.ndarray:
        """Returns the largest number that rounds to `largest`, `[dim]`, float32."""
        half = 0.5 / _INT8_STEPS
        return self._by_column(
            [
                spec.largest_served * (1 + half if spec.compressor == "int8" else 1)
                for spec in self._specs
            ]
        )

    def write(self, numbers: Tensor, weights: Tensor) -> list[tf.Operation]:
        """Overwrites rows."""
        return [
            scatter(variable, numbers, values)
            for variable, values in zip(
                self.slices, self.compress(weights), strict=True
            )
        ]

    def read(self, numbers: Tensor) -> dict[str, Tensor]:
        """Returns slice name -> rows with these numbers, `[..., dim]`."""
        slices = {}
        for spec, compressor, variable in zip(
            self._specs, self._compressors, self.slices, strict=True
        ):
            values = tf.gather(variable, numbers)
            if compressor == "fp16":
                values = tf.bitcast(values, tf.float16)
            values = tf.cast(values, tf.float32)
            if compressor == "int8":
                values *= spec.int8_range / _INT8_STEPS
            slices[spec.name] = values
        return slices

    def compress(self, weights: Tensor) -> list[Tensor]:
        """Returns rows in their stored form, slice by slice.

        Clips numbers to the range of the slice.
        """
        stored = []
        for part, spec, compressor in zip(
            self.group.parts, self._specs, self._compressors, strict=True
        ):
            values = weights[:, part.start : part.start + part.dim]
            if compressor == "int8":
                steps = tf.round(values / spec.int8_range * _INT8_STEPS)
                values = tf.clip_by_value(steps, -_INT8_STEPS, _INT8_STEPS)
            elif compressor == "fp16":
                values = tf.clip_by_value(
                    values, -spec.largest_served, spec.largest_served
                )
                values = tf.bitcast(tf.cast(values, tf.float16), tf.int16)
            stored.append(tf.cast(values, _DTYPES[compressor]))
        return stored

    def _by_column(self, numbers: Sequence[float]) -> np.ndarray:
        dims = [spec.dim for spec in self._specs]
        kept = [
            number if compressor != "fp32" else np.inf
            for number, compressor in zip(numbers, self._compressors, strict=True)
        ]
        return np.repeat(np.asarray(kept, np.float32), dims)


def frozen_groups(
    tables: Sequence[TableSpec], ranges: Collection[str] = ()
) -> tuple[Group, ...]:
    """Groups tables by how their rows are served.

    Args:
      tables: The tables.
      ranges: Names of tables to put into separate groups.
    """

    def key(part: SliceSpec) -> tuple:
        return part.compressor, part.int8_range if part.compressor == "int8" else None

    groups = []
    for group in layout.merge_tables(tables, key):
        for is_apart in (False, True):
            members = tuple(t for t in group.tables if (t.name in ranges) == is_apart)
            if members:
                name = f"{group.name}/places" if is_apart else group.name
                groups.append(dataclasses.replace(group, name=name, tables=members))
    return tuple(groups)
