"""Integers of all 64 bits: no two share a row, from files to a running server."""

import dataclasses

import grpc
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from absl import logging
from pyarrow import parquet
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis import prediction_service_pb2_grpc

from monolith_tf import config as config_lib
from monolith_tf import ids
from monolith_tf.cli import main
from monolith_tf.cli import predict
from monolith_tf.config import schema
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.experiment import build
from monolith_tf.experiment import estimator
from monolith_tf.experiment.large_integers import LargeIntegerError
from monolith_tf.models import base
from monolith_tf.serving import publishing
from monolith_tf.serving import server as server_lib
from monolith_tf.testing import small_job
from monolith_tf.training import checkpoint as checkpoint_lib

CONFIG = """\
model_dir: {folder}/model
data: {{train: {folder}/small.parquet, test: {folder}/large.parquet, batch_size: 32}}
features:
  - {{name: user, kind: id}}
  - {{name: item, kind: id, table: item}}
  - {{name: history, kind: id_list, table: item, combiner: mean}}
labels: [click]
default_table: {{dim: 4, optimizer: {{name: adagrad, learning_rate: 0.1}}}}
tables:
  - {{name: item, dim: 4, optimizer: {{name: adagrad, learning_rate: 0.1}}}}
model: {{name: dcn, params: {{label: click, hidden_units: [8]}}}}
trainer:
  epochs: 1
  optimizer: {{name: adam, learning_rate: 0.01}}
  summaries: false
metrics: [auc]
export: {{spare_rows: 8, verify_rows: 0}}
"""
EXACT = "tables[0].large_integers=exact"
ROWS = 96


def colliding():
    """Two integers of 19 digits with the same 48-bit hash, by inverting splitmix64."""

    def undone(x):
        mask = 2**64 - 1
        for shift, factor in (
            (31, 1),
            (27, 0x94D049BB133111EB),
            (30, 0xBF58476D1CE4E5B9),
        ):
            x = x * pow(factor, -1, 2**64) & mask
            y = x
            for _ in range(64 // shift):
                y = x ^ (y >> shift)
            x = y
        return (x - 0x9E3779B97F4A7C15) & mask

    found = (undone((high << 48) | 0x123456789ABC) for high in range(2**16))
    first, second, *_ = [x for x in found if 10**18 <= x < 2**63]
    return first, second


PAIR = colliding()
EXTREMES = (-(2**63), 2**63 - 1, -1, 2**48)
LARGE = (*PAIR, *EXTREMES)
SMALL = (0, 1, 2, 3, 2**48 - 1)


def write(path, items):
    """Rows whose click is 1 if the item is the first of `items`."""
    rng = np.random.default_rng(3)
    item = np.resize(np.array(items, np.int64), ROWS)
    history = [rng.choice(item, 2).tolist() for _ in range(ROWS)]
    columns = {
        "user": rng.integers(0, 9, ROWS),
        "item": item,
        "history": pa.array(history, pa.list_(pa.int64())),
        "click": (item == items[0]).astype(np.int64),
    }
    parquet.write_table(pa.table(columns), path)


@pytest.fixture
def config(tmp_path):
    """Loads the config with overrides; one file has small ids, one also large ids."""
    write(tmp_path / "small.parquet", SMALL)
    write(tmp_path / "large.parquet", (*LARGE, *SMALL[:3]))
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(folder=tmp_path), encoding="utf-8")
    return lambda *overrides: config_lib.load_config(path, overrides)


@pytest.fixture
def more(tmp_path):
    """Overrides with which the job resumes, on large integers."""
    return (f"data.train={tmp_path}/large.parquet",)


