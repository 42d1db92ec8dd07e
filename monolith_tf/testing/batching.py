"""Which requests TF Serving's batcher (`--enable_batching`) accepts."""

import pathlib
from collections.abc import Iterator
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from monolith_tf.export import warmup

Record = tuple[str, str, dict[str, np.ndarray]]
"""Signature, method ("predict", "classify", "regress"), and inputs."""


def warmup_records(version: pathlib.Path) -> Iterator[Record]:
    """Yields the requests of a version's warm-up file, in order.

    Args:
      version: The folder of a SavedModel.
    """
    path = str(version / warmup.FILE)
    for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
        log = prediction_log_pb2.PredictionLog.FromString(record)
        kind = log.WhichOneof("log_type")
        request = getattr(log, kind).request
        if kind == "predict_log":
            inputs = {k: tf.make_ndarray(v) for k, v in request.inputs.items()}
        else:
            examples = request.input.example_list.examples
            texts = [example.SerializeToString() for example in examples]
            inputs = {"inputs": np.array(texts, object)}
        method = kind.removesuffix("_log")
        yield request.model_spec.signature_name, method, inputs


def refusal(inputs: Mapping[str, np.ndarray], max_batch_size: int) -> str | None:
    """Returns why the batcher rejects a request, or None if it accepts it.

    Args:
      inputs: Inputs of a request for all outputs of its signature.
      max_batch_size: As in the server's batching parameters.
    """
    shapes = {name: value.shape for name, value in inputs.items()}
    if not shapes:
        return "there must be at least one input tensor"
    if not all(shapes.values()):
        return f"input tensors must have at least one dimension: {shapes}"
    sizes = {shape[0] for shape in shapes.values()}
    if len(sizes) > 1:
        return f"input tensors must have equal 0th-dimension size: {shapes}"
    size = sizes.pop()
    if size > max_batch_size:
        return f"{size} rows are more than max_batch_size {max_batch_size}"
    return None
