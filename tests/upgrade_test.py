"""Loads what version 0.1.0 wrote; `golden/v0_1_0/make.py` made it."""

import csv
import gzip
import json
import pathlib
import shutil

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from monolith_tf.cli import main
from monolith_tf.cli import predict
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.experiment.estimator import Estimator
from monolith_tf.serving import errors
from monolith_tf.serving import publishing
from monolith_tf.serving import server as server_lib
from monolith_tf.testing import small_job
from monolith_tf.training import checkpoint

_GOLDEN = pathlib.Path(__file__).parent / "golden" / "v0_1_0"


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A copy of the files that 0.1.0 wrote, as the working folder."""
    folder = tmp_path / "written"
    shutil.copytree(_GOLDEN, folder, ignore=shutil.ignore_patterns("make.py"))
    for path in folder.rglob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    monkeypatch.chdir(folder)
    return folder


def _inputs(expected):
    return {
        name.removeprefix("inputs/"): tf.constant(expected[name])
        for name in expected
        if name.startswith("inputs/")
    }


def _expected_rows(expected, moment):
    ends = np.cumsum(expected[f"{moment}/lengths"])[:-1]
    rows = np.split(expected[f"{moment}/rows"], ends)
    return dict(zip(expected[f"{moment}/ids"].tolist(), rows, strict=True))


def _check_rows(found, expected, moment, tolerance):
    rows = small_job.rows(found.embedding_dir)
    expected_rows = _expected_rows(expected, moment)
    assert rows.keys() == expected_rows.keys()
    for feature_id, row in expected_rows.items():
        values = np.frombuffer(rows[feature_id], np.float32)
        np.testing.assert_allclose(values, row, rtol=tolerance, atol=tolerance)


def test_a_job_is_evaluated_and_resumes_as_it_would_have(written):
    expected = np.load("expected_job.npz")
    job = Estimator("config.yaml")
    _check_rows(small_job.last(written / "model"), expected, "at_16", 0)
    metrics = job.evaluate("eval")
    assert metrics["click/auc"] == pytest.approx(float(expected["auc"]), abs=1e-6)
    log_loss = float(expected["log_loss"])
    assert metrics["click/log_loss"] == pytest.approx(log_loss, abs=1e-5)
    job.train()
    found = small_job.last(written / "model")
    assert found.step == int(expected["resumed_steps"])
    _check_rows(found, expected, "resumed", 1e-4)


def test_an_export_answers_as_it_did(written):
    expected = np.load("expected_job.npz")
    (export,) = (written / "model" / "export").iterdir()
    signature = tf.saved_model.load(str(export)).signatures["serving_default"]
    answer = signature(**_inputs(expected))["click"]
    np.testing.assert_allclose(answer, expected["click"], atol=1e-6)


def test_rows_of_files_are_predicted_as_they_were(written):
    expected = np.load("expected_job.npz")
    rows = {name: tensor.numpy() for name, tensor in _inputs(expected).items()}
    lists = [
        "|".join(map(str, items[:length]))
        for items, length in zip(
            rows.pop("history"), rows.pop("history_length"), strict=True
        )
    ]
    with open("rows.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*rows, "history"])
        for *values, items in zip(*rows.values(), lists, strict=True):
            cells = [v.decode() if isinstance(v, bytes) else v for v in values]
            writer.writerow([*cells, items])
    arguments = [
        "predict",
        "model/export",
        "--input",
        "rows.csv",
        "--output",
        "x.jsonl",
    ]
    parsed = main.parse(["monolith-tf", *arguments, "--verbose"])
    assert predict.run(parsed) == 0
    with open("x.jsonl", encoding="utf-8") as file:
        clicks = [json.loads(line)["click"] for line in file]
    np.testing.assert_allclose(clicks, expected["click"], atol=1e-6)


def test_a_checkpoint_and_deltas_restore_on_other_shards(written):
    expected = np.load("expected_store.npz")
    tables = (
        TableSpec(name="a", slot=1, dim=2, expire_after_steps=10, admit_after=2),
        TableSpec(name="b", slot=2, dim=3),
    )
    store = EmbeddingStore(
        tables,
        [ColumnSpec(feature=table.name, table=table.name) for table in tables],
        placement=Placement(num_shards=3),
        track_updates=True,
    )
    folders = [str(written / "store" / step) for step in ("6", "15", "18")]
    report = store.restore(folders[0], deltas=folders[1:])
    assert report.step == 18
    rows = _by_id(store.rows())
    places = [n for n in expected if n.startswith("ids/")]
    pairs = ((expected[n], expected[n.replace("ids", "rows")]) for n in places)
    expected_rows = _by_id(pairs)
    assert rows.keys() == expected_rows.keys()
    for feature_id, row in expected_rows.items():
        np.testing.assert_array_equal(rows[feature_id], row)
    for name, values in store.counters().items():
        if f"counters/{name}" in expected:
            np.testing.assert_array_equal(values, expected[f"counters/{name}"])


def _by_id(chunks):
    return {
        feature_id: row
        for ids, rows, *_ in chunks
        for feature_id, row in zip(ids.tolist(), rows, strict=True)
    }


def test_a_keras_file_answers_and_trains_as_it_did(written):
    expected = np.load("expected_keras.npz")
    model = tf_keras.models.load_model(written / "keras" / "model.keras")
    inputs = _inputs(expected)
    answer = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(answer, expected["answer"], atol=1e-6)
    model.fit(inputs, expected["target"], batch_size=16, verbose=0, shuffle=False)
    further = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(further, expected["further"], atol=1e-5)


def test_a_keras_saved_model_answers_as_it_did_and_trains_its_rows(written):
    expected = np.load("expected_keras.npz")
    model = tf_keras.models.load_model(written / "keras" / "saved_model")
    inputs = _inputs(expected)
    answer = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(answer, expected["answer"], atol=1e-6)
    before = _by_id([model.get_layer("keys").get_rows()])
    model.fit(inputs, expected["target"], batch_size=16, verbose=0)
    after = _by_id([model.get_layer("keys").get_rows()])
    assert before.keys() == after.keys()
    assert all(np.any(after[key] != row) for key, row in before.items())


def test_a_keras_export_answers_as_it_did(written):
    expected = np.load("expected_keras.npz")
    loaded = tf.saved_model.load(str(written / "keras" / "export"))
    inputs = [tf.constant(expected[f"inputs/{n}"]) for n in ("key", "word", "price")]
    np.testing.assert_allclose(loaded.serve(inputs), expected["answer"], atol=1e-6)


def test_lists_in_csv_cells_keep_the_type_that_0_1_0_guessed(written):
    expected = np.load("expected_csv_job.npz")
    with pytest.raises(
        checkpoint.CheckpointError, match="Set `dtype: string` for `history`"
    ):
        Estimator("csv_job/config.yaml", "trainer.epochs=2").train()
    config = written / "csv_job" / "config.yaml"
    line = "{name: history, kind: id_list"
    config.write_text(config.read_text().replace(line, f"{line}, dtype: string"))
    Estimator(config, "trainer.epochs=2").train()
    rows = small_job.rows(small_job.last(written / "csv_job" / "model").embedding_dir)
    assert sorted(rows) == expected["ids"].tolist()


def test_an_export_is_served_and_must_be_made_again_to_be_published_to(written):
    expected = np.load("expected_job.npz")
    inputs = {name: value.numpy() for name, value in _inputs(expected).items()}
    with server_lib.ModelServer(written / "model" / "export", port=0) as server:
        with pytest.raises(
            errors.ServingError,
            match=r"^The model at 127\.0\.0\.1:\d+ was exported without a lineage "
            r"by .*Export it again: `monolith-tf export CONFIG`\.",
        ):
            publishing.publish(written / "model", f"127.0.0.1:{server.port}")
        with server.versions.use() as model:
            answer = model.run("", inputs)["click"]
    np.testing.assert_allclose(answer, expected["click"], atol=1e-6)
