"""Jobs that come back under settings with which their rows mean other things."""

import logging
import re

from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.testing import small_job
from tests.experiment import csv_job

_CONFIG = """\
model_dir: {folder}/model
data: {{train: {folder}/rows.csv, batch_size: 20, validation_fraction: 0.3}}
features:
  - {{name: items, kind: id_list, dtype: string}}
  - {{name: price, kind: dense, transform: [log1p]}}
labels: [{{name: click, equals: 1}}]
default_table: {{dim: 2}}
model:
  blocks:
    - name: deep
      layer: MLP
      inputs: [all]
      args: {{output_dims: [2, 1], activations: [relu, null]}}
  heads: [{{label: click, inputs: [deep]}}]
trainer: {{epochs: 1, summaries: false}}
"""
_MORE = "trainer.epochs=2"
_CHANGES = {
    "features[0].combiner=sum": r"^WARNING:.*ckpt-\d+: `combiner` of feature `items` "
    r"was \"mean\" and is \"sum\" now\. Trained rows and weights are kept",
    "features[1].transform=[{name: clip, max: 5}]": r"^WARNING:.*: `transform` of "
    r"feature `price` was .*log1p.* and is .*clip",
    "labels=[{name: click, equals: 0}]": r"^WARNING:.*: `equals` of label `click` was "
    r"\[1\] and is \[0\] now",
    "model.blocks[0].args.activations=[tanh, null]": r"^WARNING:.* another model: "
    r"`model\.blocks\.deep\.args\.activations` was \[\"relu\", null\] and is "
    r"\[\"tanh\", null\] now\. Trained weights are kept",
    "default_table.initializer=zeros": r"^INFO:.*Table `items`, slice `vec`: "
    r"`initializer` was .*uniform.* and is .*zeros.* now: new rows begin by it",
}


class ResumedSettingsTest(csv_job.CsvJobTest):
    CONFIG = _CONFIG
    HEADER = ("items", "price", "click")
    ROWS = tuple((f"a{n % 30}|b{n % 7}", f"{n}.5", n % 2) for n in range(60))

    def job(self, *overrides):
        return estimator_lib.Estimator(self.config, *overrides)

    def logged(self, act):
        """Lines about settings that a call logs, with their levels."""
        with self.assertLogs("absl", logging.INFO) as logs:
            act()
        words = (" and is ", "rows that the model was trained on")
        return [line for line in logs.output if any(word in line for word in words)]

    def test_each_changed_setting_is_logged_once(self):
        self.job().train()
        lines = self.logged(self.job(*_CHANGES, _MORE).train)
        self.assertLen(lines, len(_CHANGES))
        for expected in _CHANGES.values():
            self.assertLen([line for line in lines if re.search(expected, line)], 1)
        # The new checkpoint says the new settings.
        self.assertEqual(self.logged(self.job(*_CHANGES, "trainer.epochs=3").train), [])

    def test_a_changed_seed_is_logged_with_what_it_does_to_evaluations(self):
        self.job().train()
        lines = self.logged(self.job("seed=5", _MORE).train)
        first = "`seed` was 0 and is 5 now: new rows, dropout and the order of the data"
        self.assertRegex(lines[0], f"^INFO:.*{first}")
        self.assertRegex(
            lines[1], "^WARNING:.*`seed` was 0 and is 5 now. Its metrics are too good"
        )
        self.assertLen(lines, 2)

    def test_an_evaluation_and_a_warm_start_warn_too(self):
        self.job().train()
        change = "features[0].combiner=sqrtn"
        warm = (f"model_dir={self.folder}/w", f"trainer.warm_start={self.folder}/model")
        for act in (
            lambda: self.job(change).evaluate("eval"),
            self.job(change, *warm).train,
        ):
            (line,) = self.logged(act)
            self.assertRegex(line, "^WARNING:.*`combiner` of feature `items`")

    def test_nothing_is_said_without_a_change_or_of_an_older_checkpoint(self):
        self.job().train()
        self.assertEqual(self.logged(self.job(_MORE).train), [])
        small_job.rewrite_manifests(
            small_job.last(self.folder / "model"),
            lambda manifest: manifest.get("state", {}).pop("settings", None),
        )
        more = ("features[0].combiner=sum", "seed=5", "trainer.epochs=3")
        # What is said is what else a checkpoint knows.
        (line,) = self.logged(self.job(*more).train)
        self.assertIn("The eval split has rows that the model was trained on", line)
