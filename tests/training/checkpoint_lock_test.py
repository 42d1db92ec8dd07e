"""Tests of locks: a checkpoint is not removed while it is read."""

import errno
import subprocess
import sys
from unittest import mock

from monolith_tf.training import checkpoint
from monolith_tf.training import checkpoint_lock
from tests.training import saving_case


class CheckpointLockTest(saving_case.SavingCase):
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
            "import pathlib, sys; from monolith_tf.training import checkpoint_lock\n"
            "with checkpoint_lock.held(pathlib.Path(sys.argv[1])):\n"
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

    def test_a_file_system_without_locks_is_a_warning(self):
        no_locks = OSError(errno.ENOLCK, "No locks available")
        with (
            mock.patch.object(checkpoint_lock.fcntl, "flock", side_effect=no_locks),
            self.assertLogs("absl", "WARNING") as logs,
        ):
            for step in (1, 2, 3):
                self.save(step)
            self.assertEqual(self.checkpoints.latest().step, 3)
        self.assertEqual(self.checkpoints.names(), ["ckpt-00000002", "ckpt-00000003"])
        self.assertIn("cannot be locked before removal: ", logs.output[0])
        self.assertIn("cannot be locked (", logs.output[1])
        self.assertIn("Raise `trainer.keep_checkpoints`", logs.output[1])
