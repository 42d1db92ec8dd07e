import numpy as np
import tf_keras

from monolith_tf import layers
from monolith_tf import testing


class AllIntTest(testing.TestCase):
    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.AllInt(2), input_shape=(4, 3, 5), output_shape=(4, 6), num_weights=2
        )

    def test_config(self):
        self.run_config_test(
            layers.AllInt,
            {
                "cmp_dim": 2,
                "initializer": "he_normal",
                "regularizer": "l2",
                "use_bias": False,
                "out_type": "stack",
                "keep_list": True,
            },
        )

    @testing.golden_cases(__file__, "all_int")
    def test_golden(self, case):
        self.run_golden_case(case, layers.AllInt)

    def test_matches_definition(self):
        x = self.rng.normal(size=(5, 4, 3)).astype("float32")
        layer = layers.AllInt(2, out_type="stack")
        layer.build([None, 4, 3])
        kernel = self.rng.normal(size=(4, 2)).astype("float32")
        bias = np.array([0.5, -2.0], "float32")
        layer.set_weights([kernel, bias])
        products = np.stack([one @ one.T for one in x])  # [batch, features, features]
        expected = products @ kernel + x.sum(-1)[..., None] * bias
        self.assertAllClose(layer(x), expected, rtol=1e-5, atol=1e-5)

    def test_layers_that_share_an_initializer_start_apart(self):
        initializer = tf_keras.initializers.HeNormal()
        kernels = []
        for _ in range(2):
            layer = layers.AllInt(2, initializer=initializer)
            layer.build([None, 4, 3])
            kernels.append(layer.kernel.numpy())
        self.assertNotAllEqual(*kernels)

    def test_penalizes_the_kernel_alone(self):
        layer = layers.AllInt(2, regularizer="l2")
        layer.build([None, 4, 3])
        self.assertAllClose(layer.losses, [0.01 * np.sum(layer.kernel.numpy() ** 2)])

    def test_works_with_one_feature_of_width_one(self):
        layer = layers.AllInt(1, initializer="ones", use_bias=False)
        self.assertAllClose(layer(np.array([[[3.0]], [[-2.0]]])), [[9.0], [4.0]])

    def test_rejects_a_width_below_one(self):
        with self.assertRaisesRegex(ValueError, r"`cmp_dim` must be .*cmp_dim=0\."):
            layers.AllInt(0)

    def test_rejects_an_unknown_output_type(self):
        with self.assertRaisesRegex(ValueError, r"`out_type` must be .*='sum'\."):
            layers.AllInt(2, out_type="sum")

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.AllInt(2)(np.ones([2, 4, 3], "int32"))

    def test_rejects_unknown_features(self):
        with self.assertRaisesRegex(ValueError, "known size on axis 1"):
            layers.AllInt(2).build([None, None, 3])

    def test_rejects_another_rank(self):
        with self.assertRaisesRegex(ValueError, "expected ndim=3, found ndim=2"):
            layers.AllInt(2)(np.ones([2, 4]))
