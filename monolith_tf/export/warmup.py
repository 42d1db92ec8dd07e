"""The warm-up requests that a server answers when it loads an export."""

import pathlib
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from absl import logging

from monolith_tf.export import signatures

FILE = pathlib.PurePath("assets.extra", "tf_serving_warmup_requests")

MAX_ROWS = 16
"""Rows per request. A server with batching refuses requests above its `max_batch_size`,
and then the whole version."""


def write(
    directory: pathlib.Path,
    requests: Mapping[str, tuple[str, Mapping[str, np.ndarray]]],
) -> None:
    """Writes one request per signature, if `tensorflow-serving-api` is installed.

    Args:
      directory: A SavedModel.
      requests: Signature -> method and inputs, which all have the same first dimension
        of at most `MAX_ROWS`.
    """
    try:
        from tensorflow_serving.apis import prediction_log_pb2
    except ImportError:
        logging.warning(
            "The export has no warm-up requests: `tensorflow-serving-api` is not "
            "installed. Run `pip install monolith_tf[serving]`."
        )
        return
    path = directory / FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for key, (method, inputs) in requests.items():
            log = prediction_log_pb2.PredictionLog()
            if method == signatures.PREDICT:
                request = log.predict_log.request
                for name, value in inputs.items():
                    request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
            else:
                is_regress = method == signatures.REGRESS
                named = log.regress_log if is_regress else log.classify_log
                request = named.request
                for example in inputs["inputs"].tolist():
                    request.input.example_list.examples.add().ParseFromString(example)
            request.model_spec.signature_name = key
            writer.write(log.SerializeToString(deterministic=True))
