import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


def _softmax(x):
    exps = np.exp(x - x.max(axis=-1, keepdims=True))
    return exps / exps.sum(axis=-1, keepdims=True)


class MMoETest(testing.TestCase):
    @parameterized.named_parameters(
        ("softmax", {}, [(4, 3), (4, 2)], 3 * 3 + 1),
        ("noise_topk", {"gate_type": "noise_topk", "topk": 2}, (4, 3), 3 * 3 + 2),
    )
    def test_standard_behaviour(self, config, input_shape, num_weights):
        layer = layers.MMoE(2, [5], num_experts=3, **config)
        self.run_layer_test(
            layer,
            input_shape=input_shape,
            output_shape=[(4, 5), (4, 5)],
            num_weights=num_weights,
        )

    def test_config(self):
        self.run_config_test(
            layers.MMoE,
            {
                "num_tasks": 3,
                "expert_output_dims": [[3, 2], [2]],
                "expert_activations": [["sigmoid2", None], "tanh"],
                "expert_initializers": ["he_normal", "he_uniform"],
                "gate_type": "topk",
                "topk": 2,
                "num_experts": 2,
                "kernel_regularizer": "l2",
                "use_weight_norm": False,
                "use_learnable_weight_norm": False,
                "use_bias": False,
                "bias_regularizer": "l1",
                "enable_batch_normalization": True,
                "batch_normalization_momentum": 0.5,
                "batch_normalization_renorm": True,
                "batch_normalization_renorm_clipping": {"rmax": 2.0},
                "batch_normalization_renorm_momentum": 0.5,
                "importance_loss_weight": 0.25,
            },
        )

    @testing.golden_cases(__file__, "mmoe")
    def test_golden(self, case):
        training = case.data["call"]["training"]
        self.run_golden_case(
            case,
            layers.MMoE,
            blocks={"gates": lambda layer, x: layer.gates(x, training)},
        )

    def test_matches_definition(self):
        x = self.rng.normal(size=(6, 4)).astype("float32")
        gate_input = self.rng.normal(size=(6, 3)).astype("float32")
        layer = layers.MMoE(2, [5, 2], num_experts=3, gate_type="topk", topk=2)
        layer([x, gate_input])
        layer.gate_weight.assign(self.rng.normal(size=(3, 6)))
        outputs = layer([x, gate_input])
        logits = (gate_input @ layer.gate_weight.numpy()).reshape(6, 2, 3)
        gates = _softmax(logits)
        gates[gates < np.sort(gates)[..., 1:2]] = 0
        gates /= gates.sum(axis=-1, keepdims=True)
        experts = []
        for expert in layer.experts:
            w0, w1 = expert.get_layer(0).kernel, expert.get_layer(2).kernel
            experts.append(np.maximum(x @ w0.numpy(), 0) @ w1.numpy())
        for t in range(2):
            expected = sum(gates[:, t, e, None] * experts[e] for e in range(3))
            self.assertAllClose(outputs[t], expected)
        use = gates.sum(axis=0)
        expected = sum(np.var(use[t]) / np.mean(use[t]) ** 2 for t in range(2))
        self.assertAllClose(layer.losses, [expected])

    def test_all_experts_are_active_at_the_start(self):
        layer = layers.MMoE(1, [2], num_experts=4, gate_type="topk", topk=1)
        layer(tf.ones([3, 2]))
        self.assertAllClose(layer.gates(tf.ones([3, 2])), np.full([3, 1, 4], 0.25))
        self.assertAllClose(layer.losses, [0.0])

    def test_a_gate_alone_still_learns(self):
        x = tf.constant([[1.0, 2.0]])
        layer = layers.MMoE(1, [2], num_experts=2, gate_type="topk", topk=1)
        layer(x)
        layer.gate_weight.assign([[1.0, -1.0], [0.0, 0.0]])
        with tf.GradientTape() as tape:
            output = tf.reduce_sum(layer(x)[0])
        gradient = tape.gradient(output, layer.gate_weight)
        self.assertAllClose(layer.gates(x), [[[1.0, 0.0]]])
        self.assertGreater(np.abs(gradient).max(), 0.0)
        # The gate is p / stop_gradient(p), so that its gradient is that of log p.
        p = 1.0 / (1.0 + np.exp(-2.0))
        by_gate = layer.experts[0](x).numpy().sum()
        expected = by_gate * (1.0 - p) * np.array([[1.0, -1.0], [2.0, -2.0]])
        self.assertAllClose(gradient, expected, atol=1e-5)

    def test_noise_is_for_training_alone(self):
        x = tf.constant(self.rng.normal(size=(5, 3)), tf.float32)
        layer = layers.MMoE(2, [2], num_experts=3, gate_type="noise_topk", topk=2)
        layer(x)
        self.assertAllEqual(layer.gates(x), layer.gates(x, training=False))
        self.assertNotAllClose(layer.gates(x), layer.gates(x, training=True))

    def test_loss_is_scaled_and_zero_without_rows(self):
        layer = layers.MMoE(
            1, [2], num_experts=2, gate_type="topk", topk=2, importance_loss_weight=3.0
        )
        x = tf.constant([[1.0]])
        layer(x)
        layer.gate_weight.assign([[np.log(3.0), 0.0]])
        layer(x)
        # gates 3/4, 1/4: variance 1/16, mean 1/2
        self.assertAllClose(layer.losses, [3.0 * (1 / 16) / (1 / 4)])
        layer(x[:0])
        self.assertAllEqual(layer.losses, [0.0])

    @parameterized.named_parameters(
        ("unseeded", tf_keras.initializers.GlorotUniform()),
        ("seeded", tf_keras.initializers.GlorotUniform(seed=1)),
    )
    def test_experts_start_different(self, initializer):
        layer = layers.MMoE(1, [3, 3], num_experts=3, expert_initializers=initializer)
        layer.build([None, 3])
        kernels = [w.numpy() for w in layer.weights if w.name.endswith("kernel:0")]
        self.assertLen(kernels, 6)
        self.assertLen({kernel.tobytes() for kernel in kernels}, 6)

    def test_number_of_experts_comes_from_the_first_list(self):
        self.assertEqual(layers.MMoE(1, [[4, 2], [2]]).num_experts, 2)
        self.assertEqual(layers.MMoE(1, [2], ["relu"] * 3).num_experts, 3)
        self.assertEqual(layers.MMoE(1, [2], "relu", ["zeros"] * 4).num_experts, 4)

    def test_top_k_is_another_name(self):
        options = {"num_tasks": 1, "expert_output_dims": [2], "num_experts": 3}
        self.assertEqual(layers.MMoE(**options, top_k=2).topk, 2)
        self.assertEqual(layers.MMoE(**options, top_k=2, topk=2).topk, 2)
        with self.assertRaisesRegex(ValueError, "topk=3, top_k=2"):
            layers.MMoE(**options, top_k=2, topk=3)

    @parameterized.named_parameters(
        ("tasks", {"num_tasks": 0}, r"num_tasks=0\."),
        ("gate", {"gate_type": "hard"}, r"softmax, topk, noise_topk.*'hard'"),
        ("topk", {"topk": 3}, r"topk=3, num_experts=2\."),
        ("experts", {"num_experts": None}, r"cannot be inferred .*num_experts=None\."),
        ("no_experts", {"num_experts": 0}, r"num_experts=0\."),
        (
            "widths",
            {"expert_output_dims": [[2], [3]]},
            r"same width.*=\[\[2\], \[3\]\]\.",
        ),
        (
            "dims_length",
            {"expert_output_dims": [[2]]},
            r"`expert_output_dims` must have one .*1 entries for num_experts=2\.",
        ),
        (
            "activations_length",
            {"expert_activations": ["relu"]},
            r"`expert_activations` must have one .*1 entries for num_experts=2\.",
        ),
        (
            "initializers_length",
            {"expert_initializers": ["zeros"] * 3},
            r"`expert_initializers` must have one .*3 entries for num_experts=2\.",
        ),
    )
    def test_rejects(self, config, message):
        good = {"num_tasks": 1, "expert_output_dims": [2], "num_experts": 2}
        with self.assertRaisesRegex(ValueError, message):
            layers.MMoE(**good | config)

    def test_rejects_input(self):
        layer = layers.MMoE(1, [2], num_experts=2)
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layer(np.ones([2, 3], "int32"))
        with self.assertRaisesRegex(ValueError, r"gates' input\. Received: 3 tensors"):
            layers.MMoE(1, [2], num_experts=2)([tf.ones([2, 3])] * 3)
