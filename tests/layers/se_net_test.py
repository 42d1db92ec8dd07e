import numpy as np
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


class SeNetTest(testing.TestCase):
    def test_standard_behaviour(self):
        self.run_layer_test(
            layers.SeNet(3, 4),
            input_shape=(4, 3, 5),
            output_shape=(4, 15),
            num_weights=6,
        )

    def test_standard_behaviour_of_unequal_widths(self):
        self.run_layer_test(
            layers.SeNet(3, 4, out_type=None, on_gpu=True),
            input_shape=[(4, 3), (4, 1), (4, 2)],
            output_shape=[(4, 3), (4, 1), (4, 2)],
            num_weights=6,
        )

    def test_config(self):
        common = {
            "num_feature": 3,
            "cmp_dim": 2,
            "initializer": "he_normal",
            "bias_regularizer": "l1",
            "out_type": "stack",
            "keep_list": True,
        }
        self.run_config_test(
            layers.SeNet,
            common | {"kernel_regularizer": "l2", "on_gpu": True},
            common | {"regularizer": "l2", "fused": False},
        )

    @testing.golden_cases(__file__, "se_net")
    def test_golden(self, case):
        self.run_golden_case(case, layers.SeNet)

    @parameterized.parameters("auto", True, False)
    def test_matches_definition(self, fused):
        widths = [2, 3, 1]
        x = [self.rng.normal(size=(5, k)).astype("float32") for k in widths]
        layer = layers.SeNet(3, 4, fused=fused)
        y = layer(x)
        k0, n0, b0, k1, n1, b1 = layer.get_weights()
        means = np.stack([one.mean(1) for one in x], 1)
        hidden = means @ (k0 / np.sqrt((k0**2).sum(0)) * n0) + b0
        logits = np.maximum(hidden, 0) @ (k1 / np.sqrt((k1**2).sum(0)) * n1) + b1
        gates = 1 / (1 + np.exp(-logits))
        expected = np.concatenate([x[i] * gates[:, i : i + 1] for i in range(3)], 1)
        self.assertAllClose(y, expected)

    def test_weights_are_those_of_the_tower(self):
        layer = layers.SeNet(3, 4)
        x = self.rng.normal(size=(5, 3, 2)).astype("float32")
        y = layer(x)
        gates = layer.cmp_tower(x.mean(-1))
        self.assertAllClose(y, (x * gates.numpy()[..., None]).reshape(5, 6))

    def test_a_tensor_equals_a_list(self):
        x = self.rng.normal(size=(5, 3, 2)).astype("float32")
        layer = layers.SeNet(3, 4)
        features = [x[:, 0], x[:, 1], x[:, 2]]
        given = list(features)
        self.assertAllClose(layer(x), layer(given))
        self.assertTrue(all(a is b for a, b in zip(given, features, strict=True)))

    def test_averages_half_precision_in_float32(self):
        # The row's sum, 102400, is more than float16 holds; its mean is 200.
        layer = layers.SeNet(1, None, dtype="float16")
        self.assertAllClose(layer(np.full([1, 1, 512], 200.0)), [[4e4] * 512])

    def test_penalizes_kernels_and_biases(self):
        options = {"bias_regularizer": "l2", "initializer": "ones"}
        for name in ("kernel_regularizer", "regularizer"):
            layer = layers.SeNet(3, 2, **options | {name: "l2"})
            layer.build([None, 3, 5])
            for dense in (layer.cmp_tower.get_layer(0), layer.cmp_tower.get_layer(2)):
                dense.bias.assign_add([2.0] * dense.units)
            # 6 weights of 1 in both kernels, biases of 2: 2 of them, then 3
            self.assertAllClose(
                sorted(np.array(layer.losses)), [0.06, 0.06, 0.08, 0.12]
            )

    @parameterized.parameters(
        ("concat", False, (2, 6)),
        ("concat", True, [(2, 6)]),
        ("stack", False, (2, 2, 3)),
        (None, False, [(2, 3)] * 2),
    )
    def test_output_types(self, out_type, keep_list, shape):
        x = np.ones([2, 2, 3])
        for inputs in (x, [x[:, 0], x[:, 1]]):
            layer = layers.SeNet(2, 1, out_type=out_type, keep_list=keep_list)
            outputs = layer(inputs)
            several = isinstance(outputs, list)
            found = [t.shape for t in outputs] if several else tuple(outputs.shape)
            self.assertEqual(found, shape)

    def test_one_feature_without_merging_is_a_list_of_one(self):
        for inputs in (np.ones([2, 1, 3]), [np.ones([2, 3])]):
            outputs = layers.SeNet(1, None, out_type=None)(inputs)
            self.assertLen(outputs, 1)
            self.assertAllClose(outputs[0], np.ones([2, 3]))

    @parameterized.parameters(("num_feature", 0, 2), ("cmp_dim", 2, 0))
    def test_rejects_a_width_below_one(self, name, num_feature, cmp_dim):
        with self.assertRaisesRegex(ValueError, rf"`{name}` must be .*{name}=0\."):
            layers.SeNet(num_feature, cmp_dim)

    def test_rejects_two_kernel_regularizers(self):
        with self.assertRaisesRegex(ValueError, "`regularizer` is an alias of"):
            layers.SeNet(2, 2, kernel_regularizer="l1", regularizer="l2")

    def test_rejects_on_gpu_with_the_plain_form(self):
        with self.assertRaisesRegex(
            ValueError, r"`on_gpu=True` selects .*fused=False\."
        ):
            layers.SeNet(2, 2, on_gpu=True, fused=False)

    def test_rejects_an_unknown_form(self):
        with self.assertRaisesRegex(ValueError, r"`fused` must be .*fused='yes'\."):
            layers.SeNet(2, 2, fused="yes")

    def test_rejects_an_unknown_output_type(self):
        with self.assertRaisesRegex(ValueError, r"`out_type` must be .*='sum'\."):
            layers.SeNet(2, 2, out_type="sum")

    def test_rejects_another_number_of_features(self):
        message = r"must hold num_feature=2 features\. Received: features=3\."
        for inputs in (np.ones([2, 3, 4]), [np.ones([2, 4])] * 3):
            with self.assertRaisesRegex(ValueError, message):
                layers.SeNet(2, 2)(inputs)

    def test_rejects_another_rank(self):
        for inputs in (np.ones([2, 3]), [np.ones([2, 3, 4])]):
            with self.assertRaisesRegex(ValueError, r"`inputs` must be \[batch, feat"):
                layers.SeNet(2, 2)(inputs)

    def test_rejects_unequal_widths_that_are_to_be_stacked(self):
        with self.assertRaisesRegex(
            ValueError, r"same width\. Received: widths=\[3, 4"
        ):
            layers.SeNet(2, 2, out_type="stack")([np.ones([2, 3]), np.ones([2, 4])])

    def test_rejects_an_unknown_width(self):
        with self.assertRaisesRegex(ValueError, "known size on axis -1"):
            layers.SeNet(2, 2).build([None, 2, None])
        with self.assertRaisesRegex(ValueError, "known size on axis 1"):
            layers.SeNet(2, 2).build([None, None, 3])

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.SeNet(2, 2)(np.ones([2, 2, 3], "int32"))
