"""Tests of whole jobs on a small data set."""

import gc
import json
import pathlib
import sys
import textwrap
from unittest import mock

import numpy as np
import pyarrow as pa
from absl.testing import parameterized
from pyarrow import parquet
from sklearn import metrics as oracle

from monolith_tf import testing
from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.export import errors as export_errors
from monolith_tf.testing import small_job
from monolith_tf.training import actions
from monolith_tf.training import checkpoint
from monolith_tf.training import checkpoint_dir
from monolith_tf.training import loop


class CountSteps(actions.EverySteps):
    """A user's own action."""

    seen: list = []  # noqa: RUF012

    def __init__(self):
        super().__init__(5)

    def work(self, run):
        self.seen.append(run.progress.step)


class EstimatorTest(testing.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.get_temp_dir()) / self.id()
        self.config = small_job.write(self.folder)

    def tearDown(self):
        super().tearDown()
        gc.collect()  # Tables are in reference cycles and reserve much memory.

    def estimator(self, *overrides, **kwargs):
        # Op determinism applies to the whole process and slows the other tests.
        return estimator_lib.Estimator(
            self.config, "trainer.deterministic=false", *overrides, **kwargs
        )

    def lines(self, phase=None):
        text = (self.folder / "model" / "metrics.jsonl").read_text()
        records = [json.loads(line) for line in text.splitlines()]
        return [r for r in records if phase in (None, r["phase"])]

    def test_what_the_log_counts_is_what_there_was(self):
        job = self.estimator()
        saved = []
        save = job.checkpoints.save
        with mock.patch.object(
            job.checkpoints,
            "save",
            side_effect=lambda *a, **k: saved.append(k["step"]) or save(*a, **k),
        ):
            job.train()
        self.assertEqual(self.lines("train")[-1]["examples"], 2 * 2000)
        # Every 15 steps, and at the end of training.
        self.assertEqual(saved, [15, 30, 45, 60, 64])
        found = small_job.last(self.folder / "model")
        rows = small_job.rows(found.embedding_dir)
        tables = self.lines("tables")[-1]
        self.assertEqual(tables["step"], 64)
        counted = [tables[f"{name}/rows"] for name in ("user", "place", "item")]
        self.assertEqual(sum(counted), len(rows))
        self.assertEqual(counted, [50, 4, 40])
        self.assertEqual(tables["user/inserted"], 50)
        self.assertEqual([tables["item/overflow"], tables["item/dropped"]], [0, 0])

    def test_trains_evaluates_predicts_and_exports_the_same_numbers(self):
        job = self.estimator("trainer.epochs=6")
        last = job.train()
        self.assertGreater(last["click/auc"], 0.7)
        self.assertEqual(
            [r["step"] for r in self.lines("eval")], [32 * i for i in range(1, 7)]
        )
        scored = job.evaluate("test")
        predictions = np.concatenate([b["click"] for b in job.predict("test")])
        table = parquet.read_table(self.folder / "eval.parquet").to_pydict()
        expected = oracle.roc_auc_score(
            table["click"], predictions, sample_weight=table["importance"]
        )
        self.assertAllClose(scored["click/auc"], expected, atol=1e-6)
        self.assertAllClose(
            scored["click/log_loss"],
            oracle.log_loss(
                table["click"], predictions, sample_weight=table["importance"]
            ),
            atol=1e-5,
        )
        path = job.export_saved_model()  # Compares with the model in a clean process.
        self.assertTrue((path / "saved_model.pb").exists())
        self.assertEqual(path.parent, self.folder / "model" / "export")
        again = self.estimator("export.verify_rows=0").export_saved_model()
        self.assertGreater(int(again.name), int(path.name))

    def test_a_finished_job_trains_no_further(self):
        self.estimator("trainer.epochs=1").train()
        before = self.lines()
        self.estimator("trainer.epochs=1").train()
        self.assertEqual(self.lines(), before)

    def test_keeps_as_many_checkpoints_as_it_should_after_going_on_from_one(self):
        often = ("trainer.checkpoint_every_steps=1", "trainer.steps_per_loop=1")
        for keep, step in ((2, 3), (1, 5)):
            settings = (f"trainer.keep_checkpoints={keep}", f"trainer.max_steps={step}")
            self.estimator(*often, *settings).train()
            found = checkpoint_dir.CheckpointDir(self.folder / "model" / "checkpoints")
            names = [f"ckpt-{step - back:08d}" for back in range(keep)]
            self.assertEqual(found.names(), names[::-1])

    def test_max_steps_and_own_actions(self):
        CountSteps.seen.clear()
        sys.modules["my_actions"] = sys.modules[__name__]
        self.estimator(
            "trainer.max_steps=12", "trainer.actions=[my_actions:CountSteps]"
        ).train()
        self.assertEqual(CountSteps.seen, [5, 10])
        self.assertEqual(self.lines("train")[-1]["step"], 12)

    def test_early_stop_and_best_checkpoint(self):
        job = self.estimator(
            "trainer.epochs=50",
            "trainer.early_stop={metric: click/auc, patience: 2}",
            "trainer.keep_best=click/auc",
            "trainer.optimizer.learning_rate=0.05",
        )
        job.train()
        aucs = [r["click/auc"] for r in self.lines("eval")]
        self.assertLess(len(aucs), 50)
        best = checkpoint_dir.CheckpointDir(
            self.folder / "model" / "checkpoints"
        ).best()
        self.assertEqual(best.step, 32 * (1 + int(np.argmax(aucs))))
        self.assertAllClose(job.evaluate("eval")["click/auc"], max(aucs), atol=1e-6)

    def test_a_loss_that_is_not_finite_names_step_file_rows_and_features(self):
        path = self.folder / "train.parquet"
        table = parquet.read_table(path)
        price = table["price"].to_numpy().copy()
        price[700] = np.inf
        column = table.schema.get_field_index("price")
        table = table.set_column(column, "price", pa.array(price))
        parquet.write_table(table, path, row_group_size=300)
        with self.assertRaisesRegex(
            loop.NonFiniteLossError,
            r"(?s)step \d+ is not finite. Its batch is number \d+ of epoch 0: "
            r".*train.parquet rows \d+ to \d+.*Not finite in it: feature `price`",
        ):
            self.estimator("features[5].transform=[log1p]", "trainer.epochs=1").train()

    def test_a_config_that_no_longer_fits_names_the_difference(self):
        self.estimator("trainer.max_steps=15").train()
        with self.assertRaisesRegex(
            checkpoint.CheckpointError, r"(?s)does not fit the config:.*`model/"
        ):
            self.estimator("model.params.hidden_units=[8]").train()

    def test_warm_start_takes_rows_and_fitting_variables(self):
        self.estimator("trainer.epochs=3").train()
        cold = self.estimator(f"model_dir={self.folder}/cold", "trainer.max_steps=1")
        warm = self.estimator(
            f"model_dir={self.folder}/warm",
            "trainer.max_steps=1",
            f"trainer.warm_start={self.folder}/model",
        )
        cold.train()
        warm.train()
        self.assertGreater(
            warm.evaluate("eval")["click/auc"], cold.evaluate("eval")["click/auc"] + 0.1
        )

    def test_warm_start_from_several_jobs_takes_from_each_what_it_has(self):
        block = "{name: %s_logit, layer: Dense, inputs: %s, args: {units: 1}}"
        model = "model={blocks: [%s], heads: [{label: click, inputs: %s}]}"
        table = "{name: %s, dim: 4, optimizer: {name: sgd, learning_rate: %s}}"
        for name in ("user", "item"):
            self.estimator(
                f"model_dir={self.folder}/{name}",
                f"features=[{{name: {name}, kind: id}}]",
                f"tables=[{table % (name, 0.1)}]",
                model % (block % (name, name), f"{name}_logit"),
                "trainer.epochs=1",
            ).train()
        average = "{name: both, layer: Average, join: list, inputs: %s}"
        blocks = [block % ("user", "user"), block % ("item", "item")]
        blocks.append(average % "[user_logit, item_logit]")
        self.estimator(
            "features=[{name: user, kind: id}, {name: item, kind: id}]",
            f"tables=[{table % ('user', 0)}, {table % ('item', 0)}]",
            model % (", ".join(blocks), "both"),
            f"trainer.warm_start=[{self.folder}/user, {self.folder}/item]",
            "trainer.optimizer={name: sgd, learning_rate: 0}",
            "trainer.max_steps=1",
        ).train()

        def logits(folder):
            job = estimator_lib.Estimator(self.folder / folder / "config.yaml")
            p = np.concatenate([batch["click"] for batch in job.predict()])
            return np.log(p / (1 - p))

        expected = (logits("user") + logits("item")) / 2
        self.assertGreater(np.std(expected), 0.01)
        self.assertAllClose(logits("model"), expected, atol=1e-4)

    def test_leave_one_out_over_drawn_rows(self):
        rng = np.random.default_rng(0)
        pairs = [(u, i) for u in range(30) for i in rng.permutation(40)[:9]]
        users, items = (np.array(side) for side in zip(*pairs, strict=True))
        last = np.arange(len(users)) % 9 == 8
        for split, rows in (("train", ~last), ("eval", last)):
            table = pa.table({"user": users[rows], "item": items[rows]})
            parquet.write_table(table, self.folder / f"{split}.parquet")
        job = self.estimator(
            "data.weight=null",
            "data.negatives={train: 4, eval: 20, test: 20, label: click}",
            "features=[{name: user, kind: id}, {name: item, kind: id, table: item}]",
            "tables=[{name: item, dim: 4}]",
            "metrics=[hr@5, ndcg@5]",
            "group_by=user",
            "trainer.epochs=3",
        )
        metrics = job.train()
        steps = -(-5 * 8 * 30 // 64)
        self.assertEqual(self.lines("eval")[-1]["step"], 3 * steps)
        scores = np.concatenate([batch["click"] for batch in job.predict("eval")])
        scores = scores.reshape(30, 21)  # Each held-out row, then 20 drawn for it.
        ranks = np.sum(scores[:, 1:] >= scores[:, :1], axis=1)
        gains = np.where(ranks < 5, np.log(2) / np.log(ranks + 2), 0)
        self.assertAllClose(metrics["click/hr@5"], np.mean(ranks < 5))
        self.assertAllClose(metrics["click/ndcg@5"], np.mean(gains))

    def test_an_own_input_fn(self):
        (self.folder / "my_data.py").write_text(
            textwrap.dedent("""
            import numpy as np
            import tensorflow as tf

            def batches(split):
                rng = np.random.default_rng({"train": 1}.get(split, 2))
                user = rng.integers(0, 20, 640)
                columns = {"user": user, "click": (user % 2).astype("float32")}
                return tf.data.Dataset.from_tensor_slices(columns).batch(64)
            """)
        )
        sys.path.insert(0, str(self.folder))
        self.addCleanup(sys.path.remove, str(self.folder))
        overrides = (
            "data={input_fn: my_data:batches}",
            "features=[{name: user, kind: id}]",
            "tables=[]",
            "trainer.eval_every_epochs=1",
        )
        self.estimator(*overrides, "trainer.max_steps=13").train()
        # Resumes in the middle of the second epoch.
        metrics = self.estimator(*overrides, "trainer.epochs=3").train()
        self.assertGreater(metrics["click/auc"], 0.95)
        self.assertEqual([r["step"] for r in self.lines("eval")], [10, 13, 20, 30])

    def test_an_own_model_class(self):
        (self.folder / "my_model.py").write_text(
            textwrap.dedent("""
            import tensorflow as tf
            import monolith_tf as mt

            class Linear(mt.Model):
                def __init__(self, params):
                    super().__init__()
                    self.logit = mt.layers.Dense(params.units)

                def model_fn(self, inputs, mode):
                    logits = self.logit(inputs.concat())[:, 0]
                    if mode is mt.Mode.PREDICT:
                        return mt.EstimatorSpec(
                            mode=mode, predictions=tf.sigmoid(logits)
                        )
                    loss = mt.losses.log_loss(
                        inputs.labels["click"], logits, inputs.weights
                    )
                    return mt.EstimatorSpec(
                        mode=mode, predictions=tf.sigmoid(logits), loss=loss
                    )
            """)
        )
        sys.path.insert(0, str(self.folder))
        self.addCleanup(sys.path.remove, str(self.folder))
        job = self.estimator(
            "model={class: my_model:Linear, params: {units: 1}}", "trainer.epochs=2"
        )
        job.train()
        self.assertGreater(job.evaluate("test")["click/auc"], 0.6)

    @parameterized.named_parameters(
        ("deepfm", """{blocks: [
            {name: pairs, layer: DotInteraction, inputs: [embeddings], join: list},
            {name: fm, layer: Dense, inputs: [pairs],
             args: {units: 1, use_bias: false, kernel_initializer: ones,
                    trainable: false}},
            {name: deep, layer: MLP, inputs: [all],
             args: {output_dims: [8, 1], activations: [relu, null]}}],
          heads: [{label: click, inputs: [fm, deep]}]}"""),
        ("dcn", """{blocks: [
            {name: cross, layer: DCN, inputs: [all], args: {layer_num: 2}},
            {name: deep, layer: MLP, inputs: [all],
             args: {output_dims: [8], activations: relu}}],
          heads: [{label: click, inputs: [cross, deep]}]}"""),
        ("mmoe", """{blocks: [
            {name: experts, layer: MMoE, inputs: [all],
             args: {num_tasks: 2, num_experts: 3, expert_output_dims: [8],
                    expert_activations: relu}}],
          heads: [{label: click, inputs: ["experts[0]"]},
                  {label: click, name: again, inputs: ["experts[1]"]}]}"""),
    )  # fmt: skip
    def test_a_model_assembled_from_the_config(self, model):
        job = self.estimator("model=" + " ".join(model.split()), "trainer.epochs=2")
        job.train()
        self.assertGreater(job.evaluate("test")["click/auc"], 0.6)
        job.export_saved_model()

    def test_an_export_that_answers_otherwise_is_not_published(self):
        job = self.estimator("trainer.max_steps=2", "export.directory=null")
        job.train()
        target = self.folder / "exports"
        with (
            mock.patch("monolith_tf.export.verify.RTOL", -1.0),
            self.assertRaisesRegex(export_errors.ExportError, "differs from the model"),
        ):
            job.export_saved_model(target)
        self.assertEqual(list(target.iterdir()), [])
