"""Tests of deltas: a chain restores what a whole checkpoint of the step would."""

import pathlib
import shutil
from unittest import mock

import numpy as np
import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding.optimizers.specs import AdamSpec
from monolith_tf.embedding.placement import Placement
from monolith_tf.embedding.saved import files as rows_files
from monolith_tf.embedding.saved import sealed
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.training import checkpoint as checkpoint_lib
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import delta_parent
from monolith_tf.training import dense_variables

_TABLES = (
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
_SKETCHED = TableSpec(name="word", slot=4, dim=2, admit_after=2, admission="sketch")


class _Job:
    """A store and a dense variable that train on random ids."""

    def __init__(self, num_shards=2, tables=_TABLES):
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
    sketches = {name: sketch.tolist() for name, sketch in sketches.items()}
    return rows, counts, sketches, counters, job.root.weight.numpy().tolist()


class DeltaCheckpointTest(testing.TestCase):
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
        job, before = job or _Job(), 0
        self.checkpoints.start_deltas(None, job.store)
        for step in steps:
            job.train(range(before, step))
            saved, before = job.save(self.checkpoints, step, as_delta=True), step
        return job, saved

    def test_a_chain_restores_what_a_whole_checkpoint_would(self):
        job, before = _Job(num_shards=2), 0
        whole = self.directory("whole")
        self.checkpoints.start_deltas(None, job.store)
        for step in (5, 11, 12, 20, 31):
            job.train(range(before, step))
            before = step
            delta = job.save(self.checkpoints, step, as_delta=True)
            job.save(whole, step)
            self.assertEqual(delta.parent is None, step == 5)
            for num_shards in (2, 3):
                of_chain, of_whole = _Job(num_shards), _Job(num_shards)
                of_chain.restore(self.checkpoints.latest())
                of_whole.restore(whole.latest())
                self.assert_same(of_chain, of_whole)
        counters = job.store.table_counters()
        for table, counter in (
            ("user", "expired"),
            ("user", "refused"),
            ("item", "evicted"),
            ("page", "expired"),
        ):
            self.assertGreater(counters[table][counter], 0, msg=(table, counter))
        self.assertLen(self.checkpoints.latest().embedding_layers, 5)
        # The resumed jobs go on alike.
        for other in (of_chain, of_whole):
            other.train(range(31, 40))
        job.train(range(31, 40))
        self.assert_same(of_chain, of_whole)
        self.assert_same(of_chain, job)

    def test_counts_of_a_sketch_are_those_of_the_newest_link(self):
        tables = (*_TABLES, _SKETCHED)
        job, _ = self.chain(_Job(tables=tables), steps=(4, 9))
        self.assertGreater(job.store.table_counters()["word"]["refused"], 0)
        other = _Job(num_shards=2, tables=tables)
        other.restore(self.checkpoints.latest())
        self.assert_same(other, job)

    def test_a_delta_holds_only_what_changed(self):
        _, saved = self.chain(steps=(20, 21))
        sizes = [_num_rows(one) for one in saved.chain()]
        self.assertGreater(sizes[0], 2 * sizes[1])
        self.assertEqual(saved.manifest["format"], checkpoint_lib.LAYERED)
        self.assertEqual(saved.manifest["parent"]["name"], "ckpt-00000020")
        whole = self.checkpoints.path / "ckpt-00000020"
        digest = sealed.digest(whole / "manifest.json")
        self.assertEqual(saved.manifest["parent"]["sha256"], digest)
        self.assertEqual(checkpoint_lib.open_checkpoint(whole).manifest["format"], 1)

    def test_the_next_delta_after_a_restore_continues_what_was_restored(self):
        job, _ = self.chain()
        resumed, again = _Job(num_shards=3), self.directory("job")
        found = again.latest()
        resumed.restore(found)
        again.start_deltas(found.without_lock(), resumed.store)
        for one in (job, resumed):
            one.train(range(5, 8))
        saved = resumed.save(again, 8, as_delta=True)
        self.assertEqual(saved.parent.path.name, "ckpt-00000005")
        other = _Job()
        other.restore(self.checkpoints.latest())
        self.assert_same(other, job)

    def test_a_step_saved_again_as_a_delta_continues_the_same_one(self):
        job, _ = self.chain()
        job.root.weight.assign([1.0, 2.0, 3.0])
        again = job.save(self.checkpoints, 5, as_delta=True)
        self.assertEqual(again.parent.path.name, "ckpt-00000004")
        job.train(range(5, 8))
        job.save(self.checkpoints, 8, as_delta=True)
        other = _Job()
        other.restore(self.checkpoints.latest())
        self.assert_same(other, job)

    def test_a_whole_one_saved_again_stays_whole(self):
        job, _ = self.chain(steps=(2,))
        self.assertIsNone(job.save(self.checkpoints, 2, as_delta=True).parent)

    def test_a_broken_link_falls_back_to_the_state_before_it(self):
        self.chain()
        expected = _Job()
        expected.train(range(3))
        for number, (break_it, why) in enumerate(
            (
                (_flip, "is damaged: it differs from its checksum"),
                (shutil.rmtree, "is not a checkpoint: it has no manifest.json"),
                (_cut, "should have .* bytes, but has 3"),
            )
        ):
            broken = self.directory(f"broken-{number}")
            shutil.copytree(self.checkpoints.path, broken.path)
            link = broken.path / "ckpt-00000004"
            break_it(link)
            with self.assertLogs("absl", "WARNING") as logs:
                found = broken.latest()
            self.assertEqual(found.step, 3)
            self.assertRegex(
                logs.output[0],
                f"ckpt-00000005 holds what changed .* of which {link} cannot be used: "
                f".*{why}",
            )
        job = _Job()
        job.restore(found)
        self.assert_same(job, expected)

    def test_a_link_that_was_written_again_is_not_the_one_that_was_continued(self):
        self.chain()
        other = _Job()
        other.train(range(3))
        shutil.rmtree(self.checkpoints.path / "ckpt-00000003")
        other.save(self.directory("job"), 3)
        with self.assertLogs("absl", "WARNING") as logs:
            self.assertEqual(self.checkpoints.latest().step, 3)
        self.assertLen(logs.output, 2)
        for line in logs.output:
            self.assertIn("ckpt-00000003 cannot be used: it is not the one that", line)

    def test_the_base_and_the_links_of_kept_deltas_stay(self):
        self.checkpoints = self.directory("job", keep=2)
        job, _ = self.chain()
        self.assertLen(self.checkpoints.names(), 4)
        job.save(self.checkpoints, 16)
        self.assertLen(self.checkpoints.names(), 5)  # 5 is a delta, and kept.
        job.save(self.checkpoints, 17, as_delta=True)
        names = ["ckpt-00000016", "ckpt-00000017"]
        self.assertEqual(self.checkpoints.names(), names)

    def test_the_chain_of_the_best_one_stays(self):
        self.checkpoints = self.directory("job", keep=1)
        job, _ = self.chain(steps=(2, 3))
        self.checkpoints.mark_best("ckpt-00000003", "auc", 0.9)
        job.save(self.checkpoints, 4)
        job.save(self.checkpoints, 5)
        names = ["ckpt-00000002", "ckpt-00000003", "ckpt-00000005"]
        self.assertEqual(self.checkpoints.names(), names)
        self.assertLen(self.checkpoints.best().embedding_layers, 2)

    def test_a_long_chain_ends_with_a_whole_one(self):
        self.enter_context(mock.patch.object(delta_parent, "MAX_DELTAS", 2))
        self.chain()
        parents = [
            checkpoint_lib.open_checkpoint(self.checkpoints.path / name).parent is None
            for name in self.checkpoints.names()
        ]
        self.assertEqual(parents, [True, False, False, True])

    def test_deltas_as_large_as_the_whole_one_end_with_a_whole_one(self):
        self.enter_context(mock.patch.object(delta_parent, "MAX_BYTES", 0))
        job, saved = self.chain(steps=(9, 10))
        is_whole = [saved.parent is None]
        for step in (13, 16, 19, 22):
            job.train(range(step - 3, step))
            saved = job.save(self.checkpoints, step, as_delta=True)
            is_whole.append(saved.parent is None)
        self.assertIn(True, is_whole)
        self.assertIn(False, is_whole)

    def test_other_tables_begin_with_a_whole_one(self):
        self.chain()
        job = _Job(tables=_TABLES[:2])
        found = self.checkpoints.latest()
        job.restore(found)
        again = self.directory("job")
        again.start_deltas(found.without_lock(), job.store)
        job.train(range(5, 7))
        self.assertIsNone(job.save(again, 7, as_delta=True).parent)

    def test_a_parent_that_is_gone_is_not_continued(self):
        job, _ = self.chain()
        shutil.rmtree(self.checkpoints.path / "ckpt-00000002")
        with self.assertLogs("absl", "WARNING") as logs:
            self.assertIsNone(job.save(self.checkpoints, 16, as_delta=True).parent)
        self.assertIn("was removed or changed", logs.output[0])


def _num_rows(checkpoint):
    groups = rows_files.read_manifest(checkpoint.embedding_dir)["groups"]
    return sum(file["rows"] for group in groups for file in group["rows_files"])


def _largest(folder):
    return max(folder.rglob("*.rows"), key=lambda file: file.stat().st_size)


def _flip(folder):
    data = bytearray(_largest(folder).read_bytes())
    data[-9] ^= 1
    _largest(folder).write_bytes(data)


def _cut(folder):
    _largest(folder).write_bytes(b"123")
