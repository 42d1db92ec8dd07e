"""Tests of checkpoints whose files change, at any byte and at any time."""

import functools
import pathlib
from unittest import mock

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf import testing
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.saved import files as checkpoint_files
from monolith_tf.embedding.saved import read as saved_tables
from monolith_tf.embedding.saved import sealed
from monolith_tf.embedding.shard import counting
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.training import checkpoint
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import dense_variables

_TABLES = (
    TableSpec(name="user", slot=1, dim=3, expire_after_steps=100),
    TableSpec(name="item", slot=2, dim=5, admit_after=3),
    TableSpec(
        name="word",
        slot=3,
        dim=2,
        admit_after=3,
        admission="sketch",
        optimizer=optimizer_spec.AdamSpec(),
    ),
)


class _Job:
    """A store and a model with random values."""

    def __init__(self, seed):
        self.store = EmbeddingStore(
            _TABLES,
            [ColumnSpec(feature=table.name, table=table.name) for table in _TABLES],
            seed=seed,
            placement=Placement(num_shards=2),
            capacity=64,
        )
        self.dense = tf.Module()
        self.dense.model = tf_keras.Sequential(
            [tf_keras.layers.Dense(8), tf_keras.layers.Dense(2)]
        )
        self.dense.model.build([None, 3])
        self.dense.step = tf.Variable(seed, dtype=tf.int64)
        self._rng = np.random.default_rng(seed)

    def train(self):
        for step in range(3):
            ids = {
                table.name: tf.constant(self._rng.integers(0, 60, 40))
                + (table.slot << 48)
                for table in _TABLES
            }
            pulled = self.store.lookup(ids, training=True, step=step)
            gradients = {
                name: tf.constant(self._rng.normal(size=rows.shape), tf.float32)
                for name, rows in pulled.rows.items()
            }
            self.store.apply_gradients(pulled, gradients, step)
        for variable in self.dense.variables:
            if variable.dtype.is_floating:
                variable.assign(self._rng.normal(size=variable.shape))

    def restore(self, found):
        dense_variables.restore(found, self.dense)
        self.store.restore(found.embedding_dir)
        return found.step

    def state(self, folder):
        """Every value, bit for bit: dense, rows, stamps, counts and counters."""
        manifest = self.store.save(str(folder), step=0, now_secs=0)
        found = [variable.numpy().tobytes() for variable in self.dense.variables]
        for group in manifest["groups"]:
            rows = {
                feature_id: [chunk.rows[place].tobytes()]
                + [stamp[place] for stamp in chunk.stamps.values()]
                for chunk in checkpoint_files.read_rows(str(folder), group)
                for place, feature_id in enumerate(chunk.ids.tolist())
            }
            counts = {
                feature_id: count
                for ids, of_ids in checkpoint_files.read_counts(str(folder), group)
                for feature_id, count in zip(ids.tolist(), of_ids, strict=True)
            }
            sketches = [
                sketch.tobytes()
                for sketch in checkpoint_files.read_sketches(str(folder), group)
            ]
            found.append((group["name"], rows, counts, sketches))
        return found, [table["counters"] for table in manifest["tables"]]


def _damage(path, rng):
    """Flips a bit of a file, cuts it off, or removes it."""
    data = bytearray(path.read_bytes())
    kind = rng.choice(["flip", "cut", "remove"], p=[0.7, 0.2, 0.1])
    if kind == "remove":
        path.unlink()
    elif kind == "cut":
        path.write_bytes(data[: rng.integers(len(data))])
    else:
        bit = rng.integers(8 * len(data))
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
    return str(kind)


class DamageTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        small = functools.partial(counting.Sketch, width=1 << 8)
        self.enter_context(mock.patch.object(counting, "Sketch", small))
        self.folder = pathlib.Path(self.get_temp_dir()) / self.id()
        self.checkpoints = checkpoint_dir.CheckpointDir(self.folder / "checkpoints")
        self.num_states = 0

    def write(self, job):
        """Trains and saves twice; returns the older state, and the newer checkpoint."""
        job.train()
        self.checkpoints.save(job.dense, job.store, step=1, state={})
        older = self.state(job)
        job.train()
        newer = self.checkpoints.save(job.dense, job.store, step=2, state={})
        self.assertNotEqual(self.state(job), older)
        return older, newer

    def state(self, job):
        self.num_states += 1
        return job.state(self.folder / f"state-{self.num_states}")

    def assert_falls_back(self, job, older, of_what):
        with self.assertLogs("absl", "WARNING") as logs:
            self.assertEqual(self.checkpoints.use_latest(job.restore), 1, of_what)
        self.assertRegex(logs.output[0], "Skipping a checkpoint.*ckpt-00000002")
        self.assertEqual(self.state(job), older, of_what)

    def files(self, newer):
        names = [
            name for name in newer.manifest["files"] if newer.manifest["files"][name]
        ]
        return [newer.path / name for name in names]

    def test_any_damage_of_any_file_leads_to_the_checkpoint_before(self):
        job = _Job(1)
        older, newer = self.write(job)
        files = [*self.files(newer), newer.path / "manifest.json"]
        for number in range(40):
            path = files[number % len(files)]
            whole = path.read_bytes()
            of_what = number, path.name, _damage(path, self.rng)
            self.assert_falls_back(job, older, of_what)
            path.write_bytes(whole)
        self.assertEqual(self.checkpoints.use_latest(job.restore), 2)

    def test_damage_after_the_checkpoint_was_found_whole(self):
        job = _Job(1)
        older, newer = self.write(job)
        files = [f for f in self.files(newer) if f.name != "config.yaml"]
        restore = dense_variables.restore
        for number in range(14):
            path = files[number % len(files)]
            whole = path.read_bytes()
            kinds = []

            def damage_first(found, root, path=path, kinds=kinds):
                if found.step == 2:
                    kinds.append(_damage(path, self.rng))
                restore(found, root)

            with mock.patch.object(dense_variables, "restore", damage_first):
                self.assert_falls_back(job, older, (number, path.name, kinds))
            path.write_bytes(whole)

    def test_damage_while_rows_are_read(self):
        job = _Job(1)
        older, newer = self.write(job)
        files = [
            path
            for path in self.files(newer)
            if path.suffix in (".rows", ".counts", ".sketch")
        ]
        self.assertGreater(len(files), 3)
        verify = saved_tables.SavedTables.verify
        for number in range(14):
            path = files[number % len(files)]
            whole = path.read_bytes()
            kinds = []

            def then_damage(tables, path=path, kinds=kinds):
                verify(tables)
                if not kinds:
                    kinds.append(_damage(path, self.rng))

            with mock.patch.object(saved_tables.SavedTables, "verify", then_damage):
                self.assert_falls_back(job, older, (number, path.name, kinds))
            path.write_bytes(whole)

    def test_no_whole_checkpoint_is_an_error(self):
        job = _Job(1)
        self.assertIsNone(self.checkpoints.use_latest(job.restore))
        self.write(job)
        for path in self.checkpoints.path.rglob("*.rows"):
            path.write_bytes(b"")
        with self.assertRaisesRegex(
            checkpoint.CheckpointError, "No checkpoint in .* can be used"
        ):
            self.checkpoints.use_latest(job.restore)

    def test_a_disk_that_cannot_read_is_damage(self):
        job = _Job(1)
        older, _ = self.write(job)
        digest = sealed.digest

        def failing(path):
            if "00000002" in str(path):
                raise sealed.DamagedError(f"{path} is damaged: Input/output error.")
            return digest(path)

        with mock.patch.object(sealed, "digest", failing):
            self.assert_falls_back(job, older, "open")

    def test_another_error_is_no_damage(self):
        job = _Job(1)
        self.write(job)
        lost = tf.errors.UnavailableError(None, None, "lost")
        with (
            mock.patch.object(tf.train.Checkpoint, "read", side_effect=lost),
            self.assertRaises(tf.errors.UnavailableError),
        ):
            self.checkpoints.use_latest(job.restore)

    def test_the_best_comes_first_and_a_damaged_mark_is_passed_over(self):
        job = _Job(1)
        self.write(job)
        self.checkpoints.mark_best("ckpt-00000001", "auc", 0.9)
        use = self.checkpoints.use_latest
        self.assertEqual(use(job.restore, prefer_best=True), 1)
        self.assertEqual(use(job.restore), 2)
        path = self.checkpoints.path / "best.json"
        whole = path.read_bytes()
        for bit in self.rng.integers(8 * len(whole), size=60):
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            with self.assertLogs("absl", "WARNING") as logs:
                self.assertEqual(self.checkpoints.best_mark(), {}, bit)
            self.assertIn("best.json is damaged", logs.output[0])
        path.write_text('{"checkpoint": "ckpt-00000001", "metric": "auc", "value": 1}')
        self.assertEqual(self.checkpoints.best_mark()["value"], 1)
