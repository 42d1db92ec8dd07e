"""Tests of the recorder: the same numbers in `metrics.jsonl` and in TensorBoard."""

import tensorflow as tf

from monolith_tf.testing import summaries
from monolith_tf.training import recorder as recorder_lib


def test_numbers_go_to_both_places(tmp_path):
    recorder = recorder_lib.Recorder(tmp_path)
    recorder.record("train", 3, {"loss": 0.5, "rate": 2.0})
    recorder.record("train", 6, {"loss": 0.25})
    recorder.record("eval", 6, {"loss": 0.75})
    # Already flushed: a job may be killed.
    found = summaries.read(tmp_path / "tensorboard" / "train")
    assert found == {("loss", 3): 0.5, ("rate", 3): 2.0, ("loss", 6): 0.25}
    found = summaries.read(tmp_path / "tensorboard" / "eval")
    assert found == {("loss", 6): 0.75}
    assert recorder.log.read() == [
        {"phase": "train", "step": 3, "loss": 0.5, "rate": 2.0},
        {"phase": "train", "step": 6, "loss": 0.25},
        {"phase": "eval", "step": 6, "loss": 0.75},
    ]
    assert len(list((tmp_path / "tensorboard" / "train").iterdir())) == 1
    recorder.close()
    recorder.record("train", 9, {"loss": 0.125})  # Opens another file.
    recorder.close()
    found = summaries.read(tmp_path / "tensorboard" / "train")
    assert found["loss", 9] == 0.125


def test_without_summaries_there_is_no_tensorboard(tmp_path):
    recorder = recorder_lib.Recorder(tmp_path, summaries=False)
    recorder.record("train", 3, {"loss": 0.5})
    with recorder.summaries("search", 3):
        tf.summary.scalar("x", 1.0)
    assert recorder.log.read() == [{"phase": "train", "step": 3, "loss": 0.5}]
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    recorder.close()
