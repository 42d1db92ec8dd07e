"""Tests of writing checkpoints: complete, or not there."""

import pathlib
from unittest import mock

from monolith_tf.training import checkpoint
from monolith_tf.training import checkpoint_commit
from monolith_tf.training import checkpoint_write
from tests.training import saving_case


class _Killed(Exception):
    """The process ended, and cleaned up nothing."""


def _killed_at(module, function):
    """Ends a save where it calls a function, as a kill does."""
    return (
        mock.patch.object(module, function, side_effect=_Killed),
        mock.patch.object(checkpoint_write.Writing, "abandon"),
    )


class CheckpointWriteTest(saving_case.SavingCase):
    def test_a_failed_save_leaves_nothing_and_the_former_checkpoint(self):
        self.save(1)
        with self.assertRaisesRegex(OSError, "disk is full"):
            self.save(2, store=saving_case.Store(OSError("disk is full")))
        self.assertEqual([p.name for p in self.path.iterdir()], ["ckpt-00000001"])

    def test_what_a_killed_save_left_is_ignored_and_cleared(self):
        self.save(1)
        left = self.path / ".tmp-ckpt-00000002"
        left.mkdir()
        (left / "dense.index").write_bytes(b"half")
        self.assertEqual(self.checkpoints.latest().step, 1)
        self.save(3)
        self.assertFalse(left.exists())

    def test_what_a_killed_replacement_left_is_no_error(self):
        self.save(5)
        left = self.path / ".old-ckpt-00000005"
        left.mkdir()
        (left / "rows").write_bytes(b"1")
        self.save(5, note="new")
        self.assertEqual(self.checkpoints.latest().manifest["state"], {"note": "new"})

    def save_killed(self, module, function, step, **fields):
        killed, left = _killed_at(module, function)
        with killed, left, self.assertRaises(_Killed):
            self.save(step, **fields)

    def test_a_folder_without_a_manifest_is_passed_over_in_silence_and_cleared(self):
        self.save(1)
        self.save_killed(checkpoint_commit, "commit", 2)
        left = self.path / "ckpt-00000002"
        self.assertTrue((left / "embedding" / "rows").exists())
        with self.assertNoLogs("absl", "WARNING"):
            self.assertEqual(self.checkpoints.latest().step, 1)
        self.assertEqual(self.checkpoints.names(), ["ckpt-00000001"])
        self.save(3)
        self.assertFalse(left.exists())

    def test_saving_a_step_again_replaces_it(self):
        self.save(5, note="old")
        self.save(5, note="new")
        self.assertEqual(self.checkpoints.latest().manifest["state"], {"note": "new"})
        (folder,) = self.path.iterdir()
        files = [str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file()]
        named = self.checkpoints.latest().manifest["files"]
        self.assertSameElements(files, [*named, "manifest.json", ".replaced.lock"])

    def test_a_kill_while_a_step_is_saved_again_leaves_the_former_one(self):
        for module, function in (
            (saving_case.Store, "save"),
            (checkpoint_commit, "commit"),
            (checkpoint_commit.os, "link"),
            (checkpoint_commit.sealed, "seal"),
            (checkpoint_commit.parts_lib.Folder, "commit"),
        ):
            self.save(5, note="old")
            self.save_killed(module, function, 5, note="new")
            found = self.checkpoints.latest()
            self.assertEqual(found.manifest["state"], {"note": "old"}, msg=function)
            checkpoint.check_files(found)

    def test_a_kill_after_a_step_was_saved_again_leaves_the_newer_one(self):
        self.save(5, note="old")
        self.save_killed(checkpoint_commit, "sweep", 5, note="new")
        self.assertEqual(self.checkpoints.latest().manifest["state"], {"note": "new"})
        self.save(6)
        names = {file.name for file in (self.path / "ckpt-00000005").iterdir()}
        self.assertContainsSubset({"embedding-2", "manifest.json"}, names)
        self.assertNotIn("embedding", names)

    def test_who_reads_the_former_one_keeps_its_files(self):
        self.save(5, note="old")
        held = self.checkpoints.latest()
        self.save(5, note="new")
        self.assertEqual(self.checkpoints.latest().manifest["state"], {"note": "new"})
        checkpoint.check_files(held)
        self.save(6)
        checkpoint.check_files(held)
        self.save(7)
        self.save(8)
        checkpoint.check_files(held)  # It is not among the kept, but is being read.
        folder = pathlib.Path(held.path)
        del held
        self.save(9)
        self.assertFalse(folder.exists())
