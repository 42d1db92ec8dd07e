"""Whole checkpoints that are written while the job trains."""

import contextlib
import os
import pathlib
import signal
import threading
import types
from unittest import mock

import tensorflow as tf

from monolith_tf import testing
from monolith_tf.embedding.saved import live_copy
from monolith_tf.embedding.saved import write
from monolith_tf.embedding.spec import ColumnSpec
from monolith_tf.embedding.spec import TableSpec
from monolith_tf.embedding.store import EmbeddingStore
from monolith_tf.training import actions
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import due
from monolith_tf.training import loop
from monolith_tf.training import run as run_lib
from tests.training import fakes
from tests.training import saving_case

_TABLES = (
    TableSpec(name="kept", slot=1, dim=2),
    TableSpec(name="old", slot=2, dim=2, expire_after_steps=3),
)


def _store():
    return EmbeddingStore(
        _TABLES,
        [ColumnSpec(feature=t.name, table=t.name) for t in _TABLES],
        capacity=64,
        track_updates=True,
    )


def _rows(store):
    return {
        int(id_): weights.tobytes()
        for chunk in store.rows()
        for id_, weights in zip(chunk.ids, chunk.weights, strict=True)
    }


class _Job:
    """A run that trains rows, and knows them at each of its checkpoints."""

    def __init__(self, path, total_steps=40):
        self.store = _store()
        self.run = fakes.run(total_steps=total_steps)
        self.run.checkpoints = checkpoint_dir.CheckpointDir(path, keep=100)
        network = types.SimpleNamespace(store=self.store, model=tf.Module())
        self.run.step = types.SimpleNamespace(
            network=network, state=saving_case.state()
        )
        self.run.copies_live = True
        self.saved = {}
        self.run.on_saved.append(self._note)
        self.at_step = lambda step: None
        self.train_rows(0, 300)

    def train_rows(self, first, last):
        values = tf.range(first, last, dtype=tf.int64)
        ids = {t.name: values + (t.slot << 48) for t in _TABLES}
        step = tf.constant(self.run.progress.step, tf.int64)
        pulled = self.store.lookup(ids, training=True, step=step)
        ones = {name: tf.ones_like(rows) for name, rows in pulled.rows.items()}
        self.store.apply_gradients(pulled, ones, step)

    def train(self, *between, deltas=None):
        def at_step(step):
            self.train_rows(7 * step, 7 * step + 20)
            self.store.maintain(step)
            self.at_step(step)

        loop.train(
            self.run,
            fakes.Stepper(at_step=at_step),
            [*between, actions.SaveCheckpoint([4], None, deltas=deltas)],
            steps_per_loop=1,
            explain=str,
        )

    def _note(self, saved):
        self.saved[saved.path] = _rows(self.store)


@contextlib.contextmanager
def _held():
    """Makes copies wait until the event that it gives is set."""
    goes_on, run = threading.Event(), live_copy.LiveCopy._run

    def run_later(copy):
        goes_on.wait(60)
        run(copy)

    with mock.patch.object(live_copy.LiveCopy, "_run", run_later):
        yield goes_on
    goes_on.set()


class LiveCheckpointTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.get_temp_dir()) / self.id()
        self.enter_context(mock.patch.object(run_lib, "LIVE_BYTES", 0))
        # A copy has several chunks.
        self.enter_context(mock.patch.object(write, "LIVE_CHUNK_BYTES", 1 << 10))

    def assert_restores(self, job):
        """Each checkpoint is the job at the step at which it was complete."""
        self.assertEqual([p.name for p in job.saved], job.run.checkpoints.names())
        for checkpoint in job.run.checkpoints.whole():
            other = _store()
            first, *deltas = checkpoint.embedding_layers
            report = other.restore(first, deltas=deltas)
            self.assertEqual(report.step, checkpoint.step)
            self.assertEqual(_rows(other), job.saved[checkpoint.path])
        self.assertGreater(job.store.table_counters()["old"]["expired"], 0)

    def test_each_is_of_the_step_at_which_its_copy_is_through(self):
        job = _Job(self.path)
        with _held() as goes_on:

            def end_copy(step):
                if step == 6:
                    goes_on.set()
                    job.run._copy.wait()

            job.at_step = end_copy
            job.train()
        found = {c.step: len(c.own_layers) for c in job.run.checkpoints.whole()}
        self.assertEqual([min(found), max(found)], [7, 40])  # It began at step 4.
        self.assertEqual(found[7], 2)
        self.assert_restores(job)
        # What was begun and not needed is gone after the next one.
        job.run.progress.step = 44
        job.run.save_checkpoint()
        rows = {p.name for p in self.path.glob("rows-*")}
        named = {
            pathlib.Path(layer).name
            for checkpoint in job.run.checkpoints.whole()
            for layer in checkpoint.own_layers
        }
        self.assertContainsSubset(rows, named)

    def test_a_request_in_between_completes_the_one_under_way(self):
        class Save(actions.EverySteps):
            def work(self, run):
                goes_on.set()
                found.append((run.save_checkpoint(), run.progress.step))

        found = []
        job = _Job(self.path, total_steps=12)
        with _held() as goes_on:
            job.train(Save(5))
        self.assertEqual([c.step for c, _ in found], [at for _, at in found])
        self.assertIn(2, [len(c.own_layers) for c, _ in found])
        self.assert_restores(job)

    def test_deltas_are_written_while_one_is_under_way(self):
        job = _Job(self.path)
        job.run.writes_deltas = True
        job.run.checkpoints.start_deltas(None, job.store)
        with _held() as goes_on:
            job.at_step = lambda step: goes_on.set() if step == 7 else None
            job.train(deltas=due.Due([due.Interval(2)]))
        kinds = {
            (c.parent is not None, len(c.own_layers))
            for c in job.run.checkpoints.whole()
        }
        self.assertContainsSubset({(True, 1), (False, 2)}, kinds)
        self.assert_restores(job)

    def test_an_interruption_completes_it_at_once(self):
        job = _Job(self.path, total_steps=1000)

        def interrupt(step):
            if step == 6:
                goes_on.set()
                os.kill(os.getpid(), signal.SIGINT)

        job.at_step = interrupt
        with _held() as goes_on, self.assertRaises(loop.InterruptedRun):
            job.train()
        (checkpoint,) = job.run.checkpoints.whole()
        self.assertEqual((checkpoint.step, len(checkpoint.own_layers)), (6, 2))
        self.assert_restores(job)

    def test_a_kill_leaves_the_one_before(self):
        job = _Job(self.path, total_steps=3)
        job.train()

        class Killed(Exception):
            pass

        def kill(step):
            if step == 6:
                raise Killed

        killed = _Job(self.path, total_steps=1000)
        killed.run.progress.step = 3
        killed.at_step = kill
        with _held(), self.assertRaises(Killed):
            killed.train()
        self.assertNotEmpty(list(self.path.glob("rows-*")))
        again = checkpoint_dir.CheckpointDir(self.path)
        self.assertEqual([c.step for c in again.whole()], [3])
        again.save(saving_case.state(), _store(), step=9, state={})
        self.assertEmpty(list(self.path.glob("rows-*")))

    def test_an_error_of_the_copy_ends_the_job(self):
        job = _Job(self.path)
        with (
            mock.patch.object(
                write.server_files.files.ArrayWriter,
                "save",
                side_effect=OSError("the disk is full"),
            ),
            self.assertRaisesRegex(tf.errors.OpError, "the disk is full"),
        ):
            job.train()

    def test_a_small_store_is_written_at_rest(self):
        job = _Job(self.path, total_steps=9)
        with mock.patch.object(run_lib, "LIVE_BYTES", 1 << 26):
            job.train()
        found = {c.step: len(c.own_layers) for c in job.run.checkpoints.whole()}
        self.assertEqual(found, {4: 1, 8: 1, 9: 1})
