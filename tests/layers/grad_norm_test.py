import numpy as np
import tensorflow as tf
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing
from monolith_tf.testing import golden


class GradNormTest(testing.TestCase):
    def _losses(self, shared, coefficients):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(shared)
            losses = [tf.reduce_sum(shared * c) for c in coefficients]
        return losses, tape

    def test_config(self):
        self.run_config_test(
            layers.GradNorm,
            {
                "loss_names": ["click", "like"],
                "scale": 2.0,
                "loss_pow": 1.5,
                "relative_diff": True,
                "epsilon": 0.5,
            },
        )

    @testing.golden_cases(__file__, "grad_norm")
    def test_golden(self, case):
        _, inputs = case.inputs()
        shared = inputs["shared"]
        losses, tape = self._losses(shared, inputs["loss_coefficients"])
        layer = layers.GradNorm(**case.config)
        layer.build(None)
        weight = case.data["weights"][0]
        self.assertEqual(layer.weights[0].name.split(":")[0], weight["name"])
        layer.set_weights([np.array(weight["value"])])
        with tf.GradientTape() as outer:
            gnorm_loss, weighted_loss = layer(losses, shared, tape=tape)
        found = {
            "gnorm_loss": gnorm_loss,
            "weighted_loss": weighted_loss,
            "task_weights": layer.task_weights(),
            "gradient_norms": layer.gradient_norms(losses, shared, tape),
        }
        expected = dict(case.data["expected"])
        by_weight = expected.pop("d_gnorm_loss_d_task_weights", None)
        golden.compare(self, found, expected, case.tolerance)
        if by_weight is not None:
            # The chain through the softmax: w * (d - sum(w * d)).
            w = np.array(expected["task_weights"])
            by_logit = w * (by_weight - np.sum(w * by_weight))
            gradient = outer.gradient(gnorm_loss, layer.grad_norm_weights)
            self.assertAllClose(gradient, by_logit, **case.tolerance)
        self.golden_passed.append(f"{case.file}/{case.name}")

    def test_matches_definition_over_several_tensors(self):
        a, b = self.rng.normal(size=(2, 3, 2)).astype("float32")
        shared = [tf.constant(a), tf.constant(b)]
        layer = layers.GradNorm(["x", "y"], scale=0.5, loss_pow=3.0)
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(shared)
            # The second loss does not depend on the first tensor.
            losses = [
                tf.reduce_sum(shared[0] ** 2) + tf.reduce_sum(shared[1]),
                tf.reduce_sum(tf.sin(shared[1])),
            ]
        gnorm_loss, weighted = layer(losses, shared, tape=tape)
        norms = [
            np.sqrt(np.sum((2 * a) ** 2) + b.size),
            np.sqrt(np.sum(np.cos(b) ** 2)),
        ]
        half = np.array(norms) / 2
        expected = 0.5 * np.sum(np.abs(half - half.mean()) ** 3)
        self.assertAllClose(gnorm_loss, expected, rtol=1e-5)
        values = [(a**2).sum() + b.sum(), np.sin(b).sum()]
        self.assertAllClose(weighted, np.mean(values), rtol=1e-5)

    def test_each_loss_trains_its_own(self):
        shared = tf.Variable([[1.0, 2.0]])
        layer = layers.GradNorm(["a", "b"])
        with tf.GradientTape(persistent=True) as outer:
            losses, tape = self._losses(shared, [[[3.0, 4.0]], [[0.0, 1.0]]])
            gnorm_loss, weighted = layer(losses, shared, tape=tape)
        weights = layer.grad_norm_weights
        self.assertIsNone(outer.gradient(gnorm_loss, shared))
        self.assertIsNone(outer.gradient(weighted, weights))
        self.assertAllClose(outer.gradient(weighted, shared), [[1.5, 2.5]])
        self.assertAllClose(
            outer.gradient(gnorm_loss, weights),
            # d = 2 * (w * g - average) * g = 2 * (+-1) * g; the mean of w * g is 1.5
            np.array([0.5, 0.5]) * (np.array([10.0, -2.0]) - np.mean([10.0, -2.0])),
        )

    @parameterized.parameters(False, True)
    def test_a_function_needs_no_tape(self, jit_compile):
        layer = layers.GradNorm(["a", "b"])
        layer.build(None)

        @tf.function(jit_compile=jit_compile)
        def run(shared):
            losses = [tf.reduce_sum(shared**2), tf.reduce_sum(3.0 * shared)]
            return layer(losses, shared)

        shared = tf.constant([3.0, 4.0])
        gnorm_loss, weighted = run(shared)
        # Norms 10 and sqrt(18), weights 1/2, average of their halves.
        half = np.array([10.0, np.sqrt(18.0)]) / 2
        self.assertAllClose(gnorm_loss, np.sum((half - half.mean()) ** 2))
        self.assertAllClose(weighted, (25.0 + 21.0) / 2)

    def test_stays_float32_under_mixed_precision(self):
        shared = tf.constant([[1.0, 2.0]])
        losses, tape = self._losses(shared, [[[3e4, 4e4]], [[0.0, 1.0]]])
        layer = layers.GradNorm(["a", "b"], dtype="mixed_float16")
        outputs = layer(losses, shared, tape=tape)
        self.assertEqual([x.dtype for x in outputs], [tf.float32] * 2)
        self.assertAllClose(outputs[1], (11e4 + 2.0) / 2)

    def test_weights_survive_a_checkpoint(self):
        layer = layers.GradNorm(["a", "b"])
        layer.build(None)
        layer.grad_norm_weights.assign([1.0, 2.0])
        path = tf.train.Checkpoint(layer=layer).write(self.get_temp_dir() + "/weights")
        other = layers.GradNorm.from_config(layer.get_config())
        other.build(None)
        tf.train.Checkpoint(layer=other).read(path)
        self.assertAllEqual(other.task_weights(), layer.task_weights())

    @parameterized.parameters(([],), ("click",), (["a", "a"],))
    def test_rejects_names(self, names):
        with self.assertRaisesRegex(ValueError, r"distinct names\. Received: loss_nam"):
            layers.GradNorm(names)

    def test_rejects_losses(self):
        layer = layers.GradNorm(["a", "b"])
        one = tf.constant(1.0)
        with self.assertRaisesRegex(ValueError, "1 losses for 2 loss_names"):
            layer([one], one)
        with self.assertRaisesRegex(ValueError, r"scalars.*shape \(2,\) for 'b'"):
            layer([one, tf.ones([2])], one)

    def test_rejects_eager_mode_without_a_tape(self):
        one = tf.constant(1.0)
        with self.assertRaisesRegex(RuntimeError, r"`tape` is required.*tape=None\."):
            layers.GradNorm(["a"])([one], one)
