import shutil

import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from monolith_tf.serving import errors
from monolith_tf.serving import model as model_lib
from monolith_tf.serving import warmup


@pytest.fixture
def version(saved, tmp_path):
    shutil.copytree(saved / "1", tmp_path / "1")
    (tmp_path / "1" / "assets.extra").mkdir()
    return tmp_path / "1"


def _write(version, logs):
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            writer.write(log.SerializeToString())


def _replay(version):
    model = model_lib.Model(version)
    try:
        warmup.replay(model)
    finally:
        model.close()


def _log(ask, **inputs):
    log = prediction_log_pb2.PredictionLog()
    log.predict_log.request.CopyFrom(ask(**inputs))
    return log


def test_requests_are_answered(version, ask, rows):
    classify = prediction_log_pb2.PredictionLog()
    request = classify.classify_log.request
    request.model_spec.signature_name = "classify"
    example = request.input.example_list.examples.add()
    example.features.feature["user"].int64_list.value.append(1)
    regress = prediction_log_pb2.PredictionLog()
    regress.regress_log.request.input.CopyFrom(request.input)
    regress.regress_log.request.model_spec.signature_name = "regress"
    _write(version, [_log(ask, **rows), classify, regress])
    _replay(version)
    for log in (classify.classify_log, regress.regress_log):
        del log.request.input.example_list.examples[:]
    for bad in (classify, regress):
        _write(version, [_log(ask, **rows), bad])
        with pytest.raises(errors.ServingError, match=r"request 2 .* has no examples"):
            _replay(version)


def test_other_kinds_of_requests_are_passed_over(version, caplog):
    kinds = ("multi_inference_log", "predict_streamed_log", "session_run_log")
    others = [prediction_log_pb2.PredictionLog(**{kind: {}}) for kind in kinds]
    _write(version, [*others, prediction_log_pb2.PredictionLog()])
    with caplog.at_level("INFO", "absl"):
        _replay(version)
    assert "Version 1 is warm after 4 requests." in caplog.text


def test_none_are_needed(version):
    _replay(version)


def test_one_that_fails_keeps_the_version_back(version, ask, rows):
    _write(version, [_log(ask, **rows), _log(ask, user=rows["user"])])
    with pytest.raises(
        errors.ServingError, match=rf"{version} fails at request 2 of its warm-up: The "
    ):
        _replay(version)


def test_a_damaged_file_keeps_the_version_back(version, ask, rows):
    _write(version, [_log(ask, **rows)])
    path = version / "assets.extra" / "tf_serving_warmup_requests"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(errors.ServingError, match="of its warm-up: "):
        _replay(version)
    _write(version, [])
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(b"\xff\xff")
    with pytest.raises(errors.ServingError, match="of its warm-up: "):
        _replay(version)


def test_too_many_keep_the_version_back(version, ask, monkeypatch):
    monkeypatch.setattr(warmup, "_answer", lambda model, log: None)
    _write(version, [prediction_log_pb2.PredictionLog()] * 1001)
    with pytest.raises(errors.ServingError, match="has more than 1000 requests"):
        _replay(version)
