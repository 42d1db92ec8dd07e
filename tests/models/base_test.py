"""Tests of the model base class."""

import dataclasses

import numpy as np
import tensorflow as tf
import tf_keras

from monolith_tf import testing
from monolith_tf.models import base


class _AddsLoss(tf_keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(3.0)
        return inputs


class _Noisy(base.Model):
    """Does not mention `training` or `losses`."""

    def __init__(self):
        super().__init__()
        self.dense = tf_keras.layers.Dense(
            1, kernel_initializer="ones", kernel_regularizer=tf_keras.regularizers.L2(1)
        )
        self.norm = tf_keras.layers.BatchNormalization()
        self.dropout = tf_keras.layers.Dropout(0.5)
        self.adds_loss = _AddsLoss()

    def model_fn(self, inputs, mode):
        x = self.norm(inputs.concat())
        x = self.dropout(x)
        x = self.adds_loss(self.adds_loss(x))
        return base.EstimatorSpec(
            mode=mode,
            predictions=self.dense(x)[:, 0],
            loss=tf.constant(10.0),
            auxiliary_losses={"extra": tf.constant(5.0)},
        )


def _returns(**fields):
    class Returns(base.Model):
        def model_fn(self, inputs, mode):
            return base.EstimatorSpec(mode=mode, **fields)

    return Returns()


def _inputs(**kwargs):
    return base.Inputs(embeddings={"a": tf.ones([64, 2])}, **kwargs)


class ModelTest(testing.TestCase):
    def test_training_reaches_layers_that_model_fn_never_tells(self):
        model = _Noisy()
        inputs = _inputs(labels={"y": tf.ones([64])})
        model.run(inputs, base.Mode.EVALUATE)
        self.assertAllEqual(model.norm.moving_mean, [0.0, 0.0])
        first = model.run(inputs, base.Mode.EVALUATE).predictions["y"]
        self.assertAllEqual(first, tf.fill([64], first[0]))
        model.run(inputs, base.Mode.TRAIN)
        # Batch statistics of ones, momentum 0.99.
        self.assertAllClose(model.norm.moving_mean, [0.01, 0.01])

    def test_dropout_acts_in_training_only(self):
        model = _Noisy()
        model.norm.trainable = False  # Normalizes by moving statistics: keeps the ones.
        inputs = _inputs(labels={"y": tf.ones([64])})
        kept = model.run(inputs, base.Mode.EVALUATE).predictions["y"].numpy()
        dropped = model.run(inputs, base.Mode.TRAIN).predictions["y"].numpy()
        self.assertLen(np.unique(kept), 1)
        self.assertLen(np.unique(dropped), 3)  # None, one, or both of two units.

    def test_every_loss_is_counted_once_per_step(self):
        model = _Noisy()

        @tf.function
        def loss():
            spec = model.run(_inputs(labels={"y": tf.ones([64])}), base.Mode.TRAIN)
            return model.total_loss(spec)

        # 10 from the spec, 5 auxiliary, 2 calls of 3, and the L2 of a [2, 1] of ones.
        self.assertAllClose(loss(), 10 + 5 + 2 * 3 + 2)
        self.assertAllClose(loss(), 10 + 5 + 2 * 3 + 2)

    def test_one_tensor_is_named_after_the_one_label(self):
        model = _returns(predictions=tf.ones([4]), loss=tf.constant(0.0))
        spec = model.run(_inputs(labels={"click": tf.ones([4])}), base.Mode.TRAIN)
        self.assertEqual(list(spec.predictions), ["click"])

    def test_labels_keep_their_type_under_mixed_precision(self):
        seen = {}

        class Half(base.Model):
            def __init__(self):
                super().__init__(dtype="mixed_bfloat16")
                self.dense = tf_keras.layers.Dense(1, dtype="mixed_bfloat16")

            def model_fn(self, inputs, mode):
                seen["label"] = inputs.labels["y"].dtype
                seen["logit"] = self.dense(inputs.concat()).dtype
                return base.EstimatorSpec(mode=mode, predictions=tf.ones([4]))

        Half().run(_inputs(labels={"y": tf.ones([64])}), base.Mode.EVALUATE)
        self.assertEqual(seen, {"label": tf.float32, "logit": tf.bfloat16})

    def test_rejects_what_is_no_spec(self):
        class Wrong(base.Model):
            def model_fn(self, inputs, mode):
                return inputs.concat()

        with self.assertRaisesRegex(TypeError, "must return an `EstimatorSpec`"):
            Wrong().run(_inputs(), base.Mode.PREDICT)

    def test_rejects_training_without_loss(self):
        model = _returns(predictions=tf.ones([4]))
        with self.assertRaisesRegex(ValueError, "returned no `loss`"):
            model.run(_inputs(), base.Mode.TRAIN)

    def test_rejects_a_loss_per_example(self):
        model = _returns(predictions=tf.ones([4]), loss=tf.ones([4]))
        with self.assertRaisesRegex(ValueError, "`loss` must be a scalar"):
            model.run(_inputs(), base.Mode.TRAIN)

    def test_rejects_predictions_of_rank_two(self):
        model = _returns(predictions={"y": tf.ones([4, 1])})
        with self.assertRaisesRegex(ValueError, r"shape=\(4, 1\). Take column 0"):
            model.run(_inputs(), base.Mode.PREDICT)

    def test_rejects_a_head_without_label(self):
        model = _returns(predictions={"cvr": tf.ones([4])}, loss=tf.constant(0.0))
        with self.assertRaisesRegex(ValueError, "belongs to the label `cvr`"):
            model.run(_inputs(labels={"click": tf.ones([4])}), base.Mode.TRAIN)

    def test_rejects_one_tensor_for_two_labels(self):
        model = _returns(predictions=tf.ones([4]), loss=tf.constant(0.0))
        labels = {"a": tf.ones([4]), "b": tf.ones([4])}
        with self.assertRaisesRegex(ValueError, "Return a mapping"):
            model.run(_inputs(labels=labels), base.Mode.TRAIN)

    def test_head_labels_map_heads_to_labels(self):
        model = _returns(
            predictions={"ctr": tf.ones([4])},
            loss=tf.constant(0.0),
            head_labels={"ctr": "click"},
        )
        labels = {"click": tf.ones([4])}
        spec = model.run(_inputs(labels=labels), base.Mode.TRAIN)
        self.assertEqual(list(spec.predictions), ["ctr"])


class InputsTest(testing.TestCase):
    def test_a_name_that_is_missing_lists_those_there_are(self):
        inputs = base.Inputs(
            embeddings={"user": tf.ones([2, 1]), "item": tf.ones([2, 1])},
            slices={"user": {"vec": tf.ones([2, 1])}},
            labels={"click": tf.ones([2]), "like": tf.ones([2])},
        )
        for find, message in (
            (
                lambda: inputs.labels["clik"],
                "`inputs.labels` has no `clik`. Did you mean `click`? It has `click`, "
                "`like`.",
            ),
            (
                lambda: inputs.embeddings["zip"],
                "`inputs.embeddings` has no `zip`. It has `user`, `item`.",
            ),
            (
                lambda: inputs.slices["user"]["vce"],
                '`inputs.slices["user"]` has no `vce`. Did you mean `vec`? '
                "It has `vec`.",
            ),
            (lambda: inputs.dense["age"], "`inputs.dense` has no `age`. It is empty."),
            (
                lambda: inputs.masks["item"],
                "`inputs.masks` has no `item`. Only features with the combiner "
                "`first_n` have a mask.",
            ),
        ):
            with self.assertRaises(KeyError) as caught:
                find()
            self.assertEqual(str(caught.exception), message)
        self.assertIsNone(inputs.labels.get("clik"))

    def test_a_model_that_asks_for_a_missing_label(self):
        class Wrong(base.Model):
            def model_fn(self, inputs, mode):
                x = tf.reduce_sum(inputs.embeddings["a"], axis=1)
                loss = tf.reduce_mean(inputs.labels["clik"])
                return base.EstimatorSpec(mode=mode, predictions=x, loss=loss)

        def run(*args):
            return tf.function(lambda: Wrong().run(*args), autograph=False)()

        inputs = base.Inputs(
            embeddings={"a": tf.ones([2, 1])}, labels={"click": tf.ones([2])}
        )
        for call in (Wrong().run, run):
            with self.assertRaisesRegex(KeyError, "no `clik`. Did you mean `click`?"):
                call(inputs, base.Mode.TRAIN)
            with self.assertRaisesRegex(KeyError, "`Mode.PREDICT` has no labels"):
                call(dataclasses.replace(inputs, labels={}), base.Mode.PREDICT)

    def test_concat_keeps_order_and_flattens_sequences(self):
        inputs = base.Inputs(
            embeddings={"a": tf.fill([2, 1], 1.0), "s": tf.fill([2, 3, 2], 2.0)},
            dense={"d": tf.fill([2, 1], 3.0)},
        )
        self.assertAllEqual(inputs.concat(), [[1, 2, 2, 2, 2, 2, 2, 3]] * 2)

    def test_concat_rejects_ragged_embeddings(self):
        inputs = base.Inputs(embeddings={"h": tf.ragged.constant([[1.0], []])})
        with self.assertRaisesRegex(ValueError, "feature `h` with combiner `none`"):
            inputs.concat()

    def test_concat_rejects_nothing(self):
        with self.assertRaisesRegex(ValueError, "no features to concatenate"):
            base.Inputs(embeddings={}).concat()
