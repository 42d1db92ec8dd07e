"""Jobs that come back to their data train on each row as often as on any other."""

import os
import random

import pytest

from monolith_tf.testing.cluster_processes import ClusterProcesses
from tests.experiment import counting_job

_OTHER_ENDINGS = ("csv", "csv.zst", "tfrecord", "tfrecord.gz")


@pytest.fixture(autouse=True)
def _model(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    "ending",
    [
        "parquet",
        "csv.gz",
        *(pytest.param(ending, marks=pytest.mark.slow) for ending in _OTHER_ENDINGS),
    ],
)
def test_a_file_a_day_is_trained_on_once_whatever_a_batch_is(tmp_path, ending):
    job = counting_job.Job(tmp_path, ending)
    for size in (64, 64, 8):
        job.add(30)
        job.train(f"data.batch_size={size}")
    job.assert_trained(1)


def test_files_that_follow_within_the_first_of_several_epochs(tmp_path, caplog):
    job = counting_job.Job(tmp_path)
    job.add(50)
    job.train("trainer.epochs=3", "trainer.max_steps=5")
    job.add(41)
    with caplog.at_level("INFO", logger="absl"):
        job.train("trainer.epochs=3", "data.batch_size=9", "trainer.max_steps=8")
    assert "1 files follow the train files of the checkpoint; continuing at row 35" in (
        caplog.text
    )
    job.add(5)
    with caplog.at_level("INFO", logger="absl"):
        job.train("trainer.epochs=3")
    assert f"continuing at row {35 + 3 * 9} of all files" in caplog.text
    job.assert_trained(3)


def test_progressive_scores_a_row_before_it_is_trained_on(tmp_path):
    job = counting_job.Job(tmp_path)
    progressive = ("trainer.mode=progressive", "trainer.eval_every_steps=1")
    for size in (64, 7, 20):
        job.add(30)
        job.train(*progressive, f"data.batch_size={size}")
    job.assert_trained(1)
    # The loss is the sum of what was predicted for rows.
    assert {record["loss"] for record in job.records("eval")} == {0.0}


@pytest.mark.parametrize("seed", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_stops_with_another_batch_order_or_seed_each_time(tmp_path, seed):
    draw = random.Random(seed)
    job = counting_job.Job(tmp_path)
    for _ in range(draw.randint(1, 3)):
        job.add(draw.randint(1, 60), piece=draw.choice([1, 5, 100]))
    epochs, step = 2, 0
    stops = [draw.randint(1, 6) for _ in range(3)]
    for more in [*stops, 10_000]:
        step += more
        job.train(
            f"trainer.epochs={epochs}",
            f"trainer.max_steps={step}",
            f"data.batch_size={draw.choice([1, 2, 5, 16, 64])}",
            f"data.shuffle_buffer={draw.choice([0, 9, 20, 50])}",
            f"seed={draw.choice([1, 2])}",
        )
        step = min(step, job.records("train")[-1]["step"])
    job.assert_trained(epochs)


@pytest.mark.distributed
@pytest.mark.timeout(600)
def test_workers_go_on_at_the_next_row(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}")
    job = counting_job.Job(tmp_path)
    job.add(50)
    job.train("trainer.epochs=2", "trainer.max_steps=9", "data.shuffle_buffer=20")
    size = ("data.batch_size=12", "trainer.epochs=2")
    with ClusterProcesses(
        job.config, tmp_path / "model", *size, ps=1, workers=1
    ) as cluster:
        cluster.start()
        codes = cluster.wait_all()
        assert not any(codes.values()), (codes, cluster.log("chief"))
    job.assert_trained(2)
