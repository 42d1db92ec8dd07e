"""Jobs that come back with the lines of their config in another order, or others."""

import logging

import numpy as np
import tensorflow as tf
import yaml

from monolith_tf.experiment import estimator as estimator_lib
from monolith_tf.testing import small_job
from tests.experiment import csv_job

_LINES = {
    "a": "{name: a, kind: dense}",
    "b": "{name: b, kind: dense}",
    "c": "{name: c, kind: dense}",
    "u": "{name: u, kind: id}",
    "v": "{name: v, kind: id}",
}
_STILL = "optimizer: {name: monolith_adagrad, learning_rate: 0}"


def _features(names):
    return f"features=[{', '.join(_LINES[name] for name in names)}]"


_CONFIG = """\
model_dir: {folder}/model
data: {{train: {folder}/rows.csv, test: {folder}/rows.csv, batch_size: 20}}
features:
  - {{name: a, kind: dense}}
  - {{name: b, kind: dense}}
  - {{name: u, kind: id}}
  - {{name: v, kind: id}}
labels: [click]
default_table: {{slices: [{{name: p, dim: 1}}, {{name: q, dim: 1}}]}}
model:
  blocks:
    - name: deep
      layer: MLP
      inputs: [all]
      args: {{output_dims: [4, 1], activations: [relu, null]}}
  heads: [{{label: click, inputs: [deep]}}]
trainer:
  epochs: 2
  summaries: false
  deterministic: true
  optimizer: {{name: adam, learning_rate: 0.05}}
"""
_EXCHANGED = (
    _features("bavu"),
    "default_table.slices=[{name: q, dim: 1}, {name: p, dim: 1}]",
)
_MORE = "trainer.epochs=4"
_UNVERIFIED = "export.verify_rows=0"


