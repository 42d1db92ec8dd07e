import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing

_BATCH_NORM_ON_EMPTY = "the moments of an empty batch are not numbers in Keras' own"


class MLPTest(testing.TestCase):
    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.MLP([4, 3]),
            input_shape=(3, 2, 5),
            output_shape=(3, 2, 3),
            num_weights=6,
        )

    def test_standard_behaviour_with_batch_norm(self):
        layer = layers.MLP(
            [4, 3],
            activations=["tanh", "prelu"],
            use_bias=False,
            enable_batch_normalization=True,
            batch_normalization_renorm=True,
        )
        # 2 * (kernel, norm), alpha, 2 * (gamma, beta, 2 moving, 3 of renormalization)
        self.run_layer_test(
            layer,
            input_shape=(5, 5),
            output_shape=(5, 3),
            num_weights=2 * 2 + 1 + 2 * 7,
            skip={"empty_training": _BATCH_NORM_ON_EMPTY},
        )

    def test_rejects_renormalization_in_float64(self):
        with self.assertRaisesRegex(ValueError, "renorm.*float64"):
            layers.MLP(
                [2, 1],
                enable_batch_normalization=True,
                batch_normalization_renorm=True,
                dtype="float64",
            )

    def test_config(self):
        self.run_config_test(
            layers.MLP,
            {
                "output_dims": [3, 2],
                "activations": ["sigmoid2", tf_keras.activations.tanh],
                "initializers": ["he_normal"],
                "kernel_regularizer": "l2",
                "use_weight_norm": False,
                "use_learnable_weight_norm": False,
                "use_bias": False,
                "bias_regularizer": "l1",
                "enable_batch_normalization": True,
                "batch_normalization_momentum": 0.5,
                "batch_normalization_renorm": True,
                "batch_normalization_renorm_clipping": {"rmax": 2.0, "dmax": 1.0},
                "batch_normalization_renorm_momentum": 0.75,
                "batch_normalization_epsilon": 0.1,
                "batch_normalization_of_input": False,
                "dropout": 0.25,
                "hidden_output": True,
            },
        )

    def test_a_hidden_output_is_like_the_layers_before_it(self):
        layer = layers.MLP(
            [3, 2],
            activations="tanh",
            use_bias="auto",
            use_weight_norm=False,
            enable_batch_normalization=True,
            batch_normalization_of_input=False,
            dropout=0.5,
            hidden_output=True,
        )
        x = self.rng.normal(size=(8, 4)).astype("float32")
        y = layer(x)
        names = [part.name for part in layer.stack]
        block = ["dense_{}", "batch_norm_{}", "act_{}", "dropout_{}"]
        self.assertEqual(names, [name.format(i) for i in (0, 1) for name in block])
        # The moving statistics start at 0 and 1.
        for i in (0, 4):
            x = np.tanh(x @ layer.get_layer(i).kernel.numpy() / np.sqrt(1.001))
        self.assertAllClose(y, x)
        self.assertLen(layer.trainable_weights, 2 * 3)

    def test_automatic_biases_are_where_no_batch_normalization_follows(self):
        for normalizes, biases in ((True, [False, True]), (False, [True, True])):
            layer = layers.MLP(
                [3, 2], use_bias="auto", enable_batch_normalization=normalizes
            )
            dense = [p for p in layer.stack if isinstance(p, layers.Dense)]
            self.assertEqual([one.use_bias for one in dense], biases)
        self.assertEqual(layer.get_config()["use_bias"], "auto")

    def test_rejects_an_unknown_use_of_biases(self):
        with self.assertRaisesRegex(
            ValueError,
            "`use_bias` must be True, False or 'auto'. Received: use_bias='yes'.",
        ):
            layers.MLP([2], use_bias="yes")

    def test_drops_what_hidden_layers_give_and_only_in_training(self):
        layer = layers.MLP([400, 1], dropout=0.5, use_weight_norm=False)
        x = tf.ones([1, 3])
        still, moved = layer(x), layer(x, training=True)
        hidden, out = layer.get_layer(0), layer.get_layer(3)
        self.assertAllClose(still, out(tf.nn.relu(hidden(x))))
        names = [part.name for part in layer.stack]
        self.assertEqual(names, ["dense_0", "act_0", "dropout_0", "dense_1"])
        self.assertNotAllClose(still, moved)

    def test_leaves_the_input_alone_and_adds_epsilon_to_variances(self):
        layer = layers.MLP(
            [2, 1],
            activations=[None, None],
            use_weight_norm=False,
            enable_batch_normalization=True,
            batch_normalization_of_input=False,
            batch_normalization_epsilon=3.0,
        )
        layer.build([None, 1])
        hidden, out = layer.get_layer(0), layer.get_layer(2)
        hidden.kernel.assign([[1.0, 2.0]])
        out.kernel.assign([[1.0], [1.0]])
        # Hidden (-1, -2) and (1, 2): variances 1 and 4, so divided by 2 and sqrt(7).
        expected = 1 / 2 + 2 / np.sqrt(7)
        y = layer(tf.constant([[-1.0], [1.0]]), training=True)
        self.assertAllClose(y, [[-expected], [expected]])

    def test_config_keeps_every_activation(self):
        names = ["sigmoid2", "prelu", "relu", None]
        layer = layers.MLP([1, 1, 1, 1], activations=names)
        kept = layers.MLP.from_config(layer.get_config()).get_config()["activations"]
        self.assertEqual([a and a["name"] for a in kept], names)

    @testing.golden_cases(__file__, "mlp")
    def test_golden(self, case):
        self.run_golden_case(case, layers.MLP)

    def test_matches_definition(self):
        x = self.rng.normal(size=(6, 4)).astype("float32")
        layer = layers.MLP([3, 2], activations="tanh", initializers="he_uniform")
        y = layer(x)
        # A norm starts as its column's, so that both cancel.
        w0, w1 = layer.get_layer(0).kernel.numpy(), layer.get_layer(2).kernel.numpy()
        self.assertAllClose(y, np.tanh(x @ w0) @ w1)

    def test_stack_with_batch_norm(self):
        layer = layers.MLP(
            [5, 4, 3, 2], enable_batch_normalization=True, use_weight_norm=False
        )
        kinds = [type(part).__name__ for part in layer.stack]
        norm = "BatchNormalization"
        block = ["Dense", norm, "ReLU"]
        self.assertEqual(kinds, [norm, *block, *block, *block, "Dense"])
        self.assertLen(kinds, 11)
        self.assertIs(layer.get_layer(1), layer.stack[1])

    def test_batch_norm_follows_training(self):
        x = 5 + self.rng.normal(size=(8, 3)).astype("float32")
        layer = layers.MLP([2], enable_batch_normalization=True)
        trained, inferred = layer(x, training=True), layer(x, training=False)
        self.assertNotAllClose(trained, inferred)
        self.assertAllClose(tf.reduce_mean(trained, axis=0), [0, 0], atol=1e-5)

    def test_one_row_in_training_is_finite(self):
        layer = layers.MLP([2], enable_batch_normalization=True)
        y = layer(np.ones([1, 3], "float32"), training=True)
        self.assertAllEqual(tf.math.is_finite(y), [[True, True]])

    def test_weights_are_named_by_place(self):
        layer = layers.MLP([2, 1], enable_batch_normalization=True, name="tower")
        layer(np.ones([2, 3], "float32"))
        names = {w.name for w in layer.weights}
        norms = {
            f"tower/batch_norm_{i}/{w}:0"
            for i in ("in", 0)
            for w in ("gamma", "beta", "moving_mean", "moving_variance")
        }
        denses = {
            f"tower/dense_{i}/{w}:0"
            for i in (0, 1)
            for w in ("kernel", "kernel_norm", "bias")
        }
        self.assertEqual(names, norms | denses)

    @parameterized.named_parameters(
        ("unseeded", tf_keras.initializers.GlorotNormal()),
        ("seeded", tf_keras.initializers.GlorotNormal(seed=1)),
    )
    def test_equal_layers_start_different(self, initializer):
        layer = layers.MLP([3, 3], initializers=initializer)
        layer.build([None, 3])
        first, second = layer.get_layer(0), layer.get_layer(2)
        self.assertNotAllClose(first.kernel, second.kernel)

    def test_seed_repeats_the_start(self):
        seeded = tf_keras.initializers.GlorotNormal(seed=1)
        first = layers.MLP([3, 3], initializers=seeded)
        second = layers.MLP([3, 3], initializers=[seeded, seeded])
        for layer in (first, second):
            layer.build([None, 3])
        self.assertAllEqual(first.get_weights()[3], second.get_weights()[3])

    def test_regularizers_see_the_raw_weights(self):
        l2 = tf_keras.regularizers.L2(1.0)
        layer = layers.MLP(
            [2, 1],
            kernel_regularizer=l2,
            bias_regularizer=tf_keras.regularizers.L1(1.0),
        )
        layer.build([None, 3])
        for part in (layer.get_layer(0), layer.get_layer(2)):
            part.bias.assign_add(tf.ones_like(part.bias))
            part.kernel_norm.assign_add(tf.ones_like(part.kernel_norm))
        kernels = [layer.get_layer(i).kernel.numpy() for i in (0, 2)]
        expected = [(kernels[0] ** 2).sum(), (kernels[1] ** 2).sum(), 2.0, 1.0]
        self.assertAllClose(sorted(layer.losses), sorted(expected))

    @parameterized.named_parameters(
        ("empty", [], r"non-empty list of widths\. Received: output_dims=\[\]"),
        ("number", 3, r"non-empty list of widths\. Received: output_dims=3"),
        ("zero", [2, 0], r"at least 1\. Received: output_dims=0\."),
    )
    def test_rejects_output_dims(self, dims, message):
        with self.assertRaisesRegex(ValueError, message):
            layers.MLP(dims)

    def test_rejects_lists_of_another_length(self):
        with self.assertRaisesRegex(ValueError, "1 activations for 2 output_dims"):
            layers.MLP([2, 2], activations=["relu"])
        with self.assertRaisesRegex(ValueError, "2 initializers for 1 output_dims"):
            layers.MLP([2], initializers=["zeros", "ones"])

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.MLP([2])(np.ones([2, 3], "int32"))
