"""Best values of a job whose evaluations become ones of other rows, or by others."""

import csv
import json
import logging
import shutil

from monolith_tf.config import load
from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.experiment import evaluated_on
from monolith_tf.experiment import side_car
from monolith_tf.testing import small_job
from monolith_tf.training import evaluation_set
from tests.experiment import csv_job

_CONFIG = """\
model_dir: {folder}/model
data: {{train: {folder}/rows.csv, eval: {folder}/eval/rows.csv, batch_size: 20}}
features: [{{name: a, kind: dense}}, {{name: u, kind: id}}]
labels: [click]
default_table: {{dim: 2}}
model:
  blocks: [{{name: deep, layer: Dense, inputs: [all], args: {{units: 1}}}}]
  heads: [{{label: click, inputs: [deep]}}]
metrics: [auc, log_loss]
trainer:
  epochs: 1
  eval_every_epochs: 1
  keep_best: click/auc
  early_stop: {{metric: click/auc, patience: 9}}
  summaries: false
  optimizer: {{name: adam, learning_rate: 0.1}}
"""


class EvaluatedOnTest(csv_job.CsvJobTest):
    CONFIG = _CONFIG
    HEADER = ("a", "u", "click")
    ROWS = tuple((n % 10 / 10, n % 3, int(n % 10 > 4)) for n in range(60))

    def setUp(self):
        super().setUp()
        # The same rows, and such whose labels are the others.
        for name, flip in (("eval", 0), ("other", 1)):
            (self.folder / name).mkdir()
            with (self.folder / name / "rows.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(self.HEADER)
                writer.writerows((a, u, click ^ flip) for a, u, click in self.ROWS)
        self.other = f"data.eval={self.folder}/other/rows.csv"

    def job(self, *overrides):
        return estimator_lib.Estimator(self.config, *overrides)

    def mark(self):
        return json.loads((self.folder / "model/checkpoints/best.json").read_text())

    def logged(self, act, words):
        with self.assertLogs("absl", logging.INFO) as logs:
            act()
        return [line for line in logs.output if words in line]

    def test_a_best_value_is_of_one_evaluation_set(self):
        self.job().train()
        first = self.mark()
        self.assertEqual(first["checkpoint"], "ckpt-00000003")
        lines = self.logged(self.job(self.other, "trainer.epochs=3").train, "over")
        self.assertLen(lines, 1)
        self.assertRegex(
            lines[0],
            r"^WARNING:.*Evaluations are of other data than before, as files changed: "
            rf"the best value starts over\. It was `click/auc` {first['value']:.5f} of "
            r"step 3\.$",
        )
        mark = self.mark()
        self.assertLess(mark["value"], first["value"])
        self.assertIn(mark["checkpoint"], ("ckpt-00000006", "ckpt-00000009"))
        state = small_job.last(self.folder / "model").manifest["state"]["progress"]
        self.assertEqual(state["best"]["EarlyStop"]["value"], mark["value"])
        # Files that only moved are the same.
        shutil.move(self.folder / "other", self.folder / "moved")
        moved = f"data.eval={self.folder}/moved/rows.csv"
        more = self.job(moved, "trainer.epochs=4").train
        self.assertEqual(self.logged(more, "starts over"), [])
        groups = self.job(moved, "group_by=u", "trainer.epochs=5").train
        (line,) = self.logged(groups, "starts over")
        self.assertIn("as `group_by` changed", line)

    def test_what_values_are_comparable_by(self):
        files = [{"path": "/a/rows.csv", "size": 9, "digest": "0"}]

        def of(*overrides, marks=files):
            config = load.load_config(self.config, overrides)
            return evaluated_on.of(config, marks)

        here = of()
        progressive = (
            "trainer.mode=progressive",
            "trainer.eval_every_steps=1",
            "trainer.eval_every_epochs=null",
            "data.shuffle_buffer=0",
        )
        share = ("data.eval=[]", "data.validation_fraction=0.5")
        for key, changed in {
            "files": of(marks=[{**files[0], "digest": "1"}]),
            "trainer.mode": of(*progressive),
            "group_by": of("group_by=u"),
            "labels": of("labels=[{name: click, equals: 0}]"),
            "data.weight": of("data.weight=a"),
            "data.validation_fraction": of(*share),
            "data.negatives": of("data.negatives={eval: 2, user: u, item: a}"),
            "data.list_delimiter": of("data.list_delimiter=;"),
        }.items():
            found = evaluation_set.changes(here, json.loads(json.dumps(changed)))
            self.assertIn(key, found)
            self.assertEqual(evaluation_set.changes(changed, changed), [])
        self.assertEqual(
            evaluation_set.changes(of(*share), of(*share, "seed=1")), ["seed"]
        )
        self.assertEqual(evaluation_set.changes(here, of("seed=1")), [])
        self.assertEqual(evaluation_set.changes(None, here), [])

    def test_a_best_value_is_of_one_metric(self):
        self.job().train()
        fewer = "trainer.keep_best=click/log_loss"
        (line,) = self.logged(self.job(fewer, "trainer.epochs=2").train, "starts over")
        self.assertRegex(
            line,
            r"^WARNING:.*KeepBest goes by `click/log_loss` now, and went by "
            r"`click/auc` \d\.\d+ of step 3: the best value starts over\.",
        )
        mark = self.mark()
        self.assertEqual(mark["metric"], "click/log_loss")
        self.assertEqual(mark["checkpoint"], "ckpt-00000006")

    def test_who_uses_a_checkpoint_that_nobody_named_says_which(self):
        self.job().train()
        unmarked = ("trainer.keep_best=null", "trainer.epochs=2")
        self.job(*unmarked).train()
        unverified = "export.verify_rows=0"
        for act in (
            lambda: self.job().evaluate("eval"),
            lambda: list(self.job().predict("eval")),
            self.job(unverified).export_saved_model,
        ):
            (line,) = self.logged(act, "Using step")
            self.assertRegex(
                line,
                r"^INFO:.*Using step 3: .*/ckpt-00000003, the best by "
                r"`click/auc`, \d\.\d{5}; the newest one is ckpt-00000006\.$",
            )
        newest = self.job("export.checkpoint=newest", unverified).export_saved_model
        (line,) = self.logged(newest, "Using step")
        self.assertRegex(line, r"Using step 6: .*/ckpt-00000006, the newest one\.$")

    def test_an_evaluator_beside_the_job_compares_values_of_one_set_too(self):
        self.job("trainer.keep_best=null", "trainer.checkpoint_every_steps=2").train()
        scorer = side_car.Scorer(load.load_config(self.config))
        self.assertTrue(scorer.score_next())
        first = self.mark()
        scorer = side_car.Scorer(load.load_config(self.config, [self.other]))
        (line,) = self.logged(scorer.score_next, "starts over")
        self.assertRegex(line, r"as files changed.* of ckpt-00000002\.$")
        self.assertLess(self.mark()["value"], first["value"])
        self.assertEqual(self.mark()["checkpoint"], "ckpt-00000003")
