import json

import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing

_PARTITIONERS = tf.distribute.experimental.partitioners


def _one_row_each(shape, dtype):
    del dtype
    return [shape[0], 1]


def _by_columns(shape, dtype):
    del dtype
    return [1, shape[1]]


class DenseTest(testing.TestCase):
    @parameterized.named_parameters(
        ("plain", {}, 2),
        ("no_bias", {"use_bias": False}, 1),
        ("norm", {"allow_kernel_norm": True, "kernel_norm_trainable": True}, 3),
        ("frozen_norm_parts", {"allow_kernel_norm": True, "partitioner": True}, 5),
        ("monitor", {"activation": "relu", "inactive_relu_monitor": True}, 4),
    )
    def test_standard_behaviour(self, config, num_weights):
        if config.pop("partitioner", False):
            config["partitioner"] = _PARTITIONERS.FixedShardsPartitioner(3)
        layer = layers.Dense(3, **config)
        self.run_layer_test(
            layer, input_shape=(4, 5), output_shape=(4, 3), num_weights=num_weights
        )

    def test_config(self):
        common = {
            "units": 2,
            "activation": "relu",
            "use_bias": False,
            "kernel_initializer": "he_normal",
            "bias_initializer": "ones",
            "kernel_regularizer": "l2",
            "bias_regularizer": tf_keras.regularizers.L1(0.1),
            "allow_kernel_norm": True,
            "kernel_norm_trainable": True,
            "inactive_relu_monitor": True,
            "inactive_relu_monitor_decay": 0.5,
            "optimizer": tf_keras.optimizers.Adagrad(0.25),
            "bias_constraint": "non_neg",
        }
        self.run_config_test(
            layers.Dense,
            common | {"partitioner": _PARTITIONERS.MaxSizePartitioner(64, 5)},
            common | {"kernel_constraint": tf_keras.constraints.MaxNorm(3)},
        )

    @testing.golden_cases(__file__, "dense")
    def test_golden(self, case):
        state = {"debiased_nonzero_rate": lambda d: d.relu_nonzero_rate_debiased}
        self.run_golden_case(case, layers.Dense, state=state)

    @parameterized.named_parameters(("whole", None), ("by_row", _one_row_each))
    def test_matches_definition(self, partitioner):
        x = self.rng.normal(size=(5, 2, 4)).astype("float32")
        layer = layers.Dense(
            3,
            activation="sigmoid",
            bias_initializer="ones",
            allow_kernel_norm=True,
            kernel_norm_trainable=True,
            partitioner=partitioner,
        )
        y = layer(x)
        norms = np.array([2.0, -1.0, 0.5], "float32")
        layer.kernel_norm.assign(norms)
        kernel = np.concatenate([w.numpy() for w in layer.weights if w.shape.rank == 2])
        bias = layer.bias.numpy()
        started = 1 / (1 + np.exp(-(x @ kernel + bias)))
        self.assertAllClose(y, started)
        columns = kernel / np.sqrt((kernel**2).sum(0))
        moved = 1 / (1 + np.exp(-(x @ (columns * norms) + bias)))
        self.assertAllClose(layer(x), moved)
        self.assertAllClose(layer.effective_kernel(), columns * norms)

    def test_norm_is_a_weight_of_its_own_in_a_checkpoint(self):
        layer = layers.Dense(2, allow_kernel_norm=True)
        layer.build([None, 3])
        layer.kernel_norm.assign([5.0, 7.0])
        path = tf.train.Checkpoint(layer=layer).write(self.get_temp_dir() + "/norm")
        other = layers.Dense(2, allow_kernel_norm=True)
        tf.train.Checkpoint(layer=other).read(path)
        other.build([None, 3])
        self.assertAllEqual(other.kernel_norm, [5.0, 7.0])
        self.assertAllEqual(other.kernel, layer.kernel)

    def test_partitioner_cuts_rows_into_variables(self):
        # 294 rows of 4096 bytes at most 131072 bytes a part would be 10 parts; 5 are
        # allowed: 294 = 4 * 59 + 58.
        layer = layers.Dense(
            1024, partitioner=_PARTITIONERS.MaxSizePartitioner(131072, max_shards=5)
        )
        layer.build([None, 294])
        names = [w.name.split(":")[0] for w in layer.weights[:5]]
        self.assertEqual([w.shape[0] for w in layer.weights[:5]], [59] * 4 + [58])
        self.assertEqual(names, [f"kernel/part_{i}" for i in range(5)])

    def test_partitioned_kernel_starts_and_is_regularized_as_a_whole(self):
        options = {
            "kernel_initializer": tf_keras.initializers.GlorotNormal(seed=3),
            "kernel_regularizer": tf_keras.regularizers.L2(0.5),
        }
        whole = layers.Dense(2, **options)
        parts = layers.Dense(2, partitioner=_one_row_each, **options)
        for layer in (whole, parts):
            layer.build([None, 4])
        self.assertAllEqual(tf.concat(list(parts.kernel), 0), whole.kernel)
        self.assertAllClose(parts.losses, [0.5 * np.sum(whole.kernel.numpy() ** 2)])
        self.assertAllClose(whole.losses, parts.losses)

    def test_carries_its_optimizer_on_every_variable(self):
        layer = layers.Dense(2, activation="prelu", optimizer="adam")
        layer.build([None, 3])
        self.assertLen(layer.weights, 3)
        for weight in layer.weights:
            self.assertIs(weight.optimizer, layer.optimizer)
        self.assertFalse(hasattr(layers.Dense(2).weights, "optimizer"))

    def test_monitor_averages_over_steps_and_ignores_inference(self):
        layer = layers.Dense(
            2,
            activation="relu",
            kernel_initializer="identity",
            inactive_relu_monitor=True,
            inactive_relu_monitor_decay=0.25,
        )
        layer.build([None, 2])
        self.assertAllEqual(layer.relu_nonzero_rate_debiased, [0.0, 0.0])
        layer(np.array([[1.0, -1.0], [1.0, 1.0]]), training=True)  # rates 1, 1/2
        layer(np.array([[[-1.0, -1.0]]]), training=True)  # rates 0, 0
        layer(np.ones([1, 2]), training=False)
        layer(np.zeros([0, 2]), training=True)
        # 0.75 * (0.25 * rate) over 1 - 0.75 ** 2
        self.assertAllClose(layer.relu_nonzero_rate, [0.1875, 0.09375])
        self.assertAllClose(
            layer.relu_nonzero_rate_debiased, [0.1875 / 0.4375, 0.09375 / 0.4375]
        )
        self.assertEqual(int(layer.monitor_steps), 2)

    def test_passes_a_mask_on(self):
        model = tf_keras.Sequential(
            [
                tf_keras.layers.Masking(),
                layers.Dense(2),
                tf_keras.layers.GlobalAveragePooling1D(),
            ]
        )
        x = self.rng.normal(size=(2, 3, 4)).astype("float32")
        x[:, 2] = 0.0
        self.assertAllClose(model(x), model(x[:, :2]))

    def test_input_dim_is_an_input_shape(self):
        model = tf_keras.Sequential([layers.Dense(2, input_dim=3)])
        self.assertEqual(model.output_shape, (None, 2))

    def test_params_are_the_constructor_arguments(self):
        params = layers.Dense.params()
        params.units = 4
        params.name = "tower"
        other = params.copy()
        other.use_bias = False
        layer = params.instantiate()
        self.assertEqual((layer.units, layer.name, layer.use_bias), (4, "tower", True))
        self.assertFalse(other.instantiate().use_bias)

    def test_rejects_units_below_one(self):
        with self.assertRaisesRegex(ValueError, r"`units` must be .*units=0\."):
            layers.Dense(0)

    def test_rejects_a_monitor_without_relu(self):
        with self.assertRaisesRegex(ValueError, r"needs .*relu.*activation='tanh'\."):
            layers.Dense(2, activation="tanh", inactive_relu_monitor=True)

    @parameterized.parameters(0.0, 1.5)
    def test_rejects_a_decay_out_of_range(self, decay):
        with self.assertRaisesRegex(ValueError, rf"at most 1\. Received: .*={decay}\."):
            layers.Dense(2, inactive_relu_monitor_decay=decay)

    def test_rejects_a_constraint_on_a_partitioned_kernel(self):
        with self.assertRaisesRegex(
            ValueError, "`kernel_constraint` does not work with"
        ):
            layers.Dense(2, partitioner=_one_row_each, kernel_constraint="non_neg")

    def test_rejects_a_partitioner_of_columns(self):
        with self.assertRaisesRegex(ValueError, r"only axis 0.*\[1, 2\] for"):
            layers.Dense(2, partitioner=_by_columns).build([None, 3])

    def test_a_registered_partitioner_survives_the_config(self):
        registered = tf_keras.utils.register_keras_serializable("dense_test")
        partitioner = registered(_one_row_each)
        config = layers.Dense(2, partitioner=partitioner).get_config()
        json.dumps(config)
        layer = layers.Dense.from_config(config)
        self.assertIs(layer.partitioner, partitioner)
        layer.build([None, 3])
        self.assertEqual([part.shape[0] for part in layer.kernel], [1, 1, 1])

    def test_rejects_what_is_no_partitioner(self):
        with self.assertRaisesRegex(TypeError, r"callable or.*partitioner=3\."):
            layers.Dense(2, partitioner=3)

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.Dense(2)(np.ones([2, 3], "int32"))

    def test_rejects_an_unknown_width(self):
        with self.assertRaisesRegex(ValueError, "known size on axis -1"):
            layers.Dense(2).build([None, None])

    def test_rejects_an_input_of_rank_one(self):
        layer = layers.Dense(2)
        layer.build([None, 3])
        with self.assertRaisesRegex(ValueError, "min_ndim=2"):
            layer(np.ones([3], "float32"))
