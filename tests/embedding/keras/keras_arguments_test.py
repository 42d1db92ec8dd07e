import tensorflow as tf
import tf_keras
from absl.testing import parameterized

from monolith_tf import testing
from monolith_tf.embedding import initializer_spec
from monolith_tf.embedding import optimizer_spec
from monolith_tf.embedding.keras import arguments as keras_arguments
from monolith_tf.embedding.keras import layer as keras_layer
from monolith_tf.embedding.keras import shared as shared_embedding
from monolith_tf.schedules import ScheduleSpec


class KerasArgumentsTest(testing.TestCase):
    @parameterized.parameters(
        ("adagrad", optimizer_spec.AdagradSpec()),
        (
            {"name": "sgd", "learning_rate": 0.5},
            optimizer_spec.SgdSpec(learning_rate=0.5),
        ),
        (optimizer_spec.AdamSpec(beta_1=0.5), optimizer_spec.AdamSpec(beta_1=0.5)),
        (
            {"name": "sgd", "learning_rate": {"name": "cosine", "decay_steps": 7}},
            optimizer_spec.SgdSpec(
                learning_rate=ScheduleSpec(name="cosine", decay_steps=7)
            ),
        ),
    )
    def test_optimizers(self, value, expected):
        self.assertEqual(keras_arguments.row_optimizer(value), expected)

    @parameterized.parameters(
        ("adagrd", r"optimizer='adagrd'; .*'adagrad', 'rowwise_adagrad'"),
        ({"name": "adam", "lr": 1}, r"; lr: Unexpected keyword argument\."),
        (3, r"`optimizer` must be a name, a mapping or a spec of .*=3; "),
        (tf_keras.optimizers.Adam(), r"must be a name, .*expected tags: 'sgd'"),
    )
    def test_rejects_other_optimizers(self, value, message):
        with self.assertRaisesRegex(ValueError, message):
            keras_arguments.row_optimizer(value)

    @parameterized.parameters(
        ("uniform", initializer_spec.UniformSpec(minval=-0.05, maxval=0.05)),
        ({"name": "constant", "value": 2}, initializer_spec.ConstantSpec(value=2.0)),
        (initializer_spec.ZerosSpec(), initializer_spec.ZerosSpec()),
        (tf_keras.initializers.Zeros(), initializer_spec.ZerosSpec()),
        (tf_keras.initializers.Ones(), initializer_spec.ConstantSpec(value=1.0)),
        (tf_keras.initializers.Constant(3), initializer_spec.ConstantSpec(value=3.0)),
        (
            tf_keras.initializers.RandomUniform(-1.0, 2.0, seed=4),
            initializer_spec.UniformSpec(minval=-1.0, maxval=2.0),
        ),
        (
            tf_keras.initializers.RandomNormal(stddev=0.01),
            initializer_spec.NormalSpec(stddev=0.01),
        ),
        (
            tf_keras.initializers.serialize(tf_keras.initializers.TruncatedNormal(0.5)),
            initializer_spec.TruncatedNormalSpec(mean=0.5),
        ),
    )
    def test_initializers(self, value, expected):
        self.assertEqual(keras_arguments.initializer(value), expected)

    @parameterized.parameters(
        ("glorot_uniform",),
        (tf_keras.initializers.GlorotUniform(),),
        (tf_keras.initializers.Orthogonal(),),
    )
    def test_rejects_initializers_that_look_at_the_shape(self, value):
        message = "`embeddings_initializer` must be .*number of rows do not exist here"
        with self.assertRaisesRegex(ValueError, message):
            keras_arguments.initializer(value)

    def test_an_activity_regularizer_is_saved_with_the_layer(self):
        regularizer = tf_keras.regularizers.L2(0.25)
        table, ones = {"name": "t", "output_dim": 2}, tf_keras.initializers.Ones()
        for layer, inputs in (
            (
                keras_layer.Embedding(
                    2, ones, activity_regularizer=regularizer, name="rows"
                ),
                tf_keras.Input([], dtype="int64"),
            ),
            (
                shared_embedding.SharedEmbedding(
                    [table | {"embeddings_initializer": ones}],
                    {"a": "t"},
                    activity_regularizer=regularizer,
                    name="rows",
                ),
                {"a": tf_keras.Input([], dtype="int64", name="a")},
            ),
        ):
            keys = tf.constant([3, 4, 5, 3])
            keys = {"a": keys} if isinstance(inputs, dict) else keys
            model = tf_keras.Model(inputs, layer(inputs))
            model(keys, training=True)
            path = f"{self.get_temp_dir()}/model.keras"
            model.save(path)
            for copy in (
                tf_keras.models.load_model(path),
                tf_keras.models.clone_model(model),
            ):
                copy(keys, training=True)
                # Keras divides by the batch: 1/4 of the squares of two ones.
                self.assertAllClose(copy.losses, [0.25 * 2.0])

    def test_configs_of_0_1_0_keep_the_form_they_were_trained_with(self):
        whole = {
            "name": "adam",
            "learning_rate": 0.01,
            "weight_decay": 0.0,
            "beta_1": 0.9,
            "beta_2": 0.99,
            "epsilon": 0.01,
        }
        old = {"dim": 4, "optimizer": whole}
        new = old | keras_arguments.NAMES_OF_KERAS
        with self.subTest("0.1.0"):
            layer = keras_layer.Embedding.from_config(old)
            self.assertEqual(layer.optimizer, optimizer_spec.MonolithAdamSpec())
        with self.subTest("since"):
            layer = keras_layer.Embedding.from_config(new)
            self.assertEqual(layer.optimizer.name, "adam")
            layer = keras_layer.Embedding(4, optimizer="adam")
            again = keras_layer.Embedding.from_config(layer.get_config())
            self.assertEqual(again.optimizer, optimizer_spec.AdamSpec())
        with self.subTest("shared"):
            table = {"name": "t", "output_dim": 4, "optimizer": whole}
            config = {"tables": [table], "features": {"f": "t"}}
            layer = shared_embedding.SharedEmbedding.from_config(config)
            self.assertEqual(layer.embeddings["t"].optimizer.name, "monolith_adam")
            again = shared_embedding.SharedEmbedding.from_config(layer.get_config())
            self.assertEqual(again.embeddings["t"].optimizer.name, "monolith_adam")
            layer = shared_embedding.SharedEmbedding(**config)
            again = shared_embedding.SharedEmbedding.from_config(layer.get_config())
            self.assertEqual(again.embeddings["t"].optimizer.name, "adam")
