"""Replays an export's warm-up requests before it answers others."""

import tensorflow as tf
from absl import logging
from tensorflow_serving.apis import prediction_log_pb2

from monolith_tf.export import warmup
from monolith_tf.serving import answers
from monolith_tf.serving import errors
from monolith_tf.serving import model as model_lib

_MAX_RECORDS = 1000


def replay(model: model_lib.Model) -> None:
    """Answers every request of `assets.extra/tf_serving_warmup_requests`.

    Raises:
      ServingError: If the file is damaged or too long, or a request fails. TF Serving
        refuses such a version too.
    """
    path = model.path / warmup.FILE
    if not path.exists():
        return
    count = 0
    try:
        for record in tf.compat.v1.io.tf_record_iterator(str(path)):
            count += 1
            if count > _MAX_RECORDS:
                raise errors.ServingError(
                    f"{path} has more than {_MAX_RECORDS} requests, the limit of TF "
                    "Serving."
                )
            _answer(model, prediction_log_pb2.PredictionLog.FromString(record))
    except errors.ServingError:
        raise
    except Exception as error:  # A damaged file or the graph may raise any error.
        raise errors.ServingError(
            f"{model.path} fails at request {count} of its warm-up: {error}"
        ) from error
    logging.info("Version %d is warm after %d requests.", model.version, count)


def _answer(model: model_lib.Model, log: prediction_log_pb2.PredictionLog) -> None:
    kind = log.WhichOneof("log_type")
    if kind == "predict_log":
        answers.predict(model, log.predict_log.request)
    elif kind == "classify_log":
        answers.classify(model, log.classify_log.request)
    elif kind == "regress_log":
        answers.regress(model, log.regress_log.request)
