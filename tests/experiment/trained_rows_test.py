"""Jobs whose held-out rows have become others, and what they say of it."""

import re

import numpy as np
import pytest

from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.testing import small_job
from tests.experiment import counting_job

_FIFTH = "data.validation_fraction=0.2"
_OFTEN = "trainer.eval_every_epochs=1"


@pytest.fixture(name="job")
def _job(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    made = counting_job.Job(tmp_path)
    made.add(60)
    made.add(90)
    made.train(_FIFTH, _OFTEN)
    return made


def _seen(job, *overrides):
    """How many rows of the eval split the model was trained on, and all of it."""
    found = estimator_lib.Estimator(job.config, *overrides).predict("eval")
    counts = np.concatenate([batch["click"] for batch in found])
    return int((counts > 0).sum()), len(counts)


def _check(job, caplog, reason, *overrides):
    """Compares what evaluating and training say with what the model has counted."""
    seen, of = _seen(job, *overrides)
    assert seen > 0
    caplog.clear()
    estimator_lib.Estimator(job.config, *overrides).evaluate("eval")
    said = re.findall(
        r"trained on, up to (\d+) of the (\d+) that.*files: (.*)", caplog.text
    )
    assert [(int(a), int(b)) for a, b, _ in said] == [(seen, of)]
    assert reason in said[0][2]
    assert job.records("data")[-1]["eval/trained_rows"] == seen
    caplog.clear()
    job.train(*overrides, _OFTEN, "trainer.epochs=2")
    assert f"trained on, up to {seen} of the {of} that" in caplog.text
    assert job.records("data")[-1]["eval/trained_rows"] == seen


def _check_clean(job, caplog, *overrides):
    caplog.clear()
    estimator_lib.Estimator(job.config, *overrides).evaluate("eval")
    job.train(*overrides, _OFTEN, "trainer.epochs=2")
    assert "eval split has rows" not in caplog.text
    assert _seen(job, *overrides)[0] == 0
    assert not job.records("data")


def test_a_larger_fraction(job, caplog):
    reason = "the fraction was 0.2 and is now 0.4"
    _check(job, caplog, reason, "data.validation_fraction=0.4")


def test_another_seed(job, caplog):
    _check(job, caplog, "`seed` was 1 and is now 2", _FIFTH, "seed=2")


def test_files_in_another_order(job, caplog):
    days = job.folder / "days"
    both = f"data.train=[{days}/1.parquet,{days}/0.parquet]"
    reason = (
        f"{days}/1.parquet was number 1 of the train files (counting from 0) and is"
    )
    _check(job, caplog, reason, _FIFTH, both)


def test_a_file_was_removed_and_the_rest_was_moved(job, caplog):
    days, moved = job.folder / "days", job.folder / "moved"
    moved.mkdir()
    (days / "1.parquet").rename(moved / "other.parquet")
    reason = "other.parquet was number 1 of the train files (counting from 0) and is"
    _check(job, caplog, reason, _FIFTH, f"data.train={moved}/*.parquet")


def test_files_that_follow_and_a_smaller_fraction_move_no_row(job, caplog):
    job.add(30)
    _check_clean(job, caplog, "data.validation_fraction=0.1")


def test_what_was_trained_on_before_other_files_is_remembered(job, caplog):
    days = job.folder / "days"
    job.add(50)
    job.train(_FIFTH, _OFTEN, f"data.train={days}/2.parquet")
    # Number 0 again, but number 1 of all is as it was; number 2 was number 0.
    caplog.clear()
    job.train(_FIFTH, _OFTEN)
    said = re.findall(r"(\d+) files: (.*)", caplog.text)
    assert len(said) == 1 and said[0][0] == "1"
    assert "2.parquet was number 0" in said[0][1]


def test_a_checkpoint_that_does_not_say_is_of_its_files_and_config(job, caplog):
    found = small_job.last(job.folder / "model")
    small_job.rewrite_manifests(
        found, lambda manifest: manifest.get("state", {}).pop("trained", None)
    )
    _check(job, caplog, "`seed` was 1 and is now 2", _FIFTH, "seed=2")


def test_rows_of_csv_files_are_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.syspath_prepend(tmp_path)
    job = counting_job.Job(tmp_path, "csv")
    job.add(60)
    job.train()
    _check(job, caplog, "no rows were held out before", _FIFTH)
