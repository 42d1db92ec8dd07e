"""Tests of the directory of checkpoints: the newest, the best, and which are kept."""

import pathlib

from monolith_tf.training import checkpoint
from monolith_tf.training import checkpoint_dir
from tests.training import saving_case


class CheckpointDirTest(saving_case.SavingCase):
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

    def test_a_damaged_best_checkpoint_is_passed_over(self):
        best = self.save(1)
        self.checkpoints.mark_best(best.path.name, "auc", 0.9)
        pathlib.Path(best.embedding_dir, "rows").write_bytes(b"12346")
        self.assertIsNone(self.checkpoints.best())

    def test_five_stay_where_no_number_is_given(self):
        self.checkpoints = checkpoint_dir.CheckpointDir(self.path)
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

    def test_rejects_keep_below_one(self):
        with self.assertRaisesRegex(ValueError, "at least 1. Received: keep=0"):
            checkpoint_dir.CheckpointDir(self.path, keep=0)
