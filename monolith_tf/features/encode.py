"""Raw columns to feature ids and dense features, the same in training and serving."""

import types
from collections.abc import Callable
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from monolith_tf import ids as ids_lib
from monolith_tf.features import columns as columns_lib
from monolith_tf.features import transforms
from monolith_tf.features.columns import ColumnType
from monolith_tf.features.spec import FeatureSpec
from monolith_tf.features.strings import StringCodes
from monolith_tf.padded import Padded
from monolith_tf.types import JsonMapping
from monolith_tf.types import RaggedTensor
from monolith_tf.types import Tensor

LARGE_INTEGER = "an id is a large integer"
"""Start of the error for an integer that its table does not accept."""

_NONE: Mapping[str, ids_lib.LargeIntegers | None] = types.MappingProxyType({})


class FeatureBatch(NamedTuple):
    """One batch of encoded features, in config order.

    Attributes:
      ids: Feature -> feature ids, int64: `[batch]` for kind `id`, ragged
        `[batch, None]` for kind `id_list`. Ids of an exact table are the integers
        themselves; in other tables a negative id has no row.
      dense: Feature -> numbers, float32 `[batch, width]`.
    """

    ids: dict[str, Tensor | RaggedTensor]
    dense: dict[str, Tensor]


class FeatureEncoder(tf.Module):
    """Encodes raw columns.

    It has no variables: slots, boundaries and statistics become constants of the graph,
    so an exported model encodes exactly as in training.

    Args:
      features: The features, in config order.
      slots: Table -> slot, for every table that the features use.
      statistics: What `statistics.compute` returns for the training data.
      large_integers: Table -> how it handles integers outside [0, 2^48), as in
        `TableSpec`; a table that is missing here rejects them.

    Raises:
      ValueError: If a table has no slot, or a `zscore` has no statistics.
    """

    def __init__(
        self,
        features: Sequence[FeatureSpec],
        slots: Mapping[str, int],
        *,
        statistics: JsonMapping | None = None,
        large_integers: Mapping[str, ids_lib.LargeIntegers | None] = _NONE,
    ) -> None:
        super().__init__(name="feature_encoder")
        self._features = tuple(features)
        self._slots = dict(slots)
        self._statistics = dict(statistics or {})
        self._large_integers = dict(large_integers)
        for feature in self._features:
            self._check(feature)

    @property
    def features(self) -> tuple[FeatureSpec, ...]:
        """The features, in config order."""
        return self._features

    def only(self, names: Collection[str]) -> "FeatureEncoder":
        """Returns an encoder of some of the features."""
        chosen = [feature for feature in self._features if feature.name in names]
        return FeatureEncoder(
            chosen,
            self._slots,
            statistics=self._statistics,
            large_integers=self._large_integers,
        )

    def exact_table(self, name: str) -> str | None:
        """Returns the table of a feature if it is exact, else None."""
        (feature,) = (f for f in self._features if f.name == name)
        is_exact = self._large_integers.get(feature.table_name) == "exact"
        return feature.table_name if is_exact else None

    def takes_no_large_integers(self, feature: FeatureSpec) -> bool:
        """Returns whether training stops at an integer outside [0, 2^48)."""
        may_be_large = feature.kind != "dense" and not feature.transform
        return may_be_large and not self._large_integers.get(feature.table_name)

    @tf.autograph.experimental.do_not_convert
    def encode(
        self, columns: Mapping[str, Tensor | RaggedTensor], *, training: bool = False
    ) -> FeatureBatch:
        """Encodes a batch.

        Args:
          columns: Column -> raw values: `[batch]`, or ragged `[batch, None]` for an
            `id_list` or a dense feature of several numbers; the latter may also be
            `[batch, dim]`. Lists may be `Padded`, and strings `StringCodes`. Unused
            columns are ignored.
          training: Whether ids get rows. If so, an integer that its table does not
            accept is an error.

        Raises:
          ValueError: If a column is missing.
          tf.errors.InvalidArgumentError: If, in training, an integer is outside
            [0, 2^48) and its table does not accept it; the message has `LARGE_INTEGER`.
        """
        dense: dict[str, Tensor] = {}
        strings: dict[str, Tensor] = {}
        integers: dict[str | None, dict[str, Tensor]] = {}
        with tf.device("CPU:0"):
            for feature in self._features:
                values = self._column(feature, columns)
                if isinstance(values, Padded):
                    values = values.to_ragged()
                if feature.kind == "dense":
                    dense[feature.name] = self._dense(feature, values)
                    continue
                if isinstance(values, StringCodes):
                    strings[feature.name] = _flat(values.hashes())
                    continue
                flat = _flat(values)
                if flat.dtype == tf.string:
                    strings[feature.name] = ids_lib.from_strings(flat)
                else:
                    large = self._large_integers.get(feature.table_name)
                    of_kind = integers.setdefault(large, {})
                    of_kind[feature.name] = self._integers(feature, flat)
            hashed = {
                **strings,
                **integers.get("exact", {}),
                **_at_once(ids_lib.from_integers, integers.get("hash", {})),
                **_at_once(
                    _from_checked if training else ids_lib.from_small_integers,
                    integers.get(None, {}),
                ),
            }
            ids = {
                feature.name: self._ids(feature, hashed[feature.name], columns)
                for feature in self._features
                if feature.name in hashed
            }
        return FeatureBatch(ids, dense)

    @property
    def clipping(self) -> tuple[str, ...]:
        """The features with a `clip` among their transforms."""
        return tuple(
            feature.name
            for feature in self._features
            if any(step.name == "clip" for step in feature.transform)
        )

    @tf.autograph.experimental.do_not_convert
    def clipped(
        self, columns: Mapping[str, Tensor | RaggedTensor]
    ) -> dict[str, Tensor]:
        """Returns how many values of a batch are clipped.

        Args:
          columns: As in `encode`.

        Returns:
          Feature -> int64 scalar, for each of `clipping`.
        """
        found = {}
        with tf.device("CPU:0"):
            for feature in self._features:
                if feature.name not in self.clipping:
                    continue
                values = self._column(feature, columns)
                if isinstance(values, Padded):
                    values = values.to_ragged()
                values = raw_numbers(feature, _flat(values))
                if feature.kind == "dense":
                    values = tf.reshape(values, [-1, feature.dim])
                found[feature.name] = transforms.count_clipped(
                    values, feature.transform, self._statistics.get(feature.name, {})
                )
        return found

    @tf.autograph.experimental.do_not_convert
    def values(
        self, columns: Mapping[str, Tensor | RaggedTensor], integers: Collection[str]
    ) -> dict[str, Tensor | RaggedTensor | Padded]:
        """Returns raw integers or hashes of ids, for `FrozenStore.find_values`.

        Args:
          columns: As in `encode`.
          integers: Tables that are looked up by integers; the others use hashes.

        Returns:
          Feature -> int64, in the shape of its column.
        """
        found = {}
        for feature in self._features:
            if feature.kind == "dense":
                continue
            column = self._column(feature, columns)
            if isinstance(column, StringCodes):
                found[feature.name] = column.hashes()
                continue
            flat = column.values if isinstance(column, Padded) else _flat(column)
            if flat.dtype == tf.string:
                flat = ids_lib.from_strings(flat)
            else:
                flat = self._integers(feature, flat)
                if feature.table_name not in integers:
                    hashes = self._large_integers.get(feature.table_name) == "hash"
                    flat = (
                        ids_lib.from_integers(flat)
                        if hashes
                        else ids_lib.from_small_integers(flat)
                    )
            if isinstance(column, Padded):
                flat = column._replace(values=flat)
            elif _is_ragged(column):
                flat = column.with_flat_values(flat)
            found[feature.name] = flat
        return found

    def _integers(self, feature: FeatureSpec, values: Tensor) -> Tensor:
        """Returns the integers to hash, int64: transformed numbers or raw integers."""
        if feature.transform:
            return self._numbers(feature, values)
        return tf.cast(values, tf.int64)

    def _ids(
        self, feature: FeatureSpec, hashed: Tensor, columns: Mapping[str, Tensor]
    ) -> Tensor | RaggedTensor:
        """Adds the slot to hashed values, in the shape of their column."""
        flat = hashed
        if self.exact_table(feature.name) is None:
            flat = ids_lib.with_slot(self._slots[feature.table_name], hashed)
        values = columns[feature.source_column]
        if isinstance(values, StringCodes):
            values = values.codes
        if isinstance(values, Padded):
            values = values.to_ragged()
        return values.with_flat_values(flat) if _is_ragged(values) else flat

    def _dense(self, feature: FeatureSpec, values: Tensor) -> Tensor:
        """Returns a dense feature, `[batch, width]`."""
        if _is_ragged(values):
            values = tf.ensure_shape(values.to_tensor(), [None, feature.dim])
        values = self._numbers(feature, tf.reshape(values, [-1, feature.dim]))
        if values.dtype == tf.int64:
            depth = feature.width // feature.dim
            values = tf.reshape(tf.one_hot(values, depth), [-1, feature.width])
        return values  # [batch, width]

    def _numbers(self, feature: FeatureSpec, values: Tensor) -> Tensor:
        """Returns transformed numbers; float32, or int64 buckets."""
        values = raw_numbers(feature, values)
        found = self._statistics.get(feature.name, {})
        values = transforms.apply(values, feature.transform, found)
        return tf.cast(values, tf.float32) if values.dtype.is_floating else values

    def _column(
        self, feature: FeatureSpec, columns: Mapping[str, Tensor]
    ) -> Tensor | RaggedTensor:
        """Returns the column of a feature."""
        name = feature.source_column
        if name not in columns:
            raise ValueError(
                f"Feature `{feature.name}` needs the column `{name}`. "
                f"Received: columns {', '.join(f'`{key}`' for key in columns)}."
            )
        values = columns[name]
        if isinstance(values, StringCodes | tf.RaggedTensor | Padded):
            return values
        return tf.convert_to_tensor(values)

    def _check(self, feature: FeatureSpec) -> None:
        """Raises ValueError if a feature's slot or statistics are missing."""
        if feature.kind != "dense":
            if feature.table_name not in self._slots:
                raise ValueError(
                    f"`slots` must have the table `{feature.table_name}` of feature "
                    f"`{feature.name}`. Received: slots={self._slots}."
                )
            ids_lib.check_slot(self._slots[feature.table_name])
        needs = transforms.needs_statistics(feature.transform) is not None
        if needs and feature.name not in self._statistics:
            raise ValueError(
                f"`statistics` must have mean and std of feature `{feature.name}`, "
                "whose `zscore` takes them from the data. Received: statistics of "
                f"{sorted(self._statistics)}. Compute them from the train split, or "
                "set `mean` and `std` in the config."
            )


