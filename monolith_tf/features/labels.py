"""Labels and example weights from raw columns."""

from collections.abc import Mapping
from collections.abc import Sequence

import tensorflow as tf

from monolith_tf.features.spec import LabelSpec
from monolith_tf.features.strings import StringCodes
from monolith_tf.types import Tensor


def encode_labels(
    labels: Sequence[LabelSpec], columns: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Returns label -> float32 `[batch]`, in config order.

    Args:
      labels: The labels.
      columns: Column -> raw values, `[batch]`.

    Raises:
      ValueError: If a column is missing.
    """
    with tf.device("CPU:0"):
        return {label.name: _label(label, columns) for label in labels}


def encode_weights(weight: str, columns: Mapping[str, Tensor]) -> Tensor:
    """Returns the weight of each example, float32 `[batch]`.

    Args:
      weight: The column that holds them.
      columns: Column -> raw values, `[batch]`.

    Raises:
      ValueError: If the column is missing.
    """
    return tf.cast(_column(weight, "The weights need", columns), tf.float32)


def _label(label: LabelSpec, columns: Mapping[str, Tensor]) -> Tensor:
    """Returns one label."""
    values = _column(label.source_column, f"Label `{label.name}` needs", columns)
    if not label.equals:
        return tf.cast(values, tf.float32)
    if values.dtype == tf.string:
        values = tf.strings.strip(values)
    same = tf.zeros_like(values, tf.bool)
    for value in label.equals:
        if isinstance(value, str):
            value = value.strip()
        elif values.dtype.is_integer and not float(value).is_integer():
            continue  # no integer equals it
        same |= tf.equal(values, tf.cast(tf.constant(value), values.dtype))
    return tf.cast(same, tf.float32)


def _column(name: str, who: str, columns: Mapping[str, Tensor]) -> Tensor:
    if name not in columns:
        raise ValueError(
            f"{who} the column `{name}`. "
            f"Received: columns {', '.join(f'`{key}`' for key in columns)}."
        )
    values = columns[name]
    if isinstance(values, StringCodes):
        return values.strings()
    return tf.convert_to_tensor(values)
