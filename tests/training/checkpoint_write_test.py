"""Tests of writing checkpoints: complete, or not there."""

from tests.training import saving_case


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

    def test_saving_a_step_again_replaces_it(self):
        self.save(5, note="old")
        self.save(5, note="new")
        self.assertEqual(self.checkpoints.latest().manifest["state"], {"note": "new"})
        self.assertLen(list(self.path.iterdir()), 1)
