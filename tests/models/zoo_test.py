"""Every config passes its check and trains a few steps on synthetic data."""

import pathlib

import pytest

from monolith_tf import config as config_lib
from monolith_tf.experiment import estimator

_CONFIGS = sorted((pathlib.Path(__file__).resolve().parents[2] / "configs").glob("*"))

# Two steps, and the evaluation at the end.
_SHORT = (
    "trainer.max_steps=2",
    "trainer.checkpoint_every_steps=null",
    "trainer.summaries=false",
    "trainer.warm_start=[]",
    "cluster=null",
)
_SYNTHETIC = (
    "data.format=synthetic",
    "data.train=[]",
    "data.eval=[]",
    "data.test=[]",
    "data.validation_fraction=0",
    "data.num_rows=128",
    "data.batch_size=64",
    "data.shuffle_buffer=0",
)


@pytest.mark.parametrize("path", _CONFIGS, ids=lambda path: path.stem)
def test_a_config_is_without_mistakes(path):
    config_lib.load_config(path, data="present")


@pytest.mark.parametrize("path", _CONFIGS, ids=lambda path: path.stem)
def test_a_config_trains_and_evaluates(path, tmp_path):
    # The data of census configs is in the project; synthetic rows would not match it.
    data = () if path.stem.startswith("census") else _SYNTHETIC
    job = estimator.Estimator(path, *_SHORT, *data, f"model_dir={tmp_path / 'model'}")
    metrics = job.train()
    assert any(name.endswith(("/auc", "/ndcg@10")) for name in metrics)
    assert 0 < metrics["loss"] < 10
