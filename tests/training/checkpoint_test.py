"""Tests of checkpoints: complete or ignored, and errors that name the difference."""

import errno
import json
import pathlib
import subprocess
import sys
from unittest import mock

import tensorflow as tf
import tf_keras

from monolith_tf import testing
from monolith_tf.training import checkpoint


class _Store:
    """Writes one file, or fails while writing."""

    def __init__(self, error=None):
        self._error = error

    def save(self, directory, *, step):
        directory = pathlib.Path(directory)
        directory.mkdir()
        (directory / "rows").write_bytes(b"12345")
        if self._error is not None:
            raise self._error
        return {"tables": {}}


def _state(units=2):
    state = tf.Module()
    state.step = tf.Variable(7, dtype=tf.int64)
    state.model = tf_keras.Sequential([tf_keras.layers.Dense(units)])
    state.model.build([None, 3])
    return state


class CheckpointTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.path = pathlib.Path(self.create_directory())
        self.checkpoints = checkpoint.CheckpointDir(self.path, keep=2)

    def create_directory(self):
        path = pathlib.Path(self.get_temp_dir()) / self.id()
        path.mkdir(parents=True)
        return path

    def save(self, step, state=None, store=None, **fields):
        return self.checkpoints.save(
            state or _state(), store or _Store(), step=step, state=fields
        )

    def test_a_restored_state_has_the_saved_values(self):
        saved, other = _state(), _state()
        self.save(7, saved)
        checkpoint.restore_dense(self.checkpoints.latest(), other)
        self.assertAllEqual(other.model.weights[0], saved.model.weights[0])
        self.assertAllEqual(other.step, 7)

    def test_names_do_not_depend_on_what_was_built_before(self):
        first = set(checkpoint.named_variables(_state()))
        self.assertEqual(first, set(checkpoint.named_variables(_state())))
        self.assertLen(first, 3)

    def test_latest_is_the_highest_step(self):
        for step in (9, 100, 20):
            self.save(step)
        self.assertEqual(self.checkpoints.latest().step, 100)

    def test_keeps_the_newest_and_the_best(self):
        self.save(1)
        self.checkpoints.mark_best("ckpt-00000001", "auc", 0.9)
        for step in (2, 3, 4):
            self.save(step)
        names = ["ckpt-00000001", "ckpt-00000003", "ckpt-00000004"]
        self.assertEqual(self.checkpoints.names(), names)
        self.assertEqual(self.checkpoints.best().step, 1)

    def test_a_failed_save_leaves_nothing_and_the_former_checkpoint(self):
        self.save(1)
        with self.assertRaisesRegex(OSError, "disk is full"):
            self.save(2, store=_Store(OSError("disk is full")))
        self.assertEqual([p.name for p in self.path.iterdir()], ["ckpt-00000001"])

    def test_what_a_killed_save_left_is_ignored_and_cleared(self):
        self.save(1)
        left = self.path / ".tmp-ckpt-00000002"
        left.mkdir()
        (left / "dense.index").write_bytes(b"half")
        self.assertEqual(self.checkpoints.latest().step, 1)
        self.save(3)
        self.assertFalse(left.exists())

    def test_a_damaged_checkpoint_is_passed_over(self):
        self.save(1)
        second = self.save(2)
        pathlib.Path(second.embedding_dir, "rows").write_bytes(b"123")
        self.assertEqual(self.checkpoints.latest().step, 1)
        with self.assertRaisesRegex(
            checkpoint.CheckpointError,
            "rows is damaged: .* have 5 bytes, but has 3",
        ):
            checkpoint.open_checkpoint(second.path)

    def test_every_flipped_bit_is_found(self):
        self.save(1, units=1)
        second = self.save(2, units=2)
        files = [*second.manifest["files"], "manifest.json"]
        for name in files:
            file = second.path / name
            whole = file.read_bytes()
            for bit in self.rng.integers(8 * len(whole), size=40 if whole else 0):
                damaged = bytearray(whole)
                damaged[bit // 8] ^= 1 << bit % 8
                file.write_bytes(damaged)
                with self.assertRaises(checkpoint.CheckpointError, msg=(name, bit)):
                    checkpoint.open_checkpoint(second.path)
                self.assertEqual(self.checkpoints.latest().step, 1)
            file.write_bytes(whole)
        self.assertEqual(self.checkpoints.latest().step, 2)

    def test_a_damaged_best_checkpoint_is_passed_over(self):
        best = self.save(1)
        self.checkpoints.mark_best(best.path.name, "auc", 0.9)
        pathlib.Path(best.embedding_dir, "rows").write_bytes(b"12346")
        self.assertIsNone(self.checkpoints.best())

    def test_without_checksums_a_checkpoint_is_used_and_said_to_be_unchecked(self):
        saved = self.save(1)
        old = {k: v for k, v in saved.manifest.items() if k != "checksums"}
        (saved.path / "manifest.json").write_text(json.dumps(old))
        with self.assertLogs(level="WARNING") as logs:
            self.assertEqual(checkpoint.open_checkpoint(saved.path).step, 1)
        self.assertIn("without checksums", logs.output[0])

    def test_an_old_manifest_that_lacks_a_key_is_damaged(self):
        saved = self.save(1)
        old = {k: v for k, v in saved.manifest.items() if k != "checksums"}
        old["filez"] = old.pop("files")
        (saved.path / "manifest.json").write_text(json.dumps(old))
        with self.assertRaisesRegex(checkpoint.DamagedCheckpointError, "no `files`"):
            checkpoint.open_checkpoint(saved.path)

    def test_what_a_killed_replacement_left_is_no_error(self):
        self.save(5)
        left = self.path / ".old-ckpt-00000005"
        left.mkdir()
        (left / "rows").write_bytes(b"1")
        self.save(5, note="new")
        self.assertEqual(self.checkpoints.latest().manifest["state"], {"note": "new"})

    def test_five_stay_where_no_number_is_given(self):
        self.checkpoints = checkpoint.CheckpointDir(self.path)
        for step in range(1, 8):
            self.save(step)
        kept = [f"ckpt-{step:08d}" for step in range(3, 8)]
        self.assertEqual(self.checkpoints.names(), kept)

    def test_what_cannot_be_removed_does_not_fail_a_save(self):
        self.save(1)
        (self.path / ".tmp-note").write_text("no folder")
        self.save(2)
        self.assertEqual(self.checkpoints.latest().step, 2)

    def test_the_one_just_written_stays_beside_newer_damaged_ones(self):
        for step in (20, 30, 40):
            saved = self.save(step)
            if step > 20:
                pathlib.Path(saved.embedding_dir, "rows").write_bytes(b"")
        self.save(25)
        self.assertEqual(self.checkpoints.latest().step, 25)

    def test_what_several_read_is_not_removed(self):
        self.save(1)
        held = self.checkpoints.latest()
        also_held = checkpoint.open_checkpoint(held.path)
        self.save(2)
        self.save(3)
        self.assertIn("ckpt-00000001", self.checkpoints.names())
        del held
        self.save(4)
        self.assertIn("ckpt-00000001", self.checkpoints.names())
        del also_held
        self.save(5)
        self.assertEqual(self.checkpoints.names(), ["ckpt-00000004", "ckpt-00000005"])

    def test_a_reader_that_died_holds_nothing(self):
        path = self.save(1).path
        code = (
            "import os, sys, pathlib; from monolith_tf.training import checkpoint\n"
            "with checkpoint.hold(pathlib.Path(sys.argv[1])):\n"
            "  print('held', flush=True); sys.stdin.read()"
        )
        reader = subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            self.assertEqual(reader.stdout.readline(), b"held\n")
            self.save(2)
            self.save(3)
            self.assertTrue(path.exists())
        finally:
            reader.kill()
            reader.communicate()
        self.save(4)
        self.assertFalse(path.exists())

    def test_saving_a_step_again_replaces_it(self):
        self.save(5, note="old")
        self.save(5, note="new")
        self.assertEqual(self.checkpoints.latest().manifest["state"], {"note": "new"})
        self.assertLen(list(self.path.iterdir()), 1)

    def test_a_config_that_no_longer_fits_is_told_each_difference(self):
        saved = self.save(1, _state(units=2))
        with self.assertRaises(checkpoint.CheckpointError) as caught:
            checkpoint.restore_dense(saved, _state(units=4))
        text = str(caught.exception)
        self.assertIn("kernel` is [[3, 2], 'float32'] in the checkpoint", text)
        self.assertIn("in the checkpoint and [[3, 4], 'float32'] in the config", text)

    def test_many_differences_are_cut_short(self):
        state = _state()
        state.more = [tf.Variable(1.0) for _ in range(22)]
        saved = self.save(1, state)
        with self.assertRaises(checkpoint.CheckpointError) as caught:
            checkpoint.restore_dense(saved, _state())
        self.assertEqual(str(caught.exception).count("the checkpoint has"), 20)
        self.assertIn("\n  and 2 more\nFix the config", str(caught.exception))
        state.more = state.more[:20]
        saved = self.save(2, state)
        with self.assertRaises(checkpoint.CheckpointError) as caught:
            checkpoint.restore_dense(saved, _state())
        self.assertNotIn("more\nFix", str(caught.exception))

    def test_a_file_system_without_locks_is_a_warning(self):
        no_locks = OSError(errno.ENOLCK, "No locks available")
        with (
            mock.patch.object(checkpoint.fcntl, "flock", side_effect=no_locks),
            self.assertLogs("absl", "WARNING") as logs,
        ):
            for step in (1, 2, 3):
                self.save(step)
            self.assertEqual(self.checkpoints.latest().step, 3)
        self.assertEqual(self.checkpoints.names(), ["ckpt-00000002", "ckpt-00000003"])
        self.assertIn("cannot be locked before removal: ", logs.output[0])
        self.assertIn("cannot be locked (", logs.output[1])
        self.assertIn("Raise `trainer.keep_checkpoints`", logs.output[1])

    def test_missing_and_superfluous_variables_are_named(self):
        bigger = _state()
        bigger.extra = tf.Variable([1.0])
        saved = self.save(1, bigger)
        with self.assertRaisesRegex(checkpoint.CheckpointError, "has `extra`"):
            checkpoint.restore_dense(saved, _state())
        saved = self.save(2, _state())
        with self.assertRaisesRegex(checkpoint.CheckpointError, "`extra`.*lacks"):
            checkpoint.restore_dense(saved, bigger)

    def test_restore_matching_takes_what_fits(self):
        saved_state, other = _state(), _state()
        other.extra = tf.Variable([1.0])
        saved = self.save(1, saved_state)
        self.assertEqual(checkpoint.restore_matching(saved, other), ["extra"])
        self.assertAllEqual(other.model.weights[0], saved_state.model.weights[0])

    def test_restore_matching_below_a_prefix(self):
        saved_state, other = _state(), _state()
        saved_state.extra, other.extra = tf.Variable([1.0]), tf.Variable([2.0])
        saved = self.save(1, saved_state)
        self.assertEqual(checkpoint.restore_matching(saved, other, "model/"), [])
        self.assertAllEqual(other.model.weights[0], saved_state.model.weights[0])
        self.assertAllEqual(other.extra, [2.0])

    def test_rejects_what_is_no_checkpoint(self):
        with self.assertRaisesRegex(checkpoint.CheckpointError, "has no manifest.json"):
            checkpoint.open_checkpoint(self.path)

    def test_rejects_another_format(self):
        saved = self.save(1)
        manifest = saved.path / "manifest.json"
        manifest.write_text(json.dumps({"format": 99}))
        with self.assertRaisesRegex(checkpoint.CheckpointError, "has format 99"):
            checkpoint.open_checkpoint(saved.path)

    def test_rejects_a_damaged_manifest(self):
        saved = self.save(1)
        (saved.path / "manifest.json").write_text("{")
        with self.assertRaisesRegex(checkpoint.CheckpointError, "json is damaged"):
            checkpoint.open_checkpoint(saved.path)

    def test_rejects_keep_below_one(self):
        with self.assertRaisesRegex(ValueError, "at least 1. Received: keep=0"):
            checkpoint.CheckpointDir(self.path, keep=0)
