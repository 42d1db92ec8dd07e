"""Exports from checkpoints and during training."""

import json
import pathlib
import tempfile

from monolith_tf import testing
from monolith_tf.experiment import estimator
from monolith_tf.export import metadata
from monolith_tf.testing import small_job


class ExportsTest(testing.TestCase):
    def test_the_newest_checkpoint_or_the_present_values(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = small_job.write(pathlib.Path(folder.name) / "job", rows=300)
        job = estimator.Estimator(
            path,
            "trainer.epochs=null",
            "trainer.max_steps=4",
            "trainer.steps_per_loop=2",
            "trainer.eval_every_epochs=null",
            "trainer.checkpoint_every_steps=2",
            "export.every_steps=2",
            "export.keep_versions=1",
            "export.verify_rows=0",
            "export.checkpoint=newest",
        )
        job.train()
        model_dir = path.parent / "model"
        (present,) = (model_dir / "export").iterdir()
        found = metadata.read(present)
        newest = metadata.read(job.export_saved_model(path.parent / "other"))
        manifest = json.loads(
            (model_dir / "checkpoints/ckpt-00000004/manifest.json").read_text()
        )
        self.assertEqual(found["step"], 4)
        self.assertEqual(found, {**newest, "bytes": found["bytes"]})
        self.assertLen(found["job"], 32)
        self.assertEqual(found["job"], manifest["state"]["job"])
        counters = {t["name"]: t["counters"] for t in manifest["embedding"]["tables"]}
        rows = sum(table["rows"] for table in counters.values())
        self.assertEqual(sum(group["rows"] for group in found["groups"]), rows)
