"""Made the files of this folder with version 0.1.0, which wrote the first formats.

    python tests/golden/v0_1_0/make.py DIRECTORY

Later versions must load what it made: it is kept as a record, and is not run by them.
"""

import gzip
import os
import pathlib
import shutil
import sys

import numpy as np
import pyarrow as pa
import tensorflow as tf
import tf_keras
from pyarrow import csv
from pyarrow import parquet

import monolith_tf as mt
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.experiment.estimator import Estimator
from monolith_tf.testing import small_job

CONFIG = """\
model_dir: model
seed: 3
data: {train: train.parquet, eval: eval.parquet, batch_size: 32, shuffle_buffer: 0}
features:
  - {name: user, kind: id}
  - {name: item, kind: id}
  - {name: history, kind: id_list, combiner: mean, max_length: 4, table: item}
  - {name: place, kind: id, default: ""}
  - {name: card, kind: id}
  - {name: hour, kind: id}
  - {name: price, kind: dense, transform: [log1p, zscore]}
labels: [click]
default_table: {dim: 2, optimizer: {name: adam}}
tables:
  - {name: item, dim: 3, optimizer: {name: rmsprop}, admit_after: 2, admission: sketch}
  - {name: place, dim: 2, optimizer: {name: ftrl, learning_rate: 0.05}}
  - {name: hour, dim: 2, optimizer: {name: adagrad}, expire_after_steps: 1000}
model:
  name: dcn
  params: {label: click, num_cross_layers: 1, hidden_units: [4], batch_norm: true}
trainer:
  epochs: 2
  checkpoint_every_steps: 8
  keep_checkpoints: 2
  log_every_steps: 8
  deterministic: true
export: {spare_rows: 16, warmup_rows: 4, verify_rows: 32}
metrics: [auc, log_loss]
"""

TABLES = (
    TableSpec(name="a", slot=1, dim=2, expire_after_steps=10, admit_after=2),
    TableSpec(name="b", slot=2, dim=3),
)


def _split(rows: int, seed: int) -> pa.Table:
    rng = np.random.default_rng(seed)
    history = [rng.integers(0, 20, rng.integers(0, 6)).tolist() for _ in range(rows)]
    places = np.array(["Köln", "Paris", "", "Oslo"])
    return pa.table(
        {
            "user": rng.integers(0, 30, rows),
            "item": rng.integers(0, 20, rows),
            "history": history,
            "place": places[rng.integers(0, 4, rows)],
            # Beyond 48 bits, and negative.
            "card": rng.integers(-4, 4, rows) * 1_234_567_890_123_456_789,
            "hour": rng.integers(0, 24, rows),
            "price": rng.lognormal(1.0, 1.0, rows).astype("float32"),
            "click": rng.integers(0, 2, rows),
        }
    )