def rows_of(checkpoint, table="item"):
    """Integer -> its row in a table of a checkpoint."""
    state = checkpoint.manifest["state"]
    kind = state["large_integers"][table]
    found = small_job.rows(checkpoint.embedding_dir)
    slot = state["slots"]["slots"][table]
    if kind != "exact":
        slotted = {i: row for i, row in found.items() if i >> 48 == slot}
        return {ids.to_integer(i & (2**48 - 1)): row for i, row in slotted.items()}
    others = set(state["slots"]["slots"].values()) - {slot}
    return {i: row for i, row in found.items() if i >> 48 not in others}


def test_the_pair_collides_in_48_bits():
    assert len(set(PAIR)) == 2 and all(len(str(value)) == 19 for value in PAIR)
    assert len({ids.hash_integer(value) for value in PAIR}) == 1


def test_a_job_stops_at_the_first_large_integer_and_goes_on_with_the_line(
    config, more, tmp_path
):
    estimator.Estimator(config()).train()
    before = rows_of(small_job.last(tmp_path / "model"))
    assert set(before) == set(SMALL)
    # Every sixth row, as written; batches are shuffled, so that any may come first.
    with pytest.raises(LargeIntegerError) as caught:
        estimator.Estimator(config(*more)).train()
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/large.parquet: row ")
    row = int(message.partition("row ")[2].split()[0])
    column, value = next(
        (name, int(message.partition("integer ")[2].split(",")[0]))
        for name in ("item", "history")
        if f"feature `{name}` has the integer " in message
    )
    written = parquet.read_table(tmp_path / "large.parquet")[column][row].as_py()
    assert value in np.atleast_1d(written) and value in LARGE
    assert "its table `item` does not say" in message
    assert "Set `large_integers: exact` for the table" in message
    assert small_job.last(tmp_path / "model").step == 3  # Unchanged.
    estimator.Estimator(config(*more, EXACT)).train()
    after = small_job.last(tmp_path / "model")
    assert after.step == 6
    rows = rows_of(after)
    assert set(rows) == {*SMALL, *LARGE}
    assert rows[3] == before[3] and rows[2**48 - 1] == before[2**48 - 1]
    assert len({rows[value] for value in LARGE}) == len(LARGE)
    assert after.manifest["state"]["large_integers"] == {"item": "exact", "user": None}
    # From then on the setting may be left out, but not changed.
    metrics = estimator.Estimator(config(*more)).evaluate("test")
    assert set(metrics) == {"click/auc", "loss"}
    with pytest.raises(checkpoint_lib.CheckpointError, match=r"cannot become hash.*64"):
        estimator.Estimator(config("tables[0].large_integers=hash")).evaluate("test")


def test_large_integers_of_an_evaluation_have_no_row(config):
    """They read zeros, like an unknown integer, and raise no error."""
    made = estimator.Estimator(config())
    made.train()
    unknown = made.predict("test")
    _, network = made._restored(small_job.last(made._model_dir))
    columns = {
        "user": tf.zeros([4], tf.int64),
        "item": tf.constant([PAIR[0], -(2**63), 77, 2**48], tf.int64),
        "history": tf.ragged.constant([[PAIR[1]], [], [78], [-1]], tf.int64),
    }
    pulled = network.store.lookup(network.encoder.encode(columns).ids, training=False)
    found = network.store.combine(pulled)
    np.testing.assert_array_equal(found["item"]["vec"], np.zeros([4, 4]))
    np.testing.assert_array_equal(found["history"]["vec"], np.zeros([4, 4]))
    assert sum(len(batch["click"]) for batch in unknown) == ROWS


def test_rows_of_64_bits_move_between_shards(config, more, tmp_path):
    made = estimator.Estimator(config(*more, EXACT))
    made.train()
    saved = small_job.last(tmp_path / "model")
    job = build.Job(config(*more, EXACT))
    specs, columns = job.tables(job.settle(saved)), schema.columns(job.config)
    folder = saved.embedding_dir
    expected = small_job.rows(folder)
    for number in (2, 3, 1):
        placement = Placement(num_shards=number)
        store = EmbeddingStore(specs, columns, placement=placement)
        store.restore(folder)
        folder = str(tmp_path / f"{number}")
        store.save(folder)
        assert small_job.rows(folder) == expected
        asked = tf.constant(LARGE, tf.int64)
        pulled = store.lookup({"item": asked}, training=False)
        rows = store.combine(pulled)["item"]["vec"].numpy()
        for value, row in zip(LARGE, rows, strict=True):
            assert expected[value][:16] == row.tobytes()


