"""A job of a store and a dense variable, and a test case that saves its deltas."""

import pathlib
import shutil

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding.optimizers.specs import AdamSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.saved import files as rows_files
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import dense_variables

TABLES = (
    TableSpec(
        name="user",
        slot=1,
        dim=2,
        optimizer=AdamSpec(),
        admit_after=3,
        admission="exact",
        expire_after_steps=12,
    ),
    TableSpec(name="item", slot=2, dim=3, max_rows=40, when_full="evict_oldest"),
    TableSpec(name="page", slot=3, dim=2, optimizer=AdamSpec(), expire_after_days=0.5),
)
SKETCHED = TableSpec(name="word", slot=4, dim=2, admit_after=2, admission="sketch")


class Job:
    """A store and a dense variable that train on random ids."""

    def __init__(self, num_shards=2, tables=TABLES):
        self.store = EmbeddingStore(
            tables,
            [ColumnSpec(feature=t.name, table=t.name) for t in tables],
            placement=Placement(num_shards=num_shards),
            capacity=256,
            track_updates=True,
        )
        self.root = tf.Module()
        self.root.weight = tf.Variable(tf.zeros([3]))

    def train(self, steps):
        for step in steps:
            rng = np.random.default_rng(step)
            ids = {
                t.name: tf.constant(rng.integers(0, 90, 14) + (t.slot << 48))
                for t in self.store.tables
            }
            secs = 10_000 * step
            pulled = self.store.lookup(ids, training=True, step=step, now_secs=secs)
            gradients = {
                name: tf.constant(rng.normal(size=rows.shape).astype(np.float32))
                for name, rows in pulled.rows.items()
            }
            self.store.apply_gradients(pulled, gradients, step)
            self.root.weight.assign_add(rng.normal(size=3).astype(np.float32))
            if step % 3 == 2:
                self.store.maintain(step + 1, secs)

    def save(self, checkpoints, step, **options):
        return checkpoints.save(
            self.root, self.store, step=step, state={"at": step}, **options
        )

    def restore(self, checkpoint):
        base, *deltas = checkpoint.embedding_layers
        self.store.restore(base, deltas=deltas)
        dense_variables.restore(checkpoint, self.root)


def contents(job, folder):
    """Returns all that a job's store holds, whatever its shards, and its variable."""
    shutil.rmtree(folder, ignore_errors=True)
    manifest = job.store.save(str(folder), step=0)
    rows, counts, sketches = {}, {}, {}
    for group in manifest["groups"]:
        for chunk in rows_files.read_rows(str(folder), group):
            stamps = [chunk.stamps[name] for name in group["stamps"]]
            for place, id_ in enumerate(chunk.ids.tolist()):
                values = chunk.rows[place].tobytes(), *(s[place] for s in stamps)
                rows[group["name"], id_] = values
        for ids, numbers in rows_files.read_counts(str(folder), group):
            found = zip(ids.tolist(), numbers.tolist(), strict=True)
            counts |= {(group["name"], id_): count for id_, count in found}
        for sketch in rows_files.read_sketches(str(folder), group):
            sketches[group["name"]] = sketches.get(group["name"], 0) + sketch
    counters = {table["name"]: table["counters"] for table in manifest["tables"]}
    sketches = {name: sketch.tobytes() for name, sketch in sketches.items()}
    return rows, counts, sketches, counters, job.root.weight.numpy().tolist()


class DeltaCase(testing.TestCase):
    """Has a folder `path` and `checkpoints` in it."""

    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.get_temp_dir()) / self.id()
        self.checkpoints = self.directory("job")

    def directory(self, name, keep=50):
        return checkpoint_dir.CheckpointDir(self.path / name, keep=keep)

    def assert_same(self, job, other):
        found = contents(job, self.path / "one")
        for mine, expected in zip(
            found, contents(other, self.path / "other"), strict=True
        ):
            self.assertEqual(mine, expected)

    def chain(self, job=None, steps=(2, 3, 4, 5)):
        """Trains a job, and writes a whole checkpoint and then deltas."""
        job, before = job or Job(), 0
        self.checkpoints.start_deltas(None, job.store)
        for step in steps:
            job.train(range(before, step))
            saved, before = job.save(self.checkpoints, step, as_delta=True), step
        return job, saved
