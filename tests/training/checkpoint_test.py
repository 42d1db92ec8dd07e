"""Tests of one checkpoint: opened whole, or an error that says what is wrong."""

import json

from monolith_tf.training import checkpoint
from tests.training import saving_case


class CheckpointTest(saving_case.SavingCase):
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