def test_rows_of_64_bits_are_dropped_and_come_back():
    """Freed rows are marked by the id -1, which may be a real id here."""
    spec = schema.TableSpec(
        name="t", slot=5, dim=2, large_integers="exact", expire_after_steps=3
    )
    store = EmbeddingStore([spec], [schema.ColumnSpec(feature="f", table="t")])

    def train(values, step):
        asked = {"f": tf.constant(values, tf.int64)}
        pulled = store.lookup(asked, training=True, step=step)
        gradients = {name: tf.ones_like(r) for name, r in pulled.rows.items()}
        store.apply_gradients(pulled, gradients, step)

    def in_use():
        return sorted(i for chunk in store.rows() for i in chunk.ids.tolist())

    train([-1, *PAIR, -(2**63)], 0)
    train([-1, PAIR[0]], 3)
    assert store.maintain(4).expired == {"t": 2}
    assert in_use() == sorted([-1, PAIR[0]])
    assert store.maintain(9).expired == {"t": 2}
    assert in_use() == []
    train([7, -1, 2**63 - 1], 9)
    assert in_use() == [-1, 7, 2**63 - 1]


def ask(address, columns):
    """Returns what a server predicts."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = "default"
    for name, value in columns.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    with grpc.insecure_channel(address) as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        return tf.make_ndarray(stub.Predict(request, timeout=10).outputs["click"])


def test_a_server_answers_for_64_bits_and_takes_their_rows(config, more, tmp_path):
    exact = (more[0], EXACT, "trainer.keep_checkpoints=100")
    made = estimator.Estimator(config(*exact, "trainer.epochs=1"))
    made.train()
    made.export_saved_model()
    values = np.array([*LARGE, *SMALL, 99], np.int64)
    columns = {
        "user": np.zeros(len(values), np.int64),
        "item": values,
        "history": values[:, np.newaxis],
        "history_length": np.ones(len(values), np.int64),
    }

    def expected():
        """Returns the predictions of the newest checkpoint."""
        _, network = made._restored(small_job.last(tmp_path / "model"))
        raw = {
            **{name: tf.constant(columns[name]) for name in ("user", "item")},
            "history": tf.RaggedTensor.from_tensor(columns["history"]),
        }
        return network(raw, base.Mode.PREDICT).predictions["click"].numpy()

    with server_lib.ModelServer(tmp_path / "model" / "export", port=0) as server:
        address = f"127.0.0.1:{server.port}"
        first = ask(address, columns)
        np.testing.assert_allclose(first, expected(), atol=1e-6)
        assert len(set(first[: len(LARGE)].tolist())) == len(LARGE)
        made = estimator.Estimator(config(*exact, "trainer.epochs=9"))
        made.train()
        done = publishing.publish(tmp_path / "model", address)
        assert done.updated > 0
        second = ask(address, columns)
    np.testing.assert_allclose(second, expected(), atol=1e-6)
    # Only the first of the pair is ever clicked.
    assert second[0] - second[1] > max(first[0] - first[1], 0)


def forget(saved):
    """Turns a checkpoint into one of version 0.1.0."""

    def change(manifest):
        manifest.get("state", {}).pop("large_integers", None)
        for group in manifest.get("groups", []):
            for table in group["tables"]:
                del table["large_integers"]

    small_job.rewrite_manifests(saved, change)


def test_a_job_that_may_have_hashed_goes_on_hashing_and_says_so(
    config, more, tmp_path, monkeypatch
):
    estimator.Estimator(config()).train()
    forget(small_job.last(tmp_path / "model"))
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *a: said.append(text % a))
    with pytest.raises(
        checkpoint_lib.CheckpointError,
        match=r"`item` cannot become exact: .* already hold such integers as hashes",
    ):
        estimator.Estimator(config(*more, EXACT)).train()
    estimator.Estimator(config(*more)).train()
    assert any(text.startswith("Table `item` hashes integers") for text in said)
    after = small_job.last(tmp_path / "model")
    assert after.manifest["state"]["large_integers"] == {"item": "hash", "user": "hash"}
    found = small_job.rows(after.embedding_dir)
    slot = after.manifest["state"]["slots"]["slots"]["item"] << 48
    assert (slot | ids.hash_integer(PAIR[0])) in found
    # Logged again: the next run hashes too.
    assert estimator.Estimator(config(*more)).evaluate("test")


def test_the_stop_names_a_batch_of_an_input_fn(config, monkeypatch):
    columns = {
        "user": tf.constant([1, 2], tf.int64),
        "item": tf.constant([5, PAIR[0]], tf.int64),
        "history": tf.ragged.constant([[1], [2]], dtype=tf.int64),
        "click": tf.constant([0, 1], tf.int64),
    }
    monkeypatch.setattr(
        build.Job,
        "_input_fn",
        lambda self, split: build.input_fn.InputFn(
            lambda split: tf.data.Dataset.from_tensors(columns), split
        ),
    )
    made = config()
    data = dataclasses.replace(made.data, train=(), test=(), input_fn="a:b")
    with pytest.raises(
        LargeIntegerError,
        match=rf"batch 0 of epoch 0, row 1: feature `item` .*{PAIR[0]}",
    ):
        estimator.Estimator(dataclasses.replace(made, data=data)).train()


@pytest.mark.parametrize("column", ["item", "history"])
def test_the_stop_names_an_unsigned_integer_as_the_file_has_it(
    config, tmp_path, column
):
    values = np.array([3, 2**64 - 1, 5], np.uint64)
    lists = pa.array([[value] for value in values], pa.list_(pa.uint64()))
    rows = pa.table({"item": values, "history": lists, "click": [0.0, 1.0, 0.0]})
    parquet.write_table(rows, tmp_path / "small.parquet")
    kind = {"item": "id", "history": "id_list"}[column]
    only = f"features=[{{name: {column}, kind: {kind}, table: item}}]"
    with pytest.raises(
        LargeIntegerError,
        match=rf"row 1 .*: feature `{column}` has the integer 18446744073709551615,",
    ):
        estimator.Estimator(config(only)).train()


def test_unsigned_integers_are_predicted_as_they_were_trained(config, tmp_path):
    values = np.array([1, 2**63 + 5, 2**64 - 1, 5], np.uint64)
    for name in ("small", "large"):
        rows = pa.table({"item": values, "click": [0.0, 1.0, 0.0, 1.0]})
        parquet.write_table(rows, tmp_path / f"{name}.parquet")
    only = "features=[{name: item, kind: id, table: item}]"
    made = estimator.Estimator(config(EXACT, only, "trainer.epochs=5"))
    made.train()
    saved = small_job.last(tmp_path / "model")
    assert set(rows_of(saved)) == set(values.view(np.int64).tolist())
    expected = np.concatenate([batch["click"] for batch in made.predict("test")])
    output = tmp_path / "predicted.parquet"
    files = ["--input", tmp_path / "large.parquet", "--output", output]
    arguments = ["predict", made.export_saved_model(), *files, "--key", "item"]
    parsed = main.parse(["monolith-tf", *map(str, arguments)])
    assert predict.run(parsed) == 0
    predicted = parquet.read_table(output)
    np.testing.assert_allclose(predicted["click"], expected, rtol=1e-5)
    assert predicted["item"].to_pylist() == values.tolist()
