"""Jobs that resume with other rows than their checkpoint's: which key to set."""

import functools

from absl.testing import parameterized

from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.testing import small_job
from monolith_tf.training import checkpoint
from tests.experiment import csv_job

_CONFIG = """\
model_dir: {folder}/model
data: {{train: {folder}/rows.csv, eval: {folder}/rows.csv, batch_size: 20}}
features:
  - {{name: user, kind: id}}
  - {{name: other, kind: id, column: user, table: spare}}
  - {{name: item, kind: id, table: item}}
labels: [click]
default_table: {{dim: 2, optimizer: {{name: sgd, learning_rate: 0.5}}}}
tables:
  - {{name: spare, dim: 2}}
  - name: item
    slices:
      - {{name: bias, dim: 1}}
      - {{name: vec, dim: 2, optimizer: {{name: adam, epsilon: 0.01}}}}
model:
  blocks: [{{name: deep, layer: MLP, inputs: [all], args: {{output_dims: [1]}}}}]
  heads: [{{label: click, inputs: [deep]}}]
trainer: {{epochs: 1, summaries: false}}
"""
_CASES = (
    (
        "tables[1].slices[1].optimizer=adagrad",
        r"`item` hold the state of the optimizer \{name: adam, epsilon: 0\.01\}, but "
        r"`tables\[1\]\.slices\[1\]\.optimizer` is now \{name: adagrad\}, .* Set "
        r"`tables\[1\]\.slices\[1\]\.optimizer: \{name: adam, epsilon: 0\.01\}`, or",
    ),
    (
        "default_table.optimizer={name: sgd, momentum: 0.9}",
        r"`user` .* Set `default_table\.optimizer: \{name: sgd, learning_rate: 0\.5\}`",
    ),
    (
        "tables[1].slices[0].dim=3",
        r"`item` have 1 values, but `tables\[1\]\.slices\[0\]\.dim` is 3\. Set "
        r"`tables\[1\]\.slices\[0\]\.dim: 1`",
    ),
)


class FittingRowsTest(csv_job.CsvJobTest):
    CONFIG = _CONFIG

    def job(self, *overrides):
        return estimator_lib.Estimator(self.config, *overrides)

    @parameterized.parameters(*_CASES)
    def test_an_error_names_the_key_and_its_former_value(self, change, message):
        self.job().train()
        warm = (f"model_dir={self.folder}/w", f"trainer.warm_start={self.folder}/model")
        for act in (
            self.job(change, "trainer.epochs=2").train,
            functools.partial(self.job(change).evaluate, "eval"),
            self.job(change, *warm).train,
        ):
            with self.assertRaisesRegex(checkpoint.CheckpointError, message):
                act()
        self.assertEqual(small_job.last(self.folder / "model").step, 3)

    def test_a_job_goes_on_with_other_numbers_of_its_optimizer(self):
        self.job().train()
        change = "tables[1].slices[1].optimizer={name: adam, epsilon: 0.1}"
        self.job("trainer.epochs=2", change, "default_table.optimizer=sgd").train()
        self.assertEqual(small_job.last(self.folder / "model").step, 6)
