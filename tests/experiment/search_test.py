"""Tests of a whole job whose model searches for its architecture."""

import json
import pathlib

from monolith_tf import testing
from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.testing import small_job
from monolith_tf.testing import summaries

_MODEL = """\
model:
  blocks:
    - name: gates
      layer: NASGatingLayer
      inputs: [user, item]
      args:
        segment_names: [user, item]
        segment_sizes: [4, 4]
        initializer: {class_name: Constant, config: {value: -5.0}}
        size_penalty: 0.01
    - {name: tower, layer: MLP, inputs: [gates, price], args: {output_dims: [4, 1]}}
  heads: [{label: click, inputs: tower}]
"""


class SearchTest(testing.TestCase):
    def test_log_tensorboard_and_checkpoint_tell_what_was_found(self):
        folder = pathlib.Path(self.get_temp_dir())
        path = small_job.write(folder, rows=320)
        text = path.read_text()
        begin, end = text.index("model:\n"), text.index("trainer:\n")
        path.write_text(text[:begin] + _MODEL + text[end:])
        job = estimator_lib.Estimator(
            path, "trainer.max_steps=7", "trainer.log_every_steps=5"
        )
        with self.assertLogs("absl", "INFO") as logs:
            job.train()
        lines = [record.getMessage() for record in logs.records]
        self.assertIn("search | step: 5 | gates | user: 0/4 | item: 0/4", lines)
        model_dir = folder / "model"
        lines = (model_dir / "metrics.jsonl").read_text().splitlines()
        records = map(json.loads, lines)
        sizes = {"gates/user/selected_size": 0, "gates/item/selected_size": 0}
        self.assertEqual(
            [record for record in records if record["phase"] == "search"],
            [{"phase": "search", "step": step} | sizes for step in (5, 7)],
        )
        written = summaries.read(model_dir / "tensorboard" / "search")
        self.assertIn(("gates/user/probabilities", 7), written)
        path = model_dir / "checkpoints" / "ckpt-00000007" / "manifest.json"
        removed = {"kept": 0, "width": 4}
        self.assertEqual(
            json.loads(path.read_text())["state"]["search"],
            {"gates": {"user": removed, "item": removed}},
        )
