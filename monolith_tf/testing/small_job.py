"""A small job with every kind of feature, for tests that need a complete job."""

import json
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from monolith_tf.embedding.saved import merge
from monolith_tf.embedding.saved import raw_layer
from monolith_tf.embedding.saved import sealed
from monolith_tf.training import checkpoint
from monolith_tf.training import checkpoint_dir
from monolith_tf.types import JsonDict

CONFIG = """\
model_dir: {folder}/model
seed: 3
data:
  train: {folder}/train.parquet
  eval: {folder}/eval.parquet
  test: {folder}/eval.parquet
  batch_size: 64
  shuffle_buffer: 512
  weight: importance
features:
  - {{name: user, kind: id}}
  - {{name: country, kind: id, table: place}}
  - {{name: birthplace, kind: id, table: place}}
  - {{name: history, kind: id_list, combiner: mean, max_length: 4, table: item}}
  - {{name: item, kind: id, table: item}}
  - {{name: price, kind: dense, transform: [log1p, zscore]}}
labels: [click]
default_table: {{dim: 4, optimizer: {{name: monolith_adagrad, learning_rate: 0.1}}}}
tables:
  - {{name: place, dim: 4, optimizer: {{name: monolith_adam, learning_rate: 0.01}}}}
  - {{name: item, dim: 4, optimizer: {{name: monolith_adagrad, learning_rate: 0.1}}}}
model:
  name: dcn
  params:
    {{label: click, num_cross_layers: 1, hidden_units: [16], dropout: 0.1,
     batch_norm: true}}
trainer:
  epochs: 2
  steps_per_loop: 7
  log_every_steps: 10
  eval_every_epochs: 1
  checkpoint_every_steps: 15
  keep_checkpoints: 100
  clip_norm: 10.0
  deterministic: true
  optimizer: {{name: adam, learning_rate: 0.01}}
"""


def write(folder: pathlib.Path, *, rows: int = 2000, seed: int = 0) -> pathlib.Path:
    """Writes a config and its data to `folder`.

    Clicks depend on user, item, history and price, so that a model can learn them.

    Args:
      folder: An empty folder.
      rows: Rows of the train split; the eval split has a quarter of them.
      seed: Seed of the data.

    Returns:
      The config's path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for split, count in (("train", rows), ("eval", rows // 4)):
        _write_split(folder / f"{split}.parquet", count, rng)
    path = folder / "config.yaml"
    path.write_text(CONFIG.format(folder=folder), encoding="utf-8")
    return path


def _write_split(path: pathlib.Path, rows: int, rng: np.random.Generator) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    user = rng.integers(0, 50, rows)
    item = rng.integers(0, 40, rows)
    history = [rng.integers(0, 40, rng.integers(0, 6)).tolist() for _ in range(rows)]
    price = rng.lognormal(1.0, 1.0, rows)
    places = np.array(["de", "fr", "jp", "br"])
    logit = np.sin(user) + np.cos(item) + 0.3 * np.log(price)
    logit += np.array([np.mean(np.sin(h)) if h else 0.0 for h in history])
    columns = {
        "user": user,
        "item": item,
        "history": history,
        "country": places[rng.integers(0, 4, rows)],
        "birthplace": places[rng.integers(0, 4, rows)],
        "price": price.astype("float32"),
        "importance": rng.integers(1, 3, rows).astype("float32"),
        "click": (rng.random(rows) < 1 / (1 + np.exp(-2 * logit))).astype("int64"),
    }
    parquet.write_table(pa.table(columns), path, row_group_size=300)


def rows(directory: str, *deltas: str) -> dict[int, bytes]:
    """Returns id -> row with optimizer state, from an embedding checkpoint.

    Rows are bytes, to compare them bitwise.

    Args:
      directory: The folder that the embedding store wrote.
      *deltas: The folders of later changes, oldest first.
    """
    layers = [raw_layer.RawLayer(layer) for layer in (directory, *deltas)]
    return {
        feature_id: row.tobytes()
        for _, chunk in merge.rows(layers)
        for feature_id, row in zip(chunk.ids.tolist(), chunk.rows, strict=True)
    }


def last(model_dir: pathlib.Path) -> checkpoint.Checkpoint:
    """Returns a job's newest checkpoint."""
    found = checkpoint_dir.CheckpointDir(model_dir / "checkpoints").latest()
    if found is None:
        raise ValueError(f"There is no checkpoint of {model_dir}.")
    return found


def dense(found: checkpoint.Checkpoint) -> dict[str, np.ndarray]:
    """Returns a checkpoint's dense variables and optimizer state by name."""
    reader = tf.train.load_checkpoint(found.dense_prefix)
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "OBJECT_GRAPH" not in name and "save_counter" not in name
    }


def rewrite_manifests(
    found: checkpoint.Checkpoint, change: Callable[[JsonDict], None]
) -> None:
    """Changes a checkpoint's manifests, and writes them in the format of 0.1.0.

    Args:
      found: The checkpoint.
      change: Called with the store's manifest, then with the checkpoint's.
    """
    files = ("embedding/manifest.json", "manifest.json")
    for name in files:
        path = found.path / name
        manifest, _ = sealed.unseal(path)
        manifest.pop("checksums", None)
        change(manifest)
        if name == files[1]:
            size = (found.path / files[0]).stat().st_size
            manifest["files"][files[0]] = size
        path.write_text(json.dumps(manifest), encoding="utf-8")