def _rows(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Ids of a checkpoint in rising order, and the bytes of each one's row."""
    rows = sorted(small_job.rows(str(path / "embedding")).items())
    dims = [np.frombuffer(row, np.float32) for _, row in rows]
    return {
        "ids": np.array([feature_id for feature_id, _ in rows]),
        "rows": np.concatenate(dims),
        "lengths": np.array([len(row) for row in dims]),
    }


def _arrays(table: pa.Table) -> dict[str, np.ndarray]:
    columns = {name: table[name].to_numpy() for name in table.column_names}
    columns["place"] = columns["place"].astype(str)
    del columns["click"], columns["history"]
    lengths = [len(history) for history in table["history"].to_pylist()]
    padded = np.zeros([len(lengths), max(lengths)], np.int64)
    for row, history in enumerate(table["history"].to_pylist()):
        padded[row, : len(history)] = history
    columns["history"], columns["history_length"] = padded, np.array(lengths)
    return columns


def make_job() -> None:
    """A config, two checkpoints, an export, and what resuming comes to."""
    parquet.write_table(_split(400, 0), "train.parquet")
    test = _split(64, 1)
    parquet.write_table(test, "eval.parquet")
    pathlib.Path("config.yaml").write_text(CONFIG, encoding="utf-8")
    job = Estimator("config.yaml", "trainer.max_steps=16")
    job.train()
    metrics = job.evaluate("eval")
    export = pathlib.Path(str(job.export_saved_model()))
    inputs = _arrays(test)
    answer = tf.saved_model.load(str(export)).signatures["serving_default"](
        **{name: tf.constant(value) for name, value in inputs.items()}
    )
    newest = pathlib.Path("model/checkpoints/ckpt-00000016")
    expected = {f"at_16/{k}": v for k, v in _rows(newest).items()}
    shutil.copytree("model", "resumed")
    resumed = Estimator("config.yaml", "model_dir=resumed")
    resumed.train()
    newest = max(pathlib.Path("resumed/checkpoints").glob("ckpt-*"))
    expected |= {f"resumed/{k}": v for k, v in _rows(newest).items()}
    np.savez_compressed(
        "expected_job.npz",
        auc=metrics["click/auc"],
        log_loss=metrics["click/log_loss"],
        click=answer["click"].numpy(),
        resumed_steps=int(newest.name[5:]),
        **{f"inputs/{name}": value for name, value in inputs.items()},
        **expected,
    )
    shutil.rmtree("resumed")


def make_csv_job() -> None:
    """A job whose lists are cells of CSV files, and its checkpoint."""
    pathlib.Path("csv_job").mkdir()
    table = _split(200, 2)
    lists = ["|".join(map(str, h)) for h in table["history"].to_pylist()]
    columns = {"user": table["user"], "history": lists, "click": table["click"]}
    csv.write_csv(pa.table(columns), "csv_job/train.csv")
    pathlib.Path("csv_job/config.yaml").write_text(
        """\
model_dir: csv_job/model
data: {train: csv_job/train.csv, batch_size: 50, shuffle_buffer: 0}
features:
  - {name: user, kind: id}
  - {name: history, kind: id_list}
labels: [click]
default_table: {dim: 2}
model: {name: dcn, params: {label: click, num_cross_layers: 1, hidden_units: [2]}}
trainer: {epochs: 1}
""",
        encoding="utf-8",
    )
    Estimator("csv_job/config.yaml").train()
    newest = max(pathlib.Path("csv_job/model/checkpoints").glob("ckpt-*"))
    np.savez_compressed("expected_csv_job.npz", **_rows(newest))


def make_store() -> None:
    """A checkpoint of two shards, two deltas, and the rows they come to."""
    store = EmbeddingStore(
        TABLES,
        [ColumnSpec(feature=table.name, table=table.name) for table in TABLES],
        placement=Placement(num_shards=2),
        track_updates=True,
        seed=5,
    )
    since = None
    for step in range(18):
        rng = np.random.default_rng(step)
        values = tf.constant(rng.integers(0, 60, 12), tf.int64)
        ids = {table.name: values + (table.slot << 48) for table in TABLES}
        pulled = store.lookup(ids, training=True, step=step)
        gradients = {
            name: tf.constant(rng.normal(size=rows.shape).astype(np.float32))
            for name, rows in pulled.rows.items()
        }
        store.apply_gradients(pulled, gradients, step)
        store.maintain(step + 1, now_secs=1_700_000_000.0)
        if step + 1 in (6, 15, 18):
            store.save(f"store/{step + 1}", step=step + 1, since_step=since)
            since = step + 1
    ids, rows = zip(*store.rows(), strict=True)
    counters = {f"counters/{k}": v.numpy() for k, v in store.counters().items()}
    by_group = {f"ids/{n}": value for n, value in enumerate(ids)}
    by_group |= {f"rows/{n}": value for n, value in enumerate(rows)}
    np.savez_compressed("expected_store.npz", **by_group, **counters)


def make_keras() -> None:
    """Models saved by Keras, and what they answer."""
    tf_keras.utils.set_random_seed(7)
    key = tf_keras.Input([3], dtype="int64", name="key")
    word = tf_keras.Input([], dtype="string", name="word")
    price = tf_keras.Input([2], name="price")
    rows = mt.embedding.Embedding(4, optimizer="adam", name="keys")(key)
    words = mt.embedding.Embedding(4, optimizer="rmsprop", name="words")(word)
    maps = mt.layers.CIN([3, 2], name="cin")(rows)
    gates = mt.layers.SeNet(3, 2, name="senet")(rows)
    gates = gates if not isinstance(gates, list) else gates[0]
    flat = [tf_keras.layers.Flatten()(x) for x in (rows, maps, gates)]
    x = tf_keras.layers.Concatenate()([*flat, words, price])
    x = mt.layers.MLP([4, 1], activations=["leaky_relu", None], name="mlp")(x)
    model = tf_keras.Model([key, word, price], x)
    model.compile("adam", "mse")
    rng = np.random.default_rng(0)
    inputs = {
        "key": rng.integers(-(2**62), 2**62, [64, 3]),
        "word": np.array([f"w{n % 9}" for n in range(64)]),
        "price": rng.normal(size=[64, 2]).astype("float32"),
    }
    target = rng.normal(size=[64, 1]).astype("float32")
    model.fit(inputs, target, batch_size=16, epochs=2, verbose=0)
    answer = model.predict(inputs, verbose=0)
    pathlib.Path("keras").mkdir()
    model.save("keras/model.keras")
    model.save("keras/saved_model", save_format="tf")
    model.export("keras/export")
    # One more epoch, as a later version must train it from the file.
    model.fit(inputs, target, batch_size=16, epochs=1, verbose=0, shuffle=False)
    np.savez_compressed(
        "expected_keras.npz",
        answer=answer,
        further=model.predict(inputs, verbose=0),
        target=target,
        **{f"inputs/{name}": value for name, value in inputs.items()},
    )


def compress_large_files() -> None:
    """Replaces sketches, which are nearly all zeros, by `<name>.gz`."""
    for path in pathlib.Path(".").rglob("*.sketch"):
        with gzip.open(f"{path}.gz", "wb") as file:
            file.write(path.read_bytes())
        path.unlink()


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True)
    os.chdir(folder)
    make_store()
    make_keras()
    make_job()
    make_csv_job()
    compress_large_files()
