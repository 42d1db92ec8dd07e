"""A job whose newest checkpoint turns out to be damaged while it is read."""

import gc
import pathlib
import shutil
import tempfile
from unittest import mock

from monolith_tf import testing
from monolith_tf.embedding.saved import read as saved_tables
from monolith_tf.experiment import estimator
from monolith_tf.experiment import watcher as watcher_lib
from monolith_tf.testing import small_job
from monolith_tf.training import checkpoint
from monolith_tf.training import dense_variables


def _flipped_while_read(rows):
    """Damages a file of checkpoint 30 after its checksums were compared."""
    verify = saved_tables.SavedTables.verify

    def then_flip(tables):
        verify(tables)
        if "ckpt-00000030" in tables.directory:
            _flip(rows)

    return mock.patch.object(saved_tables.SavedTables, "verify", then_flip)


class _Begun(Exception):
    """Ends a job before its first step."""


class _Beginning(watcher_lib.Watcher):
    """Keeps the values with which a job starts."""

    def __init__(self, folder):
        self._folder = folder
        self.step = self.rows = self.dense = None

    def job(self, tables, run):
        del tables
        self.step = run.progress.step
        run.step.network.store.save(str(self._folder))
        self.rows = small_job.rows(str(self._folder))
        variables = dense_variables.named(run.step.state)
        self.dense = {k: v.numpy().tobytes() for k, v in variables.items()}
        raise _Begun


def _flip(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 16
    path.write_bytes(data)


def _largest(folder):
    return max(folder.rglob("*.rows"), key=lambda path: path.stat().st_size)


class DamagedCheckpointTest(testing.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.whole = tempfile.TemporaryDirectory()
        cls.config = small_job.write(pathlib.Path(cls.whole.name))
        cls.estimator("trainer.max_steps=30", "trainer.eval_every_epochs=null").train()

    @classmethod
    def tearDownClass(cls):
        cls.whole.cleanup()
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.get_temp_dir()) / self.id()
        shutil.copytree(pathlib.Path(self.whole.name) / "model", self.folder / "model")
        self.checkpoints = self.folder / "model" / "checkpoints"
        self.model_dir = f"model_dir={self.folder / 'model'}"

    def tearDown(self):
        super().tearDown()
        gc.collect()  # Tables are in reference cycles and take memory.

    @classmethod
    def estimator(cls, *overrides, **kwargs):
        # Op determinism applies to the whole process and slows the other tests.
        return estimator.Estimator(
            cls.config, "trainer.deterministic=false", *overrides, **kwargs
        )

    def begun(self, name, *overrides):
        watcher = _Beginning(self.folder / name)
        with self.assertRaises(_Begun):
            self.estimator(*overrides, watcher=watcher).train()
        return watcher

    def before(self):
        """The values with which the job starts if there is no newer checkpoint."""
        other = self.folder / "other"
        shutil.copytree(self.checkpoints, other / "checkpoints")
        shutil.rmtree(other / "checkpoints" / "ckpt-00000030")
        found = self.begun("expected", f"model_dir={other}")
        self.assertEqual(found.step, 15)
        return found

    def assert_same(self, found, expected):
        self.assertEqual(found.step, 15)
        self.assertEqual(found.rows, expected.rows)
        self.assertEqual(found.dense, expected.dense)

    def warm(self, name, origin):
        return self.begun(
            name, f"model_dir={self.folder}/{name}", f"trainer.warm_start={origin}"
        )

    def test_a_warm_start_passes_over_what_is_damaged_while_it_is_read(self):
        other = self.folder / "other"
        shutil.copytree(self.checkpoints, other / "checkpoints")
        shutil.rmtree(other / "checkpoints" / "ckpt-00000030")
        expected = self.warm("expected", other)
        rows = _largest(self.checkpoints / "ckpt-00000030")
        with (
            _flipped_while_read(rows),
            self.assertLogs("absl", "INFO") as logs,
        ):
            found = self.warm("found", f"[{other},{self.folder}/model]")
        text = "\n".join(logs.output)
        self.assertRegex(text, f"WARNING.* while reading it: .*{rows.name} differs")
        self.assertRegex(text, "Warm start from .*model/checkpoints/ckpt-00000015")
        self.assertEqual((found.step, found.rows), (0, expected.rows))
        self.assertEqual(found.dense, expected.dense)

    def test_a_warm_start_from_one_damaged_checkpoint_names_a_whole_one(self):
        newest = self.checkpoints / "ckpt-00000030"
        rows = _largest(newest)
        _flip(rows)
        message = (
            rf"`trainer\.warm_start`: {rows} is damaged: it differs from its checksum"
            rf"\. Name {self.checkpoints}/ckpt-00000015 instead, which is intact\.$"
        )
        origin = f"trainer.warm_start={newest}"
        job = self.estimator(f"model_dir={self.folder}/new", origin)
        with self.assertRaisesRegex(checkpoint.DamagedCheckpointError, message):
            job.train()
        shutil.rmtree(self.checkpoints / "ckpt-00000015")
        for at, expected in (
            (newest, "no intact checkpoint beside it: name another job"),
            (self.folder / "model", "no checkpoint in .* can be used; the warnings"),
        ):
            origin = f"trainer.warm_start={at}"
            job = self.estimator(f"model_dir={self.folder}/new", origin)
            with self.assertRaisesRegex(checkpoint.CheckpointError, expected):
                job.train()

    def test_rows_or_dense_weights_damaged_while_read_lead_to_the_one_before(self):
        expected = self.before()
        newest = self.checkpoints / "ckpt-00000030"
        rows = _largest(newest)
        with (
            _flipped_while_read(rows),
            self.assertLogs("absl", "WARNING") as logs,
        ):
            found = self.begun("found", self.model_dir)
        self.assertRegex("\n".join(logs.output), f"while reading it: .*{rows.name} dif")
        self.assert_same(found, expected)

        _flip(rows)  # Intact again.
        restore = dense_variables.restore

        def flip_first(checkpoint, root):
            if checkpoint.step == 30:
                _flip(newest / "dense.data-00000-of-00001")
            restore(checkpoint, root)

        with (
            mock.patch.object(dense_variables, "restore", flip_first),
            self.assertLogs("absl", "WARNING") as logs,
        ):
            found = self.begun("again", self.model_dir)
        self.assertRegex("\n".join(logs.output), "while reading it: .*dense.* damaged")
        self.assert_same(found, expected)

    def test_evaluation_takes_the_one_before_too(self):
        at_fifteen = self.estimator(self.model_dir).evaluate(
            "eval", str(self.checkpoints / "ckpt-00000015")
        )
        restore = dense_variables.restore

        def flip_first(checkpoint, root):
            if checkpoint.step == 30:
                _flip(checkpoint.path / "dense.data-00000-of-00001")
            restore(checkpoint, root)

        with mock.patch.object(dense_variables, "restore", flip_first):
            self.assertEqual(
                self.estimator(self.model_dir).evaluate("eval"), at_fifteen
            )

    def test_a_job_without_a_whole_checkpoint_does_not_start_from_the_beginning(self):
        for path in self.checkpoints.rglob("dense.index"):
            _flip(path)
        with self.assertRaisesRegex(
            checkpoint.CheckpointError, "can be used.*from the beginning, remove"
        ):
            self.estimator(self.model_dir).train()
