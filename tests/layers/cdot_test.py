import numpy as np
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing


class CDotTest(testing.TestCase):
    def test_standard_behaviour(self):
        # 3 * 2 crossed and 5 * 2 compressed; project_weight, 2 * (kernel, norm, bias)
        self.run_layer_test(
            layers.CDot(2, [4], activation="tanh"),
            input_shape=(4, 3, 5),
            output_shape=(4, 16),
            num_weights=7,
        )

    def test_config(self):
        self.run_config_test(
            layers.CDot,
            {
                "project_dim": 2,
                "compress_units": (3, 4),
                "activation": "sigmoid2",
                "initializer": "he_normal",
                "regularizer": "l2",
            },
        )
        config = layers.CDot(2, (3, 4)).get_config()
        self.assertEqual(config["compress_units"], [3, 4])

    @testing.golden_cases(__file__, "cdot")
    def test_golden(self, case):
        self.run_golden_case(case, layers.CDot)

    @parameterized.parameters(([],), ([3],), ((3, 4),))
    def test_matches_definition(self, compress_units):
        x = self.rng.normal(size=(5, 4, 3)).astype("float32")
        layer = layers.CDot(2, compress_units, activation="tanh")
        y = layer(x)
        project, *tower = layer.get_weights()
        hidden = np.einsum("bnk,np->bkp", x, project).reshape(5, 6)
        for i in range(0, len(tower), 3):
            kernel, norm, bias = tower[i : i + 3]
            kernel = kernel / np.sqrt((kernel**2).sum(0)) * norm
            hidden = hidden @ kernel + bias
            hidden = np.tanh(hidden) if i + 3 < len(tower) else hidden
        crossed = np.einsum("bnk,bkp->bnp", x, hidden.reshape(5, 3, 2)).reshape(5, 8)
        expected = np.concatenate([crossed, hidden], 1)
        self.assertAllClose(y, expected, rtol=1e-5, atol=1e-5)

    def test_penalizes_every_kernel(self):
        layer = layers.CDot(2, [3], regularizer="l2")
        layer.build([None, 4, 3])
        kernels = [
            layer.project_weight,
            *(layer.compress_tower.get_layer(i).kernel for i in (0, 2)),
        ]
        self.assertAllClose(
            layer.losses, [0.01 * np.sum(kernel.numpy() ** 2) for kernel in kernels]
        )

    def test_passes_activation_none_on(self):
        layer = layers.CDot(2, [3, 3], activation=None)
        layer.build([None, 4, 3])
        self.assertEqual(list(layer.compress_tower.activations), [None] * 3)

    @parameterized.parameters(("project_dim", 0, [3]), ("compress_units", 2, [3, 0]))
    def test_rejects_a_width_below_one(self, name, project_dim, compress_units):
        with self.assertRaisesRegex(ValueError, rf"`{name}` must be .*{name}=0\."):
            layers.CDot(project_dim, compress_units)

    def test_rejects_an_unknown_activation(self):
        with self.assertRaisesRegex(ValueError, r"`activation` must be .*'rely'\."):
            layers.CDot(2, [], activation="rely")

    def test_rejects_integer_input(self):
        with self.assertRaisesRegex(TypeError, r"floating point.*dtype=int32\."):
            layers.CDot(2, [])(np.ones([2, 4, 3], "int32"))

    @parameterized.parameters(([None, None, 3], 1), ([None, 4, None], 2))
    def test_rejects_an_unknown_size(self, shape, axis):
        with self.assertRaisesRegex(ValueError, f"known size on axis {axis}"):
            layers.CDot(2, []).build(shape)

    def test_rejects_another_rank(self):
        with self.assertRaisesRegex(ValueError, "expected ndim=3, found ndim=2"):
            layers.CDot(2, [])(np.ones([2, 4]))
