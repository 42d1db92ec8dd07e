"""Labelled rows that a served model predicts before others get an update."""

import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2

from monolith_tf import atomic
from monolith_tf.serving import errors

FILE = "golden_rows.pb"
_INPUT, _LABEL = "input/", "label/"


class GoldenRows(NamedTuple):
    """Some rows, as a server takes them, with their labels.

    Attributes:
      inputs: Input of `serving_default` -> its value.
      labels: Label -> value of each row, `[rows]`, float32.
    """

    inputs: Mapping[str, np.ndarray]
    labels: Mapping[str, np.ndarray]

    @property
    def num_rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.labels.values()), ()))

    def write(self, path: pathlib.Path) -> None:
        """Writes the rows to a file, whole or not at all."""
        record = predict_pb2.PredictRequest()
        for prefix, values in ((_INPUT, self.inputs), (_LABEL, self.labels)):
            for name, value in values.items():
                record.inputs[prefix + name].CopyFrom(tf.make_tensor_proto(value))
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(path, record.SerializeToString(deterministic=True))


def read(path: pathlib.Path) -> GoldenRows:
    """Returns the rows of a file.

    Raises:
      ServingError: If it has none.
    """
    inputs, labels = {}, {}
    try:
        record = predict_pb2.PredictRequest.FromString(path.read_bytes())
        for name, proto in record.inputs.items():
            value = tf.make_ndarray(proto)
            if name.startswith(_INPUT):
                inputs[name.removeprefix(_INPUT)] = value
            else:
                labels[name.removeprefix(_LABEL)] = value
    except OSError as error:
        raise errors.ServingError(f"Cannot read golden rows: {error}.") from None
    except Exception as error:  # A damaged file may raise any error.
        raise errors.ServingError(
            f"{path} has no golden rows: {error}. Remove it; the job writes another."
        ) from None
    return GoldenRows(inputs, labels)