def _from_checked(values: Tensor) -> Tensor:
    """Hashes integers that must be in [0, 2^48)."""
    message = (
        f"{LARGE_INTEGER}, outside of [0, 2^48). Set `large_integers: exact` for its "
        "table."
    )
    check = tf.debugging.Assert(ids_lib.all_small([values]), [message])
    # Without the dependency, the store could insert rows before the check fails.
    with tf.control_dependencies([check]):
        return ids_lib.from_integers(tf.identity(values), are_small=True)


def integer_tables(
    features: Sequence[FeatureSpec], columns: Mapping[str, ColumnType]
) -> frozenset[str]:
    """Returns the tables whose raw ids are integers."""
    kinds = columns_lib.id_types(features, columns)
    return frozenset(table for table, kind in kinds.items() if kind == "int")


def raw_numbers(feature: FeatureSpec, values: Tensor) -> Tensor:
    """Returns numbers as transforms take them, with the default in place of NaN.

    Integers become float64 where there are transforms: float32 would round those from
    2^24 on, and make one number of many timestamps. All else becomes float32.
    """
    if values.dtype.is_integer and feature.transform:
        return tf.cast(values, tf.float64)
    values = tf.cast(values, tf.float32)
    if feature.default is not None:
        default = tf.constant(float(feature.default), tf.float32)
        values = tf.where(tf.math.is_nan(values), default, values)
    return values


def _at_once(
    function: Callable[[Tensor], Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Applies an elementwise function to several vectors in one call."""
    if len(tensors) < 2:
        return {name: function(tensor) for name, tensor in tensors.items()}
    sizes = tf.stack([tf.size(tensor) for tensor in tensors.values()])
    results = tf.split(
        function(tf.concat(list(tensors.values()), axis=0)), sizes, num=len(tensors)
    )
    return {
        name: tf.ensure_shape(result, tensor.shape)
        for (name, tensor), result in zip(tensors.items(), results, strict=True)
    }


def _flat(values: Tensor | RaggedTensor) -> Tensor:
    return values.flat_values if _is_ragged(values) else values


def _is_ragged(values: object) -> bool:
    return isinstance(values, tf.RaggedTensor)
