"""Jobs that resume with settings that change the meaning of their rows."""

import logging
import re

from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.testing import small_job
from tests.experiment import csv_job

_CONFIG = """\
model_dir: {folder}/model
data: {{train: {folder}/rows.csv, batch_size: 20, validation_fraction: 0.3}}
features:
  - {{name: items, kind: id_list, dtype: string, table: one}}
  - {{name: shop, kind: id_list, dtype: string, table: two}}
  - {{name: price, kind: dense, transform: [log1p]}}
  - {{name: age, kind: dense, default: 1.0}}
labels: [{{name: click, equals: 1}}]
tables: [{{name: one, dim: 2}}, {{name: two, dim: 2}}]
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
    r"was \"mean\" and is now \"sum\"\. Rows and weights that were trained .* are kept",
    "features[2].transform=[{name: clip, max: 5}]": r"^WARNING:.*: `transform` of "
    r"feature `price` was .*log1p.* and is now .*clip",
    "labels=[{name: click, equals: 0}]": r"^WARNING:.*: `equals` of label `click` was "
    r"\[1\] and is now \[0\]",
    "model.blocks[0].args.activations=[tanh, null]": r"^WARNING:.* another model: "
    r"`model\.blocks\.deep\.args\.activations` was \[\"relu\", null\] and is now "
    r"\[\"tanh\", null\]\. Trained weights are kept",
    "features[0].table=two": r"^WARNING:.*: `table` of feature `items` was \"one\" and "
    r"is now \"two\"",
    "features[1].table=one": r"^WARNING:.*: `table` of feature `shop` was \"two\" and "
    r"is now \"one\"",
    "features[3].default=2.0": r"^WARNING:.*: `default` of feature `age` was 1\.0 and "
    r"is now 2\.0",
    "data.list_delimiter=;": r"^WARNING:.*ckpt-\d+: `data\.list_delimiter` was \"\|\" "
    r"and is now \";\"\. Rows and weights that were trained .* are kept",
    "data.weight=rate": r"^WARNING:.*: `data\.weight` was not set and is now \"rate\"",
    "data.null_values=[none]": r"^WARNING:.*: `data\.null_values` was not set and is "
    r"now ",
    "tables[0].initializer=zeros": r"^INFO:.*Table `one`, slice `vec`: "
    r"`initializer` was .*uniform.* and is now .*zeros.*: new rows use it",
}


class ResumedSettingsTest(csv_job.CsvJobTest):
    CONFIG = _CONFIG
    HEADER = ("items", "shop", "price", "age", "rate", "click")
    ROWS = tuple(
        (f"a{n % 30}|b{n % 7}", f"s{n % 3}|t", f"{n}.5", n % 9 or "", 1 + n % 2, n % 2)
        for n in range(60)
    )

    def job(self, *overrides):
        return estimator_lib.Estimator(self.config, *overrides)

    def logged(self, act):
        """Returns the log lines about settings of a call, with their levels."""
        with self.assertLogs("absl", logging.INFO) as logs:
            act()
        words = (" and is now ", "rows that the model was trained on")
        return [line for line in logs.output if any(word in line for word in words)]

    def test_each_changed_setting_is_logged_once(self):
        self.job().train()
        lines = self.logged(self.job(*_CHANGES, _MORE).train)
        self.assertLen(lines, len(_CHANGES))
        for expected in _CHANGES.values():
            self.assertLen([line for line in lines if re.search(expected, line)], 1)
        # The new checkpoint has the new settings.
        self.assertEqual(self.logged(self.job(*_CHANGES, "trainer.epochs=3").train), [])

    def test_a_changed_seed_is_logged_with_what_it_does_to_evaluations(self):
        self.job().train()
        lines = self.logged(self.job("seed=5", _MORE).train)
        first = "`seed` was 0 and is now 5: new rows, dropout and the order of the data"
        self.assertRegex(lines[0], f"^INFO:.*{first}")
        self.assertRegex(
            lines[1], "^WARNING:.*`seed` was 0 and is now 5. Its metrics are too good"
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
