import numpy as np
import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import layers
from monolith_tf import testing

_BUILDERS = {
    "GMF": layers.ncf.gmf,
    "MLP": layers.ncf.mlp,
    "NeuMF": layers.ncf.neumf,
}


class _AsLayer(tf_keras.layers.Layer):
    """A model in the form that the golden cases are run in."""

    def __init__(self, model, alpha=None, **config):
        super().__init__(dtype=config.pop("dtype", None))
        config.pop("name", None)
        config.pop("trainable", None)
        self.options = {"model": model} | config
        self.model = _BUILDERS[model](**config)

    def call(self, inputs):
        return self.model(inputs)

    def get_config(self):
        options = {
            k: list(v) if isinstance(v, list) else v for k, v in self.options.items()
        }
        return super().get_config() | options


def _weights(model):
    return {w.name.split(":")[0]: w for w in model.weights}


def _sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def _shift(rng, *models):
    """Replaces zero and small weights by values that matter."""
    for model in models:
        for weight in model.weights:
            weight.assign(rng.normal(size=weight.shape))


class NcfTest(testing.TestCase):
    def _ids(self, batch=6):
        return [self.rng.integers(n, size=(batch, 1)).astype("int32") for n in (5, 7)]

    @testing.golden_cases(__file__, "ncf")
    def test_golden(self, case):
        self.run_golden_case(case, _AsLayer)

    def test_golden_start_from_pretrained_models(self):
        cases = {c.name: c for c in testing.load_golden(__file__, "ncf")}
        models = {}
        for name in ("GMF", "MLP", "NeuMF_from_pretrained"):
            config = cases[name].config
            config.pop("alpha", None)
            models[name] = _BUILDERS[config.pop("model")](**config)
        for name in ("GMF", "MLP"):
            for weight in cases[name].data["weights"]:
                _weights(models[name])[weight["name"]].assign(weight["value"])
        neumf = models["NeuMF_from_pretrained"]
        layers.ncf.load_pretrained(neumf, models["GMF"], models["MLP"])
        expected = cases["NeuMF_from_pretrained"].data
        for weight in expected["weights"]:
            value = _weights(neumf)[weight["name"]]
            self.assertAllClose(value, weight["value"], msg=weight["name"])
        (inputs,), _ = cases["NeuMF_from_pretrained"].inputs()
        self.assertAllClose(neumf(inputs), expected["expected"])

    def test_neumf_matches_definition(self):
        model = layers.ncf.neumf(5, 7, mf_dim=3, layers=[4, 3, 2])
        _shift(self.rng, model)
        users, items = self._ids()
        w = {name: value.numpy() for name, value in _weights(model).items()}
        x = np.concatenate(
            [
                w["mlp_embedding_user/embeddings"][users[:, 0]],
                w["mlp_embedding_item/embeddings"][items[:, 0]],
            ],
            axis=1,
        )
        for name in ("layer1", "layer2"):
            x = np.maximum(x @ w[f"{name}/kernel"] + w[f"{name}/bias"], 0.0)
        product = w["mf_embedding_user/embeddings"][users[:, 0]]
        product = product * w["mf_embedding_item/embeddings"][items[:, 0]]
        joined = np.concatenate([product, x], axis=1)
        expected = _sigmoid(joined @ w["prediction/kernel"] + w["prediction/bias"])
        self.assertAllClose(model([users, items]), expected)

    def test_pretrained_outputs_are_mixed_before_the_sigmoid(self):
        gmf = layers.ncf.gmf(5, 7, latent_dim=3)
        mlp = layers.ncf.mlp(5, 7, layers=[4, 3])
        neumf = layers.ncf.neumf(5, 7, mf_dim=3, layers=[4, 3])
        _shift(self.rng, gmf, mlp)
        self.assertIs(layers.ncf.load_pretrained(neumf, gmf, mlp, 0.25), neumf)
        ids = self._ids()

        def logits(model):
            p = model(ids).numpy().astype("float64")
            return np.log(p / (1 - p))

        expected = 0.25 * logits(gmf) + 0.75 * logits(mlp)
        self.assertAllClose(logits(neumf), expected, rtol=1e-4, atol=1e-4)

    @parameterized.parameters(*_BUILDERS)
    def test_defaults_and_training(self, name):
        model = _BUILDERS[name](5, 7)
        shapes = {key: tuple(w.shape) for key, w in _weights(model).items()}
        inputs = [(x.name, tuple(x.shape), x.dtype) for x in model.inputs]
        expected = [(n, (None, 1), tf.int32) for n in ("user_input", "item_input")]
        self.assertEqual(inputs, expected)
        widths = {"GMF": 8, "MLP": 8, "NeuMF": 16}
        self.assertEqual(shapes["prediction/kernel"], (widths[name], 1))
        if name != "GMF":
            kernels = [shapes[f"layer{i}/kernel"] for i in (1, 2, 3)]
            self.assertEqual(kernels, [(64, 32), (32, 16), (16, 8)])
        self.assertEmpty(model.losses)
        users, items = self._ids(64)
        labels = ((users + items) % 2).astype("float32")
        model.compile(tf_keras.optimizers.Adam(0.02), "binary_crossentropy")
        history = model.fit(
            [users, items], labels, batch_size=16, epochs=8, shuffle=False, verbose=0
        ).history["loss"]
        self.assertLess(history[-1], history[0] - 0.01)

    @parameterized.parameters(*_BUILDERS)
    def test_reloads(self, name):
        model = _BUILDERS[name](5, 7)
        path = self.get_temp_dir() + f"/{name}.keras"
        model.save(path)
        loaded = tf_keras.models.load_model(path, compile=False)
        ids = self._ids()
        self.assertAllClose(loaded(ids), model(ids))

    def test_starts(self):
        model = layers.ncf.gmf(300, 400)
        for name in ("user_embedding", "item_embedding"):
            table = model.get_layer(name).embeddings.numpy()
            self.assertAllClose(table.std(), 0.01, rtol=0.1, atol=0)
        kernel = model.get_layer("prediction").kernel.numpy()
        # lecun_uniform's limit of a width of 8.
        self.assertLess(np.abs(kernel).max(), np.sqrt(3 / 8))

    def test_penalties(self):
        def terms(*named):
            return sorted(0.5 * f * np.sum(w.numpy() ** 2) for f, w in named)

        gmf = layers.ncf.gmf(5, 7, 2, regs=[1.0, 3.0])
        w = _weights(gmf)
        user, item = w["user_embedding/embeddings"], w["item_embedding/embeddings"]
        self.assertAllClose(sorted(gmf.losses), terms((2.0, user), (6.0, item)))
        mlp = layers.ncf.mlp(5, 7, [4, 3, 2], reg_layers=[1.0, 0.0, 2.0])
        w = _weights(mlp)
        user, item = w["user_embedding/embeddings"], w["item_embedding/embeddings"]
        expected = terms((2.0, user), (2.0, item), (4.0, w["layer2/kernel"]))
        self.assertAllClose(sorted(mlp.losses), expected)
        neumf = layers.ncf.neumf(5, 7, 2, [4, 3], reg_layers=[0.0, 0.0], reg_mf=1.0)
        w = _weights(neumf)
        tables = [w[f"mf_embedding_{x}/embeddings"] for x in ("user", "item")]
        expected = terms(*[(2.0, table) for table in tables])
        self.assertAllClose(sorted(neumf.losses), expected)

    @parameterized.parameters(
        (layers.ncf.gmf, {"num_users": 0}, r"`num_users` must be .*num_users=0\."),
        (layers.ncf.mlp, {"num_items": 0}, r"`num_items` must be .*num_items=0\."),
        (layers.ncf.gmf, {"latent_dim": 0}, r"`latent_dim` must be .*=0\."),
        (layers.ncf.neumf, {"mf_dim": 0}, r"`mf_dim` must be .*mf_dim=0\."),
        (layers.ncf.gmf, {"regs": [0.0]}, r"`regs` must have 2 .*regs=\[0\.0\]\."),
        (layers.ncf.mlp, {"layers": [5, 2]}, r"even width.*layers=\[5, 2\]\."),
        (layers.ncf.mlp, {"layers": []}, r"even width.*layers=\[\]\."),
        (layers.ncf.neumf, {"layers": [4, 0]}, r"`layers` must be .*layers=0\."),
        (layers.ncf.mlp, {"reg_layers": [0.0]}, r"`reg_layers` must have 4 entries"),
    )
    def test_rejects(self, build, wrong, message):
        with self.assertRaisesRegex(ValueError, message):
            build(**{"num_users": 5, "num_items": 7} | wrong)

    def test_rejects_a_share_out_of_range(self):
        models = [build(5, 7) for build in _BUILDERS.values()]
        gmf, mlp, neumf = models
        with self.assertRaisesRegex(ValueError, r"from 0 to 1\. .*alpha=1\.5\."):
            layers.ncf.load_pretrained(neumf, gmf, mlp, alpha=1.5)

    def test_rejects_models_of_other_shapes(self):
        gmf, mlp = layers.ncf.gmf(5, 7, latent_dim=4), layers.ncf.mlp(5, 7)
        with self.assertRaisesRegex(ValueError, r"\[\(5, 8\)\] in layer `mf_embedding"):
            layers.ncf.load_pretrained(layers.ncf.neumf(5, 7), gmf, mlp)
