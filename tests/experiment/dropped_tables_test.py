"""Jobs that resume with other tables than their checkpoint's."""

from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.testing import small_job
from monolith_tf.training import checkpoint
from tests.experiment import csv_job

_CONFIG = """\
model_dir: {folder}/model
data: {{train: {folder}/rows.csv, eval: {folder}/rows.csv, batch_size: 20}}
features:
  - {{name: user, kind: id}}
  - {{name: item, kind: id}}
labels: [click]
default_table: {{dim: 2}}
model:
  blocks: [{{name: deep, layer: MLP, inputs: [all], args: {{output_dims: [1]}}}}]
  heads: [{{label: click, inputs: [deep]}}]
trainer: {{epochs: 1, summaries: false}}
"""
_USERS, _ITEMS = 30, 7
_RENAMED = ("tables=[{name: people, dim: 2}]", "features[0].table=people")


class DroppedTablesTest(csv_job.CsvJobTest):
    CONFIG = _CONFIG
    ROWS = tuple((n % _USERS, n % _ITEMS, n % 2) for n in range(60))

    def job(self, *overrides):
        return estimator_lib.Estimator(self.config, *overrides)

    def rows(self):
        """Rows of each table in the newest checkpoint."""
        found = small_job.last(self.folder / "model")
        tables = found.manifest["embedding"]["tables"]
        return {table["name"]: table["counters"]["rows"] for table in tables}

    def test_a_table_with_rows_that_is_no_longer_named_is_an_error(self):
        self.job().train()
        before = self.rows()
        self.assertEqual(before, {"user": _USERS, "item": _ITEMS})
        expected = (
            r"ckpt-00000003 has tables that the config does not name: `user` with 30 "
            r"rows\. New in the config, and empty: `people`\. .*"
            r"`trainer\.drop_tables: \[user\]`"
        )
        for act in ("train", "evaluate", "export_saved_model"):
            job = self.job(*_RENAMED, "trainer.epochs=2")
            with self.assertRaisesRegex(checkpoint.CheckpointError, expected):
                getattr(job, act)()
        self.assertEqual(self.rows(), before)

    def test_a_table_is_dropped_where_the_config_says_so(self):
        self.job().train()
        dropping = (*_RENAMED, "trainer.drop_tables=user")
        with self.assertLogs("absl", "INFO") as logs:
            self.job(*dropping, "trainer.epochs=2").train()
        text = "\n".join(logs.output)
        self.assertIn("The table `people` is new: it starts empty.", text)
        self.assertIn("The table `user` is dropped with 30 rows", text)
        self.assertEqual(self.rows(), {"people": _USERS, "item": _ITEMS})
        # Nothing is left to drop, but the setting may stay.
        with self.assertNoLogs("absl", "WARNING"):
            self.job(*dropping, "trainer.epochs=3").train()

    def test_a_table_shared_from_now_on_leaves_rows_behind(self):
        self.job().train()
        job = self.job("features[1].table=user", "trainer.epochs=2")
        with self.assertRaisesRegex(checkpoint.CheckpointError, "`item` with 7 rows"):
            job.train()

    def test_a_warm_start_says_which_tables_it_does_not_take(self):
        self.job().train()
        with self.assertLogs("absl", "WARNING") as logs:
            self.job(
                *_RENAMED,
                f"model_dir={self.folder}/warm",
                f"trainer.warm_start={self.folder}/model",
            ).train()
        (line,) = [line for line in logs.output if "`trainer.warm_start`" in line]
        self.assertIn("the table `user` with 30 rows, which are not restored", line)