class InputOrderTest(csv_job.CsvJobTest):
    CONFIG = _CONFIG
    HEADER = ("a", "b", "c", "u", "v", "click")
    ROWS = tuple(
        (n % 7 / 7, n % 11 / 11, n % 5 / 5, n % 3, n % 4, int(n % 7 / 7 > n % 11 / 11))
        for n in range(60)
    )

    def job(self, *overrides):
        return estimator_lib.Estimator(self.config, *overrides)

    def predictions(self, *overrides):
        batches = self.job(*overrides).predict("test")
        return np.concatenate([batch["click"] for batch in batches])

    def logged(self, act, *words):
        """Lines with one of some words that a call logs."""
        with self.assertLogs("absl", logging.INFO) as logs:
            act()
        return [line for line in logs.output if any(word in line for word in words)]

    def test_the_order_of_lines_is_no_matter_for_trained_weights(self):
        self.job().train()
        expected = self.predictions()
        self.assertGreater(np.ptp(expected), 0.05)
        np.testing.assert_array_equal(self.predictions(*_EXCHANGED), expected)
        metrics = self.job().evaluate("test")
        self.assertEqual(self.job(*_EXCHANGED).evaluate("test"), metrics)
        exported = tf.saved_model.load(
            str(self.job(*_EXCHANGED, _UNVERIFIED).export_saved_model())
        )
        a, b, _, u, v, _ = (np.array(column) for column in zip(*self.ROWS, strict=True))
        answers = exported.signatures["serving_default"](
            a=tf.constant(a, tf.float32),
            b=tf.constant(b, tf.float32),
            u=tf.constant(u, tf.int64),
            v=tf.constant(v, tf.int64),
        )
        self.assertAllClose(answers["click"], expected, atol=1e-6)

    def test_training_goes_on_as_if_no_lines_were_exchanged(self):
        self.job(f"model_dir={self.folder}/whole", _MORE).train()
        expected = self.predictions(f"model_dir={self.folder}/whole")
        self.job().train()
        lines = self.logged(self.job(*_EXCHANGED, _MORE).train, "another order")
        self.assertLen(lines, 3)  # Features, and the slices of two tables.
        self.assertRegex(lines[0], r"^INFO:.* features .*: `b`, `a`, `v`, `u`\.")
        np.testing.assert_array_equal(self.predictions(), expected)
        np.testing.assert_array_equal(self.predictions(*_EXCHANGED), expected)
        # What the checkpoint says is the order of its weights.
        found = small_job.last(self.folder / "model")
        names = list("abuv")
        self.assertEqual(found.manifest["state"]["inputs"]["features"], names)
        config = yaml.safe_load((found.path / "config.yaml").read_text())
        self.assertEqual([f["name"] for f in config["features"]], names)

    def test_a_warm_start_goes_on_with_the_order_of_its_origin(self):
        self.job().train()
        expected = self.predictions()
        slices = [f"{{name: {name}, dim: 1, {_STILL}}}" for name in "qp"]
        warm = (
            f"model_dir={self.folder}/warm",
            _features("bavu"),
            f"default_table.slices=[{', '.join(slices)}]",
        )
        self.job(
            *warm,
            f"trainer.warm_start={self.folder}/model",
            "trainer.max_steps=1",
            "trainer.optimizer.learning_rate=0",
        ).train()
        np.testing.assert_array_equal(self.predictions(*warm), expected)
        np.testing.assert_array_equal(self.predictions(warm[0]), expected)

    def test_of_two_warm_starts_in_different_orders_the_first_is_warned_of(self):
        for name, order in (("one", "abuv"), ("two", "bauv")):
            self.job(f"model_dir={self.folder}/{name}", _features(order)).train()
        both = f"trainer.warm_start=[{self.folder}/one, {self.folder}/two]"
        lines = self.logged(self.job(both, "trainer.max_steps=1").train, "in the order")
        (line,) = lines
        self.assertRegex(
            line,
            r"^WARNING:.*/one/.* was trained with features in the order `a`, `b`, "
            r"`u`, `v`, which is `b`, `a`, `u`, `v` now",
        )

    def test_an_older_checkpoint_says_the_order_by_its_config(self):
        self.job().train()
        expected = self.predictions()
        found = small_job.last(self.folder / "model")
        small_job.rewrite_manifests(
            found, lambda manifest: manifest.get("state", {}).pop("inputs", None)
        )
        np.testing.assert_array_equal(self.predictions(*_EXCHANGED), expected)

    def test_a_checkpoint_that_does_not_say_the_order_is_used_with_a_line(self):
        self.job().train()
        expected = self.predictions()
        found = small_job.last(self.folder / "model")

        def forget(manifest):
            manifest.get("state", {}).pop("inputs", None)
            for kind in ("files", "checksums"):
                manifest.get(kind, {}).pop("config.yaml", None)

        (found.path / "config.yaml").unlink()
        small_job.rewrite_manifests(found, forget)
        (line,) = self.logged(lambda: self.predictions(), "could not be checked")
        self.assertRegex(line, r"^INFO:.*ckpt-\d+ does not say in which order")
        np.testing.assert_array_equal(self.predictions(), expected)

    def test_a_feature_in_the_place_of_another_is_warned_of(self):
        self.job().train()
        other = _features("cbvu")  # `b` stays where it was; `c` is where `a` was.
        warm = (
            f"model_dir={self.folder}/warm",
            f"trainer.warm_start={self.folder}/model",
        )
        for act in (
            lambda: self.job(other).evaluate("test"),
            lambda: self.predictions(other),
            self.job(other, _UNVERIFIED).export_saved_model,
            self.job(other, *warm).train,
            self.job(other, _MORE).train,
        ):
            (line,) = self.logged(act, "other features")
            self.assertRegex(
                line,
                r"^WARNING:.*ckpt-\d+ was trained with other features: `c` takes "
                r"the place of `a`\. Trained weights are kept",
            )
        inputs = small_job.last(self.folder / "model").manifest["state"]["inputs"]
        self.assertEqual(inputs["features"], list("cbuv"))
        self.assertEqual(
            self.logged(self.job(other, "trainer.epochs=5").train, "other features"), []
        )

    def test_features_that_no_trained_weight_reads_may_come_and_go(self):
        alone = "model.blocks[0].inputs=[a, b]"
        self.job(alone).train()
        expected = self.predictions(alone)
        np.testing.assert_array_equal(
            self.predictions(alone, _features("cbavu")), expected
        )
        (line,) = self.logged(
            lambda: self.predictions(alone, _features("cbavu")), "other features"
        )
        self.assertRegex(line, "^WARNING:.*: `c` is new.")
        np.testing.assert_array_equal(
            self.predictions(alone, _features("bavu")), expected
        )
