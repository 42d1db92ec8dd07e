"""The same network as a plain `tf_keras` SavedModel: dense embeddings, no hashing."""

import pathlib

import numpy as np
import tensorflow as tf
import tf_keras
from serving_sides import case

from monolith_tf import ids as ids_lib
from monolith_tf.config import schema
from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.models import base
from monolith_tf.models import registry
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import dense_variables

_SIZES = {"user": case.USERS, "item": case.ITEMS} | {
    f"context_{i}": case.CONTEXTS for i in range(case.NUM_CONTEXTS)
}


class Plain(tf_keras.Model):
    """Rows by number from `tf_keras.layers.Embedding`, then the job's own model."""

    def __init__(self, model: base.Model, pool: str) -> None:
        super().__init__()
        self.model = model
        self.pool = pool
        self.tables = {
            name: tf_keras.layers.Embedding(size, case.DIM)
            for name, size in _SIZES.items()
        }

    def call(self, inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        history = self.tables["item"](inputs["history"])
        lengths = inputs["history_length"]
        mask = tf.sequence_mask(lengths, case.HISTORY)
        history *= tf.cast(mask, tf.float32)[:, :, tf.newaxis]
        if self.pool == "mean":
            count = tf.cast(tf.maximum(lengths, 1), tf.float32)[:, tf.newaxis]
            history = tf.reduce_sum(history, axis=1) / count
        embeddings = {"history": history} | {
            name: table(inputs[name]) for name, table in self.tables.items()
        }
        dense = {"price": tf.math.log1p(inputs["price"])[:, tf.newaxis]}
        made = base.Inputs(embeddings=embeddings, dense=dense, masks={"history": mask})
        return dict(self.model.run(made, base.Mode.PREDICT).predictions)


def save(
    config: schema.ExperimentConfig,
    pool: str,
    checkpoint: checkpoint_lib.Checkpoint,
    directory: pathlib.Path,
) -> None:
    """Writes the values of a checkpoint as a plain SavedModel, version 1."""
    plain = Plain(registry.create(config.model), pool)
    inputs = case.requests(np.random.default_rng(0), 1)
    plain({name: tf.constant(value) for name, value in inputs.items()})
    for name, values in _rows(checkpoint).items():
        plain.tables[name].set_weights([values])
    root = tf.Module()
    root.model = plain.model
    missing = dense_variables.restore_matching(checkpoint, root)
    if missing:
        raise ValueError(f"The checkpoint lacks {missing}.")
    specs = {
        name: tf.TensorSpec([None, *value.shape[1:]], value.dtype, name=name)
        for name, value in inputs.items()
    }
    function = tf.function(lambda **tensors: plain(tensors))
    # Keras would also save functions of the inner model, which does not return tensors.
    root = tf.Module()
    root.values = list(plain.variables)
    tf.saved_model.save(
        root, str(directory / "1"), signatures=function.get_concrete_function(**specs)
    )


def _rows(checkpoint: checkpoint_lib.Checkpoint) -> dict[str, np.ndarray]:
    """Table -> the rows of its raw ids 0, 1, ..., zeros for ids without one."""
    manifest = checkpoint_files.read_manifest(checkpoint.embedding_dir)
    found = {}
    for group in manifest["groups"]:
        chunks = list(checkpoint_files.read_rows(checkpoint.embedding_dir, group))
        ids = np.concatenate([chunk.ids for chunk in chunks])
        weights = np.concatenate([chunk.weights for chunk in chunks])
        order = np.argsort(ids)
        for table in group["tables"]:
            raw = ids_lib.from_integers(tf.range(_SIZES[table["name"]], dtype=tf.int64))
            wanted = ids_lib.with_slot(table["slot"], raw).numpy()
            places = np.minimum(
                np.searchsorted(ids, wanted, sorter=order), len(ids) - 1
            )
            rows = order[places]
            present = (ids[rows] == wanted)[:, np.newaxis]
            found[table["name"]] = np.where(present, weights[rows], 0.0)
    return found
